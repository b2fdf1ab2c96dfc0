"""The grid of pictures at the head of README.md, from short trainings.

    python benchmarks/gallery.py --data DATA --runs RUNS --letters outputs/demo

Trains what RUNS does not hold yet (each run in a folder of its own, one thread, nine minutes of CPU
in all; stopped, it goes on where it was) and draws ``docs/images/gallery.webp``.
DATA holds the files of ``TRAININGS``, ``meshes_cc0.npz`` and ``multiview128.npz``; the letters are
those of ``fieldloom demo``. What made each is written into ``benchmarks/results/gallery.json``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch.nn.functional import avg_pool2d, interpolate, normalize

from fieldloom import atomic, export, load
from fieldloom.engine import device as devices
from fieldloom.engine.run import Run
from fieldloom.geometry.cameras import orbit
from fieldloom.geometry.preview import preview
from fieldloom.inputs import held_out_part
from fieldloom.types import Cameras

HERE = Path(__file__).parent
PICTURE = HERE.parent / "docs" / "images" / "gallery.webp"
RESULTS = HERE / "results" / "gallery.json"

SIDE, GAP = 600, 14
"""Pixels of a picture's side in the grid, and between two of them."""
HALF, THIRD = 298, 198
"""The same of pictures that are made of 2 x 2 and of 3 x 3 others."""
QUALITY = 90
"""Of WebP."""
THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")

WORD = "FIELDLOOM"
MESHES = ("Stag", "Triceratops", "Sail_ship", "Horse")
OBJECT = "Viking_boat"
PORTRAITS, REFINE = (7, 31, 3), 300
"""Which of the portraits that were held out; steps of refinement of each."""
PLACE = (0.63, 0.267)
"""Where the zoom goes to: fractions of height and width."""


SECONDS = "CPU seconds: "


class Training(NamedTuple):
    """words: of the command, but ``--run``; ``file`` stands in place of FILE."""

    file: str
    words: tuple[str, ...]


def fit(file: str, steps: int, *more: str) -> Training:
    return Training(file, ("fit", "FILE", "--set", f"train.field.steps={steps}", *more))


TRAININGS = {
    "zoom": fit("hires_pluto_4408x4344.jpg", 1500),
    "globe": fit("hires_mars_8192x4096.jpg", 800, "--as", "sphere"),
    **{f"mesh-{name}": fit(f"{name}.ply", 600) for name in MESHES},
    "scene": fit(f"{OBJECT}.npz", 1200),
    "portraits": Training(
        "portraits256.npz",
        ("train", "ipc:faces64", "--stage", "field", "--set", "source.path=FILE", "--set",
         "modality.size=128", "--set", "encoder.patch=16", "--set", "train.field.points=512",
         "--set", "train.field.steps=700"),
    ),
}  # fmt: skip


# -- training


def train(data: Path, runs: Path, trainings: Mapping[str, Training]) -> None:
    """What is not trained yet, one after another."""
    for name, training in trainings.items():
        run = runs / name
        if (run / "model.safetensors").is_file():
            continue
        words = [str(file_of(training.file, data, runs)) if x == "FILE" else
                 x.replace("FILE", str(data / training.file)) for x in training.words]  # fmt: skip
        if (run / "recipe.toml").is_file():
            words = ["train", "--resume"]
        before = seconds_of_children()
        command = [sys.executable, "-m", "fieldloom", *words, "--run", str(run)]
        told = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=os.environ | THREAD)
        spent = seconds_of_children() - before
        with (runs / f"{name}.txt").open("a") as file:
            file.write(f"{told.stdout}{SECONDS}{spent:.1f}\n")
        told.check_returncode()


def seconds_of_children() -> float:
    """CPU seconds of the processes that were started and have ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def file_of(name: str, data: Path, runs: Path) -> Path:
    """A file of the data; a single mesh, or the views of one object, out of its packed file."""
    if (data / name).is_file():
        return data / name
    path = runs / name
    if path.is_file():
        return path
    runs.mkdir(parents=True, exist_ok=True)
    packed = np.load(data / ("meshes_cc0.npz" if path.suffix == ".ply" else "multiview128.npz"))
    i = int(np.flatnonzero(packed["name"] == path.stem)[0])
    if path.suffix == ".ply":
        vertices, faces = (
            packed[key][packed[at][i] : packed[at][i + 1]]
            for key, at in (("verts", "vert_offsets"), ("faces", "face_offsets"))
        )
        return export.mesh(vertices.astype(np.float64), faces.astype(np.int64), path)
    offsets = packed["offsets"][24 * i : 24 * i + 25]
    kept = {key: packed[key] for key in ("height", "width", "focal", "camera_radius")}
    np.savez(
        path,
        data=packed["data"][offsets[0] : offsets[-1]],
        offsets=offsets - offsets[0],
        c2w=packed["c2w"][i : i + 1],
        **kept,
    )
    return path


# -- pictures, each uint8 (SIDE, SIDE, 3 or 4), and the figures that belong to it


class Panel(NamedTuple):
    image: NDArray[np.uint8]
    figures: dict[str, float]


def draw_letters(run: Path) -> Panel:
    """A sample of each letter of the name."""
    made = load(run, "cpu").sample(len(WORD), THIRD, label=list(WORD), guidance=2.0).tensor
    return Panel(mosaic([export.pixels(x) for x in made], 3), {})


def draw_portraits(run: Path) -> Panel:
    """Rows: as the transformer encodes them in one pass, all weights refined, the originals."""
    system = load(run, "cpu")
    source, held = held_out_part(system)
    data = source.read(held[list(PORTRAITS)])
    refined = system.refine(data, "weights", steps=REFINE, rate=1e-3, points=4096)
    rows = [
        system.decode(refined.start, THIRD).tensor,
        refined.system.decode(refined.code, THIRD).tensor,
        interpolate(data.as_float().tensor, THIRD, mode="bicubic").clamp(0, 1),
    ]
    figures = {"psnr": refined.before.mean().item(), "psnr refined": refined.after.mean().item()}
    return Panel(mosaic([export.pixels(x) for row in rows for x in row], 3), figures)


def draw_shapes(runs: list[Path], azimuth: float = -30.0, fill: float = 0.86) -> Panel:
    """The surfaces of four fields, each as large as its tile allows."""
    tiles = []
    for run in runs:
        system = load(run, "cpu")
        mesh = system.mesh(system.as_code(None))
        span = 0.0 if mesh is None else fill * float(np.linalg.norm(mesh.vertices, axis=1).max())
        tiles.append(preview(mesh, HALF, azimuth=azimuth, span=span))
    return Panel(mosaic(tiles, 2), {})


def draw_scene(run: Path, zoom: float = 1.5, elevation: float = 22.0) -> Panel:
    """Four views from cameras that are not among those of the data."""
    system = load(run, "cpu")
    own = system.modality.cameras(1)
    assert own is not None
    radius = own.c2w[0, :3, 3].norm().item()
    c2w = orbit(24, radius, elevation)[[3, 6, 14, 21]]
    f, _, cx, cy = own.intrinsics[0].tolist()
    intrinsics = torch.tensor([zoom * f, zoom * f, cx, cy]).expand(len(c2w), 4)
    views = system.decode(None, (HALF, HALF), Cameras(c2w, intrinsics)).tensor[0]
    return Panel(mosaic([export.pixels(x) for x in views], 2), {})


def draw_zoom(run: Path, centre: tuple[float, float] = PLACE, by: int = 3) -> Panel:
    """The whole, and three windows, each a third as wide as the one before and framed in it."""
    system, side = load(run, "cpu"), HALF
    rows, columns = system.modality.shape()
    widths = [min(rows, columns) * by**-i for i in range(4)]
    corners = [
        [min(max(c * n - w / 2, 0), n - w) for c, n in zip(centre, (rows, columns), strict=True)]
        for w in widths
    ]
    tiles = []
    for width, (top, left) in zip(widths, corners, strict=True):
        window = ((top / rows, (top + width) / rows), (left / columns, (left + width) / columns))
        strips = system.strips(system.as_code(None), (2 * side, 2 * side), window)
        drawn = torch.cat([strip for _, strip in strips], 1).clamp(0, 1)
        tiles.append(Image.fromarray(export.pixels(avg_pool2d(drawn, 2))))
    for tile, width, corner, inner in zip(tiles, widths, corners, corners[1:], strict=False):
        first = [round((b - a) / width * side) for a, b in zip(corner, inner, strict=True)]
        frame(tile, first[0], first[1], round(side / by))
    return Panel(mosaic([np.asarray(tile) for tile in tiles], 2), {})


def draw_globe(run: Path, latitude: float = -8.0, longitude: float = -75.0) -> Panel:
    """The field at the points of a sphere that are seen from far away, lit from the left."""
    system, fine = load(run, "cpu"), 2
    steps = (torch.arange(fine * SIDE, dtype=torch.float64) + 0.5) / (fine * SIDE) * 2 - 1
    y, x = torch.meshgrid(-steps, steps, indexing="ij")
    inside = x * x + y * y < 1
    seen = torch.stack([x, y, (1 - x * x - y * y).clamp_min(0).sqrt()], -1)[inside]
    tilt, turn = math.radians(latitude), math.radians(longitude)
    toward = torch.tensor([math.cos(tilt) * math.cos(turn), math.cos(tilt) * math.sin(turn),
                           math.sin(tilt)], dtype=torch.float64)  # fmt: skip
    right = torch.tensor([-math.sin(turn), math.cos(turn), 0.0], dtype=torch.float64)
    axes = torch.stack([right, torch.linalg.cross(toward, right), toward])
    colour = system.values_of(system.as_code(None))((seen @ axes).float()[None])[0].clamp(0, 1)
    light = seen @ normalize(seen.new_tensor([-0.5, 0.35, 0.8]), dim=0)
    shaded = colour * (0.25 + 0.85 * light.clamp_min(0)).clamp_max(1).float().unsqueeze(1)
    image = torch.zeros(4, fine * SIDE, fine * SIDE)
    image[:3, inside], image[3, inside] = shaded.T, 1.0
    image = avg_pool2d(image, fine)
    image[:3] /= image[3].clamp_min(1e-6)  # straight alpha
    return Panel((255 * image.clamp(0, 1)).round().byte().movedim(0, -1).numpy(), {})


def mosaic(tiles: list[NDArray[np.uint8]], columns: int) -> NDArray[np.uint8]:
    """Tiles side by side on white, without a margin."""
    gap = (SIDE - columns * tiles[0].shape[1]) // (columns - 1)
    return export.join_tiles(tiles, columns, gap)[gap:-gap, gap:-gap]


def frame(tile: Image.Image, top: int, left: int, side: int) -> None:
    """Draw the outline of a square into a tile, white between black."""
    pen = ImageDraw.Draw(tile)
    for grown, colour in ((1, "black"), (-1, "black"), (0, "white")):
        first, last = (left - grown, top - grown), (left + side + grown, top + side + grown)
        pen.rectangle((first, last), outline=colour)


def join(panels: list[NDArray[np.uint8]], columns: int = 3) -> Image.Image:
    """The grid, transparent between its pictures, for light and dark pages."""
    rows, step = -(-len(panels) // columns), SIDE + GAP
    grid = Image.new("RGBA", (columns * step - GAP, rows * step - GAP))
    for i, panel in enumerate(panels):
        place = i % columns * step, i // columns * step
        grid.paste(Image.fromarray(panel).convert("RGBA"), place)
    return grid


def draw(runs: Path, letters: Path) -> dict[str, Panel]:
    """Name -> picture, in the order of the grid."""
    return {
        "letters": draw_letters(letters),
        "portraits": draw_portraits(runs / "portraits"),
        "shapes": draw_shapes([runs / name for name in TRAININGS if name.startswith("mesh-")]),
        "scene": draw_scene(runs / "scene"),
        "zoom": draw_zoom(runs / "zoom"),
        "globe": draw_globe(runs / "globe"),
    }


# -- what made them


def collect(runs: Path, letters: Path, panels: dict[str, Panel]) -> dict[str, Any]:
    """Commands, CPU seconds of one thread, and what was measured."""
    return {
        "command": "python benchmarks/gallery.py (see its head)",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "environment": devices.environment(torch.device("cpu")),
        "seed": 0,
        "letters": {"command": "fieldloom demo", "steps": steps_of(letters)},
        "trainings": {name: describe(name, runs, x) for name, x in TRAININGS.items()},
        "figures": {name: panel.figures for name, panel in panels.items() if panel.figures},
    }


def steps_of(run: Path) -> dict[str, int]:
    """Stage -> its steps, as they stand in the run's recipe."""
    stages = Run(run).read_recipe()["train"]
    return {name: stages[name]["steps"] for name in ("field", "prior")}


def describe(name: str, runs: Path, training: Training) -> dict[str, Any]:
    """What a training was, took and told."""
    lines = (runs / f"{name}.txt").read_text().splitlines()
    words = " ".join(word.replace("FILE", training.file) for word in training.words)
    spent = [float(x.removeprefix(SECONDS)) for x in lines if x.startswith(SECONDS)]
    told = [line for line in lines if "PSNR" in line or "IoU" in line]
    seconds = round(sum(spent)) if spent else None
    return {"command": f"fieldloom {words}", "cpu seconds": seconds, "told": told}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--letters", type=Path, default=Path("outputs/demo"))
    parser.add_argument("--only", nargs="+", choices=TRAININGS, help="train these, draw nothing")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    train(asked.data, asked.runs, {name: TRAININGS[name] for name in asked.only or TRAININGS})
    if asked.only:
        return
    panels = draw(asked.runs, asked.letters)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    join([panel.image for panel in panels.values()]).save(PICTURE, quality=QUALITY, method=6)
    atomic.write_text(
        json.dumps(collect(asked.runs, asked.letters, panels), indent=1) + "\n", RESULTS
    )


if __name__ == "__main__":
    main()
