// Draws a field by a compute shader of WebGPU, where the browser has it: at the pace of Painter,
// which WebGL 2 takes over from where the device is refused, fails or is lost.

const COPY_IMAGE = `
@group(0) @binding(0) var image: texture_2d<f32>;
@group(0) @binding(1) var between: sampler;
struct Corner { @builtin(position) at: vec4f, @location(0) place: vec2f }
@vertex fn corner(@builtin(vertex_index) i: u32) -> Corner {
  let at = vec2f(f32(i % 2), f32(i / 2)) * 4.0 - 1.0;
  return Corner(vec4f(at, 0.0, 1.0), vec2f(0.5 + 0.5 * at.x, 0.5 - 0.5 * at.y));
}
@fragment fn copy(@location(0) place: vec2f) -> @location(0) vec4f {
  return textureSample(image, between, place);
}`;

// Half-precision numbers as floats.
function widen(halves) {
  const bits = Uint32Array.from(halves, h => (h & 0x8000) << 16 | (h & 0x7fff) << 13);
  return new Float32Array(bits.buffer).map(x => x * 2 ** 112); // the exponents' zeros lie apart
}

class GpuPainter extends Painter {
  // source: of the compute shader. follow: (why not WebGPU, the numbers of what is drawn) -> the
  // painter that goes on.
  constructor(canvas, source, numbers, follow) {
    super(canvas, source, numbers);
    this.follow = follow;
    this.asked = 0; // drawings and readings that are not finished
  }

  begin(source) {
    this.source = source;
    this.floats = true;
    this.layout = new Map(); // uniform -> its place in ``given``
    for (const [, name, place] of source.matchAll(/^ {2}(\w+) = .*?given\[(\d+)\]/gm))
      this.layout.set(name, Number(place));
    this.slots = Number(source.match(/given: array<vec4f, (\d+)>/)[1]);
    this.pipelines = {};
    this.ready = this.open();
    this.ready.catch(error => this.end(error.message));
  }

  async open() {
    const adapter = await navigator.gpu.requestAdapter();
    if (!adapter) throw new Error("there is no WebGPU device");
    const { maxBufferSize, maxStorageBufferBindingSize, maxTextureDimension2D } = adapter.limits;
    const device = this.device = await adapter.requestDevice({
      requiredLimits: { maxBufferSize, maxStorageBufferBindingSize, maxTextureDimension2D } });
    device.lost.then(told => this.end(told.message || "the WebGPU device was lost"));
    device.addEventListener("uncapturederror", event => this.end(event.error.message));
    this.most = maxTextureDimension2D;
    this.given = this.makeBuffer(16 * this.slots, GPUBufferUsage.UNIFORM);
    this.field = await this.link("rgba8unorm");
    const module = device.createShaderModule({ code: COPY_IMAGE });
    this.copy = await device.createRenderPipelineAsync({ layout: "auto", vertex: { module },
      fragment: { module, targets: [{ format: "rgba8unorm" }] } });
    const [nearest, linear] = ["nearest", "linear"].map(filter =>
      device.createSampler({ minFilter: filter, magFilter: filter }));
    this.samplers = { nearest, linear };
    this.load();
  }

  makeBuffer(size, usage) {
    return this.device.createBuffer({ size, usage: usage | GPUBufferUsage.COPY_DST });
  }

  // The pipeline that draws into textures of a format, compiled when it is first asked for.
  link(format) {
    const module = () => this.device.createShaderModule({
      code: this.source.replace("rgba8unorm", format) });
    return this.pipelines[format] ||= this.device.createComputePipelineAsync({
      layout: "auto", compute: { module: module() } });
  }

  setNumbers(numbers) {
    this.function++;
    this.held = numbers;
    if (this.numbers) this.load();
  }

  load() {
    const floats = this.held instanceof Uint16Array ? widen(this.held) : this.held;
    if (floats.byteLength > this.device.limits.maxStorageBufferBindingSize)
      throw new Error("this field has more weights than WebGPU holds here");
    if (!this.numbers || this.numbers.size !== floats.byteLength) {
      if (this.numbers) this.numbers.destroy();
      this.numbers = this.makeBuffer(floats.byteLength, GPUBufferUsage.STORAGE);
    }
    this.device.queue.writeBuffer(this.numbers, 0, floats);
  }

  makeTarget(width, height, float = false, smooth = false) {
    const usage = GPUTextureUsage;
    const texture = this.device.createTexture({ size: [width, height],
      format: float ? "rgba32float" : "rgba8unorm",
      usage: usage.STORAGE_BINDING | usage.COPY_SRC
        | (float ? 0 : usage.TEXTURE_BINDING | usage.RENDER_ATTACHMENT) });
    return { texture, width, height, float, smooth };
  }

  drop(target) {
    if (target) target.texture.destroy();
  }

  bind(pipeline, resources) {
    const entries = resources.map((resource, binding) => ({ binding, resource }));
    return this.device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
  }

  drawField(target, uniforms, part) {
    const pipeline = target.float ? this.exact : this.field, { queue } = this.device;
    const given = new Float32Array(4 * this.slots);
    given.set([part.x, part.y, part.width, part.height]);
    for (const [name, place] of this.layout) {
      const all = [uniforms[name] ?? 0].flat(), matrix = all.length === 9;
      if (matrix) [0, 3, 6].forEach((i, k) => given.set(all.slice(i, i + 3), 4 * (place + k)));
      else given.set(all, 4 * place);
    }
    queue.writeBuffer(this.given, 0, given);
    const work = this.device.createCommandEncoder(), pass = work.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, this.bind(pipeline,
      [{ buffer: this.numbers }, { buffer: this.given }, target.texture.createView()]));
    pass.dispatchWorkgroups(Math.ceil(part.width / 8), Math.ceil(part.height / 8));
    pass.end();
    queue.submit([work.finish()]);
  }

  // The canvas that is seen lies below the page's, which stays free for WebGL.
  get surface() {
    if (!this.seen) {
      this.seen = document.createElement("canvas");
      this.seen.className = "below";
      this.canvas.before(this.seen);
      this.context = this.seen.getContext("webgpu");
      this.context.configure({ device: this.device, format: "rgba8unorm", alphaMode: "opaque" });
    }
    const { width, height } = this.canvas;
    if (this.seen.width !== width) this.seen.width = width;
    if (this.seen.height !== height) this.seen.height = height;
    return this.context.getCurrentTexture();
  }

  drawImage(from, to) {
    const view = (to ? to.texture : this.surface).createView();
    const work = this.device.createCommandEncoder();
    const pass = work.beginRenderPass({
      colorAttachments: [{ view, loadOp: "clear", storeOp: "store" }] });
    pass.setPipeline(this.copy);
    pass.setBindGroup(0, this.bind(this.copy,
      [from.texture.createView(), this.samplers[from.smooth ? "linear" : "nearest"]]));
    pass.draw(3);
    pass.end();
    this.device.queue.submit([work.finish()]);
  }

  async finish() {
    const began = performance.now();
    await this.device.queue.onSubmittedWorkDone();
    if (this.successor) throw new Error("The graphics device was lost.");
    return performance.now() - began;
  }

  async readTarget(target) {
    const { width, height, float } = target, bytes = float ? 16 : 4;
    const row = 256 * Math.ceil(width * bytes / 256); // as WebGPU copies
    const buffer = this.makeBuffer(row * height, GPUBufferUsage.MAP_READ);
    const work = this.device.createCommandEncoder();
    work.copyTextureToBuffer(target, { buffer, bytesPerRow: row }, [width, height]);
    this.device.queue.submit([work.finish()]);
    await buffer.mapAsync(GPUMapMode.READ);
    const kind = float ? Float32Array : Uint8Array, all = buffer.getMappedRange();
    const found = new kind(4 * width * height);
    for (let y = 0; y < height; y++) // from the bottom
      found.set(new kind(all, row * (height - 1 - y), 4 * width), 4 * width * y);
    buffer.destroy();
    return found;
  }

  async draw(uniforms, moving = false) {
    this.last = uniforms;
    return this.ask(() => super.draw(uniforms, moving), next => next.draw(uniforms, moving));
  }

  async read(width, height, uniforms, exact = false) {
    const which = this.function;
    return this.ask(async () => {
      if (exact) this.exact = await this.link("rgba32float");
      return which === this.function ? super.read(width, height, uniforms, exact) : null;
    }, next => next.read(width, height, uniforms, exact));
  }

  // What act() finds; where this device fails or is lost, what the painter after it finds.
  async ask(act, instead) {
    this.asked++;
    try {
      await this.ready;
      const found = await act();
      if (!this.successor) return found;
    } catch (error) {
      this.end(error.message);
    } finally {
      this.asked--;
    }
    return instead(await this.successor);
  }

  // WebGL goes on; it draws what was seen where nothing waits for it.
  end(why) {
    if (this.successor) return;
    const idle = !this.asked && this.last;
    this.successor = Promise.resolve().then(() => {
      if (this.seen) this.seen.remove();
      if (this.device) this.device.destroy();
      return this.follow(why, this.held);
    });
    this.successor.then(next => idle && next.draw(this.last)).catch(fail);
  }
}

// The painter of a page; the footer's title says which it is. ``?draw=webgl`` behind the address
// asks for WebGL.
function choosePainter(page, canvas) {
  const footer = document.querySelector("footer");
  const numbers = readNumbers(page.about, page.which);
  const useGl = (why, held = numbers) => {
    footer.title = `Drawn by WebGL 2: ${why.split("\n")[0].replace(/\.$/, "")}.`;
    return page.painter = new Painter(canvas, find("shader").textContent, held);
  };
  if (new URLSearchParams(location.search).get("draw") === "webgl")
    return useGl("the address asks for it");
  if (!navigator.gpu) return useGl("this browser has no WebGPU here");
  footer.title = "Drawn by WebGPU.";
  return new GpuPainter(canvas, find("compute").textContent, numbers, useGl);
}
