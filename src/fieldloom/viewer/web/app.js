// The application: which runs there are, which one is shown, and whether the server is there.

import { make, say, wait } from "./elements.js";
import { connection, getJson, Lost, post } from "./server.js";
import { forgetNumbers } from "./codes.js";
import { Brush } from "./brush.js";
import { Card } from "./card.js";
import { Explorer, nameOf } from "./explorer.js";
import { forRun, readState, writeState } from "./state.js";

const APART = 3000; // milliseconds between looks at the runs
const find = name => document.querySelector(name);

class App {
  constructor() {
    this.brush = new Brush();
    this.runs = [];
    this.state = readState(location.hash);
    connection.addEventListener("lost", () => this.lose());
    addEventListener("hashchange", () => {
      if (location.hash === writeState(this.state)) return;
      this.state = readState(location.hash);
      this.open();
    });
    find("#close").addEventListener("click", () => this.close());
    for (const what of ["dragover", "drop"]) addEventListener(what, e => this.keepPage(e));
    find("main").append(make("p", { class: "note", role: "status" }, "The runs are being opened."));
    this.watch();
  }

  // Look at the runs, again and again.
  async watch() {
    while (!this.closed) {
      if (!document.hidden || !this.runs.length) await this.look();
      await wait(APART);
    }
  }

  async look() {
    try {
      const { runs, limits } = await getJson("/api/runs");
      const back = this.lost;
      this.lost = false;
      find("#lost").hidden = true;
      this.tell("");
      this.limits = limits;
      this.take(runs, back);
    } catch (error) {
      if (!(error instanceof Lost)) this.tell(error.message);
    }
  }

  lose() {
    if (this.closed) return;
    this.lost = true;
    find("#lost").hidden = false;
  }

  // runs: as the server has them now. anew: whether codes must be made again.
  take(runs, anew) {
    const before = this.run;
    this.runs = runs;
    this.listRuns();
    const now = this.run;
    if (!now) return this.tell("No run was given.");
    const other = name => JSON.stringify(before[name]) !== JSON.stringify(now[name]);
    if (anew || !before || before.id !== now.id) this.open();
    else if (["version", "draws", "data", "data_error"].some(other)) this.open(this.card);
    else if (JSON.stringify(before) !== JSON.stringify(now)) this.card.update(now);
  }

  get run() {
    return this.runs.find(x => x.id === this.state.run) || this.runs[0];
  }

  listRuns() {
    const told = JSON.stringify(this.runs.map(x => [x.id, x.title, x.state, x === this.run]));
    if (told === this.listed) return;
    this.listed = told;
    find("#runs").replaceChildren(...this.runs.map(run => make("button", { type: "button",
      class: `run ${run.state}`, "aria-current": run === this.run && "true",
      onclick: () => this.choose(run) }, make("span", { class: "title" }, nameOf(run, this.runs)),
    make("span", { class: "state" }, run.state))));
  }

  choose(run) {
    this.state = forRun(this.state, run.id);
    history.pushState(null, "", writeState(this.state));
    this.open();
  }

  keep(changes) {
    Object.assign(this.state, changes);
    history.replaceState(null, "", writeState(this.state));
  }

  // Show the chosen run from its state. card: the one that is there, where it stays.
  open(card) {
    const run = this.run;
    if (!run) return;
    this.state.run = run.id;
    this.listRuns();
    forgetNumbers();
    this.explorer?.discard();
    if (card) card.update(run);
    else {
      this.card?.discard();
      this.card = new Card(run);
    }
    document.title = `${run.title || run.name} - fieldloom`;
    this.explorer = run.draws === "nothing" ? null
      : new Explorer(run, this.runs, this.limits, this.brush, this.state, x => this.keep(x));
    const main = find("main"), height = main.clientHeight;
    main.style.minHeight = `${height}px`; // or the page would jump
    if (card) [...main.children].forEach(x => x === card.element || x.remove());
    else main.replaceChildren(this.card.element);
    if (this.explorer) main.append(this.explorer.element);
    setTimeout(() => main.style.minHeight = "", 1500);
  }

  // A file that is dropped beside its zone would be opened in place of the page.
  keepPage(event) {
    if (event.defaultPrevented || !event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "none";
  }

  tell(sentence) {
    say(find("#told"), sentence);
  }

  async close() {
    find("#close").disabled = true;
    this.closed = true;
    try {
      await post("/api/close");
    } catch (error) {
      if (!(error instanceof Lost)) {
        this.closed = false;
        find("#close").disabled = false;
        this.watch();
        return this.tell(error.message);
      }
    }
    this.card?.discard();
    this.explorer?.discard();
    find("main").replaceChildren(make("p", { class: "lead", role: "status" },
      "The viewer was closed. This tab may be closed, too."));
    find("#runs").replaceChildren();
    find("#close").hidden = true;
    find("#lost").hidden = true;
  }
}

window.app = new App();
