// Draws a field with WebGL 2: coarsely while it moves, then all pixels, tile after tile.

const VERTEX = `#version 300 es
void main() { gl_Position = vec4(vec2(gl_VertexID % 2, gl_VertexID / 2) * 4.0 - 1.0, 0.0, 1.0); }`;

const COPY = `#version 300 es
precision highp float;
uniform sampler2D image;
uniform vec2 size;
out vec4 colour;
void main() { colour = texture(image, gl_FragCoord.xy / size); }`;

// Milliseconds: of a frame in motion, which leaves a browser time for 20 frames a second; of a batch
// of tiles; without a request until all pixels are drawn; that a drawing takes at least to tell the
// pace.
const MOVING = 30, RESTING = 30, PAUSE = 80, TELLING = 8;

// Says that nothing can be drawn here.
class NoDrawing extends Error {}

// Pixels of the smallest tile: devices compute four together.
const LEAST = 4;

// A thousand tiles, or fewer of so many pixels, that cover an image; the last is in its middle.
function divide(width, height, pixels) {
  const side = Math.ceil(Math.sqrt(Math.max(pixels, width * height / 1000))), tiles = [];
  for (let y = 0; y < height; y += side)
    for (let x = 0; x < width; x += side)
      tiles.push({ x, y, width: Math.min(side, width - x), height: Math.min(side, height - y) });
  const far = t => Math.hypot(t.x + t.width / 2 - width / 2, t.y + t.height / 2 - height / 2);
  return tiles.sort((a, b) => far(b) - far(a));
}

function halve({ x, y, width, height }) {
  const half = Math.ceil(Math.max(width, height) / 2);
  return width > height
    ? [{ x, y, width: half, height }, { x: x + half, y, width: width - half, height }]
    : [{ x, y, width, height: half }, { x, y: y + half, width, height: height - half }];
}

class Painter {
  // source: of the fragment shader. numbers: Float32Array, or Uint16Array of half floats.
  constructor(canvas, source, numbers) {
    this.canvas = canvas;
    this.cost = 0.1; // milliseconds a pixel: of a slow device, until it is measured
    this.measured = false;
    this.turn = 0; // counts requests: older ones end
    this.function = 0; // counts those whose numbers were set
    this.waiting = null; // until the device has done what it was asked last
    this.most = Infinity; // pixels of a side
    this.full = this.coarse = null; // targets that are kept
    this.begin(source);
    this.setNumbers(numbers);
  }

  begin(source) {
    const { canvas } = this, gl = canvas.getContext("webgl2", { antialias: false, alpha: false });
    if (!gl) throw new NoDrawing("This browser offers no WebGL 2, which draws the field.");
    this.gl = gl;
    this.source = source;
    canvas.addEventListener("webglcontextlost", event => event.preventDefault());
    canvas.addEventListener("webglcontextrestored", () => {
      this.fill();
      this.setNumbers(this.held);
    });
    this.fill();
  }

  // Make all that the device holds but the numbers.
  fill() {
    const gl = this.gl;
    this.turn++;
    this.floats = Boolean(gl.getExtension("EXT_color_buffer_float"));
    this.most = gl.getParameter(gl.MAX_TEXTURE_SIZE);
    this.field = this.link(this.source);
    this.copy = this.link(COPY);
    this.places = {}; // of the uniforms
    this.full = this.coarse = null;
    this.numbers = gl.createTexture();
    this.frames = gl.createFramebuffer();
  }

  link(fragment) {
    const gl = this.gl, program = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, fragment]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
      const told = gl.getAttachedShaders(program).map(x => gl.getShaderInfoLog(x)).join(" ");
      throw new NoDrawing(`The shader does not run here: ${told || gl.getProgramInfoLog(program)}`);
    }
    return program;
  }

  setNumbers(numbers) {
    this.function++;
    this.held = numbers;
    const gl = this.gl, row = 2048, half = numbers instanceof Uint16Array;
    const rows = Math.ceil(numbers.length / 4 / row);
    if (rows > this.most)
      throw new NoDrawing("This field has more weights than this graphics device can hold.");
    const all = new numbers.constructor(4 * row * rows);
    all.set(numbers);
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, this.numbers);
    gl.texImage2D(gl.TEXTURE_2D, 0, half ? gl.RGBA16F : gl.RGBA32F, row, rows, 0, gl.RGBA,
      half ? gl.HALF_FLOAT : gl.FLOAT, all);
    for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER])
      gl.texParameteri(gl.TEXTURE_2D, name, gl.NEAREST);
  }

  // A texture to draw into, of bytes or floats; smooth where a larger image is made of it.
  makeTarget(width, height, float = false, smooth = false) {
    const gl = this.gl, texture = gl.createTexture();
    gl.activeTexture(gl.TEXTURE1);
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texStorage2D(gl.TEXTURE_2D, 1, float ? gl.RGBA32F : gl.RGBA8, width, height);
    const filter = smooth ? gl.LINEAR : gl.NEAREST;
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, filter);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, filter);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
    return { texture, width, height, float };
  }

  // The target "full" or "coarse", made anew where it has another size.
  keepTarget(name, width, height) {
    const kept = this[name];
    if (kept && kept.width === width && kept.height === height) return kept;
    this.drop(kept);
    return this[name] = this.makeTarget(width, height, false, true);
  }

  drop(target) {
    if (target) this.gl.deleteTexture(target.texture);
  }

  into(target) {
    const gl = this.gl;
    gl.bindFramebuffer(gl.FRAMEBUFFER, target ? this.frames : null);
    if (target) gl.framebufferTexture2D(
      gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, target.texture, 0);
    gl.viewport(0, 0, target ? target.width : this.canvas.width,
      target ? target.height : this.canvas.height);
  }

  // Draw a part {x, y, width, height} of a target by the field. uniforms: name -> numbers.
  drawField(target, uniforms, part) {
    const gl = this.gl;
    this.into(target);
    gl.useProgram(this.field);
    for (const [name, value] of Object.entries(uniforms)) {
      if (!(name in this.places)) this.places[name] = gl.getUniformLocation(this.field, name);
      const at = this.places[name], all = [value].flat();
      if (all.length === 9) gl.uniformMatrix3fv(at, false, all);
      else gl[`uniform${all.length}fv`](at, all);
    }
    gl.enable(gl.SCISSOR_TEST);
    gl.scissor(part.x, part.y, part.width, part.height);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
    gl.disable(gl.SCISSOR_TEST);
  }

  // Draw one target into another, or into the canvas (null), as large as that is.
  drawImage(from, to) {
    const gl = this.gl;
    this.into(to);
    gl.useProgram(this.copy);
    gl.activeTexture(gl.TEXTURE1);
    gl.bindTexture(gl.TEXTURE_2D, from.texture);
    gl.uniform1i(gl.getUniformLocation(this.copy, "image"), 1);
    gl.uniform2f(gl.getUniformLocation(this.copy, "size"),
      to ? to.width : this.canvas.width, to ? to.height : this.canvas.height);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
    gl.activeTexture(gl.TEXTURE0);
  }

  // Wait until the device has done what it was asked; returns milliseconds.
  async finish() {
    const gl = this.gl, began = performance.now(), { numbers } = this;
    const fence = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
    gl.flush();
    const check = () => { // the texture is another one once the device is back
      if (gl.isContextLost() || numbers !== this.numbers)
        throw new Error("The graphics device was lost: the page goes on when it is back.");
    };
    check();
    while (gl.getSyncParameter(fence, gl.SYNC_STATUS) !== gl.SIGNALED) {
      await new Promise(done => setTimeout(done, 1));
      check();
    }
    gl.deleteSync(fence);
    return performance.now() - began;
  }

  // The same, so that later drawings wait for it, too.
  wait() {
    const ended = this.finish();
    this.waiting = ended.catch(() => {});
    return ended;
  }

  learn(milliseconds, pixels) {
    this.cost = 0.5 * this.cost + 0.5 * Math.max(1e-6, milliseconds / pixels);
  }

  // Learn the pace from few pixels, and from more where these take too short a time to tell. The
  // first drawing prepares the shader.
  async measure(uniforms) {
    for (const [i, side] of [2, 2, 4, 8, 16, 32, 64].entries()) {
      const target = this.makeTarget(side, side);
      this.drawField(target, uniforms(side, side), { x: 0, y: 0, width: side, height: side });
      const took = await this.wait();
      this.drop(target);
      this.cost = Math.max(1e-6, took / side ** 2);
      if (i && took > TELLING) break;
    }
    this.measured = true;
  }

  // Draw a view coarsely, by as many pixels as the pace allows, and all of its pixels unless it is
  // moving, or another is asked for within a moment. uniforms: (width, height) of what is drawn,
  // its corner, and the (width, height) of all pixels -> name -> numbers. Returns whether nothing
  // newer was asked for.
  async draw(uniforms, moving = false) {
    const turn = ++this.turn, current = () => turn === this.turn;
    await this.waiting;
    if (current() && !this.measured) await this.measure(uniforms);
    if (!current()) return false;
    const { width, height } = this.canvas, least = Math.max(1, Math.max(width, height) / this.most);
    const all = [width, height].map(x => Math.max(1, Math.floor(x / least)));
    const shrink = this.shrinkage(all[0] * all[1]), whole = shrink === 1;
    const [w, h] = all.map(x => Math.max(1, Math.round(x / shrink)));
    const target = this.keepTarget(whole ? "full" : "coarse", w, h);
    this.drawField(target, uniforms(w, h, 0, 0, all), { x: 0, y: 0, width: w, height: h });
    this.learn(await this.wait(), w * h);
    this.drawImage(target, null);
    if (whole || moving || !current()) return current();
    await new Promise(done => setTimeout(done, PAUSE));
    if (!current() || !await this.approach(shrink, uniforms, all, current)) return false;
    const full = this.keepTarget("full", ...all);
    this.drawImage(this.coarse, full);
    return this.refine(full, uniforms(...all), current, () => this.drawImage(full, null));
  }

  // Where the pace allows few pixels: the whole at sizes between, each of 16 times as many, in the
  // place of the coarse drawing. Returns whether nothing newer was asked for.
  async approach(shrink, uniforms, all, current) {
    for (let less = shrink / 4; less > 2 && current(); less /= 4) {
      const size = all.map(x => Math.max(1, Math.round(x / less)));
      const finer = this.makeTarget(...size, false, true);
      this.drawImage(this.coarse, finer);
      this.drop(this.coarse);
      this.coarse = finer;
      const own = uniforms(...size, 0, 0, all);
      await this.refine(finer, own, current, () => this.drawImage(finer, null));
    }
    return current();
  }

  // By how much the sides of a drawing of so many pixels are divided while it moves: a power of the
  // fourth root of 2, so that it seldom changes.
  shrinkage(pixels) {
    const wanted = Math.log2(Math.sqrt(this.cost * pixels / MOVING));
    return 2 ** Math.max(0, Math.ceil(4 * wanted) / 4);
  }

  // Draw all pixels of a target, from its middle, while goOn() is true; show() after each batch.
  // A batch has at most twice the pixels of the last one, since the pace is not the same
  // everywhere; tiles that are too large for it are halved.
  async refine(target, uniforms, goOn, show = () => {}) {
    const { width, height } = target, tiles = divide(width, height, RESTING / this.cost);
    for (let allowed = RESTING / 4 / this.cost; tiles.length;) {
      let pixels = 0;
      if (!goOn()) return false;
      while (tiles.length) {
        const tile = tiles.pop(), own = tile.width * tile.height;
        if (own > Math.max(LEAST, allowed)) {
          tiles.push(...halve(tile));
        } else if (pixels && pixels + own > allowed) {
          tiles.push(tile);
          break;
        } else {
          this.drawField(target, uniforms, tile);
          pixels += own;
        }
      }
      this.learn(await this.wait(), pixels);
      if (!goOn()) return false;
      show();
      allowed = Math.min(2 * pixels, RESTING / this.cost);
    }
    return true;
  }

  // The numbers of all pixels of a view: (height, width, 4), rows from the bottom, bytes or, where
  // they are exact, floats; null where another function's numbers were set meanwhile.
  async read(width, height, uniforms, exact = false) {
    if (exact && !this.floats) return this.readInBytes(width, height, uniforms);
    const which = this.function, same = () => which === this.function;
    const target = this.makeTarget(width, height, exact);
    const done = await this.refine(target, uniforms, same) && same();
    const found = done ? await this.readTarget(target) : null;
    this.drop(target);
    return found;
  }

  // The numbers of a target: rows from the bottom.
  readTarget(target) {
    const gl = this.gl, { width, height, float } = target;
    const found = new (float ? Float32Array : Uint8Array)(4 * width * height);
    this.into(target);
    gl.readPixels(0, 0, width, height, gl.RGBA, float ? gl.FLOAT : gl.UNSIGNED_BYTE, found);
    return found;
  }

  // Exact numbers where the device draws into no floats: the four bytes of each, one by one.
  async readInBytes(width, height, uniforms) {
    const all = new Float32Array(4 * width * height);
    for (let i = 0; i < 4; i++) {
      const found = await this.read(width, height, { ...uniforms, raw: 2 + i });
      if (!found) return null;
      new Float32Array(found.buffer).forEach((x, at) => all[4 * at + i] = x);
    }
    return all;
  }
}
