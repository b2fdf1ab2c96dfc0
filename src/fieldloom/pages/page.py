"""One HTML file that holds a field and evaluates it in the browser, without a network."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fieldloom import atomic
from fieldloom.errors import InputError, printable
from fieldloom.pages.compute import write_compute
from fieldloom.pages.description import VIEWS, Description, describe
from fieldloom.pages.still import draw_still
from fieldloom.pages.weights import divide_numbers
from fieldloom.programs import Program, compile_field
from fieldloom.programs.shader import Shader, write_shader
from fieldloom.system import System
from fieldloom.types import Code

SCRIPTS = ("painter.js", "gpu.js", "plane.js", "globe.js", "orbit.js", "gestures.js", "page.js",
           "sound.js", "start.js")  # fmt: skip
SIZES = (1024, 2048, 4096, 8192)
"""Pixels of the longer side of a saved PNG."""

KEYS = {
    "flat": "drag to move, wheel to zoom",
    "globe": "drag to turn, wheel to zoom",
    "sound": "drag to move, wheel to zoom, space to play",
    "solid": "drag to turn, with shift to move, wheel to zoom",
    "light": "drag to turn, with shift to move, wheel to zoom",
}
"""View -> what its page says below."""

BACKGROUND = "const vec3 BACKGROUND = vec3(0.5);"
"""What lies beside the data, in a shader."""

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)


def make_page(
    system: System,
    codes: Code,
    names: Sequence[str] = (),
    title: str = "",
    half: bool = False,
    slider: bool = False,
    file: str = "field",
) -> str:
    """The page of the functions of some codes (functions, tokens, width).

    names: of the functions, for the picker. half: whether weights are half-precision numbers.
    slider: whether the functions are steps, chosen by a slider instead of the picker.
    file: the name, without suffix, of PNGs that are saved from the page. Raises InputError for data
    or fields that no page shows.
    """
    names = list(names) or [str(i + 1) for i in range(len(codes))]
    if len(names) != len(codes) or not len(codes):
        raise InputError(f"names: {len(names)} for {len(codes)} functions.")
    programs = [compile_code(system, code) for code in codes.split(1)]
    shaders = [write_shader(program) for program in programs]
    described = describe(system, len(shaders[0].numbers))
    shared, own = divide_numbers([shader.numbers for shader in shaders])
    shared = torch.cat([shared, described.numbers.flatten()])
    about = described.about | {
        "file": file,
        "half": half,
        "slider": slider,
        "items": [{"name": name, "ranges": x.ranges} for name, x in zip(names, own, strict=True)],
    }
    sources = {
        "shader": write_fragment(shaders[0], described),
        "compute": write_compute(write_shader(programs[0], "wgsl").source, write_view(described)),
    }
    numbers = {"numbers": shared} | {f"numbers-{i}": x.numbers for i, x in enumerate(own)}
    packed = {name: pack(x, half) for name, x in numbers.items()}
    still = draw_still(system, codes[:1])
    return fill_page(title or names[0], names, about, sources | packed, still)


def write_page(
    system: System,
    codes: Code,
    path: str | Path,
    names: Sequence[str] = (),
    title: str = "",
    half: bool = False,
    slider: bool = False,
) -> Path:
    """Write ``make_page`` to a file. title: by default the recipe's name."""
    path = atomic.as_path(path)
    page = make_page(
        system, codes, names, title or system.settings.title or path.stem, half, slider, path.stem
    )
    return atomic.write_text(page, path)


def write_view(described: Description) -> str:
    """GLSL of what is seen, which calls the field."""
    view = read_web(VIEWS[described.about["view"]])
    return "\n".join([read_web("told.glsl"), described.shader, BACKGROUND, view])


def write_fragment(field: Shader, described: Description) -> str:
    """GLSL of the whole fragment shader: a field, and what is seen of it."""
    return "\n".join(["#version 300 es", field.source, write_view(described)])


def compile_code(system: System, code: Code) -> Program:
    """The program of one code's function, which gives values as the field does."""
    with torch.inference_mode():
        weights = system.family.conditioner(code.to(system.device))
    domain = system.render.domain(system.modality.coord_dim, system.modality.value_dim)
    return compile_field(system.family.field, weights, domain.coord + domain.direction)


def pack(numbers: Tensor, half: bool) -> str:
    """Numbers as base64 of floats. Raises InputError for such as no page can hold."""
    if not bool(numbers.isfinite().all()):
        raise InputError("weights of this field are NaN or infinite: did its training diverge?")
    kept = numbers.half() if half else numbers
    if not bool(kept.isfinite().all()):
        raise InputError("half: weights of this field are too large for half-precision numbers.")
    return base64.b64encode(kept.numpy().tobytes()).decode()


@cache
def read_web(name: str) -> str:
    """A file of ``pages/web``."""
    return (resources.files("fieldloom.pages") / "web" / name).read_text("utf-8")


def embed(value: Any) -> str:
    """A value as JSON that may stand in a script element."""
    return json.dumps(value).replace("<", "\\u003c")


def fill_page(
    title: str,
    names: Sequence[str],
    about: Mapping[str, Any],
    held: Mapping[str, str],
    still: str,
) -> str:
    """held: texts of the page, by the names of their elements."""
    told = html.escape(printable(title))
    items = "".join(
        f'<option value="{i}">{html.escape(printable(name))}</option>'
        for i, name in enumerate(names)
    )
    sizes = "".join(f"<option>{n}</option>" for n in SIZES)
    sound = about["view"] == "sound"
    saves = "The whole sound" if sound else "What is seen, so many pixels wide"
    hidden = lambda shown: "" if shown else " hidden"
    texts = "\n".join(
        f'<script type="text/plain" id="{name}">{text}</script>' for name, text in held.items()
    )
    scripts = "\n".join(read_web(name) for name in SCRIPTS)
    return f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{told}</title><link rel="icon" href="data:,">
<style>
{read_web("page.css")}</style></head>
<body class="still">
<header><h1>{told}</h1>
<select id="item" autocomplete="off" aria-label="Which one"\
{hidden(len(names) > 1 and not about["slider"])}>{items}</select>
<input id="step" type="range" autocomplete="off" min="0" max="{len(names) - 1}" value="0" \
aria-label="Step"{hidden(about["slider"])}>
<button id="play"{hidden(about["time"] or sound)}>Play</button>
<input id="time" type="range" autocomplete="off" min="0" max="1" step="any" value="0.5" \
aria-label="Time"{hidden(about["time"])}>
<input id="cut" type="range" autocomplete="off" min="0" max="1" step="any" value="1" title="Cut" \
aria-label="Cut"{hidden(about["view"] == "solid")}>
<button id="out" aria-label="Smaller" title="Smaller (-)">&minus;</button>
<button id="in" aria-label="Larger" title="Larger (+)">+</button>
<button id="fit" title="The whole (0)">Fit</button>
<button id="full" title="Full screen (f)"{hidden(not sound)}>Full screen</button>
<select id="pixels" aria-label="Pixels of the longer side of a saved PNG"{hidden(not sound)}>
{sizes}</select>
<button id="save" title="{saves} (s)">Save {"WAV" if sound else "PNG"}</button>
</header>
<div id="stage"><canvas id="canvas" tabindex="0" aria-label="{told}"></canvas>
{still and f'<img id="still" src="{still}" alt="{told}">'}
<p id="wrong" role="alert" hidden></p></div>
<footer><span id="value"></span><span id="keys">{KEYS[about["view"]]}</span>
<span id="busy" role="status"></span></footer>
<noscript><p>This page draws with JavaScript, which is off: here is a small picture.</p></noscript>
<script type="application/json" id="about">{embed(about)}</script>
{texts}
<script>
"use strict";
{scripts}</script>
</body></html>
"""
