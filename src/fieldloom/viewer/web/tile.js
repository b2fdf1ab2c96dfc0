// One tile of a gallery: a picture that is drawn from a code, and its name.

import { make, say } from "./elements.js";
import { isOver } from "./server.js";
import { addressOfDatum } from "./codes.js";
import { makeView } from "./brush.js";
import { fetchPicture, makeServedView } from "./served.js";

const SECONDS = 4; // of a video that does not say how long it is

export class Tile {
  // size: pixels of the longer side. pick(tile): it was chosen. join(tile, other): it was dropped
  // on another.
  constructor(brush, code, size, { pick, join }) {
    Object.assign(this, { brush, code, size, seen: false, gone: false, time: 0.5, moving: false });
    const { run } = code, name = code.name, turns = run.kind === "shapes" || run.kind === "views";
    const shape = run.kind === "audio" ? [size / 2, size] : run.shape.slice(-2);
    const side = Math.max(...shape);
    this.canvas = make("canvas", { width: Math.max(1, Math.round(size * shape[1] / side)),
      height: Math.max(1, Math.round(size * shape[0] / side)), "aria-hidden": "true",
      class: "waiting" });
    this.wrong = make("span", { class: "wrong", hidden: true });
    this.caption = make("span", { class: "name" }, name);
    const datum = code.datum && make("img", { alt: "", loading: "lazy", draggable: "false",
      src: addressOfDatum(run, code.datum, size) });
    this.button = make("button", { type: "button", class: "pick", "aria-pressed": "false",
      "aria-label": datum ? `${name}: the datum, and its reconstruction` : name, title: name,
      onclick: () => this.turned || pick(this) },
    make("span", { class: "pictures" }, datum, this.canvas), this.caption, this.wrong);
    this.element = make("li", { class: "tile" }, this.button);
    if (run.kind === "audio" && run.draws === "browser" && brush.able) this.addSound();
    if (run.kind === "video") this.addTime();
    if (turns) this.addTurning();
    this.addDragging(turns ? this.caption : this.button, join);
  }

  async draw(wanted) {
    const { run } = this.code;
    try {
      if (run.draws === "browser" && this.brush.able) {
        const { about } = await this.brush.open(run);
        this.about = about;
        this.view = this.view || makeView(about);
        if (!await this.brush.paint(this.code, this.canvas, this, wanted)) return false;
      } else {
        this.view = this.view || makeServedView(run);
        const { width, height } = this.canvas;
        const picture = await fetchPicture(this.code, this, width, height);
        this.canvas.getContext("2d").drawImage(picture, 0, 0, width, height);
      }
      this.canvas.classList.remove("waiting");
      say(this.wrong, "");
    } catch (error) {
      if (!isOver(error)) say(this.wrong, error.message);
    }
    return true;
  }

  redraw(moving = false) {
    this.moving = moving;
    this.brush.want(this);
  }

  mark(chosen, other) {
    this.button.setAttribute("aria-pressed", String(chosen));
    this.element.classList.toggle("other", other);
  }

  discard() {
    this.gone = true;
    this.brush.forget(this);
    this.stop?.();
  }

  // A video plays while the pointer is above it, or the keyboard is on it.
  addTime() {
    let playing = false;
    const play = async () => {
      if (playing) return;
      playing = true;
      const began = performance.now();
      const next = () => {
        if (!playing || this.gone) return;
        const seconds = this.about?.time || SECONDS;
        this.time = ((performance.now() - began) / 1000 / seconds) % 1;
        if (!this.brush.waiting.has(this)) this.redraw(true);
        setTimeout(next, 60);
      };
      next();
    };
    const stop = () => {
      if (playing) this.redraw();
      playing = false;
    };
    for (const what of ["pointerenter", "focus"]) this.button.addEventListener(what, play);
    for (const what of ["pointerleave", "blur"]) this.button.addEventListener(what, stop);
    this.stop = stop;
  }

  // A shape or a scene turns as its picture is dragged.
  addTurning() {
    const canvas = this.canvas;
    canvas.classList.add("turns");
    let before = null, far = 0;
    canvas.addEventListener("pointerdown", e => {
      [before, far] = [[e.clientX, e.clientY], 0];
      canvas.setPointerCapture(e.pointerId);
    });
    canvas.addEventListener("pointermove", e => {
      if (!before || !this.view) return;
      const shift = [e.clientX - before[0], e.clientY - before[1]];
      before = [e.clientX, e.clientY];
      far += Math.hypot(...shift);
      this.view.move(shift, [canvas.clientWidth, canvas.clientHeight]);
      if (!this.brush.waiting.has(this)) this.redraw(true);
    });
    for (const end of ["pointerup", "pointercancel"])
      canvas.addEventListener(end, () => {
        before = null;
        this.turned = far > 4; // then the click that follows chooses nothing
        setTimeout(() => this.turned = false);
        if (far) this.redraw();
      });
  }

  // Dropped on another tile, this one and that are interpolated.
  addDragging(handle, join) {
    const kind = "application/x-fieldloom-tile";
    handle.draggable = true;
    handle.addEventListener("dragstart", e => {
      e.dataTransfer.setData(kind, this.code.id);
      e.dataTransfer.effectAllowed = "link";
      Tile.dragged = this;
    });
    this.element.addEventListener("dragover", e => {
      if (!e.dataTransfer.types.includes(kind) || Tile.dragged === this) return;
      e.preventDefault();
      this.element.classList.add("over");
    });
    for (const what of ["dragleave", "drop"])
      this.element.addEventListener(what, () => this.element.classList.remove("over"));
    this.element.addEventListener("drop", e => {
      if (!e.dataTransfer.types.includes(kind) || !Tile.dragged) return;
      e.preventDefault();
      join(Tile.dragged, this);
    });
  }

  addSound() {
    const button = make("button", { type: "button", class: "play",
      "aria-label": `Play ${this.code.name}`, onclick: () => this.source ? this.stop() : play() },
    "Play");
    const play = async () => {
      button.disabled = true;
      try {
        const { channels, rate } = await this.brush.listen(this.code);
        const context = Tile.speaker = Tile.speaker || new AudioContext();
        const sound = context.createBuffer(channels.length, channels[0].length, rate);
        channels.forEach((numbers, c) => sound.copyToChannel(numbers, c));
        Tile.sounding?.stop();
        Tile.sounding = this;
        this.source = context.createBufferSource();
        this.source.buffer = sound;
        this.source.connect(context.destination);
        this.source.onended = () => this.stop();
        this.source.start();
        button.textContent = "Stop";
      } catch (error) {
        if (!isOver(error)) say(this.wrong, error.message);
      }
      button.disabled = false;
    };
    this.stop = () => {
      if (this.source) {
        this.source.onended = null;
        this.source.stop();
      }
      this.source = null;
      button.textContent = "Play";
    };
    this.element.append(button);
  }
}
