// Draws tiles one after another, those that are seen first. One WebGL context serves all runs;
// where a browser has none (able is false), the server draws.
//
// Painter, Page, SoundPage, Plane, Globe and Orbit are those of exported pages.

import { getJson } from "./server.js";
import { readNumbersOf } from "./codes.js";

const MOVING = 40; // milliseconds of a picture in motion

export class Brush {
  constructor() {
    this.canvas = new OffscreenCanvas(1, 1);
    this.able = Boolean(this.canvas.getContext("webgl2", { antialias: false, alpha: false }));
    this.fields = new Map(); // id of a run -> { version, field: promise of { about, painter } }
    this.waiting = new Set();
    this.busy = false;
    this.last = Promise.resolve();
  }

  // Act when nothing else draws.
  alone(act) {
    const mine = this.last.then(act);
    this.last = mine.catch(() => {});
    return mine;
  }

  // Draw a tile when its turn comes. tile: seen, gone, and draw(goOn), which returns whether it
  // was finished; it is asked again where it was not.
  want(tile) {
    this.waiting.add(tile);
    this.work();
  }

  forget(tile) {
    this.waiting.delete(tile);
  }

  async work() {
    if (this.busy) return;
    this.busy = true;
    for (let tile; (tile = [...this.waiting].find(x => x.seen)); ) {
      this.waiting.delete(tile);
      const wanted = () => tile.seen && !tile.gone && !this.waiting.has(tile);
      if (!await this.alone(() => tile.draw(wanted)) && !tile.gone) this.waiting.add(tile);
    }
    this.busy = false;
  }

  // What draws a run's functions: { about, painter }. Fails where this browser cannot.
  open(run) {
    const known = this.fields.get(run.id);
    if (known && known.version === run.version) return known.field;
    const field = getJson(`/api/runs/${run.id}/field`).then(({ about, shader, numbers }) => ({
      about, painter: new Painter(this.canvas, shader, new Float32Array(numbers)),
    }));
    this.fields.set(run.id, { version: run.version, field });
    field.catch(() => this.fields.delete(run.id));
    return field;
  }

  // Draw a function into a canvas. place: { view, time, moving }. Returns whether it was finished;
  // it ends where wanted() is no longer true.
  async paint(code, canvas, place, wanted) {
    const { about, painter } = await this.open(code.run), numbers = await readNumbersOf(code);
    if (!wanted()) return false;
    painter.setNumbers(numbers);
    const watch = setInterval(() => wanted() || painter.setNumbers(numbers), 50); // ends reading
    try {
      return about.view === "sound" ? await this.trace(about, painter, canvas)
        : await this.fill(about, painter, canvas, place);
    } finally {
      clearInterval(watch);
    }
  }

  async fill(about, painter, canvas, { view, time, moving }) {
    const { width, height } = canvas;
    const shrink = moving ? Math.max(1, Math.sqrt(painter.cost * width * height / MOVING)) : 1;
    const [w, h] = [width, height].map(x => Math.max(1, Math.round(x / shrink)));
    const page = Object.assign(Object.create(Page.prototype), { about, view, time });
    const found = await painter.read(w, h, page.uniforms(w, h));
    if (!found) return false;
    const flipped = new Uint8ClampedArray(found.length);
    for (let row = 0; row < h; row++)
      flipped.set(found.subarray(4 * w * row, 4 * w * (row + 1)), 4 * w * (h - 1 - row));
    const image = new ImageData(flipped, w, h), pen = canvas.getContext("2d");
    if (shrink === 1) pen.putImageData(image, 0, 0);
    else pen.drawImage(await createImageBitmap(image), 0, 0, width, height);
    return true;
  }

  // The waveform of a sound.
  async trace(about, painter, canvas) {
    const { width, height } = canvas, count = 4 * width;
    const found = await sounding(about, painter).samples(0, count, count);
    if (!found) return false;
    const pen = canvas.getContext("2d"), half = height / found.length / 2;
    pen.clearRect(0, 0, width, height);
    pen.strokeStyle = getComputedStyle(canvas).color;
    found.forEach((numbers, c) => {
      pen.beginPath();
      numbers.forEach((v, i) =>
        pen.lineTo(i / 4, half * (2 * c + 1 - 0.95 * Math.min(1, Math.max(-1, v)))));
      pen.stroke();
    });
    return true;
  }

  // All samples of a sound: an array of numbers a channel, and how many are a second.
  async listen(code) {
    const { about, painter } = await this.open(code.run), [count] = about.shape;
    const numbers = await readNumbersOf(code);
    return this.alone(async () => {
      painter.setNumbers(numbers);
      return { channels: await sounding(about, painter).samples(0, count, count),
        rate: about.rate };
    });
  }
}

// What SoundPage needs to read samples.
function sounding(about, painter) {
  return Object.assign(Object.create(SoundPage.prototype), { about, painter });
}

// Where a tile is seen from. about: of its field; null of a sound.
export function makeView(about) {
  if (about.camera) return new Orbit(about.camera, about.shape.slice(-2));
  if (about.view === "globe") return new Globe();
  return about.view === "sound" ? null
    : new Plane(about.shape.slice(-2), about.place, about.steep);
}
