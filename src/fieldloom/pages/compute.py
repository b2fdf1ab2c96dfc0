"""The view of a page as a compute shader of WebGPU, from the GLSL that WebGL draws it by."""

from __future__ import annotations

import re

from fieldloom.programs.translation import translate

UNIFORM = re.compile(r"^uniform (\w+) (\w+);", re.M)

SLOTS = {
    "float": ("given[{0}].x", 1),
    "vec2": ("given[{0}].xy", 1),
    "vec3": ("given[{0}].xyz", 1),
    "vec4": ("given[{0}]", 1),
    "mat3": ("mat3(given[{0}].xyz, given[{1}].xyz, given[{2}].xyz)", 3),
}
"""Type of a uniform -> how it is read from ``given``, and the vec4 that it takes there."""

HEAD = """alias mat3 = mat3x3f;
var<private> gl_FragCoord: vec4f;
fn floatBitsToUint(x: float) -> uint { return bitcast<u32>(x); }
"""

MAIN = """@group(0) @binding(1) var<uniform> given: array<vec4f, {count}>;
@group(0) @binding(2) var image: texture_storage_2d<rgba8unorm, write>;
@compute @workgroup_size(8, 8) fn draw(@builtin(global_invocation_id) id: vec3u) {{
  let part = vec4u(given[0]);
  if (id.x >= part.z || id.y >= part.w) {{ return; }}
  let place = part.xy + id.xy;
  let below = f32(textureDimensions(image).y - place.y) - 0.5;
  gl_FragCoord = vec4(f32(place.x) + 0.5, below, 0.0, 1.0);
{reads}
  show();
  textureStore(image, place, colour);
}}
"""


def write_compute(field: str, view: str) -> str:
    """WGSL that draws a part of an image.

    field: WGSL of the field. view: GLSL of the view, with ``main``. ``given`` holds the part (left,
    top, width, height) and then the uniforms, by the lines that read them.
    """
    reads, count = [], 1
    for kind, name in UNIFORM.findall(view):
        expression, slots = SLOTS[kind]
        reads.append(f"  {name} = {expression.format(*range(count, count + slots))};")
        count += slots
    text = translate(view.replace("void main()", "void show()"))
    return "".join([field, HEAD, text, MAIN.format(count=count, reads="\n".join(reads))])
