"""The shader of every field gives the field's values in a browser."""

import base64
import json
import math

import pytest
import torch

from browser import browse, find_browser
from fieldloom.programs import compile_field, run
from fieldloom.programs.dialects import ROW
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
    path.write_text(PAGE)
    with browse(folder / "profile") as page:
        page.open(path, 400)
        yield page


def evaluate(page, shader, size=SIZE):
    """The first block of the values on a square of [-1.1, 1.1], rows from low to high."""
    source = "#version 300 es\n" + shader.source + MAIN % size
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
