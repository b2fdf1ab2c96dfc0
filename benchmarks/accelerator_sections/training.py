"""Trainings that end in time: steps are set from the measured pace, so that each schedule ends.

Each is a run of the package like any other: stages field and prior, evaluation on the test part,
and a sheet of samples at two resolutions. Where a call is cut off, the next one resumes the run.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import in_turns

import fieldloom
from accelerator_sections.parts import Parts, Plan, Result, Stopped
from fieldloom import export, recipe
from fieldloom.assembly import open_source
from fieldloom.engine import device as devices
from fieldloom.engine.run import Run, load
from fieldloom.errors import Interrupted
from fieldloom.report.pictures import as_images
from fieldloom.system import System

PACE = 24
"""Steps that the pace is measured over, after as many that are not."""
RESERVE = 0.2
"""The share of the seconds that evaluation and samples take, at most."""
COUNTS = {"tiny": 20, "short": 640, "long": 4500}
"""How many data are encoded, at most."""
PRIOR = 0.25
"""The share of training that stage 2 has."""


@dataclass(frozen=True)
class Job:
    """name: of its run and its sheet. file: of the data. steps: at most, of stage ``field``.

    sizes: resolution of the samples -> how many are drawn. tiny: what makes it a matter of seconds
    on a CPU.
    """

    name: str
    recipe: str
    file: str
    overrides: Sequence[str]
    tiny: Sequence[str]
    steps: int = 40_000
    sizes: tuple[tuple[int, int], ...] = ((64, 16), (256, 16))


FACES = ["source.name=packed", "source.split=[0.9,0.1]", "source.shuffle=true"]
SCORED = ["evaluate.detector=gabor", "evaluate.sampler=ddim", "evaluate.steps=100"]
SHORT = ["source.limit=640", "evaluate.samples=64"]
TINY = [
    "source.limit=20", "train.field.batch=4", "train.prior.batch=4", "evaluate.samples=4",
    "evaluate.steps=3", 'evaluate.metrics=["psnr"]',
]  # fmt: skip
TINY_SIREN = [
    *TINY, "modality.size=8", "field.width=8", "field.depth=3", "conditioner.experts=4",
    "conditioner.width=8", "prior.denoiser.width=32", "prior.denoiser.depth=2",
]  # fmt: skip
TINY_TOKENS = [
    *TINY, "modality.size=16", "field.width=12", "encoder.width=12", "encoder.depth=1",
    "encoder.heads=2", "train.field.points=32", "prior.denoiser.width=16",
    "prior.denoiser.depth=1", "prior.denoiser.heads=2",
]  # fmt: skip

MNIF = Job(
    "mnif-faces",
    "mnif:celebahq64-S",
    "faces64.npz",
    [*FACES, *SCORED, "train.field.optimizer.rate=2e-4", "train.field.warmup=100",
     "train.field.clip=1.0", "train.prior.ema=0.999", "evaluate.samples=500"],
    TINY_SIREN,
)  # fmt: skip
LAGINR = Job(
    "laginr-faces",
    "laginr:faces64",
    "faces64.npz",
    ["evaluate.steps=100"],
    [*TINY_TOKENS, "field.features=12", "field.tokens=4"],
)
IPC = Job(
    "ipc-faces",
    "ipc:faces64",
    "faces64.npz",
    ["evaluate.steps=100"],
    [*TINY_TOKENS, "conditioner.rank=4"],
)
CHAIRS = Job(
    "mnif-chairs",
    "mnif:chairs32",
    "voxels_chair_32.npz",
    ['evaluate.metrics=["psnr","accuracy","iou","chamfer"]', "evaluate.points=512",
     "evaluate.samples=36"],
    [*TINY_SIREN, "train.field.points=64", 'evaluate.metrics=["psnr","iou"]'],
    sizes=((64, 8), (256, 2)),
)  # fmt: skip


def mnif_faces(plan: Plan, parts: Parts) -> None:
    train(MNIF, plan, parts)


def laginr_faces(plan: Plan, parts: Parts) -> None:
    train(LAGINR, plan, parts)


def ipc_faces(plan: Plan, parts: Parts) -> None:
    train(IPC, plan, parts)


def chairs(plan: Plan, parts: Parts) -> None:
    train(CHAIRS, plan, parts)


def chairs_sqrt(plan: Plan, parts: Parts) -> None:
    own = {"name": "mnif-chairs-sqrt", "overrides": [*CHAIRS.overrides, "conditioner.gain=sqrt"]}
    train(Job(**vars(CHAIRS) | own), plan, parts)


def train(job: Job, plan: Plan, parts: Parts) -> None:
    end = time.monotonic() + plan.seconds
    folder = Path(plan.work) / "runs" / job.name
    pace = parts.do("pace", lambda: measure_pace(job, plan))
    if pace is None:
        return
    seconds = end - time.monotonic()
    steps = parts.do("steps", lambda: choose_steps(job, pace, plan, seconds))
    assert steps is not None
    trained = parts.do("training", lambda: train_run(job, plan, folder, pace, steps))
    if trained is None:
        return
    system = load(folder, plan.device)
    parts.do("evaluation", lambda: evaluate(system, folder))
    parts.do("samples", lambda: draw(job, plan, system))


def overrides(job: Job, plan: Plan) -> list[str]:
    own = {"tiny": job.tiny, "short": SHORT, "long": []}[plan.size]
    return [*job.overrides, *own, f"source.path={plan.data_file(job.file)}"]


def measure_pace(job: Job, plan: Plan) -> Result:
    """Seconds of a step of both stages, of encoding a datum, and that the first steps take more.

    A scratch run of few data goes through the same loop.
    """
    folder, few = Path(plan.work) / "runs" / f"{job.name}-pace", 2 if plan.size == "tiny" else PACE
    shutil.rmtree(folder, ignore_errors=True)
    more = ["source.limit=200"] if plan.size != "tiny" else []
    stages = [f"train.{x}.{y}" for x in ("field", "prior") for y in ("steps", "log_every")]
    more += [f"{key}={2 * few if key.endswith('steps') else few}" for key in stages]
    has_prior = recipe.load(job.recipe).get("prior", "none") != "none"
    more = [key for key in more if has_prior or not key.startswith("train.prior")]
    system = run_training(job, plan, folder, more)
    log = Run(folder).read_log()
    pace: Result = {"prior": 0.0}
    first = 0.0
    for stage in {line["stage"] for line in log}:
        half, whole = [x["seconds_a_step"] * x["step"] for x in log if x["stage"] == stage][-2:]
        pace[stage] = max((whole - half) / few, 1e-5)
        first += whole - 2 * few * pace[stage]
    source = open_source(system.recipe, system.modality, quiet=True)
    count = min(64, len(source.train))
    data = source.read(source.train[:count])
    encoded = in_turns({"encode": lambda: system.encode(data)}, 1, system.device)["encode"]
    pace |= {"first": max(first, 0.0), "encode": encoded[0] / count}
    shutil.rmtree(folder)
    return {key: round(x, 6) if isinstance(x, float) else x for key, x in pace.items()}


def run_training(job: Job, plan: Plan, folder: Path, more: Sequence[str]) -> System:
    """A training of a job, or the rest of it. Raises Stopped where a signal stops it."""
    try:
        if (folder / "recipe.toml").is_file():
            return fieldloom.train(None, folder, device=plan.device, resume=True)
        chosen = recipe.load(job.recipe, [*overrides(job, plan), *more])
        return fieldloom.train(chosen, folder, device=plan.device)
    except Interrupted as stop:
        raise Stopped(str(stop)) from None


def choose_steps(job: Job, pace: Result, plan: Plan, seconds: float) -> Result:
    """Steps of both stages that end within these seconds, with all else that is done."""
    encoding = COUNTS[plan.size] * pace["encode"]
    left = max(1.0, seconds * (1 - RESERVE) - 2 * pace["first"] - encoding)
    most = 30 if plan.size == "tiny" else job.steps
    prior = PRIOR if pace["prior"] else 0.0
    found = {"field": int(left * (1 - prior) / pace["field"])}
    if prior:
        found["prior"] = int(left * prior / pace["prior"])
    return {stage: max(4, min(most, steps)) for stage, steps in found.items()}


def train_run(job: Job, plan: Plan, folder: Path, pace: Result, steps: Result) -> Result:
    """Both stages; their last lines of the log, and the curve of the first."""
    more = []
    for stage, count in steps.items():
        save = max(1, min(count, int(15 / pace[stage])))
        more += [f"train.{stage}.steps={count}", f"train.{stage}.save_every={save}"]
        more += [f"train.{stage}.log_every={max(1, count // 40)}"]
    device = devices.pick(plan.device)
    devices.forget_peak(device)
    system = run_training(job, plan, folder, more)
    log = Run(folder).read_log()
    last = {line["stage"]: line for line in log}
    curve = [[line["step"], line.get("psnr", line.get("loss"))] for line in log]
    return {
        "steps": steps,
        "last": last,
        "curve": curve[: len([line for line in log if line["stage"] == "field"])],
        "peak_bytes": devices.peak_memory(device),
        "train": system.recipe["train"],
    }


def evaluate(system: System, folder: Path) -> Result:
    """Metrics of the test part and of samples, beside what is published."""
    result = fieldloom.evaluate(system, folder=folder)
    found = {metric.name: metric.value for metric in result.metrics}
    finite = {name: value if math.isfinite(value) else None for name, value in found.items()}
    return finite | {"published": system.settings.expected, "of": result.metrics[0].of}


def draw(job: Job, plan: Plan, system: System) -> Result:
    """One sheet: the same samples at every resolution. A prior that is not trained draws none."""
    if not system.generates:
        return {"file": None}
    sheets, seconds = [], {}
    for side, count in job.sizes:
        side, count = (side // 4, 2) if plan.size == "tiny" else (side, count)
        codes = system.sample_codes(count, seed=0, **system.settings.evaluation.options())
        devices.synchronize(system.device)
        began = time.monotonic()
        decoded = torch.cat([system.decode(code[None], side).tensor for code in codes])
        devices.synchronize(system.device)
        seconds[str(side)] = round(time.monotonic() - began, 4)
        images = as_images(system, decoded)
        assert images is not None
        sheets.append(export.sheet(images, min(count, 8)))
    path = Path(plan.out) / f"{job.name}.png"
    export.png(stack(sheets), path)
    return {"file": path.name, "decoding_seconds": seconds}


def stack(sheets: Sequence[Any]) -> Any:
    """Pictures uint8 (height, width, 3) one below another, on white."""
    width = max(sheet.shape[1] for sheet in sheets)
    wide = [
        np.pad(sheet, ((0, 0), (0, width - sheet.shape[1]), (0, 0)), constant_values=255)
        for sheet in sheets
    ]
    return np.concatenate(wide)
