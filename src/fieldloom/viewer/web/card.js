// What a run is: its state, its figures, and how it was or is trained.

import { make, say } from "./elements.js";
import { getJson, isOver } from "./server.js";
import { drawCurves } from "./curves.js";

const APART = 2000; // milliseconds between looks at a training
const MOST = 2000; // lines of an answer

export class Card {
  constructor(run) {
    this.lines = [];
    this.told = make("div");
    this.progress = make("p", { role: "status", hidden: true });
    this.bar = make("progress", { max: 1, hidden: true, "aria-label": "The stage of training" });
    this.curves = make("div", { class: "all-curves" });
    this.preview = make("img", { class: "preview", hidden: true, alt: "The newest preview" });
    this.wrong = make("p", { class: "note", hidden: true });
    this.training = make("details", { ontoggle: () => this.training.open && this.look() },
      make("summary", {}, "Training"), this.progress, this.bar, this.wrong,
      make("div", { class: "progress" }, this.preview, this.curves));
    this.element = make("section", { class: "card", "aria-label": "The run" }, this.told,
      this.training);
    this.update(run);
    if (run.state === "training" || run.state === "unfinished") this.training.open = true;
  }

  update(run) {
    const before = this.run;
    this.run = run;
    const bad = run.state === "damaged" || run.state === "empty";
    this.training.hidden = bad;
    this.told.replaceChildren(
      make("h2", {}, run.title || run.name, " ", make("small", {}, run.name)),
      make("p", { class: bad ? "wrong" : "lead" }, run.sentence),
      bad ? "" : make("p", { class: "note" }, describe(run)), figuresOf(run));
    if (before && before.state !== run.state && this.training.open) this.look();
  }

  // Read what is new of the training; go on while it trains.
  async look() {
    clearTimeout(this.timer);
    try {
      const asked = after => getJson(`/api/runs/${this.run.id}/training?after=${after}`);
      let found = await asked(this.lines.length);
      if (this.log !== undefined && found.log !== this.log) found = await asked(0); // written anew
      this.log = found.log;
      this.lines.length = Math.max(0, found.next - found.lines.length);
      this.lines.push(...found.lines);
      if (found.lines.length >= MOST) return this.look();
      this.show(found);
      say(this.wrong, this.lines.length ? "" : "Nothing was logged yet.");
      if (found.state !== "training" || !this.element.isConnected) return;
    } catch (error) {
      if (!isOver(error)) return say(this.wrong, error.message);
    }
    if (this.element.isConnected && this.training.open)
      this.timer = setTimeout(() => this.look(), APART);
  }

  show({ stage, step, steps, seconds_left: left, state, preview, lines }) {
    const trains = state === "training" && steps > 0;
    this.bar.hidden = !trains;
    if (trains) this.bar.value = step / steps;
    const count = n => n.toLocaleString("en");
    const rest = left === null ? "" : `, ${formatTime(left)} left`;
    say(this.progress, trains ? `${stage}: ${count(step)} of ${count(steps)} steps${rest}` : "");
    if (lines.length || !this.lines.length) this.curves.replaceChildren(...drawCurves(this.lines));
    this.preview.hidden = !preview;
    if (preview && preview !== this.version)
      this.preview.src = `/api/runs/${this.run.id}/preview?v=${encodeURIComponent(preview)}`;
    this.version = preview;
  }

  discard() {
    clearTimeout(this.timer);
  }
}

const THINGS = { images: "images", video: "videos", audio: "sounds", shapes: "shapes",
  views: "scenes from all around" };

function describe(run) {
  const parts = [run.sphere ? "maps on the sphere" : THINGS[run.kind] || run.kind];
  if (run.shape.length)
    parts.push(`${run.shape.map(n => n.toLocaleString("en")).join(" × ")} samples`);
  if (run.channels) parts.push(`${run.channels} ${run.channels === 1 ? "channel" : "channels"}`);
  if (run.codes && run.data)
    parts.push(`${run.data.trained.toLocaleString("en")} training and `
      + `${run.data.count.toLocaleString("en")} held-out data`);
  if (run.draws === "browser") parts.push("drawn by this browser");
  if (run.draws === "server") parts.push("drawn by the server");
  const text = parts.join(", ");
  return `${text[0].toUpperCase()}${text.slice(1)}.`;
}

// The chief figures as cards, all others below them, folded.
function figuresOf(run) {
  if (!run.figures.length) return "";
  const list = figures => make("dl", { class: "numbers" }, ...figures.map(x => make("div",
    { title: x.meaning },
    make("dt", {}, x.name, arrowOf(x)), make("dd", {}, x.text),
    make("dd", { class: "note" }, x.meaning))));
  const chief = run.figures.filter(x => x.chief), rest = run.figures.filter(x => !x.chief);
  if (!chief.length || !rest.length) return list(run.figures);
  return make("div", {}, list(chief), make("details", {},
    make("summary", {}, `${rest.length} more figures`), list(rest)));
}

// Which way is better.
function arrowOf({ higher_is_better: higher }) {
  if (higher === null || higher === undefined) return "";
  const words = higher ? "higher is better" : "lower is better";
  return make("span", { role: "img", "aria-label": words, title: words }, higher ? " ↑" : " ↓");
}

function formatTime(seconds) {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
