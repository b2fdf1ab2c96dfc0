"""The shader of every field gives the field's values in a browser."""

import base64
import json
import math

import pytest
import torch

from browser import WEBGPU, browse, find_browser
from fieldloom.fields import Siren
from fieldloom.programs import compile_field, run
from fieldloom.programs.dialects import ROW
from fieldloom.programs.program import Builder
from fieldloom.programs.shader import write_shader
from programs.test_fields import FIELDS, draw_weights

SIZE = 24

PAGE = """<!doctype html><canvas id="c"></canvas><script>
function evaluate(source, numbers, size) {
  const gl = document.getElementById("c").getContext("webgl2");
  gl.getExtension("EXT_color_buffer_float");
  const compile = (kind, text) => {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text); gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw gl.getShaderInfoLog(shader);
    return shader;
  };
  const program = gl.createProgram();
  gl.attachShader(program, compile(gl.VERTEX_SHADER, `#version 300 es
void main() { gl_Position = vec4(vec2(gl_VertexID % 2, gl_VertexID / 2) * 4.0 - 1.0, 0, 1); }`));
  gl.attachShader(program, compile(gl.FRAGMENT_SHADER, source));
  gl.linkProgram(program); gl.useProgram(program);
  const bytes = Uint8Array.from(atob(numbers), x => x.charCodeAt(0));
  const row = %d, rows = bytes.length / 16 / row;
  gl.activeTexture(gl.TEXTURE0);
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA32F, row, rows, 0, gl.RGBA, gl.FLOAT,
                new Float32Array(bytes.buffer));
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
  const target = gl.createTexture();
  gl.activeTexture(gl.TEXTURE1); gl.bindTexture(gl.TEXTURE_2D, target);
  gl.texStorage2D(gl.TEXTURE_2D, 1, gl.RGBA32F, size, size);
  gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
  gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, target, 0);
  gl.viewport(0, 0, size, size);
  gl.drawArrays(gl.TRIANGLES, 0, 3);
  const found = new Float32Array(4 * size * size);
  gl.readPixels(0, 0, size, size, gl.RGBA, gl.FLOAT, found);
  return JSON.stringify([...found]);
}
</script>""".replace("%d", str(ROW))

MAIN = """
out vec4 colour;
void main() {
  vec4[1] x;
  x[0] = vec4(gl_FragCoord.yx / float(%d) * 2.2 - 1.1, 0.0, 0.0);
  colour = field(x)[0];
}
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    if find_browser() is None:
        pytest.skip("needs Chromium")
    folder = tmp_path_factory.mktemp("browser")
    path = folder / "page.html"
    path.write_text(PAGE + GPU_SCRIPT)
    with browse(folder / "profile", WEBGPU) as page:
        page.open(path, 400)
        yield page


def evaluate(page, shader, size=SIZE, main=None):
    """What main draws: the first block of the values on [-1.1, 1.1]^2, rows from low to high."""
    source = "#version 300 es\n" + shader.source + (main or MAIN % size)
    rows = math.ceil(len(shader.numbers) / ROW)
    numbers = torch.zeros(rows * ROW, 4)
    numbers[: len(shader.numbers)] = shader.numbers
    packed = base64.b64encode(numbers.numpy().tobytes()).decode()
    told = page.call(
        "Runtime.evaluate",
        expression=f"evaluate({json.dumps(source)}, '{packed}', {size})",
        returnByValue=True,
    )
    assert "exceptionDetails" not in told, (told, source)
    return torch.tensor(json.loads(told["result"]["value"]), dtype=torch.float32).view(-1, 4)


@pytest.mark.parametrize("name", FIELDS)
def test_a_shader_gives_the_values_of_its_field(name, page):
    kind, settings = FIELDS[name]
    field = kind(2, 3, **settings)
    weights = draw_weights(field)
    if "grid.weight" in weights:
        weights["grid.weight"] *= 1e3
    program = compile_field(field, weights, 2)
    at = (torch.arange(SIZE) + 0.5) / SIZE * 2.2 - 1.1
    coords = torch.cartesian_prod(at, at)
    right = run(program, coords)
    found = evaluate(page, write_shader(program))
    assert found[:, 3].abs().max() == 0
    far = (found[:, :3] - right).abs().amax(1)
    assert (far > 1e-3 * right.abs().max()).float().mean() <= 0.002, far.max()


PHASES = """
out vec4 colour;
void main() {
  vec2 p = gl_FragCoord.yx - 0.5;
  float phase = p.x * 45.0 + p.y - 1000.0 + 0.25;
  colour = vec4(sine(vec4(phase)).x, cosine(vec4(phase)).x, sine_of_turns(vec4(phase)).x, 0.0);
}
"""


def test_sines_of_phases_up_to_a_thousand(page):
    field = Siren(2, 3, width=4, depth=2)
    shader = write_shader(compile_field(field, draw_weights(field), 2))
    size = 45
    found = evaluate(page, shader, size, PHASES).double()
    phase = torch.arange(size**2, dtype=torch.float64) - 999.75
    right = torch.stack([phase.sin(), phase.cos(), (math.tau * phase).sin()], 1)
    assert (found[:, :3] - right).abs().max() < 1e-6


def test_a_sum_of_values_that_lie_apart(page):
    builder = Builder(2)
    x = builder.coords()
    parts = [builder.linear(x, torch.randn(2, n), torch.randn(n)) for n in (3, 2, 5)]
    builder.linear(builder.add_up(builder.concat(*parts[:2]), parts[2]), torch.randn(5, 3))
    program = builder.program()
    at = (torch.arange(SIZE) + 0.5) / SIZE * 2.2 - 1.1
    right = run(program, torch.cartesian_prod(at, at))
    assert (evaluate(page, write_shader(program))[:, :3] - right).abs().max() < 1e-4


COMPUTE = """
@group(0) @binding(1) var<storage, read_write> found: array<vec4f>;
@compute @workgroup_size(32) fn main(@builtin(global_invocation_id) id: vec3u) {
  let place = vec2f(f32(id.x / SIZEu), f32(id.x % SIZEu)) + 0.5;
  var x: array<vec4f, 1>;
  x[0] = vec4f(place / f32(SIZEu) * 2.2 - 1.1, 0.0, 0.0);
  if (id.x < SIZEu * SIZEu) { found[id.x] = field(x)[0]; }
}
""".replace("SIZE", str(SIZE))

GPU_SCRIPT = """<script>
let device = null;
async function compute(source, numbers, count) {
  if (!device) {
    const adapter = await navigator.gpu?.requestAdapter();
    if (!adapter) return null;
    device = await adapter.requestDevice();
  }
  const module = device.createShaderModule({ code: source });
  const wrong = (await module.getCompilationInfo()).messages.filter(x => x.type === "error");
  if (wrong.length) throw wrong.map(x => `${x.lineNum}: ${x.message}`).join("; ");
  const bytes = Uint8Array.from(atob(numbers), x => x.charCodeAt(0));
  const usage = GPUBufferUsage;
  const make = (size, how) => device.createBuffer({ size, usage: how });
  const weights = make(bytes.length, usage.STORAGE | usage.COPY_DST);
  device.queue.writeBuffer(weights, 0, bytes);
  const found = make(16 * count, usage.STORAGE | usage.COPY_SRC);
  const read = make(16 * count, usage.MAP_READ | usage.COPY_DST);
  const pipeline = device.createComputePipeline({ layout: "auto", compute: { module } });
  const entries = [weights, found].map((buffer, binding) => ({ binding, resource: { buffer } }));
  const group = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
  const work = device.createCommandEncoder(), pass = work.beginComputePass();
  pass.setPipeline(pipeline); pass.setBindGroup(0, group);
  pass.dispatchWorkgroups(Math.ceil(count / 32)); pass.end();
  work.copyBufferToBuffer(found, 0, read, 0, 16 * count);
  device.queue.submit([work.finish()]);
  await read.mapAsync(GPUMapMode.READ);
  return JSON.stringify([...new Float32Array(read.getMappedRange())]);
}
</script>"""


@pytest.mark.parametrize("name", FIELDS)
def test_wgsl_gives_the_values_of_its_field(name, page):
    kind, settings = FIELDS[name]
    field = kind(2, 3, **settings)
    weights = draw_weights(field)
    if "grid.weight" in weights:
        weights["grid.weight"] *= 1e3
    program = compile_field(field, weights, 2)
    shader = write_shader(program, "wgsl")
    packed = base64.b64encode(shader.numbers.numpy().tobytes()).decode()
    source = json.dumps(shader.source + COMPUTE)
    told = page.call(
        "Runtime.evaluate", expression=f"compute({source}, '{packed}', {SIZE * SIZE})",
        awaitPromise=True, returnByValue=True,
    )  # fmt: skip
    assert "exceptionDetails" not in told, (told, shader.source)
    value = told["result"].get("value")
    if value is None:
        pytest.skip("this Chromium has no WebGPU")
    at = (torch.arange(SIZE) + 0.5) / SIZE * 2.2 - 1.1
    right = run(program, torch.cartesian_prod(at, at))
    found = torch.tensor(json.loads(value), dtype=torch.float32).view(-1, 4)[:, :3]
    far = (found - right).abs().amax(1)
    assert (far > 1e-3 * right.abs().max()).float().mean() <= 0.002, far.max()
