// Pictures that the server draws, of fields that no page of a browser does.

import { getBlob } from "./server.js";
import { addressOf } from "./codes.js";

const MOST = 1 << 20; // pixels of a picture

// A part of the time of a sound.
export class Span {
  constructor() {
    this.fit();
  }

  fit() {
    this.ends = [0, 1];
  }

  move(shift, size) {
    const [a, b] = this.ends, by = Math.min(1 - b, Math.max(-a, -shift[0] / size[0] * (b - a)));
    this.ends = [a + by, b + by];
  }

  scale(factor, point, size) {
    const [a, b] = this.ends, at = point[0] / size[0], middle = a + at * (b - a);
    const length = Math.min(1, Math.max(1e-4, (b - a) / factor));
    const first = Math.min(1 - length, Math.max(0, middle - at * length));
    this.ends = [first, first + length];
  }

  state() {
    return { ends: this.ends };
  }
}

export function makeServedView(run) {
  if (run.camera) return new Orbit(run.camera, run.shape.slice(-2));
  return run.kind === "audio" ? new Span() : new Plane(run.shape.slice(-2));
}

// What is asked of the server for a view of so many pixels.
function describe(run, { view, time }, width, height) {
  const asked = new URLSearchParams({ width, height });
  const add = more => Object.entries(more).forEach(([name, value]) => asked.set(name, value));
  if (run.kind === "video") add({ time });
  const seen = findWindow(view, width, height);
  if (seen) add({ x0: seen[0], x1: seen[1], y0: seen[2], y1: seen[3] });
  else add({ yaw: view.angle, pitch: view.tilt, distance: view.radius / view.zoom });
  return asked;
}

// What is seen of a plane, or of the time of a sound: left, right, top, bottom, as fractions; null
// of what is seen from around.
export function findWindow(view, width, height) {
  if (view instanceof Orbit) return null;
  if (view instanceof Span) return [...view.ends, 0, 1];
  const size = [width, height], [x0, y0] = view.at([0, 0], size), [x1, y1] = view.at(size, size);
  return [x0, x1, y0, y1];
}

// A code as the server sees it from a place.
export async function fetchPicture(code, place, width, height, signal) {
  const shrink = Math.max(1, Math.sqrt(width * height / MOST));
  const [w, h] = [width, height].map(x => Math.max(1, Math.floor(x / shrink)));
  const asked = describe(code.run, place, w, h);
  return createImageBitmap(await getBlob(`${addressOf(code, "image")}?${asked}`, signal));
}
