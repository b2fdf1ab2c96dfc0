"""The same short journey with a tiny variant of every recipe: train, encode, decode, evaluate."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from torch import Generator, Tensor

import apart
import data_on_disk
from fieldloom import recipe
from fieldloom.api import encode
from fieldloom.assembly import build, objective_of
from fieldloom.engine import loop
from fieldloom.engine.device import autocast, pick
from fieldloom.engine.loop import Training
from fieldloom.engine.run import Run, load
from fieldloom.evaluation import evaluate
from fieldloom.evaluation.comparison import compare_with_baselines
from fieldloom.evaluation.influence import analyse_influence
from fieldloom.evaluation.timing import Budget, psnr_against_time
from fieldloom.evaluation.upper_bound import upper_bound_of_run
from fieldloom.inputs import source_of
from fieldloom.interpolation import interpolate_codes
from fieldloom.renderers import Volume
from fieldloom.report import write
from fieldloom.settings import Precision
from fieldloom.system import System
from fieldloom.training import train
from fieldloom.types import Data, Signal


@dataclass(frozen=True)
class Journey:
    """A recipe, its overrides, and what writes its data; None: they come with a package.

    evaluated: whether the recipe's own options of sampling fit, and its metrics are measured.
    """

    recipe: str
    overrides: str = ""
    write: Callable[[Path], Path] | None = None
    evaluated: bool = True


def write_shapes(folder: Path) -> Path:
    """Fourteen balls of different size, 12^3."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 12)] * 3, indexing="ij"), -1)
    radius = np.linspace(0.4, 0.8, 14)[:, None, None, None]
    np.save(folder / "balls.npy", np.linalg.norm(grid, axis=-1) < radius)
    return folder / "balls.npy"


write_views = data_on_disk.write_objects

SHORT = "source.split=[4,2] train.field.steps=1 train.field.batch=4 train.field.micro=3"
PRIOR = "train.prior.steps=1 train.prior.batch=4 evaluate.samples=2"
DIFFUSION = f"{PRIOR} evaluate.steps=2"
CODEC = f"{PRIOR} train.codec.steps=1 train.codec.batch=4"
NEIGHBOURS = "source.split=[40,2] prior.neighbours=1 evaluate.samples=2"
DIGITS = "source.name=digits source.split=[4,2] modality.channels=1 modality.size=8 field.width=8"
ONE = "source.split=[1,1] train.field.batch=1 train.field.micro=1"
TILES = f"{DIGITS} {ONE} field.depth=3 field.tiling.tiles=2 field.encoding.count=3"
SHAPES = "modality.size=12 evaluate.points=32 train.field.points=64 field.width=8"
VIEWS = """source.split=[1.0,0.0] modality.held=1 modality.size=[6,8] field.width=8
    train.field.batch=1 train.field.micro=1 train.field.points=16"""

JOURNEYS = {
    "mnif": Journey("mnif:tiny", DIFFUSION),
    "functa": Journey("functa:tiny", DIFFUSION),
    "gasp": Journey("gasp:tiny", "evaluate.samples=2"),
    "gem": Journey("gem:tiny", NEIGHBOURS),
    "hyperdiffusion": Journey("hyperdiffusion:tiny", DIFFUSION),
    "ipc": Journey("ipc:tiny"),
    "laginr": Journey("laginr:tiny", DIFFUSION),
    "learned-init": Journey("learned-init:tiny"),
    "loe": Journey("loe:small-table1", TILES),
    "transinr": Journey("transinr:tiny"),
    "weights": Journey("weights:tiny", PRIOR),
}
"""One for every recipe."""

BYWAYS = {
    "mnif of shapes": Journey(
        "mnif:chairs32",
        f"""{DIFFUSION} {SHAPES} conditioner.width=4 prior.denoiser.width=16 encoder.steps=2
        prior.denoiser.depth=2""",
        write_shapes,
    ),
    "mnif of views": Journey(
        "mnif:multiview128-cavia",
        f"{VIEWS} prior=none modality.rays=16 renderer.samples=4 encoder.steps=1",
        write_views,
    ),
    "mixed experts": Journey(
        "mnif:digits-experts",
        f"""{DIFFUSION} field.width=8 field.tiling.tiles=[2,2,2,1] conditioner.width=4
        prior.denoiser.width=32 prior.denoiser.depth=2 evaluate.sampler=dpm++ encoder.steps=2
        evaluate.guidance=2.0""",
    ),
    "gem of shapes": Journey(
        "gem:chairs32",
        f"{NEIGHBOURS} {SHAPES} source.split=[12,2] conditioner.width=4 encoder.unseen.steps=2",
        write_shapes,
    ),
    "gasp of views": Journey(
        "gasp:multiview128",
        f"""{VIEWS} renderer.samples=4 modality.patch=4 field.encoding.count=4 evaluate.samples=2
        conditioner.width=4 conditioner.hidden=[8] objective.critic.layers=[[8,4,4],[1,4,1]]""",
        write_views,
    ),
    "laginr of views": Journey(
        "laginr:multiview128",
        f"""{VIEWS} modality.support=[1,2] modality.query=1 field.features=12 field.tokens=4
        encoder.width=12 encoder.depth=1 encoder.heads=2 encoder.patch=2""",
        write_views,
    ),
    "laginr of hidden points": Journey(
        "laginr:faces64-masked",
        f"""{DIGITS} train.field.points=16 field.features=8 field.tokens=4 field.bands=[4.0,2.0]
        field.query=2.0 encoder.width=12 encoder.depth=1 encoder.heads=2 encoder.patch=4""",
    ),
    "loe of views": Journey(
        "loe:small-table3",
        f"{VIEWS} renderer.samples=4 field.depth=5 field.head.width=8 field.tiling.tiles=2",
        write_views,
    ),
    "loe by linear blends": Journey(
        "loe:small-table1",
        f"{TILES} field.tiling.blend=linear field.encoding.grid={{size=4,channels=2}}",
    ),
    "loe as a GAN": Journey(
        "loe:small-table4",
        f"""{DIGITS} field.context=8 field.encoding.count=2 field.tiling.arrangement.finest=8.0
        objective.critic.width=4 objective.critic.depth=1 objective.critic.scales=1
        evaluate.samples=2""",
    ),
    "hyperdiffusion by plateaus": Journey(
        "hyperdiffusion:mnist28",
        f"""{DIGITS} {DIFFUSION} encoder.steps=6 encoder.points=32 encoder.plateau.patience=1
        encoder.plateau.stop=1 encoder.plateau.threshold=0.5 prior.denoiser.width=16
        prior.denoiser.depth=1 prior.denoiser.heads=2""",
    ),
    "weights of a graph": Journey("weights:tiny-graph-words", CODEC),
    "weights as numbers": Journey(
        "weights:tiny",
        f"""{PRIOR} prior.codec={{name="whiten",per="tensor"}} prior.token=row
        prior.positions=["position"]""",
        evaluated=False,
    ),
}
"""Other kinds of data, and parts that no recipe's tiny variant has."""


class Travelled(NamedTuple):
    """What a journey makes on a device: codes, decoded data, samples, metrics; and its waits."""

    made: dict[str, np.ndarray]
    waits: dict[str, int]


def travel(name: str, device: str, precision: Precision = "float32", steps: int = 1) -> Travelled:
    """Make a journey on a device. steps: of each stage, of which the second one's waits count."""
    torch.manual_seed(0)
    journey = (JOURNEYS | BYWAYS)[name]
    with TemporaryDirectory() as place:
        overrides = f"{SHORT} train.field.precision={precision} {journey.overrides}".split()
        overrides = [re.sub(r"^(train\..*steps)=1$", rf"\1={steps}", one) for one in overrides]
        if journey.write is not None:
            overrides.append(f"source.path={journey.write(Path(place))}")
        with count_waits() as waits:
            train(recipe.load(journey.recipe, overrides), f"{place}/run", device=device)
        system = load(f"{place}/run", device)
        with autocast(system.device, precision):
            return Travelled(visit(system, journey.evaluated), dict(+waits))


@contextmanager
def count_waits() -> Iterator[Counter[str]]:
    """How often training waits for the device: ``read`` and ``sent``, of all stages together.

    Counted in the second step of each stage, since the first may place what all others find there.
    What fetches a batch may send it, but may not read.
    """
    waits: Counter[str] = Counter()
    plain_advance, plain_feed = Training.advance, loop.feed_steps

    @contextmanager
    def counting(kinds: set[str]) -> Iterator[None]:
        before = apart.WAITS.copy()
        yield
        waits.update({kind: apart.WAITS[kind] - before[kind] for kind in kinds})

    def advance(training: Training, *args: Any) -> Any:
        with counting({"read", "sent"} if training.step else set()):
            return plain_advance(training, *args)

    def feed_steps(*args: Any) -> Iterator[Any]:
        with closing(plain_feed(*args)) as batches:
            yield next(batches)
            with counting({"read"}):
                later = [*batches]
            yield from later

    with (
        patch.object(Training, "advance", advance),
        patch.object(loop, "feed_steps", feed_steps),
    ):
        yield waits


def visit(system: System, evaluated: bool = True) -> dict[str, np.ndarray]:
    """What a trained system makes of its data."""
    made: dict[str, Tensor] = {}
    source = source_of(system, None)
    if system.encodes:
        made |= reconstruct(system, source.read(source.train[:2]))
    if system.prior is not None and system.generates:
        options = system.settings.evaluation.options() if evaluated else {}
        label = 0 if system.prior.classes else None
        made["samples"] = system.sample(2, label=label, seed=1, **options).tensor
    if evaluated:
        result = evaluate(system, source)
        found = [x.value for x in result.metrics if x.name.partition(".")[0] in COMPARED]
        made["metrics"] = torch.tensor(found)
    return {key: value.float().cpu().numpy() for key, value in made.items()}


def reconstruct(system: System, data: Data) -> dict[str, Tensor]:
    """Data as codes and back, in all ways that a system of their kind has."""
    code = system.encode(data)
    made = {"codes": code, "codes there": system.encode(data.to(system.device))}
    made["decoded"] = system.decode(code).tensor
    made["where observed"] = system.predict_at(code, data).tensor
    if system.family.has_code:
        made["refined"] = system.refine(data, steps=2, on_step=lambda step: None).code
        made["weights"] = system.refine(data, "weights", steps=1).code
        made["between"] = interpolate_codes(code[:1], code[-1:], 3)
    if system.modality.kind == "shapes":
        mesh = system.mesh(code[:1], project=1)
        made["mesh"] = torch.zeros(0) if mesh is None else torch.from_numpy(mesh.vertices)
    if isinstance(system.render, Volume):
        made["depth"] = system.metric_depth(code).tensor
    if system.modality.kind == "images":
        made["strips"] = torch.cat([x for _, x in system.strips(code[:1], values=16)], 1)
    return made


COMPARED = ("psnr", "ssim", "mse", "iou", "accuracy")
"""Metrics that do not depend on the machine."""


def resume(device: str) -> dict[str, float]:
    """The numbers of a step after a checkpoint, with averaged weights, on a device."""
    torch.manual_seed(0)
    system = build("mnif", "tiny", train={"field": {"ema": 0.9}}).to(pick(device)).train()
    stage = system.settings.field_stage
    batch = system.modality.observe(torch.rand(4, 1, 8, 8)).to(system.device)
    training = Training(objective_of(system), stage)
    training.advance(batch, 3, 0, system.device)
    with TemporaryDirectory() as place:
        Run(place).write_recipe(system.recipe)
        Run(place).write_state("field", training.state(), system.stored_recipe)
        again = Training(objective_of(system), stage)
        again.restore(Run(place).read_state("field"))
    return {n: float(x) for n, x in again.advance(batch, 3, 0, system.device).items()}


def draw_points(device: str) -> list[float]:
    """Points of a signal that a generator of the CPU draws."""
    coords = torch.arange(8.0, device=pick(device)).view(1, 8, 1)
    signal = Signal(coords, coords, torch.zeros(1, dtype=torch.long))
    drawn = signal.subset(3, Generator().manual_seed(0)).sample_known(2, Generator())
    return drawn.values.flatten().tolist()


def analyse(device: str) -> dict[str, float]:
    """A few numbers of every analysis, of a system on a device."""
    torch.manual_seed(0)
    with TemporaryDirectory() as place:
        overrides = f"{SHORT} {DIFFUSION} source.split=[20,8]".split()
        system = train(recipe.load("mnif:tiny", overrides), f"{place}/run", device=device)
        source = source_of(system, None)
        some = source.read(source.train[:2])
        known = system.encode(source.read(source.train)).cpu()
        encode(system, f"{place}/codes.safetensors")
        write(Run(f"{place}/run"), system, source, evaluate(system, source), None)
        curves = psnr_against_time(system, some, Budget(1, math.inf), width=8)
        bound = upper_bound_of_run(f"{place}/run", system, source, 4)
        found = compare_with_baselines(system, source, known, {"samples": system.sample_codes(4)})
        maps = analyse_influence(system, some, 1).influences[0].maps
    return {
        "time": curves["weights"].psnr[-1],
        "bound": bound[0].value,
        "sets": len(found.sets),
        "influence": float(maps.mean()),
    }
