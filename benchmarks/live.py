"""The pages of docs/gallery.md, and the pictures that lead to them.

    python benchmarks/live.py --data DATA --runs RUNS

Trains what RUNS does not hold yet (as ``gallery.py`` does: a folder each, one thread, stopped it
goes on where it was) and writes ``docs/live/NAME.html`` and ``NAME.webp`` for each of ``PAGES``.
DATA holds the files of ``PAGES`` and ``meshes_cc0.npz`` and ``multiview128.npz``. What made each,
and its size, is written into ``benchmarks/results/live.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from gallery import Training, describe, draw_globe, file_of, fit, train
from numpy.typing import NDArray
from PIL import Image

from fieldloom import System, atomic, export, export_field, load, open_codes
from fieldloom.engine import device as devices
from fieldloom.geometry.preview import preview
from fieldloom.inputs import source_of
from fieldloom.pages import compile_code
from fieldloom.programs.run import lose_by_half
from fieldloom.types import Code

HERE = Path(__file__).parent
FOLDER = HERE.parent / "docs" / "live"
RESULTS = HERE / "results" / "live.json"

SIDE, QUALITY = 300, 85
"""Pixels of a picture's longer side, and its quality as WebP."""

LETTERS, STEPS = "LOM", 3
"""What the slider goes through, and its steps from one to the next."""

SIREN = ("--set", "field=siren", "--set", "field.width=80")
"""Of 20 thousand numbers: small enough for a page of less than 150 kB."""
BOAT = ("--set", "field.grid.levels=5", "--set", "field.grid.log2_hashmap_size=11",
        "--set", "field.width=32", "--set", "field.head.width=32",
        "--set", "renderer.resolution=24")  # fmt: skip


# -- pictures, each uint8 (height, width, 3 or 4)


def draw_letters(system: System, codes: Code) -> NDArray[np.uint8]:
    """The letters, and what lies between them."""
    return export.sheet(system.decode(codes, SIDE // 4).tensor, 4, gap=0)


def draw_plane(system: System, codes: Code) -> NDArray[np.uint8]:
    shape = system.modality.shape()
    size = tuple(round(SIDE * n / max(shape)) for n in shape)
    return export.pixels(system.decode(codes, size).tensor[0])


def draw_surface(system: System, codes: Code) -> NDArray[np.uint8]:
    mesh = system.mesh(codes, 128)
    span = 0.0 if mesh is None else 0.86 * float(np.linalg.norm(mesh.vertices, axis=1).max())
    return preview(mesh, SIDE, azimuth=-30.0, span=span)


def draw_view(system: System, codes: Code) -> NDArray[np.uint8]:
    """From where the page begins."""
    views = system.decode(codes, (SIDE, SIDE), system.modality.cameras(1)).tensor
    return export.pixels(views[0, 0])


class Page(NamedTuple):
    """training: of its run. title: of the page. draw: its picture, of a system and the page's
    codes; None: the globe's."""

    training: Training
    title: str
    draw: Callable[[System, Code], NDArray[np.uint8]] | None


PAGES = {
    "letters": Page(
        Training("", ("train", "mnif:letters", "--stage", "field")),
        "Letters of DejaVu, and what lies between them",
        draw_letters,
    ),
    "pluto": Page(
        fit("hires_pluto_4408x4344.jpg", 800, *SIREN),
        "Pluto. Picture: NASA/JHUAPL/SwRI, public domain",
        draw_plane,
    ),
    "mars": Page(
        fit("hires_mars_8192x4096.jpg", 800, "--as", "sphere", *SIREN),
        "Mars. Map: Solar System Scope, CC BY 4.0; this is a fit of it",
        None,
    ),
    "stag": Page(
        fit("Stag.ply", 800, "--set", "field=siren", "--set", "field.width=64",
            "--set", "train.field.points=4096"),
        "A stag. Mesh: Quaternius, CC0",
        draw_surface,
    ),
    "boat": Page(
        fit("Viking_boat.npz", 1000, *BOAT),
        "A Viking boat, from 24 views. Model: Quaternius, CC0",
        draw_view,
    ),
}  # fmt: skip


def choose_codes(system: System, run: Path) -> tuple[Code, list[str]]:
    """The functions of a page, and their names: of the letters, steps between training codes."""
    if not system.family.has_code:
        return system.as_code(None), []
    source, held = source_of(system), open_codes(run / "codes.safetensors", system)
    assert source.labels is not None
    labels = source.labels[source.train]
    places = [int((labels == source.names.index(x)).nonzero()[0]) for x in LETTERS]
    found, names = [], []
    for i in range(len(LETTERS) - 1):
        first, last = held[places[i : i + 2]]
        for step in range(STEPS):
            found.append(torch.lerp(first, last, step / STEPS))
            names.append(f"{LETTERS[i]} to {LETTERS[i + 1]}, {step} of {STEPS}")
    return torch.stack([*found, held[places[-1]]]), [*names, LETTERS[-1]]


def write(name: str, run: Path) -> dict[str, float]:
    """The page and the picture of a run; returns its bytes, and what half precision costs."""
    system, page = load(run, "cpu"), PAGES[name]
    codes, names = choose_codes(system, run)
    path, *_ = export_field(
        system, FOLDER / f"{name}.html", codes, names, title=page.title, half=True,
        slider=len(codes) > 1, overwrite=True,
    )  # fmt: skip
    drawn = draw_globe(run).image if page.draw is None else page.draw(system, codes)
    picture = Image.fromarray(drawn)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    picture.save(FOLDER / f"{name}.webp", quality=QUALITY, method=6)
    lost = lose_by_half(compile_code(system, codes[:1]))
    return {"bytes": path.stat().st_size, "lost by half": round(lost, 5)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=PAGES, default=list(PAGES))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    trainings = {name: PAGES[name].training for name in asked.only}
    for training in trainings.values():
        if training.file:
            file_of(training.file, asked.data, asked.runs)
    train(asked.data, asked.runs, trainings)
    FOLDER.mkdir(exist_ok=True)
    pages = json.loads(RESULTS.read_text())["pages"] if RESULTS.is_file() else {}
    for name, training in trainings.items():
        size = write(name, asked.runs / name)
        pages[name] = describe(name, asked.runs, training) | size
    told = {
        "command": "python benchmarks/live.py (see its head)",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "environment": devices.environment(torch.device("cpu")),
        "seed": 0,
        "pages": pages,
    }
    atomic.write_text(json.dumps(told, indent=1) + "\n", RESULTS)


if __name__ == "__main__":
    main()
