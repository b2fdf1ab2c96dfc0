"""Curves of docs/results, drawn from the JSON of benchmarks/results.

    python benchmarks/curves.py time
    python benchmarks/curves.py TABLE [--stage field]
    python benchmarks/curves.py TABLE --held-out

``time`` is LA-GINR's Figure 7, PSNR over seconds of optimisation at test time
(``generalizable-time.json``). TABLE draws the logged losses of all its cells over the steps, every
seed a line of its row's colour; or, of cells that measured it, the PSNR of test data. Each writes
``docs/images/laginr-time.png``, ``TABLE-losses.png`` or ``TABLE-held-out.png``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evidence import RESULTS, Row, Seed, read_tables

from fieldloom import atomic
from fieldloom.errors import unknown
from fieldloom.evaluation.plots import Panel, figure_to_png, plot

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"

TIMES = {
    "codes": "its tokens refined",
    "weights": "all weights refined",
    "scratch": "from random weights",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("which", help="time, or a table that has cells")
    parser.add_argument("--stage", default="field")
    parser.add_argument("--held-out", action="store_true")
    asked = parser.parse_args()
    if asked.which == "time":
        found = json.loads((RESULTS / "generalizable-time.json").read_text(encoding="utf-8"))
        atomic.write_bytes(draw_times(found["curves"]), IMAGES / "laginr-time.png")
        return
    tables = read_tables()
    if asked.which not in tables:
        parser.error(str(unknown("table", asked.which, tables)))
    if asked.held_out:
        rows = [row for row in tables[asked.which].rows if any(map(held_out_curve, row.seeds))]
        if not rows:
            parser.error(f"{asked.which} has no cells that measured held-out data.")
        atomic.write_bytes(draw_held_out(rows), IMAGES / f"{asked.which}-held-out.png")
        return
    rows = [row for row in tables[asked.which].rows if any("curves" in x.record for x in row.seeds)]
    if not rows:
        parser.error(f"{asked.which} has no cells with curves: python benchmarks/cells.py run")
    atomic.write_bytes(draw_losses(rows, asked.stage), IMAGES / f"{asked.which}-losses.png")


def draw_times(curves: Mapping[str, Any]) -> bytes:
    lines = {name: (curves[key]["seconds"], curves[key]["psnr"]) for key, name in TIMES.items()}
    return plot(Panel("seconds of optimisation", "PSNR of four test faces (dB)", lines))


def draw_losses(rows: Sequence[Row], stage: str) -> bytes:
    return draw_curves(
        [[seed.record.get("curves", {}).get(stage, []) for seed in row.seeds] for row in rows],
        [row.label for row in rows],
        ylabel="loss of the step's points",
        yscale="log",
    )


def draw_held_out(rows: Sequence[Row]) -> bytes:
    return draw_curves(
        [[held_out_curve(seed) for seed in row.seeds] for row in rows],
        [row.label for row in rows],
        ylabel="PSNR of test data (dB)",
    )


def held_out_curve(seed: Seed) -> list[tuple[float, float]]:
    """Steps and the PSNR of test data after them, of figures ``held.STEP``; none: not measured."""
    figures = seed.record.get("figures", {})
    found = ((name.partition("held.")[2], value) for name, value in figures.items())
    return sorted((float(step), value) for step, value in found if step)


def draw_curves(
    rows: Sequence[Sequence[Sequence[Sequence[float]]]], labels: Sequence[str], **axes: str
) -> bytes:
    """Curves of [step, value], of the seeds of each row in one colour."""
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 3.6))
    for place, (curves, label) in enumerate(zip(rows, labels, strict=True)):
        for number, curve in enumerate(filter(None, curves)):
            steps, values = zip(*curve, strict=True)
            name = label if number == 0 else None
            axis.plot(steps, values, color=f"C{place}", alpha=0.7, linewidth=1, label=name)
    axis.set(xlabel="steps", **axes)
    axis.grid(alpha=0.3)
    axis.legend()
    return figure_to_png(figure)


if __name__ == "__main__":
    main()
