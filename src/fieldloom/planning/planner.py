"""``plan``: what a large job takes on many machines, from a shard of it that is measured here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fieldloom.assembly import read_recipe
from fieldloom.codes.bulk import shard_size
from fieldloom.engine import device as devices
from fieldloom.engine.training_memory import check_training_memory
from fieldloom.errors import InputError, name_argument, quote
from fieldloom.permit import Permit
from fieldloom.planning import arithmetic
from fieldloom.planning.limits import find_limits
from fieldloom.planning.measuring import (
    Files,
    Measured,
    Meter,
    PriorSteps,
    Step,
    draw_codes,
    measure_decoding,
    measure_encoding,
    measure_field,
    measure_files,
    measure_prior,
    measure_reading,
    measure_sampling,
)
from fieldloom.planning.stages import (
    Request,
    Sizes,
    StagePlan,
    bulk_stage,
    closed_stage,
    fitting_stage,
    join_stage,
    priced,
    training_stage,
)
from fieldloom.planning.trial import Trial, open_recipe, open_run
from fieldloom.preparation import add_source
from fieldloom.progress import during
from fieldloom.recipe import Recipe
from fieldloom.system import System

SECONDS = 60.0
"""How long a plan measures by default, about."""

SHARD = 256
"""Signals of a shard of a system that encodes nothing."""

ASSUMED = (
    "Every worker and process is as fast as this machine was for this process, with as many "
    "threads or the same accelerator, and none slows another down.",
    "Waiting for disks and networks takes no time (their bytes are given); nothing overlaps; "
    "starting workers, queues and what fails are not counted.",
)


@dataclass(frozen=True)
class Plan:
    """What a job would take.

    recipe: its name, or the run's folder. data: what was measured on, in words.
    signals, workers, processes, price, shard: as asked; shard: signals of a shard.
    measured: pieces that were done here; seconds: whose seconds those are.
    stages: in the order of a run; limits: where it would not scale, in sentences; assumed: what
    the arithmetic takes for granted. environment: of the machine that measured.
    """

    recipe: str
    data: str
    signals: int
    workers: int
    processes: int
    price: int | float | None
    shard: int
    measured: tuple[Measured, ...]
    seconds: str
    stages: tuple[StagePlan, ...]
    limits: tuple[str, ...]
    assumed: tuple[str, ...]
    environment: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """The plan as dicts, lists and numbers, which JSON can say."""
        return asdict(self)


def plan(
    recipe: str | Recipe | None = None,
    variant: str | None = None,
    *,
    signals: int | float | str,
    workers: int | float | str = 1,
    run: str | None = None,
    source: str | None = None,
    processes: int | float | str = 1,
    price: int | float | None = None,
    shard: int | float | str | None = None,
    seconds: int | float = SECONDS,
    device: str = "auto",
    trust: Sequence[str] = (),
    network: bool = False,
    large: bool = False,
    **overrides: Any,
) -> Plan:
    """What a job on many data would take on many machines, from pieces of it measured here.

    >>> plan = fieldloom.plan("mnif", "faces64", signals=1e6, workers=64, price=0.5)
    >>> plan.stages[-1].hours.middle, plan.limits

    recipe: a name, a path, or a dict; variant, trust, network, large, overrides: as of ``train``.
    run:     or the folder of a trained run, whose encoding, sampling and decoding are planned.
    signals: data that are encoded, sampled and decoded, and that training sees.
    workers: of bulk jobs; processes: that share each batch of training.
    source:  a path, of whose data the first few are read. Where there is none, and the recipe's own
             data are not here, data of their shape are generated.
    price:   of a worker (of training: a process) and an hour.
    shard:   signals of a shard; None: as ``encode`` takes them.
    seconds: how long is measured, about; a piece that takes longer by itself is done once.

    Raises InputError for arguments that do not fit, and as ``build`` and readers of data do.
    """
    if (recipe is None) == (run is None):
        raise InputError("plan: a recipe, or run, the folder of one, is needed, and not both.")
    asked = check_request(signals, workers, processes, price, shard)
    permit = Permit((trust,) if isinstance(trust, str) else tuple(trust), network, large)
    if run is not None:
        if overrides or variant:
            raise InputError("plan: a run has a recipe of its own, which does not change.")
        return plan_run(run, asked, source, seconds, device, permit)
    chosen = read_recipe(recipe, variant, overrides)
    chosen = chosen if source is None else add_source(chosen, source, permit)
    return plan_recipe(chosen, asked, source is not None, seconds, device, permit)


def plan_recipe(
    recipe: Recipe, asked: Request, given: bool, seconds: int | float, device: str, permit: Permit
) -> Plan:
    """The plan of a resolved recipe. given: whether the user names its data, which must be here."""
    check_seconds(seconds)
    trial = open_recipe(recipe, given, devices.pick(device), permit)
    return plan_of(trial, trial.system.settings.title or "a recipe", asked, seconds, trained=False)


def plan_run(
    run: str, asked: Request, source: str | None, seconds: int | float, device: str, permit: Permit
) -> Plan:
    """The plan of a trained run's bulk work. source: a path to other data than its own."""
    check_seconds(seconds)
    trial = open_run(run, source, device, permit)
    return plan_of(trial, str(run), asked, seconds, trained=True)


def check_seconds(seconds: Any) -> None:
    """Raise InputError for what is no positive number of seconds."""
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not number or not 0 < seconds < math.inf:
        raise InputError(
            f"{name_argument('seconds')} {quote(seconds)} is not right: it is a number above 0."
        )


def check_request(signals: Any, workers: Any, processes: Any, price: Any, shard: Any) -> Request:
    """What is asked for, checked. Raises InputError."""
    counts = {"signals": signals, "workers": workers, "processes": processes}
    counts |= {} if shard is None else {"shard": shard}
    whole = {k: arithmetic.parse_count(name_argument(k), v) for k, v in counts.items()}
    number = isinstance(price, int | float) and not isinstance(price, bool)
    if price is not None and not (number and 0 <= price < math.inf):
        raise InputError(
            f"{name_argument('price')} {quote(price)} is not right: it is a number, 0 or above."
        )
    return Request(whole["signals"], whole["workers"], whole["processes"], price,
                   whole.get("shard", 0))  # fmt: skip


def plan_of(trial: Trial, name: str, asked: Request, seconds: int | float, trained: bool) -> Plan:
    """The plan of a system: measures it, and does the arithmetic. trained: it needs no training."""
    system, source = trial.system, trial.source
    device = system.device
    if trained and not system.family.has_code:
        raise InputError(
            f"'{name}' fits one datum, and has no codes to make of others: plan its recipe, which "
            "fits each of them."
        )
    todo = ["field", *(["codec", "prior"] if system.prior is not None else [])]
    if not trained:
        check_training_memory(system, source, system.settings.stages, todo)
    has_code, learns = system.family.has_code, system.prior is not None and system.prior.learns
    encodes, trains = has_code and system.encodes, not trained and has_code and learns
    samples = system.generates if trained else system.prior is not None
    pieces = 2 + (not trained) + 2 * encodes + 2 * trains + samples
    meter = Meter(device, seconds / pieces)
    asked = replace(asked, shard=asked.shard or default_shard(trial, encodes))
    asked = replace(asked, shard=min(asked.shard, asked.signals))
    with during("measuring"):
        reading, bytes_each = measure_reading(meter, trial, asked.signals)
        field = None if trained else measure_field(meter, trial)
        encoding = measure_encoding(meter, trial, asked.shard) if encodes else None
        codes = draw_codes(system).to(device) if has_code else None
        files = None if codes is None else measure_files(meter.by_clock(), codes, asked.shard)
        prior = measure_prior(meter, trial, codes) if trains and codes is not None else None
        sampling = measure_sampling(meter, system) if samples else None
        decoding = measure_decoding(meter, system)
    sizes = size_up(trial, asked.signals, bytes_each, files)
    steps = [x for x in (field, *(prior.steps if prior else ())) if x is not None]
    done = Done(reading, field, encoding, files, prior, sampling, decoding)
    if trial.will_stream(asked.signals):
        done = done.with_reading()
    stages = [priced(stage, asked.price) for stage in list_stages(system, asked, sizes, done)]
    measured = [
        *(reading, *(step.measured for step in steps), encoding),
        *((files.write, files.read) if files else ()),
        *((prior.closed,) if prior else ()),
        *(sampling, decoding),
    ]
    return Plan(
        recipe=name,
        data=trial.about,
        signals=asked.signals,
        workers=asked.workers,
        processes=asked.processes,
        price=asked.price,
        shard=asked.shard,
        measured=tuple(x for x in measured if x is not None),
        seconds=meter.of,
        stages=tuple(stages),
        limits=tuple(find_limits(asked, sizes, steps, stages, encoding is not None)),
        assumed=(*ASSUMED, describe_reading(sizes)),
        environment=devices.environment(device),
    )


def default_shard(trial: Trial, encodes: bool) -> int:
    """Signals of a shard: as ``encode`` takes them, or any number where it does not."""
    if not encodes:
        return SHARD if trial.system.family.has_code else 1
    return shard_size(trial.system, trial.source, trial.source.train)


def describe_reading(sizes: Sizes) -> str:
    """Where the bytes that are read come from."""
    if sizes.counted:
        return f"Each datum takes {sizes.read:,} bytes of reading, as counted for the first ones."
    return f"Each datum is {sizes.read:,} bytes to read, as an array; compressed files are smaller."


class Done(NamedTuple):
    """What was measured; None where a system does not do it."""

    reading: Measured
    field: Step | None
    encoding: Measured | None
    files: Files | None
    prior: PriorSteps | None
    sampling: Measured | None
    decoding: Measured

    def with_reading(self) -> Done:
        """The same, with the time of reading in the time of what was measured without it."""
        add = lambda x: replace(x, seconds=x.seconds.plus(self.reading.seconds))
        field, encoding = self.field, self.encoding
        return self._replace(
            field=field and replace(field, measured=add(field.measured)),
            encoding=encoding and add(encoding),
        )


def size_up(trial: Trial, signals: int, read: int | None, files: Files | None) -> Sizes:
    """Bytes of a signal, where there are so many. read: those counted while one was read."""
    system, data = trial.system, trial.source.data
    numbers = math.prod(data.shape[1:])
    code = system.dtype.itemsize * math.prod(system.family.code_shape)
    each = data.values.dtype.itemsize * numbers
    held = isinstance(data.values, Tensor) and not trial.will_stream(signals)
    streamed = trial.generated or not held
    counted = bool(read) and streamed and not trial.generated
    return Sizes(
        array=system.dtype.itemsize * numbers,
        read=read if counted and read else each,
        counted=counted,
        streamed=streamed,
        held=each,
        code=code,
        file=files.size if files else 0.0,
        decoded=math.prod(system.modality.shape()) * system.modality.value_dim,
        weights=sum(x.nbytes for x in system.state_dict().values()),
        trial=len(trial.source.train),
    )


def list_stages(system: System, asked: Request, sizes: Sizes, done: Done) -> Iterator[StagePlan]:
    """The stages of a job, in the order in which they come."""
    signals, unit = f"{asked.signals:,}", system.modality.unit
    shards = f"{asked.shards:,} shards of {asked.shard:,}"
    if done.field is not None and not system.family.has_code:
        yield fitting_stage(asked, sizes, done.field)
    elif done.field is not None:
        yield training_stage(asked, sizes, done.field)
    stored = system.encoder.stored_codes(torch.zeros(1, dtype=torch.int64), system.family)
    if done.prior is not None and done.encoding is not None and stored is None:
        work = f"{signals} training signals, {shards}"
        yield bulk_stage(asked, sizes, "find codes", done.encoding, work=work, disk=sizes.file,
                         reads=True, workers=asked.processes)  # fmt: skip
    if done.prior is not None:
        if done.prior.codec is not None:
            yield training_stage(asked, sizes, done.prior.codec)
        yield closed_stage(asked, sizes, done.prior.closed)
        if done.prior.prior is not None:
            yield training_stage(asked, sizes, done.prior.prior)
    if done.encoding is not None and done.files is not None:
        work = f"{signals} signals, {shards}"
        written = done.files.write
        encoding = replace(done.encoding, seconds=done.encoding.seconds.plus(written.seconds))
        yield bulk_stage(asked, sizes, "encode", encoding, work=work, disk=sizes.file, reads=True)
        yield join_stage(asked, sizes, written, done.files.read)
    if done.sampling is not None:
        yield bulk_stage(asked, sizes, "sample codes", done.sampling, work=f"{signals} codes")
    if system.family.has_code:
        work = f"{signals} {'data' if unit == 'datum' else f'{unit}s'}, as 8-bit numbers"
        yield bulk_stage(asked, sizes, "decode", done.decoding, work=work, disk=sizes.decoded)
