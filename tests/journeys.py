"""The same short journey with a tiny variant of every recipe: train, encode, decode, evaluate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

import data_on_disk
from fieldloom import recipe
from fieldloom.engine.device import autocast
from fieldloom.evaluation import evaluate
from fieldloom.inputs import source_of
from fieldloom.settings import Precision
from fieldloom.system import System
from fieldloom.training import train


@dataclass(frozen=True)
class Journey:
    """A recipe, its overrides, and what writes its data; None: they come with a package."""

    recipe: str
    overrides: tuple[str, ...] = ()
    write: Callable[[Path], Path] | None = None


SHORT = (
    "source.split=[8,2]", "train.field.steps=2", "train.field.batch=4", "train.field.micro=2",
)  # fmt: skip
PRIOR = ("train.prior.steps=2", "train.prior.batch=4", "evaluate.samples=2")
DIFFUSION = (*PRIOR, "evaluate.steps=2")
CODEC = (*PRIOR, "train.codec.steps=2", "train.codec.batch=4")
SHAPES = (
    "modality.size=12", "evaluate.points=32", "train.field.points=64", "field.width=8",
    "conditioner.width=4",
)  # fmt: skip
VIEWS = (
    "source.split=[1.0,0.0]", "modality.held=1", "modality.size=[6,8]", "train.field.batch=1",
    "train.field.micro=1", "train.field.points=16", "field.width=8",
)  # fmt: skip
RADIANCE = (*VIEWS, "prior=none", "modality.rays=16", "renderer.samples=4")


def write_shapes(folder: Path) -> Path:
    """Fourteen balls of different size, 12^3."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 12)] * 3, indexing="ij"), -1)
    radius = np.linspace(0.4, 0.8, 14)[:, None, None, None]
    np.save(folder / "balls.npy", np.linalg.norm(grid, axis=-1) < radius)
    return folder / "balls.npy"


JOURNEYS = {
    "mnif": Journey("mnif:tiny", DIFFUSION),
    "mnif of shapes": Journey(
        "mnif:chairs32",
        (*SHAPES, *DIFFUSION, "prior.denoiser.width=16", "prior.denoiser.depth=2"),
        write_shapes,
    ),
    "mnif of views": Journey("mnif:multiview128-cavia", RADIANCE, data_on_disk.write_objects),
    "functa": Journey("functa:tiny", DIFFUSION),
    "gasp": Journey("gasp:tiny", ("evaluate.samples=2",)),
    "gem": Journey("gem:tiny", ("source.split=[40,2]", "prior.neighbours=1", "evaluate.samples=2")),
    "gem of shapes": Journey(
        "gem:chairs32",
        (*SHAPES, "source.split=[12,2]", "prior.neighbours=1", "evaluate.samples=2", "encoder.unseen.steps=2"),
        write_shapes,
    ),
    "hyperdiffusion": Journey("hyperdiffusion:tiny", DIFFUSION),
    "ipc": Journey("ipc:tiny"),
    "laginr": Journey("laginr:tiny", DIFFUSION),
    "laginr of views": Journey(
        "laginr:multiview128",
        (*VIEWS, "modality.support=[1,2]", "modality.query=1", "field.features=12",
         "field.tokens=4", "encoder.width=12", "encoder.depth=1", "encoder.heads=2",
         "encoder.patch=2"),
        data_on_disk.write_objects,
    ),  # fmt: skip
    "learned-init": Journey("learned-init:tiny"),
    "loe": Journey(
        "loe:small-table1",
        ("source.name=digits", "source.split=[1,1]", "modality.channels=1", "modality.size=8",
         "field.width=8", "field.tiling.tiles=2", "field.depth=3", "field.encoding.count=3",
         "train.field.batch=1", "train.field.micro=1"),
    ),  # fmt: skip
    "loe of views": Journey(
        "loe:small-table3",
        (*VIEWS, "renderer.samples=4", "field.depth=5", "field.head.width=8", "field.tiling.tiles=2"),
        data_on_disk.write_objects,
    ),
    "transinr": Journey("transinr:tiny"),
    "weights": Journey("weights:tiny", PRIOR),
    "weights of a graph": Journey("weights:tiny-graph-words", CODEC),
}
"""One for every recipe, and for what differs with the kind of data."""


def travel(name: str, device: str, precision: Precision = "float32") -> dict[str, np.ndarray]:
    """What a journey makes on a device: codes, decoded data, samples, metrics."""
    journey = JOURNEYS[name]
    with TemporaryDirectory() as place:
        overrides = [*SHORT, f"train.field.precision={precision}", *journey.overrides]
        if journey.write is not None:
            overrides.append(f"source.path={journey.write(Path(place))}")
        system = train(recipe.load(journey.recipe, overrides), f"{place}/run", device=device)
        with autocast(system.device, precision):
            return visit(system)


def visit(system: System) -> dict[str, np.ndarray]:
    """What a trained system makes of its data."""
    made, source = {}, source_of(system, None)
    if system.encodes:
        data = source.read(source.train[:2])
        code = system.encode(data)
        made["codes"], made["decoded"] = code, system.decode(code).tensor
        made["there"] = system.predict_at(code, data).tensor
        if system.family.has_code:
            made["refined"] = system.refine(data, steps=2).code
    if system.generates:
        options = system.settings.evaluation.options()
        made["samples"] = system.sample(2, seed=1, **options).tensor
    result = evaluate(system, source)
    found = [x.value for x in result.metrics if x.name.partition(".")[0] in COMPARED]
    made["metrics"] = torch.tensor(found)
    return {key: value.float().cpu().numpy() for key, value in made.items()}


COMPARED = ("psnr", "ssim", "mse", "iou", "accuracy")
"""Metrics that do not depend on the machine."""
