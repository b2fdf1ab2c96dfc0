"""What a system costs: the columns of mNIF's Tables 1 to 3, beside what was published."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Any

import torch

from fieldloom import recipe as recipes
from fieldloom.assembly import assemble
from fieldloom.engine import device as devices
from fieldloom.evaluation.figures import Figure
from fieldloom.evaluation.large import LIMIT
from fieldloom.metrics.cost import inference, macs, parameters
from fieldloom.modalities import Modality
from fieldloom.permit import NOTHING, Permit
from fieldloom.process import tune_process
from fieldloom.system import System
from fieldloom.types import Code

PACED = 1 << 20
"""Values that the speed of large data is found from."""


def points_of(system: System) -> int:
    """Evaluations of the field for one datum: all its points, or all points of one view's rays."""
    return math.prod(system.modality.shape()) * system.render.evaluations


def counts(system: System) -> list[Figure]:
    """Parameters and multiply-accumulates: what no clock is needed for."""
    slots, points = system.family.field.slots, points_of(system)
    total = macs(slots, system.family.conditioner.macs(), points) / 1e9
    dead = system.settings.dead
    figures = [
        Figure("learnable", float(parameters(system.family)), "family", "parameters"),
        Figure("encoder", float(parameters(system.encoder)), "encoder", "rates, tables"),
        Figure("inference", float(inference(slots)), "one field", "parameters"),
        Figure("gmacs", total, f"one {system.modality.unit}, {points} points",
               "1e9 multiply-accumulates of linear layers"),
    ]  # fmt: skip
    if dead:
        note = f"parameters without use: {', '.join(dead)}"
        figures.append(Figure("dead", float(sum(dead.values())), "released code", note))
    return figures


def speed(system: System, codes: Code) -> list[Figure]:
    """Decoding speed of these codes, one datum (or view) after another, and peak memory.

    Of a datum too large to be held it is found from a strip of its rows.
    """
    camera = system.modality.cameras(count=1)
    large = camera is None and size_of(system.modality) > LIMIT
    if large:
        draw = lambda code: next(system.strips(code, values=PACED))[1]
        codes = codes[:1]
    else:
        draw = lambda code: system.predict(code, cameras=camera).tensor
    warm = draw(codes[:1])
    devices.synchronize(system.device)
    began = time.perf_counter()
    draw(codes)
    devices.synchronize(system.device)
    took = time.perf_counter() - began
    done, of = float(len(codes)), f"{len(codes)} times one {system.modality.unit}"
    if large:
        rows, total = warm.shape[1], system.modality.shape()[0]
        done, of = rows / total, f"{rows} of the {total} rows of one datum"
    where = f"{system.device.type}, {torch.get_num_threads()} threads"
    return [
        Figure("decoded", done / took, of, f"a second, {where}"),
        Figure("memory", float(devices.peak_memory(system.device)), "this process", "bytes, peak"),
    ]


def size_of(modality: Modality) -> int:
    """Values of a datum."""
    return math.prod(modality.shape()) * modality.value_dim


def cost(system: System, codes: Code) -> list[Figure]:
    """Parameters, multiply-accumulates a datum, decoding speed, peak memory."""
    fewer = 16 if points_of(system) < 1 << 16 else 2
    return counts(system) + speed(system, codes[:fewer].to(system.device))


PUBLISHED = {
    "Table 1": ["functa:celebahq64", "gem:celebahq64", "gasp:celebahq64",
                "mnif:celebahq64-S", "mnif:celebahq64-L"],
    "Table 2": ["gasp:shapenet32", "gem:shapenet64", "mnif:shapenet64-S", "mnif:shapenet64-L"],
    "Table 3": ["functa:srncars", "mnif:srncars"],
}  # fmt: skip
"""The neural fields of mNIF's Tables 1 to 3 (arXiv:2310.19464)."""

COLUMNS = ("learnable", "inference", "gmacs", "decoded", "memory")


def row(
    name: str, device: str = "auto", timed: bool = True, permit: Permit = NOTHING
) -> dict[str, Any]:
    """The efficiency columns of an untrained recipe: ours and, where printed, the published.

    decoded: data (of views: views) a second, one after another, for at least a second.
    memory:  bytes, the most that decoding one took above what the process (on an accelerator: the
             weights) held before.
    """
    tune_process()  # in a process of its own, this one may not be the command line's
    recipe = recipes.load(name)
    expected = recipe.pop("expected", {})
    recipe.pop("prior", None)
    source = recipe.get("source", {})
    split = source.get("split", [1]) if isinstance(source, dict) else [1]
    recipe["known"] = {"signals": max(1, int(split[0]))}
    renderer = recipe.get("renderer", "direct")
    if isinstance(renderer, dict) and renderer.get("name") == "volume":
        recipe["renderer"] = {"near": 1.0, "far": 2.0} | renderer
    with torch.device("meta"):
        found = {f.name: f.value for f in counts(assemble(recipe, permit))}
    if timed:
        recipe["known"]["signals"] = 1  # a table of codes is no part of decoding
        system = assemble(recipe, permit).to(devices.pick(device))
        found |= _timed(system)
    columns: dict[str, Any] = {
        key: {"ours": found.get(key), "published": expected.get(key)} for key in COLUMNS
    }
    if "encoder" in found and recipe["encoder"] != "nothing":
        columns["learnable"]["codes_and_rates"] = found["encoder"]
    return {"recipe": name} | columns


def _timed(system: System) -> dict[str, float]:
    code = system.family.conditioner.origin(1).detach()
    draw = partial(system.predict, code, cameras=system.modality.cameras(count=1))
    devices.forget_peak(system.device)
    before = devices.held_memory(system.device)
    draw()
    devices.synchronize(system.device)
    peak = devices.peak_memory(system.device)
    times, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < 1:
        draw()
        devices.synchronize(system.device)
        times += 1
    return {"decoded": times / took, "memory": max(0, peak - before)}
