"""Curves of docs/results, drawn from the JSON of benchmarks/results.

    python benchmarks/curves.py time
    python benchmarks/curves.py TABLE [--stage field]

``time`` is LA-GINR's Figure 7, PSNR over seconds of optimisation at test time
(``generalizable-time.json``). TABLE draws the logged losses of all its cells over the steps, every
seed a line of its row's colour. Each writes ``docs/images/NAME.png``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evidence import RESULTS, Row, read_tables

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
    asked = parser.parse_args()
    if asked.which == "time":
        found = json.loads((RESULTS / "generalizable-time.json").read_text(encoding="utf-8"))
        atomic.write_bytes(draw_times(found["curves"]), IMAGES / "laginr-time.png")
        return
    tables = read_tables()
    if asked.which not in tables:
        parser.error(str(unknown("table", asked.which, tables)))
    rows = [row for row in tables[asked.which].rows if any("curves" in x.record for x in row.seeds)]
    if not rows:
        parser.error(f"{asked.which} has no cells with curves: python benchmarks/cells.py run")
    atomic.write_bytes(draw_losses(rows, asked.stage), IMAGES / f"{asked.which}.png")


def draw_times(curves: Mapping[str, Any]) -> bytes:
    lines = {name: (curves[key]["seconds"], curves[key]["psnr"]) for key, name in TIMES.items()}
    return plot(Panel("seconds of optimisation", "PSNR of four test faces (dB)", lines))


def draw_losses(rows: Sequence[Row], stage: str) -> bytes:
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 3.6))
    for place, row in enumerate(rows):
        for number, seed in enumerate(row.seeds):
            steps, losses = zip(*seed.record["curves"][stage], strict=True)
            label = row.label if number == 0 else None
            axis.plot(steps, losses, color=f"C{place}", alpha=0.7, linewidth=1, label=label)
    axis.set(xlabel="steps", ylabel="loss of the step's points", yscale="log")
    axis.grid(alpha=0.3)
    axis.legend()
    return figure_to_png(figure)


if __name__ == "__main__":
    main()
