"""Whether the device computes what the CPU does: vectors, each recipe's short journey, laws."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

import fieldloom
from accelerator_sections import conformance, laws
from accelerator_sections.parts import Absent, Parts, Plan, Result
from fieldloom import recipe
from fieldloom.assembly import open_source
from fieldloom.engine import device as devices
from fieldloom.engine.run import load
from fieldloom.system import System

CLOSE = 2e-3
"""How far apart decoded values, in [0, 1], may lie on two devices: descent doubles roundings."""


def run(plan: Plan, parts: Parts) -> None:
    device = devices.pick(plan.device)
    parts.do("environment", lambda: devices.environment(device))
    parts.do("vectors", lambda: conformance.check_all(Path(plan.vectors), device))
    for name in JOURNEYS:
        parts.do(f"recipe {name}", lambda name=name: travel(name, plan))
    parts.do("recipes", lambda: summarise(parts))
    parts.do("laws", lambda: laws.check_all(device))


def summarise(parts: Parts) -> Result:
    """How many recipes ran, and gave the CPU's values."""
    ran = {name: parts.result(f"recipe {name}") for name in JOURNEYS}
    fine = [name for name, found in ran.items() if found is not None and found["agrees"]]
    return {"share": len(fine) / len(ran), "others": [name for name in ran if name not in fine]}


@dataclass(frozen=True)
class Journey:
    """A recipe and what makes it tiny; scenes alone need more than pictures of 8 x 8."""

    recipe: str
    overrides: str = ""


SHORT = "train.field.steps=2 train.field.batch=4 train.field.micro=3 source.split=[8,2]"
PRIOR = "train.prior.steps=2 train.prior.batch=4 evaluate.samples=2"
DIFFUSION = f"{PRIOR} evaluate.steps=2"
JOURNEYS = {
    "mnif": Journey("mnif:tiny", DIFFUSION),
    "functa": Journey("functa:tiny", DIFFUSION),
    "gasp": Journey("gasp:tiny", "evaluate.samples=2"),
    "gem": Journey("gem:tiny", "source.split=[40,2] prior.neighbours=1 evaluate.samples=2"),
    "hyperdiffusion": Journey("hyperdiffusion:tiny", DIFFUSION),
    "ipc": Journey("ipc:tiny"),
    "laginr": Journey("laginr:tiny", DIFFUSION),
    "learned-init": Journey("learned-init:tiny"),
    "loe": Journey(
        "loe:small-table1",
        "source.split=[1,1] train.field.batch=1 train.field.micro=1 modality.size=8 field.width=8 "
        "modality.channels=1 field.depth=3 field.tiling.tiles=2 field.encoding.count=3",
    ),
    "transinr": Journey("transinr:tiny"),
    "weights": Journey("weights:tiny", PRIOR),
}
"""One for every recipe."""


def write_pictures(path: Path, count: int = 48) -> Path:
    """Smooth pictures of 8 x 8, uint8: the data of the journeys, so that none must be carried."""
    rows, columns = np.mgrid[0:8, 0:8] / 8.0
    angles = np.random.default_rng(0).uniform(0, 2 * np.pi, (count, 3, 1, 1))
    waves = [np.sin(2 * np.pi * x + angles[:, i]) for i, x in enumerate((rows, columns))]
    np.save(path, np.uint8(127.5 + 60 * (waves[0] + waves[1] * np.cos(angles[:, 2]))))
    return path


def travel(name: str, plan: Plan) -> Result:
    """Train all stages of a tiny recipe, load, encode, decode, sample, evaluate; as on the CPU?"""
    journey, work = JOURNEYS[name], Path(plan.work)
    data = write_pictures(work / "pictures.npy")
    own = [f"source.path={data}", *SHORT.split(), *journey.overrides.split()]
    chosen = recipe.load(journey.recipe, own)
    chosen["source"] = {
        "name": "array", "path": str(data), "split": chosen["source"]["split"], "shuffle": True,
    }  # fmt: skip
    folder = work / "journeys" / name
    shutil.rmtree(folder, ignore_errors=True)
    fieldloom.train(chosen, folder, device=plan.device)
    there, here = load(folder, plan.device), load(folder, "cpu")
    made, same = visit(there), visit(here)
    apart = {key: float((made[key] - same[key]).abs().max()) for key in same}
    metrics = fieldloom.evaluate(there).metrics
    return {
        "apart": apart,
        "agrees": all(x <= CLOSE for x in apart.values()),
        "psnr": next((m.value for m in metrics if m.name == "psnr"), None),
    }


def visit(system: System) -> dict[str, Tensor]:
    """What a system makes of its data, without chance but the sampler's, which is the CPU's."""
    made: dict[str, Tensor] = {}
    source = open_source(system.recipe, system.modality, quiet=True)
    if system.encodes:
        code = system.encode(source.read(source.train[:2]))
        made["decoded"] = system.decode(code).tensor
    if system.generates:
        options: dict[str, Any] = system.settings.evaluation.options()
        made["sampled"] = system.sample(2, seed=1, **options).tensor
    if not made:
        raise Absent("the recipe neither encodes nor samples.")
    return {key: value.float().cpu() for key, value in made.items()}
