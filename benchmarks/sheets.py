"""Pictures of docs/results: test data, and how the rows of a table reconstruct or sample.

    python benchmarks/sheets.py TABLE --runs FOLDER [--count 8] [--samples] [--rows ROW ...]

FOLDER holds the runs of ``benchmarks/cells.py``, whose first seed is drawn. The first line of
``docs/images/TABLE-sheet.png`` are test data, evenly spaced, each further line is a row of the
table; of scenes the first view that is held out. Data that may not be published are refused.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from cell_figures import spread
from cells import Cell, read_cells
from torch import Tensor

from fieldloom import export, load
from fieldloom.assembly import open_source
from fieldloom.errors import unknown
from fieldloom.modalities.views import select_views
from fieldloom.system import System
from fieldloom.types import Data

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"

PUBLISHED = {
    "caltech101_178.npz": "CC BY 4.0",
    "fashion_mnist.npz": "MIT",
    "hires_forest_6016x4016.jpg": "CC0",
    "hires_mars_8192x4096.jpg": "CC BY 4.0",
    "hires_pluto_4408x4344.jpg": "public domain",
    "meshes_cc0.npz": "CC0",
    "multiview128.npz": "CC0",
    "portraits256.npz": "MIT, mostly works of the US government",
}
"""Data whose licence allows pictures of them."""

HEIGHT = 96


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table")
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--samples", action="store_true", help="samples instead, and no data")
    parser.add_argument("--rows", nargs="*", help="in this order; default: all that have runs")
    asked = parser.parse_args()
    every = read_cells([0])
    cells = {cell.row: cell for cell in every if cell.table == asked.table}
    if not cells:
        parser.error(str(unknown("table", asked.table, {cell.table for cell in every})))
    names = sorted({cell.data for cell in cells.values()})
    if hidden := [name for name in names if name not in PUBLISHED]:
        parser.error(f"{hidden[0]}: its licence does not allow pictures of it.")
    if strange := [name for name in asked.rows or () if name not in cells]:
        parser.error(str(unknown("row", strange[0], cells)))
    there = {row: cell for row, cell in cells.items() if is_trained(cell, asked.runs)}
    if missing := [name for name in asked.rows or () if name not in there]:
        parser.error(f"no finished run of {missing[0]} in {asked.runs}.")
    if not there:
        parser.error(f"no finished run of {asked.table} in {asked.runs}.")
    drawn = [there[row] for row in asked.rows or there]
    draw = draw_samples if asked.samples else draw_reconstructions
    lines = draw([load(run_of(cell, asked.runs), "cpu") for cell in drawn], asked.count)
    columns = len(lines) // (len(drawn) + (not asked.samples))  # there may be fewer data
    path = IMAGES / f"{asked.table}-sheet.png"
    export.png(export.sheet(lines, columns, HEIGHT), path)
    licences = ", ".join(PUBLISHED[name] for name in names)
    print(f"{path}: {', '.join(cell.row for cell in drawn)} ({licences})")


def run_of(cell: Cell, runs: Path) -> Path:
    return runs / cell.folder / "run"


def is_trained(cell: Cell, runs: Path) -> bool:
    return (run_of(cell, runs) / "model.safetensors").is_file()


def draw_reconstructions(systems: list[System], count: int) -> Tensor:
    """Test data, and below them what each system makes of them: (lines * count, 3, h, w)."""
    first = systems[0]
    source = open_source(first.recipe, first.modality)
    data = source.read(spread(source.test, count))
    shown = first_held_out(first, data) if data.cameras is not None else data
    lines = [in_colours(first, shown.as_float().tensor)]
    for system in systems:
        codes = system.encode(data)
        lines.append(in_colours(system, system.predict_at(codes, shown).clamp().tensor))
    return torch.cat(lines)


def draw_samples(systems: list[System], count: int) -> Tensor:
    """Samples of each system, a line of ``count``."""
    return torch.cat([in_colours(system, system.sample(count).tensor) for system in systems])


def first_held_out(system: System, data: Data) -> Data:
    """Of scenes, the first view that no code is found from."""
    kept = system.modality.count_seen(data)  # type: ignore[attr-defined]
    return select_views(data, slice(kept, kept + 1))


def in_colours(system: System, data: Tensor) -> Tensor:
    """Images (count, 3, height, width), of several views the first."""
    images = [system.modality.to_image(datum) for datum in data]
    assert all(image is not None for image in images)
    return torch.stack([image.expand(3, -1, -1) for image in images if image is not None])


if __name__ == "__main__":
    main()
