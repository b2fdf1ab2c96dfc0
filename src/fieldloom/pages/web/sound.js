// A sound: its waveform at any zoom, and what it sounds like.

const ROW = 512, BLOCK = 1 << 15; // samples of a row, and of what is computed at a time
const HEARD = [8000, 96000]; // samples a second that every browser plays
const SHORTEST = 2 ** -16; // part of a sound that is seen: float32 holds no finer coordinates

class SoundPage {
  constructor(about) {
    this.about = about;
    this.canvas = find("canvas");
    this.which = 0;
    this.painter = choosePainter(this, new OffscreenCanvas(1, 1));
    this.ends = [0, 1]; // what is seen, as fractions
    this.seconds = about.shape[0] / about.rate;
    this.turn = 0;
    this.listen();
    this.resize();
  }

  get size() {
    return [this.canvas.clientWidth, this.canvas.clientHeight];
  }

  // Samples first ... first + count of a sound of so many: an array of numbers a channel; null
  // where another function was chosen meanwhile, or goOn() is false. full: how many samples say
  // where they stand.
  async samples(first, count, total, { full = total, goOn = () => true } = {}) {
    const { channels, place } = this.about, [low, slope] = placeSamples(place, full);
    const found = Array.from({ length: channels }, () => new Float32Array(count));
    for (let from = 0; from < count; from += BLOCK) {
      const own = Math.min(BLOCK, count - from), width = Math.min(ROW, own);
      const line = [low + slope * (first + from) / total, slope / total, width];
      const all = await this.painter.read(width, Math.ceil(own / width), { line, raw: 1 }, true);
      if (!all || !goOn()) return null;
      for (let i = 0; i < own; i++)
        for (let c = 0; c < channels; c++) found[c][from + i] = 2 * all[4 * i + c] - 1;
    }
    return found;
  }

  // All samples at the sound's own rate, computed once.
  whole() {
    const count = this.about.shape[0];
    find("busy").textContent = "computing";
    this.all = this.all || this.samples(0, count, count);
    return this.all.finally(() => find("busy").textContent = "");
  }

  choose(which) {
    find("wrong").hidden = true;
    this.which = which;
    for (const id of ["item", "step"]) find(id).value = which;
    this.stop();
    this.all = null;
    this.painter.setNumbers(readNumbers(this.about, which));
    this.draw();
  }

  // -- the waveform

  resize() {
    const ratio = window.devicePixelRatio || 1, [width, height] = this.size;
    this.canvas.width = Math.max(1, Math.round(width * ratio));
    this.canvas.height = Math.max(1, Math.round(height * ratio));
    this.draw();
  }

  draw() {
    this.drawn = this.trace().catch(error => fail(error));
    return this.drawn;
  }

  // Draw what is seen: as many samples as the pace allows while it moves, then four a column, more
  // finely than the sound's own where it is near.
  async trace() {
    const turn = ++this.turn, goOn = () => turn === this.turn, [a, b] = this.ends;
    const all = 4 * this.canvas.width, few = Math.round(MOVING / this.painter.cost);
    for (const count of few < all ? [Math.max(64, few), all] : [all]) {
      const total = count / (b - a), full = all / (b - a);
      const found = await this.samples(a * total, count, total, { full, goOn });
      if (!goOn() || !found) return;
      this.show(found);
      if (count < all) await new Promise(done => setTimeout(done, PAUSE));
      if (!goOn()) return;
    }
  }

  show(found) {
    const { width, height } = this.canvas, wide = width / found[0].length;
    const pen = this.canvas.getContext("2d"), style = getComputedStyle(document.body);
    pen.fillStyle = style.getPropertyValue("--space");
    pen.fillRect(0, 0, width, height);
    const half = height / found.length / 2;
    found.forEach((numbers, c) => {
      const middle = (2 * c + 1) * half, y = v => middle - clamp(v, -1, 1) * half * 0.95;
      pen.fillStyle = style.getPropertyValue("--line");
      pen.fillRect(0, middle, width, 1);
      pen.strokeStyle = style.getPropertyValue("--ink");
      pen.beginPath();
      numbers.forEach((v, i) => pen.lineTo((i + 0.5) * wide, y(v)));
      pen.stroke();
    });
    this.picture = pen.getImageData(0, 0, width, height);
    this.mark();
  }

  // The place that is heard, as a line over the waveform.
  mark() {
    if (!this.playing || !this.picture) return;
    const pen = this.canvas.getContext("2d"), [a, b] = this.ends;
    pen.putImageData(this.picture, 0, 0);
    pen.fillStyle = "#d33";
    pen.fillRect((this.now() - a) / (b - a) * this.canvas.width, 0, 2, this.canvas.height);
  }

  // -- what is heard

  now() {
    return (this.from + this.context.currentTime - this.began) / this.seconds;
  }

  async play() {
    if (this.playing) return this.stop();
    const all = await this.whole();
    if (!all || this.playing) return; // another was chosen, or begun, meanwhile
    this.context = this.context || new AudioContext();
    const rate = clamp(this.about.rate, ...HEARD), pace = this.about.rate / rate;
    const buffer = this.context.createBuffer(all.length, all[0].length, rate);
    all.forEach((numbers, c) => buffer.copyToChannel(numbers, c));
    this.playing = this.context.createBufferSource();
    this.playing.buffer = buffer;
    this.playing.playbackRate.value = pace;
    this.playing.connect(this.context.destination);
    this.playing.onended = () => this.stop();
    [this.from, this.began] = [this.ends[0] * this.seconds, this.context.currentTime];
    this.playing.start(0, this.from * pace);
    find("play").textContent = "Stop";
    const next = () => {
      this.mark();
      if (this.playing) requestAnimationFrame(next);
    };
    next();
  }

  stop() {
    if (this.playing) {
      this.playing.onended = null;
      this.playing.stop();
    }
    this.playing = null;
    find("play").textContent = "Play";
    if (this.picture) this.canvas.getContext("2d").putImageData(this.picture, 0, 0);
  }

  // The whole sound as 16-bit WAV.
  async makeWav() {
    const all = await this.whole();
    if (!all) throw new Error("Not saved: another function was chosen meanwhile.");
    const channels = all.length, bytes = 2 * channels * all[0].length;
    const view = new DataView(new ArrayBuffer(44 + bytes)), { rate } = this.about;
    const word = (at, text) => [...text].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
    word(0, "RIFF"), view.setUint32(4, 36 + bytes, true), word(8, "WAVEfmt ");
    view.setUint32(16, 16, true), view.setUint16(20, 1, true), view.setUint16(22, channels, true);
    view.setUint32(24, rate, true), view.setUint32(28, 2 * channels * rate, true);
    view.setUint16(32, 2 * channels, true), view.setUint16(34, 16, true);
    word(36, "data"), view.setUint32(40, bytes, true);
    for (let i = 0; i < all[0].length; i++)
      for (let c = 0; c < channels; c++)
        view.setInt16(44 + 2 * (channels * i + c), Math.round(clamp(all[c][i], -1, 1) * 32767), true);
    return new Blob([view], { type: "audio/wav" });
  }

  async save() {
    await this.makeWav().then(wav => download(wav, `${this.about.file}.wav`), fail);
  }

  // -- pointers and keys

  listen() {
    followPointers(this.canvas, {
      move: shift => this.move(-shift[0] / this.canvas.clientWidth),
      zoom: (factor, point) => this.zoom(factor, point[0] / this.canvas.clientWidth),
      hover: point => this.tell(point[0] / this.canvas.clientWidth),
      leave: () => {
        this.told = (this.told || 0) + 1;
        find("value").textContent = "";
      },
    });
    followScreen(() => this.resize());
    followDevice(this.painter.canvas, () => {
      this.all = null;
      this.draw();
    });
    document.addEventListener("keydown", e => {
      const last = this.about.items.length - 1;
      const act = { "[": () => this.choose(Math.max(0, this.which - 1)),
        "]": () => this.choose(Math.min(last, this.which + 1)),
        "+": () => this.zoom(1.5), "=": () => this.zoom(1.5), "-": () => this.zoom(1 / 1.5),
        "0": () => this.fit(),
        ArrowLeft: () => this.move(-0.1), ArrowRight: () => this.move(0.1), s: () => this.save(),
        " ": () => this.play().catch(fail) }[e.key];
      if (!act || e.target.matches("input, select")) return;
      if (e.ctrlKey || e.metaKey || e.altKey) return;
      if (e.key === " " && e.target.tagName === "BUTTON") return;
      e.preventDefault();
      act();
    });
    new ResizeObserver(() => this.resize()).observe(this.canvas);
    const click = (id, act) => find(id).addEventListener("click", act);
    click("fit", () => this.fit());
    click("in", () => this.zoom(1.5));
    click("out", () => this.zoom(1 / 1.5));
    click("save", () => this.save());
    click("play", () => this.play().catch(fail));
    for (const [id, what] of [["item", "change"], ["step", "input"]])
      find(id).addEventListener(what, e => this.choose(Number(e.target.value)));
  }

  fit() {
    this.ends = [0, 1];
    this.draw();
  }

  move(shift) {
    const [a, b] = this.ends, by = clamp(shift * (b - a), -a, 1 - b);
    this.ends = [a + by, b + by];
    this.draw();
  }

  zoom(factor, at = 0.5) {
    const [a, b] = this.ends, middle = a + at * (b - a);
    const length = clamp((b - a) / factor, Math.max(8 / this.about.shape[0], SHORTEST), 1);
    const first = clamp(middle - at * length, 0, 1 - length);
    this.ends = [first, first + length];
    this.draw();
  }

  async tell(at) {
    const [a, b] = this.ends, place = a + at * (b - a), total = this.about.shape[0];
    const number = this.told = (this.told || 0) + 1;
    const found = await this.samples(place * total - 0.5, 1, total).catch(() => null);
    if (number !== this.told || !found) return;
    const numbers = found.map(x => x[0].toFixed(4)).join(" ");
    find("value").textContent = `${(place * this.seconds).toFixed(4)} s: ${numbers}`;
  }
}
