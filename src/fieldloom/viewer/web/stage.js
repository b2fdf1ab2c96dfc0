// The large view of one function: the exported page in a frame, or pictures of the server.

import { make, newest, say } from "./elements.js";
import { isOver } from "./server.js";
import { readNumbersOf } from "./codes.js";
import { fetchPicture, findWindow, makeServedView } from "./served.js";

const NO_DEVICE = "this browser offers no WebGL 2";
const RESTING = 150; // milliseconds without a change until the server is asked

// A stage of a run. able: whether this browser draws fields. moved(stage): its view was changed.
// lost(): its code is no longer known.
export function makeStage(run, able, told) {
  return run.draws === "browser" && able ? new Framed(run, told) : new Served(run, told);
}

class Stage {
  constructor(run, { moved, lost }) {
    Object.assign(this, { run, moved, lost });
    this.title = make("figcaption", {});
    this.wrong = make("p", { class: "wrong", role: "alert", hidden: true });
    this.show = newest(async (code, note = "") => {
      this.name(code, note);
      say(this.wrong, "");
      try {
        await this.put(code);
        this.code = code;
      } catch (error) {
        if (error.status === 410) this.lost();
        else if (!isOver(error)) this.fail(error.message);
      }
    });
  }

  name(code, note) {
    say(this.title, note ? `${code.name} (${note})` : code.name);
  }

  fail(sentence) {
    say(this.wrong, sentence);
  }
}

// An exported page in a frame. Later functions are put into it without loading it anew.
class Framed extends Stage {
  constructor(run, told) {
    super(run, told);
    this.frame = make("iframe", { title: `${run.title}: the chosen function`,
      allow: "fullscreen" });
    this.element = make("figure", { class: "stage" }, this.title, this.frame, this.wrong);
  }

  name(code, note) { // the page in the frame has its own title
    say(this.title, note);
  }

  async put(code) {
    if (this.held) {
      this.held.setNumbers(await readNumbersOf(code), code.name);
      return;
    }
    await new Promise(done => {
      this.frame.addEventListener("load", done, { once: true });
      this.frame.src = `/api/runs/${this.run.id}/stage?code=${encodeURIComponent(code.id)}`;
    });
    this.held = this.frame.contentWindow.fieldloom;
    if (!this.held) throw new Error(readRefusal(this.frame));
    this.follow();
  }

  // Tell when what is seen was changed by hand.
  follow() {
    const inside = this.frame.contentDocument;
    const look = () => this.frame.contentWindow.requestAnimationFrame(() => this.moved(this));
    for (const what of ["pointermove", "wheel", "keydown", "click", "dblclick", "input"])
      inside.addEventListener(what, look);
  }

  where() {
    const page = this.held?.page;
    return page ? page.view ? page.view.state() : { ends: page.ends } : null;
  }

  go(where) {
    const page = this.held?.page;
    if (!page || !alike(where, this.where())) return;
    Object.assign(page.view || page, where);
    page.draw();
  }
}

// The sentence of an answer that is no page.
function readRefusal(frame) {
  try {
    return JSON.parse(frame.contentDocument.body.textContent).error;
  } catch {
    return "The page of this function could not be opened.";
  }
}

// Whether a view can be seen from where another one is, and is not there already.
function alike(where, own) {
  return own && Object.keys(where).join() === Object.keys(own).join()
    && JSON.stringify(where) !== JSON.stringify(own);
}

// Pictures that the server draws: the last one is moved at once, and a new one follows.
class Served extends Stage {
  constructor(run, told) {
    super(run, told);
    this.view = makeServedView(run);
    this.time = 0.5;
    this.canvas = make("canvas", { tabindex: 0, role: "img",
      "aria-label": `${run.title}: the chosen function; arrow keys move, + and - zoom, 0 fits` });
    this.busy = make("span", { role: "status", class: "note" });
    const button = (words, text, act) => make("button", { type: "button", "aria-label": words,
      title: words, onclick: act }, text);
    const tools = make("div", { class: "tools" },
      button("Smaller", "−", () => this.zoom(1 / 1.5)), button("Larger", "+", () => this.zoom(1.5)),
      button("The whole", "Fit", () => this.fit()), run.kind === "video" && this.addTime(),
      this.busy);
    this.element = make("figure", { class: "stage served" }, this.title, this.canvas, tools,
      make("p", { class: "note" }, `Drawn by the server: ${run.reason || NO_DEVICE}.`), this.wrong);
    this.ask = newest(() => this.fetch());
    this.listen();
  }

  async put(code) {
    this.code = code;
    await this.ask();
  }

  async fetch() {
    const ratio = window.devicePixelRatio || 1, size = this.size.map(x => x * ratio);
    if (!this.code || size.some(x => x < 1)) return;
    const { view, time } = this, seen = findWindow(view, ...this.size);
    this.busy.textContent = "drawing";
    try {
      const picture = await fetchPicture(this.code, { view, time }, ...size.map(Math.round));
      this.shown = { picture, seen };
      this.paint();
    } catch (error) {
      if (error.status === 410) this.lost();
      else if (!isOver(error)) this.fail(error.message);
    } finally {
      this.busy.textContent = "";
    }
  }

  // Draw the newest picture where its part of the plane lies now.
  paint() {
    const ratio = window.devicePixelRatio || 1, [width, height] = this.size;
    this.canvas.width = Math.max(1, Math.round(width * ratio));
    this.canvas.height = Math.max(1, Math.round(height * ratio));
    const pen = this.canvas.getContext("2d"), { width: w, height: h } = this.canvas;
    if (!this.shown) return;
    const own = findWindow(this.view, ...this.size), { picture, seen: was } = this.shown;
    if (!own || !was) return pen.drawImage(picture, 0, 0, w, h);
    const [x0, x1, y0, y1] = own;
    const x = p => (p - x0) / (x1 - x0) * w, y = p => (p - y0) / (y1 - y0) * h;
    pen.drawImage(picture, x(was[0]), y(was[2]), x(was[1]) - x(was[0]), y(was[3]) - y(was[2]));
  }

  change(told = true) {
    this.paint();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask(), RESTING);
    if (told) this.moved(this);
  }

  where() {
    return this.view.state();
  }

  go(where) {
    if (!alike(where, this.where())) return;
    Object.assign(this.view, where);
    this.change(false);
  }

  get size() {
    return [this.canvas.clientWidth, this.canvas.clientHeight];
  }

  zoom(factor, point = this.size.map(x => x / 2)) {
    this.view.scale(factor, point, this.size);
    this.change();
  }

  fit() {
    this.view.fit();
    this.change();
  }

  listen() {
    const canvas = this.canvas, held = new Map();
    const point = e => {
      const box = canvas.getBoundingClientRect();
      return [e.clientX - box.left, e.clientY - box.top];
    };
    canvas.addEventListener("pointerdown", e => {
      canvas.setPointerCapture(e.pointerId);
      held.set(e.pointerId, point(e));
    });
    for (const end of ["pointerup", "pointercancel"])
      canvas.addEventListener(end, e => held.delete(e.pointerId));
    canvas.addEventListener("pointermove", e => {
      const before = held.get(e.pointerId), now = point(e);
      if (!before) return;
      const shift = [(now[0] - before[0]) / held.size, (now[1] - before[1]) / held.size];
      this.view.move(shift, this.size);
      if (held.size === 2) { // two fingers: by how far they are apart
        const [, other] = [...held].find(([id]) => id !== e.pointerId);
        const far = p => Math.max(1, Math.hypot(p[0] - other[0], p[1] - other[1]));
        this.view.scale(far(now) / far(before), now.map((x, i) => (x + other[i]) / 2), this.size);
      }
      held.set(e.pointerId, now);
      this.change();
    });
    canvas.addEventListener("wheel", e => {
      e.preventDefault();
      this.zoom(Math.exp(-e.deltaY * (e.deltaMode === 1 ? 16 : 1) / 400), point(e));
    });
    canvas.addEventListener("keydown", e => {
      const shift = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60],
        ArrowDown: [0, -60] }[e.key];
      const act = { "+": () => this.zoom(1.5), "=": () => this.zoom(1.5), 0: () => this.fit(),
        "-": () => this.zoom(1 / 1.5) }[e.key];
      if (e.ctrlKey || e.metaKey || e.altKey || !(shift || act)) return;
      e.preventDefault();
      if (act) return act();
      this.view.move(shift, this.size);
      this.change();
    });
    new ResizeObserver(() => this.change(false)).observe(canvas);
  }

  addTime() {
    return make("input", { type: "range", min: 0, max: 1, step: "any", value: this.time,
      autocomplete: "off", "aria-label": "Time", oninput: e => {
        this.time = Number(e.target.value);
        this.change(false);
      } });
  }
}
