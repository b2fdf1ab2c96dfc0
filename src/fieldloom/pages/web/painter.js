// Draws a field with WebGL 2: coarsely while it moves, then all pixels, tile after tile.

const VERTEX = `#version 300 es
void main() { gl_Position = vec4(vec2(gl_VertexID % 2, gl_VertexID / 2) * 4.0 - 1.0, 0.0, 1.0); }`;

const COPY = `#version 300 es
precision highp float;
uniform sampler2D image;
uniform vec2 size;
out vec4 colour;
void main() { colour = texture(image, gl_FragCoord.xy / size); }`;

const MOVING = 40, RESTING = 30; // milliseconds of a frame in motion, and of a batch of tiles

class Painter {
  // source: of the fragment shader. numbers: Float32Array, or Uint16Array of half floats.
  constructor(canvas, source, numbers) {
    this.canvas = canvas;
    this.cost = 0.04; // milliseconds a pixel: of a slow device, until it is measured
    this.measured = false;
    this.turn = 0; // counts requests: older ones end
    this.function = 0; // counts those whose numbers were set
    this.begin(source);
    this.setNumbers(numbers);
  }

  begin(source) {
    const gl = this.canvas.getContext("webgl2", { antialias: false, alpha: false });
    if (!gl) throw new Error("This page needs WebGL 2, which this browser does not offer.");
    this.gl = gl;
    this.floats = Boolean(gl.getExtension("EXT_color_buffer_float"));
    this.field = this.link(source);
    this.copy = this.link(COPY);
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
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) {
      const told = gl.getAttachedShaders(program).map(x => gl.getShaderInfoLog(x)).join(" ");
      throw new Error(`The shader does not run here: ${told || gl.getProgramInfoLog(program)}`);
    }
    return program;
  }

  setNumbers(numbers) {
    this.function++;
    const gl = this.gl, row = 2048, half = numbers instanceof Uint16Array;
    const rows = Math.ceil(numbers.length / 4 / row);
    if (rows > gl.getParameter(gl.MAX_TEXTURE_SIZE))
      throw new Error("This field has more weights than this graphics device can hold.");
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
    const gl = this.gl, most = gl.getParameter(gl.MAX_TEXTURE_SIZE);
    if (most && Math.max(width, height) > most) // none where the device is lost
      throw new Error(`This graphics device draws at most ${most} pixels a side.`);
    const texture = gl.createTexture();
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
      const at = gl.getUniformLocation(this.field, name), all = [value].flat();
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
    const gl = this.gl, began = performance.now();
    const fence = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
    gl.flush();
    const lost = () => {
      if (gl.isContextLost()) throw new Error("The graphics device was lost: load the page anew.");
    };
    lost();
    while (gl.getSyncParameter(fence, gl.SYNC_STATUS) !== gl.SIGNALED) {
      await new Promise(done => setTimeout(done, 1));
      lost();
    }
    gl.deleteSync(fence);
    return performance.now() - began;
  }

  learn(milliseconds, pixels) {
    const found = Math.max(1e-6, milliseconds / pixels);
    this.cost = this.measured ? 0.5 * this.cost + 0.5 * found : found;
    this.measured = true;
  }

  // Draw a view. uniforms: (width, height) of what is drawn -> name -> numbers. Returns whether it
  // was finished; a newer request ends it.
  async draw(uniforms) {
    const turn = ++this.turn, { width, height } = this.canvas;
    if (this.drawing) await this.drawing;
    if (turn !== this.turn) return false;
    let ended;
    this.drawing = new Promise(done => ended = done);
    try {
      const shrink = Math.max(1, Math.sqrt(this.cost * width * height / MOVING));
      const w = Math.max(1, Math.round(width / shrink)), h = Math.max(1, Math.round(height / shrink));
      const coarse = this.makeTarget(w, h, false, true);
      this.drawField(coarse, uniforms(w, h), { x: 0, y: 0, width: w, height: h });
      this.learn(await this.finish(), w * h);
      this.drawImage(coarse, null);
      if (!this.full || this.full.width !== width || this.full.height !== height) {
        this.drop(this.full);
        this.full = this.makeTarget(width, height);
      }
      const whole = shrink === 1;
      if (turn === this.turn) this.drawImage(coarse, this.full);
      this.drop(coarse);
      return whole || await this.refine(this.full, uniforms(width, height), () => turn === this.turn,
        () => this.drawImage(this.full, null));
    } finally {
      this.drawing = null;
      ended();
    }
  }

  // Draw all pixels of a target, from its middle, while goOn() is true; show() after each batch.
  async refine(target, uniforms, goOn, show = () => {}) {
    const { width, height } = target;
    let side = Math.max(16, Math.round(Math.sqrt(RESTING / this.cost)));
    side = Math.min(side, Math.max(width, height));
    const tiles = [];
    for (let y = 0; y < height; y += side)
      for (let x = 0; x < width; x += side)
        tiles.push({ x, y, width: Math.min(side, width - x), height: Math.min(side, height - y) });
    const far = t => Math.hypot(t.x + t.width / 2 - width / 2, t.y + t.height / 2 - height / 2);
    tiles.sort((a, b) => far(a) - far(b));
    for (let i = 0, many; i < tiles.length; i += many) { // more at once as the pace gets known
      if (!goOn()) return false;
      many = Math.max(1, Math.floor(RESTING / (this.cost * side * side)));
      const batch = tiles.slice(i, i + many);
      for (const tile of batch) this.drawField(target, uniforms, tile);
      const pixels = batch.reduce((sum, tile) => sum + tile.width * tile.height, 0);
      this.learn(await this.finish(), pixels);
      show();
    }
    return true;
  }

  // The numbers of all pixels of a view: (height, width, 4), rows from the bottom; null where
  // another function's numbers were set meanwhile.
  async read(width, height, uniforms, exact = false) {
    const which = this.function;
    if (this.drawing) await this.drawing;
    const target = this.makeTarget(width, height, exact && this.floats);
    const same = () => which === this.function;
    if (!await this.refine(target, uniforms, same) || !same()) {
      this.drop(target);
      return null;
    }
    const found = await this.readTarget(target);
    this.drop(target);
    return found;
  }

  // The numbers of a target: rows from the bottom.
  readTarget(target) {
    const gl = this.gl, { width, height, float } = target;
    this.into(target);
    const found = float ? new Float32Array(4 * width * height) : new Uint8Array(4 * width * height);
    gl.readPixels(0, 0, width, height, gl.RGBA, float ? gl.FLOAT : gl.UNSIGNED_BYTE, found);
    return found;
  }
}
