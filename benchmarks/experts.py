"""What a tiled layer costs beside a plain one, forward and backward, timed in turns.

    python benchmarks/experts.py --out benchmarks/results/experts.json

One layer of width 256 with 4 x 4 tiles and 65,536 points, and the field of five of them; random
points and a full regular grid of 256 x 256; both blends. The plain layer is the same layer with one
tile. Before anything is timed, values and gradients are compared with a slow reference, which
multiplies every point by its own matrix. A GPU is timed where there is one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from fieldloom.process import tune_process

tune_process()  # as the command line does: before torch is imported

import torch  # noqa: E402
from measure import in_turns  # noqa: E402
from torch import Tensor  # noqa: E402

from fieldloom.engine import device as devices  # noqa: E402
from fieldloom.fields import Experts, Tiling  # noqa: E402
from fieldloom.nn.dispatch import Assignment, Dispatch, Groups, dispatch  # noqa: E402
from fieldloom.nn.kernels.grouped import grouped_linear  # noqa: E402
from fieldloom.nn.tiles import blend_corners, tile_indices, tiled_linear  # noqa: E402

POINTS, WIDTH, TILES = 65536, 256, (4, 4)
AIMS = {
    "layer, nearest, random": {"cpu": 1.3, "cuda": 1.2},
    "layer, nearest, grid": {"cpu": 1.1, "cuda": 1.1},
    "layer, linear over nearest, random": {"cpu": 4.0, "cuda": 4.0},
}
SCALE = 4.0
"""Cells an axis: the tiles cover the domain once."""


def positions(kind: str, points: int) -> Tensor:
    """Points in [0, 1)^2: ``random``, or the middles of a regular grid's cells."""
    if kind == "random":
        return torch.rand(points, 2, generator=torch.Generator().manual_seed(0))
    side = round(points**0.5)
    axis = (torch.arange(side) + 0.5) / side
    return torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).flatten(0, 1)


def multiply(x: Tensor, order: Dispatch, weight: Tensor, bias: Tensor, blend: Any = None) -> Tensor:
    """Rows by the matrices of their tiles as ``Experts`` does it: a CPU knows where tiles end."""
    if isinstance(order.segments, Groups):
        operations = devices.kernels(x.device).grouped
        return grouped_linear(x, order.segments, weight, bias, blend, operations)
    assert order.segments is not None
    return tiled_linear(x, order.segments, weight, bias, blend)


class Layer:
    """One layer with all that it needs, so that only what a training step does is timed."""

    def __init__(self, unit: Tensor, blend: str, tiles: tuple[int, int], width: int) -> None:
        where, draw = unit.device, torch.Generator().manual_seed(1)
        normal = lambda *shape: torch.randn(*shape, generator=draw).to(where)
        self.unit, self.blend, self.tiles = unit, blend, tiles
        count = tiles[0] * tiles[1]
        self.x = normal(len(unit), width).requires_grad_()
        self.weight = (normal(count, width, width) / width**0.5).requires_grad_()
        self.bias = normal(width).requires_grad_()
        self.slope = normal(len(unit), width)

    def value(self) -> Tensor:
        """As ``Experts`` evaluates a layer; rows are left in the order of the tiles."""
        if len(self.weight) == 1:
            return torch.addmm(self.bias, self.x, self.weight[0])
        q, blend = self.unit * SCALE, None
        if self.blend == "linear":
            q = q - 0.5
            blend = blend_corners(q, self.tiles)
        keys = Assignment(tile_indices(q, self.tiles), len(self.weight), own=False)
        (self.order,) = dispatch([keys], 1, len(q))
        if blend is not None:
            blend = (blend[0], self.order.gather(blend[1]))
        return multiply(self.x, self.order, self.weight, self.bias, blend)

    def step(self) -> tuple[Tensor, ...]:
        return torch.autograd.grad(self.value(), (self.x, self.weight, self.bias), self.slope)

    def reference(self) -> Tensor:
        """Every point by its own blended matrix, rows as they started."""
        q = self.unit * SCALE
        shares = torch.zeros(len(q), len(self.weight), device=q.device)
        if self.blend == "linear":
            table, found = blend_corners(q - 0.5, self.tiles)
            place = tile_indices(q - 0.5, self.tiles)
            for corner, own in enumerate(table):
                column = torch.tensor(own, device=q.device)[place]
                shares.scatter_add_(1, column[:, None], found[:, corner : corner + 1])
        else:
            shares.scatter_(1, tile_indices(q, self.tiles)[:, None], 1.0)
        matrices = torch.einsum("nt,tio->nio", shares, self.weight)
        return torch.einsum("ni,nio->no", self.x, matrices) + self.bias


def check(device: torch.device) -> float:
    """The largest relative difference of values and gradients from the slow reference."""
    worst = 0.0
    for kind in ("random", "grid"):
        for blend in ("nearest", "linear"):
            layer = Layer(positions(kind, 1024).to(device), blend, TILES, 32)
            inputs = (layer.x, layer.weight, layer.bias)
            fast = restored(layer)
            slow = layer.reference()
            pairs = [(fast, slow)]
            pairs += zip(
                torch.autograd.grad(fast, inputs, layer.slope),
                torch.autograd.grad(slow, inputs, layer.slope),
                strict=True,
            )
            for a, b in pairs:
                worst = max(worst, float((a - b).detach().abs().max() / b.detach().abs().max()))
    assert worst < 1e-4, worst
    return worst


def restored(layer: Layer) -> Tensor:
    value = layer.value()
    return layer.order.scatter(value)


def network(unit: Tensor, tiles: int, blend: str) -> Callable[[], Any]:
    """A training step of a field of six layers, tiles divided from layer to layer."""
    field = Experts(
        2, 3, width=WIDTH, depth=6, tiling=Tiling(tiles=(*(tiles,) * 5, 1), blend=blend, low=0.0)
    )
    field.kernels = devices.kernels
    draw = torch.Generator().manual_seed(2)
    weights = {
        name: slot.init(draw)[None].to(unit.device).requires_grad_(slot.role != "fixed")
        for name, slot in field.slots.items()
    }
    coords = unit[None]

    def step() -> Any:
        return torch.autograd.grad(field(coords, weights).square().mean(), list(weights.values()))

    return step


def measure(device: torch.device, rounds: int) -> dict[str, Any]:
    works: dict[str, Callable[[], Any]] = {}
    for kind in ("random", "grid"):
        unit = positions(kind, POINTS).to(device)
        works[f"layer, plain, {kind}"] = Layer(unit, "nearest", (1, 1), WIDTH).step
        for blend in ("nearest", "linear"):
            works[f"layer, {blend}, {kind}"] = Layer(unit, blend, TILES, WIDTH).step
        works[f"field, plain, {kind}"] = network(unit, 1, "nearest")
        works[f"field, nearest, {kind}"] = network(unit, 4, "nearest")
    times = in_turns(works, rounds, device)
    ratios: dict[str, Any] = {}
    for kind in ("random", "grid"):
        for part, blend, against in (
            ("layer", "nearest", "plain"),
            ("layer", "linear", "nearest"),
            ("field", "nearest", "plain"),
        ):
            over = "" if against == "plain" else f" over {against}"
            pairs = zip(
                times[f"{part}, {blend}, {kind}"], times[f"{part}, {against}, {kind}"], strict=True
            )
            each = sorted(a / b for a, b in pairs)
            ratios[f"{part}, {blend}{over}, {kind}"] = {
                "median": round(median(each), 3),
                "least": round(each[0], 3),
                "most": round(each[-1], 3),
            }
    for name, aims in AIMS.items():
        ratios[name]["aim"] = aims.get(device.type)
    return {"seconds": {k: round(median(v), 4) for k, v in times.items()}, "ratios": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    device = devices.pick(asked.device)
    found = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "command": "python benchmarks/experts.py",
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip(),
        "environment": devices.environment(device),
        "points, width, tiles": [POINTS, WIDTH, list(TILES)],
        "largest relative difference from the reference": check(device),
        **measure(device, asked.rounds),
    }
    text = json.dumps(found, indent=2)
    print(text)
    if asked.out:
        asked.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
