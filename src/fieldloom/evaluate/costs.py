"""What a system costs: the columns of mNIF's Tables 1 to 3, beside what was published."""

from __future__ import annotations

import time

import torch

from fieldloom.engine import device as devices
from fieldloom.evaluate.figures import Figure
from fieldloom.metrics.cost import inference, macs, parameters
from fieldloom.system import System
from fieldloom.types import Code


def points_of(system: System) -> int:
    """Evaluations of the field for one datum: all its points, or all points of one view's rays."""
    grid = system.modality.grid().shape[1]
    if system.modality.coord_dim == 6:
        grid //= len(system.modality.assemble(torch.zeros(1, grid, system.modality.value_dim))[0])
    return grid * system.render.evaluations


def counts(system: System) -> list[Figure]:
    """Parameters and multiply-accumulates: what no clock is needed for."""
    slots, points = system.family.field.slots, points_of(system)
    total = macs(slots, system.family.conditioner.macs(), points) / 1e9
    dead = sum(system.recipe.get("dead", {}).values())
    figures = [
        Figure("learnable", parameters(system.family), "family", "parameters"),
        Figure("encoder", parameters(system.encoder), "encoder", "parameters: rates, tables"),
        Figure("inference", inference(slots), "one field", "parameters"),
        Figure("gmacs", total, f"one datum, {points} points",
               "1e9 multiply-accumulates of linear layers"),
    ]  # fmt: skip
    if dead:
        names = ", ".join(system.recipe["dead"])
        figures.append(Figure("dead", dead, "released code", f"parameters without use: {names}"))
    return figures


def speed(system: System, codes: Code) -> list[Figure]:
    """Decoding speed of these codes, one datum (or view) after another, and peak memory."""
    cameras = None
    if system.modality.coord_dim == 6:
        orbit = system.modality.cameras(count=1)  # type: ignore[attr-defined]
        cameras = orbit
    system.predict(codes[:1], cameras=cameras)  # warm
    devices.synchronize(system.device)
    began = time.perf_counter()
    system.predict(codes, cameras=cameras)
    devices.synchronize(system.device)
    rate = len(codes) / (time.perf_counter() - began)
    where = f"{system.device.type}, {torch.get_num_threads()} threads"
    return [
        Figure("decoded", rate, f"{len(codes)} data", f"data/s, {where}"),
        Figure("memory", devices.peak_memory(system.device), "this process", "bytes, peak"),
    ]


def cost(system: System, codes: Code) -> list[Figure]:
    """Parameters, multiply-accumulates a datum, decoding speed, peak memory."""
    fewer = 16 if points_of(system) < 1 << 16 else 2
    return counts(system) + speed(system, codes[:fewer].to(system.device))
