// The page: reads what it holds, draws it, and answers to pointers, keys and buttons.

const find = id => document.getElementById(id);

// The bytes of an element that holds base64.
function readBytes(id) {
  const text = atob(find(id).textContent), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes.buffer;
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

// Say what is wrong; where nothing can be drawn, over the page's small picture.
function fail(error) {
  const still = error instanceof NoDrawing && find("still");
  if (still) document.body.classList.add("still");
  find("wrong").hidden = false;
  find("wrong").textContent = error.message + (still ? " Here is a small picture of it." : "");
  find("busy").textContent = "";
  return false;
}

// Call act where a lost graphics device is back, and its painter ready.
function followDevice(canvas, act) {
  canvas.addEventListener("webglcontextrestored", () => setTimeout(() => {
    find("wrong").hidden = true;
    act();
  }));
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
      : about.view === "globe" ? new Globe() : new Plane(shape, about.place, about.steep);
    this.painter = choosePainter(this, this.canvas);
    this.listen();
    this.resize();
  }

  // -- drawing

  // Of the part of a drawing (width, height) from the pixel (x, y) on, rows from the bottom. full:
  // the size of the drawing that it stands for.
  uniforms(width, height, x = 0, y = 0, full = [width, height]) {
    const own = this.view.uniforms(width, height, x, y, full);
    return { time: this.time, steep: this.steepness(width, height), raw: 0,
      steps: this.about.steps, ...own };
  }

  // As Modality.steepness: pixels per length over those of training, of the coarsest axis.
  steepness(width, height) {
    if (!this.about.steep) return 1;
    const [rows, columns] = this.about.shape.slice(-2);
    const [across, down] = this.view.samples(width, height);
    return Math.min(across / columns, down / rows);
  }

  // Draw what is seen; while a video plays, no more than its pace allows.
  draw() {
    find("busy").textContent = "drawing";
    const view = (...given) => this.uniforms(...given);
    this.drawn = this.painter.draw(view, Boolean(this.playing)).then(done => {
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

  listen() {
    followPointers(this.canvas, {
      move: (shift, aside) => {
        this.view.move(shift, this.size, aside);
        this.draw();
      },
      zoom: (factor, point) => this.zoom(factor, point),
      hover: point => this.tell(point),
      leave: () => this.untell(),
    });
    followScreen(() => {
      this.resize();
      this.draw();
    });
    followDevice(this.painter.canvas, () => this.draw());
    document.addEventListener("keydown", e => this.press(e));
    new ResizeObserver(() => this.resize()).observe(this.canvas);
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
    const [x, y] = point, [width, height] = this.size, drawn = [this.canvas.width,
      this.canvas.height];
    const at = this.uniforms(width, height, x - 0.5, height - y - 0.5, drawn);
    const uniforms = { ...at, steep: this.steepness(...drawn), raw: 1 };
    const found = await this.painter.read(1, 1, uniforms, true).catch(() => null);
    if (number !== this.told || !found) return;
    const numbers = [...found].slice(0, this.about.channels).map(v => v.toFixed(3));
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
    if (mine) next();
    else this.draw(); // all pixels of where it stopped
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
    const side = 2048, parts = []; // what every device can draw; all of one view
    for (let y = 0; y < height; y += side) // rows from the bottom
      for (let x = 0; x < width; x += side)
        parts.push({ x, y, columns: Math.min(side, width - x), rows: Math.min(side, height - y),
          uniforms: this.uniforms(width, height, x, y) });
    for (const { x, y, columns, rows, uniforms } of parts) {
      const found = await this.painter.read(columns, rows, uniforms);
      if (!found) throw new Error("Not saved: another function was chosen meanwhile.");
      const flipped = new Uint8ClampedArray(found.length), long = 4 * columns;
      for (let row = 0; row < rows; row++)
        flipped.set(found.subarray(long * row, long * (row + 1)), long * (rows - 1 - row));
      pen.putImageData(new ImageData(flipped, columns, rows), x, height - y - rows);
    }
    return image.convertToBlob({ type: "image/png" });
  }
}
