"""Speed on the device, each beside the plain way of writing it, and as a share of its bounds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, get_args

import arithmetic
import attention
import bounds
import experts
import kernels
import rendering
import torch
from measure import in_turns
from torch import Tensor

import bulk
import fieldloom
from accelerator_sections.parts import Absent, Parts, Plan, Result
from fieldloom import recipe
from fieldloom.assembly import objective_of
from fieldloom.conditioners import FlatWeights, Mixture
from fieldloom.encoders import Cavia, Fit
from fieldloom.encoders.draws import point_sampler
from fieldloom.engine import device as devices
from fieldloom.engine.feed import Feed
from fieldloom.engine.loop import Training, loop
from fieldloom.errors import InputError
from fieldloom.family import Family
from fieldloom.fields import Siren
from fieldloom.fields.local import Local
from fieldloom.renderers import Direct
from fieldloom.settings import Execution, Precision, Stage
from fieldloom.system import System
from fieldloom.types import Code, Values


@dataclass(frozen=True)
class Row:
    """A published configuration. tiny: its sizes on a CPU."""

    name: str
    recipe: str
    tiny: Sequence[str]


SMALL = ["modality.size=8", "field.width=8", "field.depth=3"]
ROWS = [
    Row("mnif S", "mnif:celebahq64-S", [*SMALL, "conditioner.experts=4", "conditioner.width=8"]),
    Row("mnif L", "mnif:celebahq64-L", [*SMALL, "conditioner.experts=4", "conditioner.width=8"]),
    Row("functa", "functa:celebahq64", [*SMALL, "conditioner.width=8"]),
    Row("laginr 178", "laginr:celeba178", [
        "modality.size=18", "field.width=8", "field.features=8", "field.tokens=4",
        "encoder.width=12", "encoder.depth=1", "encoder.heads=2",
    ]),
]  # fmt: skip


def run(plan: Plan, parts: Parts) -> None:
    device, tiny = devices.pick(plan.device), plan.size == "tiny"
    measured = parts.do("bounds", lambda: measure_bounds(device, 0.01 if tiny else 0.4))
    if measured is None:
        return
    limits = bounds.Bounds(measured["matrix"], measured["sines"], measured["copied"])
    for row in ROWS[:1]:
        measure_row(row, plan, parts, limits)
    parts.do("loe", lambda: measure_experts(device, plan, limits))
    parts.do("bulk fits", lambda: measure_bulk(device, plan, limits))
    for row in ROWS[1:]:
        measure_row(row, plan, parts, limits)
    parts.do("volume rendering", lambda: measure_rendering(plan))
    measure_ways("eager", plan, parts)
    if devices.can_capture(device):
        measure_ways("captured", plan, parts)
    long = plan.size == "long"
    parts.do("kernels", lambda: kernels.measure(device, limits, 0.2 if long else 0.02, not long))
    if long:  # inductor takes its time
        measure_ways("compiled", plan, parts)


def measure_ways(execution: Execution, plan: Plan, parts: Parts) -> None:
    """Training steps of mNIF S by one execution, in every precision."""
    for precision in get_args(Precision):
        way = partial(measure_way, ROWS[0], plan, precision, execution)
        parts.do(f"mnif S, training, {precision}, {execution}", way)


def measure_row(row: Row, plan: Plan, parts: Parts, limits: bounds.Bounds) -> None:
    parts.do(f"{row.name}, training", lambda: measure_training(row, plan, limits))
    parts.do(f"{row.name}, decoding", lambda: measure_decoding(row, plan, limits))


def measure_bounds(device: torch.device, seconds: float) -> Result:
    found = asdict(bounds.measure(device, seconds))
    return found | {"device": device.type, "environment": devices.environment(device)}


def make_system(row: Row, plan: Plan) -> System:
    """A row without its prior, and without noise on the codes' start."""
    chosen = recipe.load(row.recipe, row.tiny if plan.size == "tiny" else [])
    chosen.pop("prior", None)
    if chosen["encoder"]["name"] == "cavia":
        chosen["encoder"]["noise"] = 0.0
    return fieldloom.build(chosen).use(devices.kernels).to(devices.pick(plan.device))


def draw_images(system: System, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (count, system.modality.channels, *system.modality.shape())
    return torch.rand(shape, generator=generator).to(system.device)


# Training.


def measure_training(row: Row, plan: Plan, limits: bounds.Bounds) -> Result:
    """Pictures a second of the loop, of a plain step of it, and of the bound."""
    system, steps = make_system(row, plan), {"tiny": 1, "short": 10, "long": 30}[plan.size]
    stage = system.settings.field_stage
    batch = 2 if plan.size == "tiny" else stage.batch
    data, device = draw_images(system, batch), system.device
    held = devices.held_memory(device)
    devices.forget_peak(device)
    own, execution = step_seconds(system, stage, data, steps)
    peak = devices.peak_memory(device) - held
    few, plain_seconds, plain_peak = plain_training(system, data, max(1, steps // 2))
    work = count_step(row, plan)
    found = {
        "batch": batch,
        "execution": execution,
        "plain_batch": few,
        "seconds_a_step": own,
        "rate": batch / own,
        "plain_rate": few / plain_seconds,
        "ratio": (batch / own) / (few / plain_seconds),
        "peak_bytes": peak,
        "plain_peak_bytes": plain_peak,
        "bound": limits.seconds(work * batch) / own,
        "share_of_matrix_peak": work.flop * batch / own / limits.matrix["float32"],
        "share_of_bandwidth": work_bytes(row, plan) * batch / own / limits.copied,
    }
    return found


def step_seconds(system: System, stage: Stage, data: Tensor, steps: int) -> tuple[float, str]:
    """Seconds of a step of the training loop itself, on one batch that is there already.

    And how steps ran: what cannot be recorded runs eagerly.
    """
    training = Training(objective_of(system), replace(stage, steps=3 * steps, log_every=steps))
    batch = system.modality.observe(data, keep_grid=system.encoder.reads_grid)
    points = batch.target.coords.shape[1]
    width = system.family.widest
    micro = devices.micro_batch(system.device, len(data), points, width)
    feed: Feed[Tensor] = Feed(lambda indices, generator: indices, lambda indices: batch)
    marks = []

    def log(line: dict[str, Any]) -> None:
        devices.synchronize(system.device)
        marks.append(time.perf_counter())

    options: dict[str, Any] = dict(seed=0, micro=micro, device=system.device)
    loop("field", training, feed, len(data), **options, save=lambda state: None, log=log)
    system.eval()
    least = min(b - a for a, b in pairwise(marks)) / steps
    return least, training.execution.mode


def plain_training(system: System, data: Tensor, steps: int) -> tuple[int, float, int]:
    """The batch that fits, seconds of a plain step of it, and the bytes that it adds."""
    adam, device = torch.optim.AdamW(system.parameters(), 1e-6), system.device

    def measure(batch: int) -> tuple[float, int]:
        held = devices.held_memory(device)
        devices.forget_peak(device)
        task = partial(plain_step, system, data[:batch], adam)
        seconds = min(in_turns({"plain": task}, steps, device)["plain"])
        return seconds, devices.peak_memory(device) - held

    return halve(len(data), measure)


def halve(batch: int, measure: Callable[[int], tuple[float, int]]) -> tuple[int, float, int]:
    """The largest of batch, batch / 2, batch / 4 ... that fits the memory, and its measures."""
    while True:
        try:
            return batch, *measure(batch)
        except torch.OutOfMemoryError:
            if batch == 1:
                raise
        batch //= 2


def plain_step(system: System, data: Tensor, adam: torch.optim.Optimizer) -> float:
    """A step as it is commonly written: the whole batch at once, the loss read at every step."""
    system.train()
    adam.zero_grad()
    signal = system.modality.observe(data, keep_grid=system.encoder.reads_grid).context
    if isinstance(system.encoder, Cavia):
        code = plain_descent(system, signal.coords, signal.values)
    else:
        code = system.encoder(signal, system.family, system.render, system.loss_fn)
    loss = (plain_values(system, code, signal.coords) - signal.values).square().mean()
    loss.backward()
    adam.step()
    return loss.item()


def plain_descent(system: System, coords: Tensor, values: Tensor) -> Code:
    """CAVIA of second order, by autograd."""
    encoder = system.encoder
    code = torch.zeros(len(coords), *system.family.code_shape, device=coords.device)
    code.requires_grad_()
    rates = 1.0 if encoder.rates is None else encoder.rates.clamp(*encoder.clamp)
    for _ in range(encoder.steps):
        error = (plain_values(system, code, coords) - values).square().mean((1, 2)).sum()
        (gradient,) = torch.autograd.grad(error, code, create_graph=True)
        code = code - encoder.rate * rates * gradient
    return code


def plain_values(system: System, code: Code, coords: Tensor) -> Values:
    """The field by plain operations: a mixture by broadcasting, attention with all its scores."""
    family = system.family
    mixture = isinstance(family.conditioner, Mixture)
    weights = mix_plainly(family.conditioner, code) if mixture else family.conditioner(code)
    if isinstance(family.field, Local):
        return attention.naive(family.field, coords, weights)
    h, field = coords, family.field
    for i, w0 in enumerate(field.frequencies):
        h = h @ weights[f"{i}.weight"] + weights[f"{i}.bias"][:, None]
        if i < field.depth - 1 or field.output == "sine":
            h = torch.sin(w0 * h)
    return h + field.offset


def mix_plainly(mixture: Mixture, code: Code) -> dict[str, Tensor]:
    """sum_m alpha[m, layer] W[m, layer], the product broadcast to (batch, bases, in, out)."""
    alpha, mixed = mixture.alpha(code), {}
    for name in mixture.chosen:
        basis = mixture.basis[name]
        own = alpha[:, mixture.layer_index[name]]
        mixed[name] = (own.reshape(*own.shape, *[1] * (basis.ndim - 1)) * basis).sum(1)
    return mixed


COUNTED: dict[str, dict[str, float]] = {}
"""Row -> what a training step of one picture takes."""


def counted_step(row: Row, plan: Plan) -> dict[str, float]:
    if row.name not in COUNTED:
        system = make_system(row, replace(plan, device="cpu"))
        batch = system.modality.observe(draw_images(system, 1), keep_grid=system.encoder.reads_grid)
        objective = objective_of(system).train()
        COUNTED[row.name] = arithmetic.count(lambda: arithmetic.take_step(objective, batch))
    return COUNTED[row.name]


def count_step(row: Row, plan: Plan) -> bounds.Work:
    """The matrices and slow functions of a training step of one picture."""
    counted = counted_step(row, plan)
    return bounds.Work(counted["flops"], counted.get("functions", 0))


def work_bytes(row: Row, plan: Plan) -> float:
    """Bytes that the operations of a step of one picture write, and as many that they read."""
    return 2 * counted_step(row, plan)["bytes"]


# Decoding.


def measure_decoding(row: Row, plan: Plan, limits: bounds.Bounds) -> Result:
    """Pictures a second at batch 1 and 64, and what bfloat16 gains and costs."""
    system = make_system(row, plan)
    return {
        str(batch): measure_decode(system, batch, plan, limits)
        for batch in ((1, 2) if plan.size == "tiny" else (1, 64))
    }


def measure_decode(system: System, batch: int, plan: Plan, limits: bounds.Bounds) -> Result:
    device, coords = system.device, system.modality.grid().to(system.device)
    generator = torch.Generator().manual_seed(0)
    code = torch.randn(batch, *system.family.code_shape, generator=generator).to(device)
    turns = {"tiny": 1, "short": 5, "long": 15}[plan.size]
    decode = lambda dtype=None: torch.cat(list(system.evaluate(code, coords, dtype)))

    @torch.inference_mode()
    def plain(some: Code) -> Values:
        return plain_values(system, some, coords.expand(len(some), -1, -1))

    def measure(task: Callable[[], Any]) -> tuple[float, int]:
        held = devices.held_memory(device)
        devices.forget_peak(device)
        (seconds,) = in_turns({"": task}, turns, device).values()
        return min(seconds), devices.peak_memory(device) - held

    def measure_half() -> Result:
        rounded = decode(torch.bfloat16)
        span = system.modality.high - system.modality.low
        noise = float((rounded - values).square().mean()) / span**2
        psnr = None if noise == 0 else -10 * math.log10(noise)
        return {"rate": batch / measure(lambda: decode(torch.bfloat16))[0], "psnr": psnr}

    own, peak = measure(decode)
    few, plain_seconds, plain_peak = halve(batch, lambda few: measure(lambda: plain(code[:few])))
    values, expected = decode(), plain(code[:few])
    try:
        half = measure_half()
    except InputError as error:  # a processor without matrix units for it
        half = {"why": str(error)}
    return {
        "rate": batch / own,
        "plain_rate": few / plain_seconds,
        "plain_batch": few,
        "ratio": (batch / own) / (few / plain_seconds),
        "bound": limits.seconds(decode_work(system, coords.shape[1]) * batch) / own,
        "relative_error": float((values[:few] - expected).norm() / expected.norm()),
        "bfloat16": half,
        "peak_bytes": peak,
        "plain_peak_bytes": plain_peak,
    }


def decode_work(system: System, points: int) -> bounds.Work:
    """Of a SIREN matrices and sines of its points; of others all that is counted on a CPU."""
    field = system.family.field
    if isinstance(field, Siren):
        return bounds.point_of(field.slots, field.output == "sine") * points
    alone = fieldloom.build(system.recipe)
    code = torch.zeros(1, *alone.family.code_shape)
    counted = arithmetic.count(lambda: list(alone.evaluate(code, alone.modality.grid())))
    return bounds.Work(counted["flops"], counted.get("functions", 0))


# Others.


def measure_experts(device: torch.device, plan: Plan, limits: bounds.Bounds) -> Result:
    """Levels-of-Experts: a layer and a field, as benchmarks/experts.py measures them."""
    if plan.size == "tiny":
        experts.POINTS, experts.WIDTH = 1024, 16
    found = experts.measure(device, {"tiny": 1, "short": 5, "long": 11}[plan.size])
    flop = 6 * experts.POINTS * experts.WIDTH**2  # forward, and both gradients
    shares = {
        name: flop / seconds / limits.matrix["float32"]
        for name, seconds in found["seconds"].items()
        if name.startswith("layer") and seconds
    }
    return found | {"error": experts.check(device), "share_of_matrix_peak": shares}


def measure_bulk(device: torch.device, plan: Plan, limits: bounds.Bounds) -> Result:
    """SIRENs 2-32-32-1 on whole images of 28 x 28, a thousand at once, and one as torch has it.

    The floor is the arithmetic: matrices three times (forward, and both gradients), sines and
    cosines, and seven passes over weights (Adam).
    """
    count, steps = {"tiny": (8, 2), "short": (1000, 20), "long": (1000, 60)}[plan.size]
    torch.manual_seed(0)
    case = next(case for case in bulk.cases() if case.name.startswith("siren"))
    case.field.kernels = devices.kernels
    family = Family(case.field, FlatWeights(case.field.slots)).to(device)
    signal = bulk.images(count, 0).to(device)
    points = signal.coords.shape[1]
    fit = Fit(steps, case.rate, keep="last", draw="once")
    one = signal.part(slice(1))
    drawn = [point_sampler(one, points, fit.seed)(step) for step in range(steps)]
    tasks: dict[str, Callable[[], Any]] = {
        "own": lambda: fit(signal, family, Direct(), case.loss_fn),
        "plain": lambda: bulk.plain_fit(case, family, drawn),
    }
    found = in_turns(tasks, {"tiny": 1, "short": 3, "long": 5}[plan.size], device)
    own, plain = min(found["own"]) / steps, min(found["plain"]) / steps
    point = bounds.point_of(case.field.slots)
    weights = sum(math.prod(slot.shape) for slot in case.field.slots.values())
    work = bounds.Work(3 * point.flop, 2 * point.sines) * (points * count)
    floor = limits.seconds(work) + 7 * 4 * weights * count / limits.copied
    return {
        "fields": count,
        "field_steps_per_second": count / own,
        "plain_field_steps_per_second": 1 / plain,
        "ratio": count / own * plain,
        "over_floor": own / floor,
    }


def measure_rendering(plan: Plan) -> Result:
    """Second-order CAVIA through a volume renderer, forgetting inner graphs and keeping all."""
    sizes = (1, 8, 4, 1) if plan.size == "tiny" else (4, 512, 32, 4)
    found = {
        name: rendering.step(forget, *sizes, device=plan.device)
        for name, forget in (("own", True), ("plain", False))
    }
    ratio = lambda key: found["own"][key] / max(found["plain"][key], 1e-9)
    return found | {"time_ratio": ratio("seconds"), "memory_ratio": ratio("peak_bytes")}


def measure_way(row: Row, plan: Plan, precision: Precision, execution: Execution) -> Result:
    """Seconds of a training step in one precision and by one execution."""
    steps = {"tiny": 1, "short": 6, "long": 20}[plan.size]
    system = make_system(row, plan)
    data = draw_images(system, 2 if plan.size == "tiny" else 32)
    stage = replace(system.settings.field_stage, precision=precision, execution=execution)
    try:
        seconds, ran = step_seconds(system, stage, data, steps)
    except InputError as error:  # what this device cannot do
        raise Absent(str(error)) from None
    return {"seconds": seconds, "ran": ran}
