"""What a step of a hash grid costs: its parts, and against the size of its table.

    python benchmarks/grids.py --out benchmarks/results/grids.json

Milliseconds are those of the processor, one thread, the median of some steps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fieldloom.process import tune_process

tune_process()

import torch  # noqa: E402
from torch import nn  # noqa: E402

from fieldloom import atomic  # noqa: E402
from fieldloom.engine.rowwise import RowAdam, gradients  # noqa: E402
from fieldloom.fields import GridMlp  # noqa: E402
from fieldloom.fields.grids import HashGrid  # noqa: E402
from fieldloom.nn.grids import interpolate, sparse_gradients  # noqa: E402

CASES = [
    ("picture", 2, 12, 1536, 15, 32768),
    ("picture", 2, 16, 2048, 16, 32768),
    ("picture", 2, 16, 4096, 19, 32768),
    ("solid", 3, 12, 256, 15, 32768),
    ("solid", 3, 16, 2048, 19, 32768),
]
"""Name, coordinates, levels, cells of the finest, log2 of the most rows of a level, points."""

SIZES, FEW_POINTS = range(10, 21, 2), 2048
"""Log2 of the rows of a level, 16 levels of 4096 cells, whose step on few points is compared."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = {
        "command": "python benchmarks/grids.py",
        "torch": torch.__version__,
        "steps": [measure(asked.rounds, *case) for case in CASES],
        "sizes": [
            measure(asked.rounds, "picture", 2, 16, 4096, log2, FEW_POINTS) for log2 in SIZES
        ],
    }
    atomic.write_text(json.dumps(found, indent=2) + "\n", asked.out)


def measure(
    rounds: int, name: str, axes: int, levels: int, finest: int, log2: int, points: int
) -> dict[str, Any]:
    """Milliseconds of a step's parts, and how many points a second it sees."""
    grid = HashGrid(levels=levels, finest=finest, log2_hashmap_size=log2)
    field = GridMlp(axes, 3, grid=grid)
    weights = {key: nn.Parameter(slot.init(None)[None]) for key, slot in field.slots.items()}
    table = weights["grid.weight"]
    network = [x for key, x in weights.items() if key != "grid.weight"]
    rows = RowAdam([table], 1e-2, (0.9, 0.99), 1e-15)
    adam = torch.optim.Adam(network, 1e-2)
    coords, values = torch.rand(1, points, axes) * 2 - 1, torch.rand(1, points, 3)
    grad = torch.rand(1, points, levels, grid.features)

    def look_up() -> None:
        with torch.no_grad():
            interpolate(coords, table, field.lattices)

    def differentiate() -> None:
        table.grad = None
        with sparse_gradients([table]):
            interpolate(coords, table, field.lattices).backward(grad)
        nn.utils.get_total_norm(gradients([table]))

    def step() -> None:
        for parameter in weights.values():
            parameter.grad = None
        with sparse_gradients([table]):
            (field(coords, weights) - values).square().mean().backward()
        nn.utils.get_total_norm(gradients(weights.values()))
        rows.step()
        adam.step()

    parts = {"look up": look_up, "with gradient": differentiate, "row-adam": rows.step}
    milliseconds = {part: median(call, rounds) for part, call in (parts | {"step": step}).items()}
    return {
        "name": name,
        "rows": table.shape[1],
        "points": points,
        "sparse": table.grad.is_sparse,
        "milliseconds": milliseconds,
        "points a second": round(1e3 * points / milliseconds["step"]),
    }


def median(call: Callable[[], Any], rounds: int) -> float:
    times = []
    for _ in range(rounds + 1):
        began = time.process_time()
        call()
        times.append(1e3 * (time.process_time() - began))
    return round(statistics.median(times[1:]), 2)


if __name__ == "__main__":
    main()
