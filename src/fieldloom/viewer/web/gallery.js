// The gallery of a run: tiles of samples, or of data beside their reconstructions.

import { choice, labelled, make, say } from "./elements.js";
import { isOver } from "./server.js";
import { listBodies, makeCodes } from "./codes.js";
import { Tile } from "./tile.js";

const SIZE = 160; // pixels of a tile's longer side, on a screen of one pixel a pixel
const COUNTS = [4, 12, 24, 64];

export class Gallery {
  // state: as in state.js. keep(changes): they are written into it. pick, join: of tiles.
  constructor(run, brush, state, { keep, pick, join, filled }) {
    Object.assign(this, { run, brush, state, keep, pick, join, filled, tiles: [] });
    this.list = make("ul", { class: "tiles" });
    this.sentence = make("p", { class: "wrong", role: "alert", hidden: true });
    this.busy = make("p", { class: "note", role: "status", hidden: true });
    this.more = make("button", { type: "button", onclick: () => this.addMore() }, "More");
    this.controls = make("form", { class: "controls", onsubmit: e => {
      e.preventDefault();
      this.fill();
    } });
    this.element = make("section", { class: "gallery", "aria-label": "Gallery" }, this.controls,
      this.sentence, this.list, this.busy, make("p", { class: "actions" }, this.more));
    this.watch = new IntersectionObserver(seen => seen.forEach(x => this.see(x)),
      { rootMargin: "80px" });
    this.addControls();
  }

  // -- controls

  addControls() {
    const { run, state } = this, set = name => value => this.restart({ [name]: value });
    const kinds = [];
    if (run.samples) kinds.push(["samples", "New samples"]);
    if (run.encodes && run.data) kinds.push(["data", "Data, reconstructed"]);
    const parts = [["test", run.data?.count], ["train", run.data?.trained]].filter(x => x[1]);
    if (!kinds.some(([kind]) => kind === state.from)) state.from = kinds[0]?.[0] || "data";
    if (parts.length && !parts.some(([part]) => part === state.part)) state.part = parts[0][0];
    const number = (words, name, low, high, own = {}) => labelled(words, make("input", {
      type: "number", value: state[name] ?? own.value ?? 0, min: low, max: high,
      step: own.step || 1, autocomplete: "off", onchange: ({ target }) =>
        target.reportValidity() && target.value !== "" && set(name)(Number(target.value)) }));
    const found = [];
    if (kinds.length > 1) found.push(choice("Show", kinds, state.from, set("from")));
    if (state.from === "samples") {
      found.push(number("Seed", "seed", 0, 2 ** 31 - 1));
      if (run.classes.length) found.push(choice("Class",
        [["", "any"], ...run.classes.map(name => [name, name])], state.label, set("label")));
      if (run.guidance !== null) found.push(number("Guidance", "guidance", 0, 20,
        { step: "any", value: run.guidance }));
    } else if (run.codes) {
      if (parts.length > 1) found.push(choice("Of", [["test", "held-out data"],
        ["train", "training data"]], state.part, part => this.restart({ part, index: 0 })));
      const count = parts.find(([part]) => part === state.part)?.[1] || 1;
      found.push(number("From number", "index", 0, count - 1));
    }
    if (run.codes) found.push(choice("Count", [...new Set([...COUNTS, state.count])]
      .sort((a, b) => a - b).map(n => [n, n]), state.count, value => set("count")(Number(value))));
    if (state.from === "samples" && run.samples) found.push(make("button", { type: "button",
      onclick: () => this.restart({ seed: (state.seed + state.sets) % 2 ** 31 }) }, "Draw others"));
    if (run.data_error) found.push(make("p", { class: "note" }, run.data_error));
    this.controls.replaceChildren(...found);
    this.list.classList.toggle("pairs", state.from === "data");
    this.more.hidden = !run.codes;
  }

  restart(changes) {
    this.keep({ sets: 1, chosen: 0, other: null, at: 0.5, along: [], mean: false, ...changes });
    const focused = document.activeElement?.closest("label")?.textContent;
    this.addControls();
    if (focused) [...this.controls.querySelectorAll("label")]
      .find(x => x.textContent === focused)?.querySelector("input, select").focus();
    this.fill();
  }

  addMore() {
    this.keep({ sets: Math.min(16, this.state.sets + 1) });
    this.fill(this.tiles);
  }

  // -- tiles

  // Make the tiles of the state; those of kept are there already.
  async fill(kept = []) {
    this.stop?.abort();
    const stop = this.stop = new AbortController(), { run } = this;
    if (!kept.length) this.clear();
    say(this.sentence, "");
    if (run.codes && !run.samples && !(run.encodes && run.data))
      return say(this.sentence, "There are neither samples nor data to show.");
    say(this.busy, kept.length ? "making more" : "making codes");
    let count = 0, ended = false;
    try {
      for (const body of listBodies(this.state)) {
        if (count + body.count <= kept.length) {
          count += body.count;
          continue;
        }
        const codes = await this.makeSome(body, stop.signal);
        if (!codes.length || this.stop !== stop) break;
        codes.forEach(code => this.add(code));
        const { chosen, other } = this.state, added = place => place !== null && place >= count;
        if (this.tiles.length === codes.length || added(chosen) || added(other)) this.filled();
        count += body.count;
        if (codes.length < body.count) {
          ended = true;
          break;
        }
      }
      if (!this.tiles.length) say(this.sentence, "There is nothing to show here.");
    } catch (error) {
      if (!isOver(error)) say(this.sentence, error.message);
    }
    if (this.stop !== stop) return;
    this.more.disabled = ended;
    say(this.busy, "");
  }

  // As many codes of a body as there are data for. A fit has one, which the server calls c0.
  async makeSome(body, signal) {
    if (!this.run.codes) return [{ run: this.run, id: "c0", name: this.run.name, datum: null }];
    if (body.how === "data") {
      const all = body.part === "test" ? this.run.data?.count : this.run.data?.trained;
      body.count = Math.min(body.count, Math.max(0, (all ?? 1) - body.index));
      if (!body.count) return [];
    }
    return makeCodes(this.run, body, signal);
  }

  add(code) {
    const place = this.tiles.length;
    const size = Math.round(SIZE * Math.min(2, window.devicePixelRatio || 1));
    const number = tile => this.tiles.indexOf(tile);
    const tile = new Tile(this.brush, code, size, { pick: tile => this.pick(number(tile)),
      join: (tile, other) => this.join(number(tile), number(other)) });
    this.tiles.push(tile);
    this.list.append(tile.element);
    tile.element.dataset.place = place;
    this.watch.observe(tile.element);
  }

  see({ target, isIntersecting }) {
    const tile = this.tiles[target.dataset.place];
    if (!tile) return;
    tile.seen = isIntersecting;
    if (isIntersecting && !tile.asked) {
      tile.asked = true;
      this.brush.want(tile);
    } else if (isIntersecting) this.brush.work();
  }

  mark(chosen, other) {
    this.tiles.forEach((tile, i) => tile.mark(i === chosen, i === other));
  }

  clear() {
    this.watch.disconnect();
    this.tiles.forEach(tile => tile.discard());
    this.tiles = [];
    this.list.replaceChildren();
  }

  discard() {
    this.stop?.abort();
    this.clear();
  }
}
