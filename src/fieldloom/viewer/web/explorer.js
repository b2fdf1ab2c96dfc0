// Looks into one run: its gallery, the chosen function at large, and what is made from it.

import { make, newest, say } from "./elements.js";
import { isOver } from "./server.js";
import { addressOfDatum, makeCode } from "./codes.js";
import { Between } from "./between.js";
import { Gallery } from "./gallery.js";
import { Nearest } from "./nearest.js";
import { Sliders } from "./sliders.js";
import { makeStage } from "./stage.js";
import { Upload } from "./upload.js";

export class Explorer {
  // runs: all of them. limits: of files. state, keep: as in state.js, and what writes changes into
  // it.
  constructor(run, runs, limits, brush, state, keep) {
    Object.assign(this, { run, runs, brush, state, keep });
    this.wrong = make("p", { class: "wrong", role: "alert", hidden: true });
    this.stages = make("div", { class: "stages" });
    this.gallery = new Gallery(run, brush, state, { keep, pick: place => this.pick(place),
      join: (first, second) => this.join(first, second), filled: () => this.begin() });
    this.tools = make("div", { class: "tools-below" });
    this.element = make("div", { class: run.codes ? "explorer" : "explorer single" },
      this.gallery.element,
      make("section", { class: "look", "aria-label": "The chosen function" }, this.stages,
        this.wrong, this.tools));
    this.between = new Between({ pick: on => this.picking = on, change: x => this.change(x) });
    this.sliders = new Sliders(run, x => this.change({ ...x, other: null }));
    this.nearest = new Nearest();
    this.upload = new Upload(run, limits, brush, code => this.showAlone(code));
    this.addTools();
    this.addStages();
    this.derive = newest(() => this.makeShown());
    this.gallery.fill();
  }

  addTools() {
    const { run } = this;
    const found = [this.addComparison(), !run.codes && run.data && this.addOriginal(),
      run.codes && this.between.element, run.directions && this.sliders.element,
      run.codes && run.data?.trained && this.nearest.element,
      run.accepts.length && this.upload.element];
    this.tools.replaceChildren(...found.filter(x => x));
  }

  // What a fit was fitted to.
  addOriginal() {
    const image = make("img", { src: addressOfDatum(this.run, { part: "train", index: 0 }, 512),
      alt: "The signal that was fitted", onerror: e => e.target.closest("section").remove() });
    return make("section", { class: "tool", "aria-label": "The original" },
      make("h3", {}, "What it was fitted to"), make("div", { class: "original" }, image));
  }

  // Other runs of the same kind of data, to be seen beside this one.
  addComparison() {
    const others = this.runs.filter(x => x.id !== this.run.id && x.kind === this.run.kind
      && x.codes === this.run.codes && x.draws !== "nothing");
    if (!others.length) return null;
    const boxes = others.map(run => make("label", { class: "check" },
      make("input", { type: "checkbox", autocomplete: "off", value: run.id,
        checked: this.state.beside.includes(run.id), onchange: () => {
          this.keep({ beside: boxes.map(x => x.firstChild).filter(x => x.checked)
            .map(x => x.value) });
          this.addStages();
          this.derive();
        } }), make("span", {}, nameOf(run, this.runs))));
    return make("section", { class: "tool", "aria-label": "Comparison" },
      make("h3", {}, "Side by side with"), make("div", { class: "row" }, ...boxes));
  }

  addStages() {
    const beside = this.runs.filter(x => x.id !== this.run.id && this.state.beside.includes(x.id));
    const told = { lost: () => this.gallery.fill(),
      moved: stage => this.all.forEach(x => x !== stage && x.go(stage.where())) };
    const known = this.all || [];
    this.all = [this.run, ...beside].map(run =>
      known.find(x => x.run.id === run.id) || makeStage(run, this.brush.able, told));
    const parts = this.all.map(stage => stage.block = stage.block || make("div", {},
      make("h3", {}, nameOf(stage.run, this.runs)), stage.element));
    for (const part of [...this.stages.children]) if (!parts.includes(part)) part.remove();
    for (const part of parts) if (!part.isConnected) this.stages.append(part);
    this.stages.classList.toggle("several", parts.length > 1);
  }

  // -- what is chosen

  get chosen() {
    return this.gallery.tiles[this.state.chosen]?.code || this.gallery.tiles[0]?.code;
  }

  get other() {
    return this.state.other === null ? null : this.gallery.tiles[this.state.other]?.code || null;
  }

  begin() {
    this.sliders.show(this.state.along, this.state.mean);
    this.change({});
  }

  pick(place) {
    if (this.picking) {
      this.between.wait(false);
      if (place !== this.state.chosen) return this.join(this.state.chosen, place);
    }
    this.change({ chosen: place, other: null, at: 0.5, along: [], mean: false });
  }

  join(first, second) {
    this.change({ chosen: first, other: second, at: 0.5, along: [], mean: false });
  }

  change(changes) {
    this.keep(changes);
    const { chosen, other, at, along, mean } = this.state;
    this.gallery.mark(chosen, other);
    this.between.show(this.chosen, this.other, at);
    this.sliders.show(along, mean);
    this.derive();
  }

  // What the state asks for, of the chosen code: a body of /codes, or null for the code itself.
  findBody() {
    const { at, along, mean } = this.state;
    if (this.other) return { how: "between", first: this.chosen.id, second: this.other.id, at };
    if (!mean && !along.some(x => x)) return null;
    return { how: "directions", base: mean ? null : this.chosen.id, amounts: along };
  }

  async makeShown() {
    if (!this.chosen) return;
    const body = this.findBody();
    try {
      await this.showAlone(body ? await makeCode(this.run, body) : this.chosen);
      say(this.wrong, "");
    } catch (error) {
      if (error.status === 410) this.gallery.fill();
      else if (!isOver(error)) say(this.wrong, error.message);
    }
  }

  async showAlone(code) {
    this.nearest.show(code);
    await Promise.all(this.all.map(stage => stage.run.id === this.run.id ? stage.show(code)
      : this.showBeside(stage, code)));
  }

  // The same datum in another run, or the same code.
  async showBeside(stage, code) {
    if (!code.run.codes) return stage.show({ ...code, run: stage.run, name: stage.run.name });
    const datum = stage.run.encodes && code.datum;
    const same = datum ? { how: "data", ...datum, count: 1 }
      : { how: "other", run: this.run.id, code: code.id };
    try {
      const note = datum ? "the datum of this number" : "the same code";
      await stage.show(await makeCode(stage.run, same), note);
    } catch (error) {
      if (!isOver(error)) stage.fail(error.message);
    }
  }

  discard() {
    this.gallery.discard();
    this.nearest.discard();
    this.upload.discard();
  }
}

// A run's title, with its folder where others have the same one.
export function nameOf(run, runs) {
  const alike = runs.filter(x => x.title === run.title).length > 1;
  return !run.title ? run.name : alike ? `${run.title} (${run.name})` : run.title;
}
