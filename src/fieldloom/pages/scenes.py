"""GLSL of renderers: the colour of a ray, ``vec3 ray(vec3 origin, vec3 direction)``.

Each follows its renderer's equations (``renderers.volume``, ``renderers.occupancy``), by samples at
fixed places: those of ``volume``; all bins of ``occupancy`` that are not empty.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fieldloom.programs.shader import number
from fieldloom.renderers import Occupancy, Plucker, Volume
from fieldloom.system import System

DENSITIES = {
    "elu": "clamp((x < 0.0 ? 0.1 * (exp(x) - 1.0) : x) + 0.1, 0.0, 10.0)",
    "relu": "max(x, 0.0)",
    "softplus": "softplus(x - 1.0)",
    "exp": "exp(x)",
    "softplus-10": "10.0 * softplus(x - 3.0)",
}
"""Activation of densities -> its expression."""

BITS = 8
"""Cells of the grid of occupancy that a number holds: half-precision numbers hold them exactly."""


def write_scene(system: System, first: int) -> tuple[str, Tensor]:
    """GLSL of a system's renderer, and the numbers that it reads, from the texel ``first`` on."""
    modality, render = system.modality, system.render
    low, span = modality.low, modality.high - modality.low
    data = f"vec3 data(vec3 c) {{ return (c - {number(low)}) / {number(span)}; }}\n"
    if isinstance(render, Occupancy):
        return data + write_volume(render) + write_bins(render, first), pack_grid(render)
    none = torch.zeros(0, 4)
    if isinstance(render, Volume):
        return data + write_volume(render) + write_samples(render), none
    pluecker = isinstance(render, Plucker)
    body = "vec3 u = normalize(d), m = cross(o, u);" if pluecker else ""
    given = (
        "vec4(u, m.x), vec4(m.yz, 0.0, 0.0)" if pluecker else "vec4(o, d.x), vec4(d.yz, 0.0, 0.0)"
    )
    return (
        f"""{data}vec3 ray(vec3 o, vec3 d) {{
  {body}
  vec4[2] x = vec4[2]({given});
  return data(field(x)[0].xyz);
}}
""",
        none,
    )


def write_volume(render: Volume) -> str:
    """What both kinds of volume rendering share: raw values, their activations, the background."""
    seen = render.directions
    given = "vec4[2](vec4(p, d.x), vec4(d.yz, 0.0, 0.0))" if seen else "vec4[1](vec4(p, 0.0))"
    span = number(render.high - render.low)
    colour = f"{number(render.low)} + {span} / (1.0 + exp(-y.xyz))"
    behind = 0.0 if render.background is None else render.background
    return f"""float softplus(float x) {{ return max(x, 0.0) + log(1.0 + exp(-abs(x))); }}
float density(float x) {{ return {DENSITIES[render.density]}; }}
vec4 seen(vec3 p, vec3 d) {{ // colour and density
  vec4[{2 if seen else 1}] x = {given};
  vec4 y = field(x)[0];
  return vec4({colour if render.colour == "sigmoid" else "y.xyz"}, density(y.w));
}}
const vec3 BEHIND = vec3({number(behind)});
"""


def write_samples(render: Volume) -> str:
    """Samples evenly spaced in t, as of ``volume``; those of a second pass lie among them."""
    count = render.samples + render.fine
    near, step = render.near, (render.far - render.near) / (count - 1)
    last = step if render.last == "step" else render.last
    length = "length(d)" if render.by_length else "1.0"
    return f"""vec3 ray(vec3 o, vec3 d) {{
  vec3 sum = vec3(0.0), u = normalize(d);
  float through = 1.0;
  for (int k = 0; k < {count}; k++) {{
    float t = {number(near)} + float(k) * {number(step)};
    vec4 c = seen((o + t * d) / {number(render.scale)}, u);
    float delta = (k < {count - 1} ? {number(step)} : {number(last)}) * {length};
    float kept = exp(-c.w * delta);
    sum += through * (1.0 - kept) * c.xyz;
    through *= kept + 1e-10;
    if (through < 1e-4) break;
  }}
  return data(sum + through * BEHIND);
}}
"""


def write_bins(render: Occupancy, first: int) -> str:
    """The middles of all bins that the grid does not say are empty, as of ``occupancy``."""
    size, whole = render.resolution, render.contraction != "none"
    norm = {"ball": "length(q)", "cube": "max(abs(q.x), max(abs(q.y), abs(q.z)))", "none": "0.0"}
    place = "q * ((2.0 - 1.0 / r) / r) / 2.0" if whole else "q"
    warp = "t <= knee ? t / knee : 2.0 - knee / t" if whole else "t"
    unwarp = "s <= 1.0 ? s * knee : knee / (2.0 - s)" if whole else "s"
    far, scale = number(render.far), number(render.scale)
    sky = f"""
  vec4 end = seen(place(o + {far} * d), u);
  float rest = exp(-end.w * 1e10);
  sum += through * (1.0 - rest) * end.xyz;
  through *= rest;""" if whole else ""  # fmt: skip
    return f"""vec3 place(vec3 p) {{
  vec3 q = p / {scale};
  float r = max(1.0, {norm[render.contraction]});
  return {place};
}}
bool there(vec3 p) {{
  ivec3 c = clamp(ivec3(floor((p + 1.0) * {number(size / 2)})), ivec3(0), ivec3({size - 1}));
  int i = (c.x * {size} + c.y) * {size} + c.z, n = i / {BITS};
  return ((int(W({first} + n / 4)[n % 4]) >> uint(i % {BITS})) & 1) == 1;
}}
vec3 ray(vec3 o, vec3 d) {{
  vec3 sum = vec3(0.0), u = normalize(d);
  float through = 1.0, l = length(d), knee = (length(o) + {scale}) / l, t = {number(render.near)};
  float s0 = {warp};
  t = {far};
  float s1 = {warp}, before = {number(render.near)};
  for (int k = 1; k <= {render.bins}; k++) {{
    float s = mix(s0, s1, float(k) / {number(render.bins)});
    t = {unwarp};
    float middle = 0.5 * (before + t), delta = (t - before) * l;
    before = t;
    vec3 p = place(o + middle * d);
    if (!there(p)) continue;
    vec4 c = seen(p, u);
    float kept = exp(-c.w * delta);
    sum += through * (1.0 - kept) * c.xyz;
    through *= kept;
    if (through < 1e-4) break;
  }}{sky}
  return data(sum + through * BEHIND);
}}
"""


def pack_grid(render: Occupancy) -> Tensor:
    """Which cells are not empty, and their neighbours, as bits of numbers (n, 4)."""
    size, grid = render.resolution, render.grid.detach().cpu()
    length = (render.far - render.near) / render.bins
    there = ((grid < 0) | (grid * length > render.thinnest)).view(1, 1, size, size, size)
    near = F.max_pool3d(there.float(), 3, 1, 1).flatten()
    padded = F.pad(near, (0, -len(near) % (4 * BITS))).view(-1, BITS)
    return (padded * 2.0 ** torch.arange(BITS)).sum(-1).view(-1, 4)
