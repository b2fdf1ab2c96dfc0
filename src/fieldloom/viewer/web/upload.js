// One's own file, reconstructed by a run: dropped, or chosen.

import { make, say, wait } from "./elements.js";
import { getJson, isOver, post } from "./server.js";
import { Tile } from "./tile.js";

const SIZE = 256; // pixels of the reconstruction beside the original

export class Upload {
  // limits: of bytes. show(code): the reconstruction is chosen.
  constructor(run, limits, brush, show) {
    Object.assign(this, { run, limits, brush, show });
    this.input = make("input", { type: "file", accept: run.accepts.join(","), class: "hidden-input",
      "aria-label": "A file to reconstruct", onchange: e => this.take(e.target.files) });
    this.zone = make("label", { class: "zone" }, this.input,
      make("span", { title: run.accepts.join(" ") },
        `Drop a file here, or press to choose one (${listUsual(run.accepts)}).`));
    this.bar = make("progress", { "aria-label": "Reconstruction" });
    this.told = make("span", { role: "status" });
    this.cancel = make("button", { type: "button", onclick: () => this.end() }, "Cancel");
    this.row = make("div", { class: "row", hidden: true }, this.bar, this.told, this.cancel);
    this.wrong = make("p", { class: "wrong", role: "alert", hidden: true });
    this.note = make("p", { class: "note", role: "status", hidden: true });
    this.pair = make("div", { class: "pair" });
    this.element = make("section", { class: "tool", "aria-label": "Your own file" },
      make("h3", {}, "Your own file"), this.zone, this.row, this.wrong, this.note,
      this.pair);
    this.zone.addEventListener("dragover", e => {
      if (!e.dataTransfer.types.includes("Files")) return;
      e.preventDefault();
      this.zone.classList.add("over");
    });
    for (const what of ["dragleave", "drop"])
      this.zone.addEventListener(what, () => this.zone.classList.remove("over"));
    this.zone.addEventListener("drop", e => {
      e.preventDefault();
      this.take(e.dataTransfer.files);
    });
  }

  async take(files) {
    if (files.length > 1) return say(this.wrong, "Drop one file at a time.");
    if (!files.length) return;
    this.end(); // of an earlier file
    this.stop?.abort();
    this.job = null;
    const [file] = files, stop = this.stop = new AbortController();
    this.clear();
    if (file.size > this.limits.bytes) return say(this.wrong, `${file.name} is too large: it has `
      + `${megabytes(file.size)} MB, and ${megabytes(this.limits.bytes)} MB are taken.`);
    this.row.hidden = false;
    this.told.textContent = `sending ${file.name}`;
    try {
      const name = encodeURIComponent(file.name);
      const { job } = await post(`/api/runs/${this.run.id}/upload?name=${name}`, file, stop.signal);
      this.job = job;
      if (stop.signal.aborted) return this.end();
      const done = await this.follow(job, stop);
      if (done) this.put(done, file.name);
      if (this.stop === stop) say(this.note, done ? this.told.textContent : "");
    } catch (error) {
      if (!isOver(error)) say(this.wrong, error.message);
    }
    if (this.stop !== stop) return;
    this.job = null;
    this.row.hidden = true;
    this.input.value = "";
  }

  // The result of a job, once it is done; null where it was cancelled.
  async follow(job, stop) {
    for (;;) {
      const { state, sentence, result } = await getJson(`/api/jobs/${job}`, stop.signal);
      this.told.textContent = sentence;
      if (state === "done") return result;
      if (state === "failed") throw new Error(sentence);
      if (state === "cancelled") {
        say(this.wrong, sentence || "Cancelled.");
        return null;
      }
      await wait(300);
    }
  }

  async end() {
    if (!this.job) return this.stop?.abort();
    try {
      await post(`/api/jobs/${this.job}/cancel`);
    } catch (error) {
      if (!isOver(error)) say(this.wrong, error.message);
    }
  }

  put({ codes, figures, original }, name) {
    const code = { ...codes[0], run: this.run };
    const figure = (words, picture) => make("figure", {}, picture, make("figcaption", {}, words));
    const told = figures.filter(x => typeof x.value === "number").map(format).join(", ");
    this.tile = new Tile(this.brush, code, SIZE, { pick: () => this.show(code), join: () => {} });
    this.tile.seen = true;
    this.brush.want(this.tile);
    const list = make("ul", { class: "tiles large" }, this.tile.element);
    this.pair.replaceChildren(
      original ? figure(`${name}: the original`, make("img", { src: original, alt: name })) : "",
      figure(told ? `its reconstruction: ${told}` : "its reconstruction", list));
    this.show(code);
  }

  clear() {
    say(this.wrong, "");
    say(this.note, "");
    this.row.hidden = true;
    this.tile?.discard();
    this.pair.replaceChildren();
  }

  discard() {
    this.stop?.abort();
    this.tile?.discard();
  }
}

function format({ name, value }) {
  return /snr/.test(name) ? `${name.toUpperCase()} ${value.toFixed(2)} dB`
    : `${name} ${Number(value.toPrecision(4))}`;
}

const megabytes = bytes => (bytes / 1e6).toLocaleString("en", { maximumFractionDigits: 1 });

const USUAL = [".png", ".jpg", ".webp", ".tif", ".wav", ".flac", ".mp3", ".mp4", ".gif", ".obj",
  ".ply", ".stl", ".glb", ".npy"];

// The usual ones of suffixes, where there are many.
function listUsual(suffixes) {
  if (suffixes.length < 8) return suffixes.join(", ");
  const found = USUAL.filter(x => suffixes.includes(x));
  return `${found.join(", ")} and ${suffixes.length - found.length} more`;
}
