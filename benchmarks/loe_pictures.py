"""The pictures of docs/loe.md from finished runs of ``benchmarks/loe.py``.

    python benchmarks/loe_pictures.py errors RUNS/small-table1 ... --out errors.png
    python benchmarks/loe_pictures.py views RUNS/small-table3-pe ... --out views.png
    python benchmarks/loe_pictures.py samples RUNS/small-table4 ... --out samples.png

errors: absolute errors, 4 times as bright in every map, of the whole (above) and of the 160 pixels
in its middle. views: held-out views, the originals first. samples: of the same codes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from fieldloom import System, export, load
from fieldloom.assembly import open_source
from fieldloom.modalities.views import select_views

BRIGHT, SIDE, PART = 4.0, 320, 160


def errors(runs: list[Path]) -> Tensor:
    """(2 runs, 1, SIDE, SIDE): first the maps of all runs, then their middles."""
    whole, middle = [], []
    for run in runs:
        system = load(run, "cpu")
        source = open_source(system.recipe, system.modality)
        made = torch.cat([strip for _, strip in system.strips(origin(system))], 1)
        wrong = BRIGHT * (made - source.read(source.train).tensor[0]).abs().mean(0, keepdim=True)
        whole.append(F.interpolate(wrong[None], (SIDE, SIDE), mode="area"))
        top, left = ((n - PART) // 2 for n in wrong.shape[1:])
        part = wrong[None, :, top : top + PART, left : left + PART]
        middle.append(F.interpolate(part, (SIDE, SIDE), mode="nearest"))
    return torch.cat([*whole, *middle])


def views(runs: list[Path], count: int = 3) -> Tensor:
    """(count (1 + runs), 3, height, width): a row for each held-out view."""
    shown: list[list[Tensor]] = []
    for run in runs:
        system = load(run, "cpu")
        source = open_source(system.recipe, system.modality)
        data = source.read(source.train)
        kept = system.modality.count_seen(data)
        held = select_views(data, slice(kept, kept + count))
        shown = shown or [list(held.tensor[0])]
        shown.append(list(system.predict_at(origin(system), held).clamp().tensor[0]))
    return torch.stack([one for row in zip(*shown, strict=True) for one in row])


def origin(system: System) -> Tensor:
    return system.family.conditioner.origin(1).detach()


def samples(runs: list[Path], count: int = 8) -> Tensor:
    """(runs count, 3, height, width): a row for each run."""
    return torch.cat([load(run, "cpu").sample(count, seed=0).tensor for run in runs])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["errors", "views", "samples"])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    drawn = {"errors": errors, "views": views, "samples": samples}[asked.what](asked.runs)
    columns = {"errors": len(asked.runs), "views": 1 + len(asked.runs), "samples": 8}[asked.what]
    export.png(export.sheet(drawn, columns), asked.out)


if __name__ == "__main__":
    main()
