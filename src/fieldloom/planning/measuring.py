"""Pieces of a job's work, done here a few times within a bounded time, leaving nothing behind."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from fieldloom import memory
from fieldloom.assembly import objective_of
from fieldloom.codes import jobs
from fieldloom.codes.bulk import encode_shard
from fieldloom.encoders import Fit
from fieldloom.engine import device as devices
from fieldloom.engine.feed import Feed
from fieldloom.engine.loop import Training
from fieldloom.engine.pace import measure_pace
from fieldloom.engine.tensors import read_tensors, write_tensors
from fieldloom.engine.training_memory import MOMENTS
from fieldloom.evaluation.costs import TIMED
from fieldloom.evaluation.large import LIMIT
from fieldloom.feeding import feed_codes, feed_data
from fieldloom.objectives import CodecLoss, Objective, PriorLoss
from fieldloom.objectives.reptile import Reptile
from fieldloom.planning.arithmetic import Span
from fieldloom.planning.trial import Trial
from fieldloom.process import return_memory
from fieldloom.recipe import STAGES
from fieldloom.settings import Stage
from fieldloom.system import System
from fieldloom.threads import threads_by_work

LEAST, MOST = 3, 9
"""How often a piece is done, at least where it is short, and at most."""

FIT_STEPS = 100
"""Steps of a fit that are tried before the whole fit is."""

CODES, CODE_BYTES = 256, 1 << 26
"""Codes that a prior is measured on: at most so many, of at most so many bytes."""

SHARD_BYTES = 1 << 25
"""Bytes of codes that are written and read, at most."""


@dataclass(frozen=True)
class Measured:
    """Seconds of one piece of work that was done here.

    what: the work, in words. units: how many signals (of training: of a step) it was done with.
    seconds: of one unit. times: how often it was done. whole: whether all of it was done; False:
    a part, of which ``seconds`` is extrapolated as ``what`` says. memory: the peak of the process
    (of an accelerator: its allocator), in bytes.
    """

    what: str
    units: int
    seconds: Span
    times: int
    whole: bool
    memory: int


class Meter:
    """Measures pieces on a device, each within a share of a budget of seconds.

    share: seconds for a piece, as its clock counts them. A piece that takes longer by itself is
    done once. The clock: where one thread of a processor computes, the seconds that it had, which
    other programs do not lengthen.
    """

    def __init__(self, device: torch.device, share: int | float, by_clock: bool = False) -> None:
        self.device, self.share = device, share
        alone = device.type == "cpu" and torch.get_num_threads() == 1 and not by_clock
        self.clock: Callable[[], float] = time.process_time if alone else time.perf_counter
        self.of = "the processor" if alone else "the clock"

    def by_clock(self) -> Meter:
        """The same, of the clock: of work that waits for disks."""
        return Meter(self.device, self.share, True)

    @contextmanager
    def peak(self) -> Iterator[Callable[[], int]]:
        """A context whose peak of memory, in bytes, is asked within it."""
        return_memory()
        devices.forget_peak(self.device)
        yield lambda: devices.peak_memory(self.device)

    def once(self, run: Callable[[], object]) -> float:
        """Seconds of one call."""
        began = self.clock()
        run()
        devices.synchronize(self.device)
        return self.clock() - began

    def repeat(self, run: Callable[[], object], share: int | float | None = None) -> list[float]:
        """Seconds of each of some calls; the first warms up, and counts where it is long."""
        share, began = self.share if share is None else share, self.clock()
        first = self.once(run)
        if first > share / LEAST:
            return [first]
        found: list[float] = []
        while len(found) < LEAST or (len(found) < MOST and self.clock() - began < share):
            found.append(self.once(run))
        return found

    def grow(self, run: Callable[[int], object], most: int) -> int:
        """The first number of 1, 2, 4 ... ``most`` units that takes a tenth of a share, or all."""
        count = 1
        while count < most and self.once(partial(run, count)) < self.share / 10:
            count = min(2 * count, most)
        return count


def measure_step(
    meter: Meter, training: Training, feed: Feed, count: int, seed: int, micro: int
) -> Measured:
    """A step of training: the whole batch where there is time, otherwise one micro-batch of it."""
    whole, micro = training.stage, training.micro_of(micro)
    batch = min(micro, whole.batch)

    def pace() -> float:
        return measure_pace(
            training,
            feed,
            count,
            seed=seed,
            micro=micro,
            device=meter.device,
            seconds=meter.share,
            clock=meter.clock,
        ).step

    with meter.peak() as peak:
        training.stage = replace(whole, batch=batch)
        found, long = [pace()], meter.share / LEAST
        if batch < whole.batch and found[0] * whole.batch / batch < long:
            batch, training.stage = whole.batch, whole
            found = [pace()]
        while found[0] < long and len(found) < LEAST:
            found.append(pace())
        peaked = peak()
    training.stage = whole
    seconds = Span.of([x / batch for x in found])
    return Measured("", batch, seconds, len(found), batch == whole.batch, peaked)


@dataclass(frozen=True)
class Step:
    """A stage's step: what was measured, and what the stage's arithmetic needs to know.

    micro: signals of a micro-batch, the batch where it cannot be cut; cut: whether processes can
    share it. moments: tensors that its optimizer keeps for each parameter. gradients: bytes that
    processes add up each step; table: bytes of those of single signals' codes among them. state:
    bytes of a checkpoint.
    """

    name: str
    measured: Measured
    stage: Stage
    micro: int
    cut: bool
    moments: int
    gradients: int
    table: int
    state: int


def measure_stage(
    meter: Meter, trial: Trial, name: str, objective: Objective, codes: Tensor | None = None
) -> Step:
    """A step of a stage, on the trial's data or on codes."""
    system, encoder = trial.system, trial.system.encoder
    stage = replace(system.settings.stages[name], minutes=None)
    training = Training(objective, stage, STAGES.index(name))
    moments = MOMENTS.get(str(stage.optimizer.get("name")), 2)
    weights = sum(p.nbytes for p in objective.parameters())
    held = weights * (2 + moments + bool(stage.ema) + 1 + bool(stage.ema))  # the last two are kept
    memory.check(f"measuring train.{name}", held, system.permit, devices.memory(meter.device))
    if codes is None:
        feed, count = feed_data(system, trial.source, stage, meter.device), len(trial.source.train)
        seen = (stage.points or system.modality.grid().shape[1]) * system.render.evaluations
        numbers = (stage.micro or stage.batch) * seen * system.family.widest
    else:
        feed, count, numbers = feed_codes(codes, None, meter.device), len(codes), 0
    micro = stage.micro or stage.batch
    # a step of Reptile is a fit
    points = math.prod(system.modality.shape())
    fits = short_fit(encoder, points) if isinstance(objective, Reptile) else nullcontext(1.0)
    with threads_by_work(numbers, meter.device.type == "cpu" and codes is None), fits as factor:
        found = measure_step(meter, training, feed, count, system.settings.seed, micro)
    found = replace(
        found,
        what=f"train {name}{say_part(factor)}",
        seconds=found.seconds.times(factor),
        whole=found.whole and factor == 1,
    )
    groups = [g for groups in training.players.values() for g in groups]
    own = [g.name in objective.per_signal for g in groups]
    sizes = [sum(p.nbytes for p in g.parameters) for g in groups]
    table = sum(size for size, signal in zip(sizes, own, strict=True) if signal)
    state = weights * (1 + moments + bool(stage.ema))
    cut = objective.independent or objective.divisible
    micro = micro if objective.independent else stage.batch
    return Step(f"train {name}", found, stage, micro, cut, moments, sum(sizes), table, state)


def measure_encoding(meter: Meter, trial: Trial, most: int) -> Measured:
    """Encoding the data of a shard; of a long fit, a part of its steps."""
    system, source = trial.system, trial.source
    encoder, indices = system.encoder, source.train
    of = lambda count: indices[torch.arange(count, device=indices.device) % len(indices)]
    encode = lambda count: encode_shard(system, source, of(count))
    points = math.prod(system.modality.shape())
    with short_fit(encoder, points) as whole:
        long = whole > 1 and meter.once(lambda: encode(1)) * whole > meter.share / 10
    size = 1 if encoder.splits_batches else system.encode_batch_size(source.take(indices[:1]))
    with meter.peak() as peak, short_fit(encoder, points) if long else nullcontext(1.0) as factor:
        count = size * meter.grow(lambda n: encode(n * size), max(1, most // size))
        found = meter.repeat(lambda: encode(count))
        peaked = peak()
    each = Span.of([x / count for x in found]).times(factor)
    what = f"encode{say_part(factor)}"
    return Measured(what, count, each, len(found), factor == 1, peaked)


@contextmanager
def short_fit(encoder: nn.Module, points: int) -> Iterator[float]:
    """A context in which a fit takes ``FIT_STEPS`` steps; yields how many times longer a whole one
    takes, by the points that it evaluates: 1 of other encoders, and of fits that are no longer.
    """
    if not isinstance(encoder, Fit) or encoder.steps <= FIT_STEPS:
        yield 1.0
        return
    whole, steps = encoder.point_evaluations(points), encoder.steps
    encoder.steps = FIT_STEPS
    try:
        yield whole / encoder.point_evaluations(points)
    finally:
        encoder.steps = steps


def say_part(factor: int | float) -> str:
    """Which part of a fit was done."""
    return "" if factor == 1 else f" ({FIT_STEPS} steps of a fit, times {factor:.3g})"


def draw_codes(system: System) -> Tensor:
    """Codes of a system around its origin, which are of no data."""
    each = system.dtype.itemsize * math.prod(system.family.code_shape)
    count = max(2, min(CODES, CODE_BYTES // max(1, each)))
    origin = system.family.conditioner.origin(count).detach()
    return origin + torch.randn(origin.shape, generator=torch.Generator().manual_seed(0)).to(origin)


@dataclass(frozen=True)
class PriorSteps:
    """What was measured of the stages of a prior; None where they have no steps.

    closed: the codec's and the prior's closed forms, of each code.
    """

    codec: Step | None
    closed: Measured
    prior: Step | None

    @property
    def steps(self) -> tuple[Step | None, ...]:
        """Those that take steps, in the order of training."""
        return self.codec, self.prior


def measure_prior(meter: Meter, trial: Trial, codes: Tensor) -> PriorSteps:
    """The stages of a prior that learns, on codes of no data; leaves it fitted to these."""
    prior = trial.system.prior
    assert prior is not None
    start = trial.system.family.conditioner.origin(1)[0].detach()
    codec = likelihood = None
    if prior.codec.trained:
        prior.codec.prepare(codes, None, start)
        codec = measure_stage(meter, trial, "codec", CodecLoss(prior.codec), codes)
    with meter.peak() as peak:
        took = meter.once(lambda: prior.fit(codes, None, start))
        peaked = peak()
    closed = Measured("closed forms", len(codes), Span.of([took / len(codes)]), 1, True, peaked)
    if prior.trained:
        likelihood = measure_stage(meter, trial, "prior", PriorLoss(prior), codes)
    return PriorSteps(codec, closed, likelihood)


def measure_field(meter: Meter, trial: Trial) -> Step:
    """A step of the stage ``field``."""
    return measure_stage(meter, trial, "field", objective_of(trial.system))


def measure_sampling(meter: Meter, system: System) -> Measured:
    """Drawing codes from the prior, which must be fitted."""
    prior = system.prior
    assert prior is not None
    system.eval()
    generator = torch.Generator().manual_seed(0)
    draw = lambda count: prior.sample(count, generator=generator)
    with meter.peak() as peak:
        count = meter.grow(draw, CODES)
        found = meter.repeat(lambda: draw(count))
        peaked = peak()
    return Measured("sample codes", count, Span.of([x / count for x in found]), len(found), True,
                    peaked)  # fmt: skip


def measure_decoding(meter: Meter, system: System) -> Measured:
    """Decoding one code: a whole datum (of views: one view), or a strip of a large one."""
    code = system.family.conditioner.origin(1).detach()
    cameras = system.modality.cameras(count=1)
    shape = system.modality.shape()
    fraction = 1.0
    if cameras is None and math.prod(shape) * system.modality.value_dim > LIMIT:
        first = next(system.strips(code, values=TIMED))[1]
        fraction = first.shape[1] / shape[0]
        decode: Callable[[], object] = lambda: next(system.strips(code, values=TIMED))
    else:
        decode = lambda: system.predict(code, cameras=cameras)
    with meter.peak() as peak:
        found = meter.repeat(decode)
        peaked = peak()
    each = Span.of(found).times(1 / fraction)
    what = f"decode a {system.modality.unit}"
    return Measured(what, 1, each, len(found), fraction == 1, peaked)


def measure_reading(meter: Meter, trial: Trial, signals: int) -> tuple[Measured, int | None]:
    """Reading the data, a few at a time, and the bytes read for each; None: not known here.

    Data that are held, and would be decoded as they are needed if there were so many ``signals``,
    are decoded again. The bytes are those of the process's reads: of memory-mapped files they are
    not counted.
    """
    source = trial.source
    count = min(16, len(source.train))
    read: Callable[[], object] = lambda: source.read(source.train[:count])
    if trial.will_stream(signals):
        read, count = trial.again, len(source.data)
    before = bytes_read()
    with meter.peak() as peak:
        read()
        after = bytes_read()
        found = meter.repeat(read, meter.share / 4)
        peaked = peak()
    each = None if before is None or after is None else (after - before) // count
    span = Span.of([x / count for x in found])
    return Measured("read data", count, span, len(found), True, peaked), each


def bytes_read() -> int | None:
    """Bytes that this process has read by system calls, where the system tells."""
    try:
        lines = Path("/proc/self/io").read_bytes().decode().splitlines()
    except OSError:
        return None
    return next((int(x.split()[1]) for x in lines if x.startswith("rchar")), None)


@dataclass(frozen=True)
class Files:
    """Writing and reading the file of a shard, and its bytes; seconds are of each code."""

    write: Measured
    read: Measured
    size: float


def measure_files(meter: Meter, codes: Tensor, shard: int) -> Files:
    """The file of a shard of codes, in a temporary folder, which is removed."""
    count = max(1, min(shard, SHARD_BYTES // max(1, codes[0].nbytes)))
    rows = codes.cpu()[torch.arange(count) % len(codes)]
    tensors = {"codes": rows, "places": torch.arange(count), "errors": torch.zeros(count)}
    with TemporaryDirectory(prefix="fieldloom-plan-") as folder, meter.peak() as peak:
        path = jobs.shard_path(Path(folder), 0)

        def write() -> None:
            write_tensors(path, tensors, {})
            jobs.hash_file(path)

        wrote = meter.repeat(write, meter.share / 4)
        read = meter.repeat(lambda: read_tensors(path), meter.share / 4)
        size, peaked = path.stat().st_size / count, peak()
    made = lambda what, took: Measured(
        what, count, Span.of([x / count for x in took]), len(took), True, peaked
    )
    return Files(made("write codes", wrote), made("read codes", read), size)
