// The page: reads what it holds, draws it, and answers to pointers, keys and buttons.

const find = id => document.getElementById(id);

// The bytes of an element that holds base64.
function readBytes(id) {
  return Uint8Array.from(atob(find(id).textContent), x => x.charCodeAt(0)).buffer;
}

let shared = null; // the bytes of what all functions share, once they are read

// The numbers of a function: those that all share, with its own in their places.
function readNumbers(about, which) {
  const kind = about.half ? Uint16Array : Float32Array;
  shared = shared || readBytes("numbers");
  const all = new kind(shared.slice(0)), item = about.items[which];
  const own = new kind(readBytes(`numbers-${which}`));
  let from = 0;
  for (const [first, count] of item.ranges) {
    all.set(own.subarray(from, from + count), first);
    from += count;
  }
  return all;
}

function fail(error) {
  find("wrong").hidden = false;
  find("wrong").textContent = error.message;
  find("busy").textContent = "";
  return false;
}

function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

class Page {
  constructor(about) {
    this.about = about;
    this.canvas = find("canvas");
    this.which = 0;
    this.time = 0.5;
    const shape = about.shape.slice(-2);
    this.view = about.camera ? new Orbit(about.camera, shape)
      : about.view === "globe" ? new Globe() : new Plane(shape);
    this.painter = choosePainter(this, this.canvas);
    this.pointers = new Map();
    this.listen();
    this.resize();
  }

  // -- drawing

  uniforms(width, height) {
    const own = this.view.uniforms(width, height);
    return { time: this.time, steep: this.steepness(own.window), raw: 0,
      steps: this.about.steps, ...own };
  }

  // As Modality.steepness: pixels per length over those of training, of the coarsest axis.
  steepness(window) {
    if (!this.about.steep) return 1;
    const [rows, columns] = this.about.shape.slice(-2);
    return Math.min(1 / Math.abs(window[2]) / columns, 1 / Math.abs(window[3]) / rows);
  }

  draw() {
    find("busy").textContent = "drawing";
    this.drawn = this.painter.draw((w, h) => this.uniforms(w, h)).then(done => {
      if (done) find("busy").textContent = "";
      return done;
    }, fail);
    return this.drawn;
  }

  resize() {
    const ratio = window.devicePixelRatio || 1, box = this.canvas.getBoundingClientRect();
    const size = [box.width, box.height].map(x => Math.max(1, Math.round(x * ratio)));
    if (size[0] !== this.canvas.width || size[1] !== this.canvas.height || !this.drawn) {
      [this.canvas.width, this.canvas.height] = size;
      this.draw();
    }
  }

  choose(which) {
    find("wrong").hidden = true;
    this.which = which;
    find("item").value = which;
    find("step").value = which;
    find("step").title = this.about.items[which].name;
    this.painter.setNumbers(readNumbers(this.about, which));
    this.draw();
  }

  // -- pointers, wheel, keys

  get size() {
    return [this.canvas.clientWidth, this.canvas.clientHeight];
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  listen() {
    const canvas = this.canvas, on = (what, act) => canvas.addEventListener(what, act);
    on("pointerdown", e => {
      if (e.button) return;
      canvas.setPointerCapture(e.pointerId);
      canvas.classList.add("drag");
      this.pointers.set(e.pointerId, this.point(e));
    });
    on("pointermove", e => this.follow(e));
    for (const end of ["pointerup", "pointercancel"])
      on(end, e => {
        this.pointers.delete(e.pointerId);
        canvas.classList.remove("drag");
      });
    on("pointerleave", () => this.untell());
    on("wheel", e => {
      e.preventDefault();
      const lines = e.deltaMode === 1 ? 16 : 1;
      this.zoom(Math.exp(-e.deltaY * lines / 400), this.point(e));
    });
    on("dblclick", e => this.zoom(2, this.point(e)));
    document.addEventListener("keydown", e => this.press(e));
    new ResizeObserver(() => this.resize()).observe(canvas);
    find("fit").addEventListener("click", () => this.fit());
    find("in").addEventListener("click", () => this.zoom(1.5));
    find("out").addEventListener("click", () => this.zoom(1 / 1.5));
    find("full").addEventListener("click", () => this.fullScreen());
    find("save").addEventListener("click", () => this.save());
    find("item").addEventListener("change", e => this.choose(Number(e.target.value)));
    find("cut").addEventListener("input", e => {
      this.view.cut = Number(e.target.value);
      this.draw();
    });
    find("step").addEventListener("input", e => this.choose(Number(e.target.value)));
    if (this.about.time) {
      find("time").addEventListener("input", e => this.goTo(Number(e.target.value)));
      find("play").addEventListener("click", () => this.play());
    }
  }

  follow(event) {
    const before = this.pointers.get(event.pointerId), now = this.point(event);
    if (!before) return this.tell(now);
    if (this.pointers.size === 1) {
      this.view.move([now[0] - before[0], now[1] - before[1]], this.size, event.shiftKey);
    } else {
      const [id, other] = [...this.pointers].find(([id]) => id !== event.pointerId);
      const length = p => Math.hypot(p[0] - other[0], p[1] - other[1]);
      const middle = [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2];
      this.view.move([(now[0] - before[0]) / 2, (now[1] - before[1]) / 2], this.size, true);
      this.view.scale(length(now) / Math.max(1, length(before)), middle, this.size);
    }
    this.pointers.set(event.pointerId, now);
    this.draw();
  }

  zoom(factor, point = this.size.map(x => x / 2)) {
    this.view.scale(factor, point, this.size);
    this.draw();
  }

  fit() {
    this.view.fit();
    find("cut").value = 1;
    this.draw();
  }

  press(event) {
    if (event.target.matches("input, select")) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = 60, shift = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step],
      ArrowDown: [0, -step] }[event.key];
    const last = this.about.items.length - 1;
    const act = {
      "+": () => this.zoom(1.5), "=": () => this.zoom(1.5), "-": () => this.zoom(1 / 1.5),
      "0": () => this.fit(), f: () => this.fullScreen(), s: () => this.save(),
      "[": () => this.choose(Math.max(0, this.which - 1)),
      "]": () => this.choose(Math.min(last, this.which + 1)),
    }[event.key];
    if (event.key === " " && this.about.time && event.target.tagName !== "BUTTON") {
      event.preventDefault();
      this.play();
    } else if (shift) {
      event.preventDefault();
      this.view.move(shift, this.size);
      this.draw();
    } else if (act) act();
  }

  // -- value, time, files

  async tell(point) {
    const words = this.view.describe(point, this.size), number = this.told = (this.told || 0) + 1;
    if (!words) return find("value").textContent = "";
    if (this.painter.drawing) await this.painter.drawing;
    if (number !== this.told) return;
    const [x, y] = point, [width, height] = this.size;
    const own = this.view.uniforms(width, height), [left, bottom, dx, dy] = own.window;
    const at = [left + dx * x - dx / 2, bottom + dy * (height - y) - dy / 2, dx, dy];
    const steep = this.steepness(this.view.uniforms(this.canvas.width, this.canvas.height).window);
    const uniforms = { time: this.time, ...own, steep, raw: 1, window: at };
    const found = await this.painter.read(1, 1, uniforms, true);
    if (number !== this.told || !found) return;
    const scale = found instanceof Uint8Array ? 255 : 1;
    const numbers = [...found].slice(0, this.about.channels).map(v => (v / scale).toFixed(3));
    find("value").textContent = `${words}: ${numbers.join(" ")}`;
  }

  untell() {
    this.told = (this.told || 0) + 1;
    find("value").textContent = "";
  }

  goTo(time) {
    this.time = time;
    find("time").value = time;
    this.draw();
  }

  play() {
    const mine = this.playing = this.playing ? null : {};
    find("play").textContent = mine ? "Pause" : "Play";
    let before = performance.now();
    const next = async () => {
      if (!mine || this.playing !== mine) return;
      const now = performance.now();
      this.goTo((this.time + (now - before) / 1000 / this.about.time) % 1);
      before = now;
      await this.drawn;
      requestAnimationFrame(next);
    };
    next();
  }

  fullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else document.documentElement.requestFullscreen();
  }

  // Save what is seen as a PNG whose longer side has so many pixels.
  async save() {
    const longer = Number(find("pixels").value), scale = longer / Math.max(...this.size);
    const [width, height] = this.size.map(x => Math.max(1, Math.round(x * scale)));
    find("busy").textContent = "saving";
    try {
      download(await this.makePng(width, height), `${this.about.file}.png`);
      find("busy").textContent = "";
    } catch (error) {
      fail(error);
    }
  }

  async makePng(width, height) {
    const image = new OffscreenCanvas(width, height), pen = image.getContext("2d");
    const strip = Math.max(1, Math.floor(4e6 / width)), { window: w, ...own } =
      this.uniforms(width, height);
    for (let y = 0; y < height; y += strip) { // rows from the bottom
      const rows = Math.min(strip, height - y);
      const part = { ...own, window: [w[0], w[1] + w[3] * y, w[2], w[3]] };
      const found = await this.painter.read(width, rows, part);
      if (!found) throw new Error("Not saved: another function was chosen meanwhile.");
      const flipped = new Uint8ClampedArray(found.length);
      for (let row = 0; row < rows; row++)
        flipped.set(found.subarray(4 * width * row, 4 * width * (row + 1)),
          4 * width * (rows - 1 - row));
      pen.putImageData(new ImageData(flipped, width, rows), 0, height - y - rows);
    }
    return image.convertToBlob({ type: "image/png" });
  }
}
