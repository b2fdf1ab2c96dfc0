"""What a system costs: the columns of mNIF's Tables 1 to 3, with the published numbers, and what
these leave out: its encoder and its prior."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import torch

from fieldloom import recipe as recipes
from fieldloom.assembly import assemble_without_data
from fieldloom.encoders import AutoDecode, Cavia, Encoder, Fit, Nothing
from fieldloom.encoders.encoder import reconstruction_loss
from fieldloom.engine import device as devices
from fieldloom.evaluation.large import LIMIT
from fieldloom.evaluation.results import Metric
from fieldloom.metrics.cost import (
    count_field_weights,
    count_macs,
    count_macs_of,
    count_parameters,
)
from fieldloom.permit import NOTHING, Permit
from fieldloom.priors import Autoregressive, Diffusion, Prior
from fieldloom.priors.schedules import Spacing
from fieldloom.process import tune_process
from fieldloom.settings import Evaluation
from fieldloom.system import System
from fieldloom.types import Code, Signal

TIMED = 1 << 20
"""Values of the strip of large data whose decoding is timed."""


def cost_metrics(system: System, codes: Code) -> list[Metric]:
    """Parameters, multiply-accumulates a datum, decoding speed, peak memory."""
    fewer = 16 if points_of(system) < 1 << 16 else 2
    with torch.device("meta"):
        bare = assemble_without_data(system.recipe, None, system.permit, prior=True)
        parts = part_metrics(bare)
    counts = count_metrics(system) + parts
    return counts + speed_metrics(system, codes[:fewer].to(system.device))


def points_of(system: System) -> int:
    """Evaluations of the field for one datum: all its points, or all samples of one view's rays."""
    return math.prod(system.modality.shape()) * system.render.evaluations


def count_metrics(system: System) -> list[Metric]:
    """Parameters and multiply-accumulates, which need no measurement."""
    slots, points = system.family.field.slots, points_of(system)
    total = count_macs(slots, system.family.conditioner.macs(), points) / 1e9
    dead, unused = system.settings.dead, float(sum(system.settings.dead.values()))
    learnable, encoder = (float(count_parameters(x)) for x in (system.family, system.encoder))
    with_dead = f"; {unused:,.0f} of them without use" if dead else ""
    metrics = [
        Metric("learnable", learnable, "family", "parameters"),
        Metric("encoder", encoder, "encoder", "rates, tables"),
        Metric("parameters", learnable + encoder + unused, "family and encoder",
               f"parameters{with_dead}"),
        Metric("inference", float(count_field_weights(slots)), "one field", "parameters"),
        Metric("gmacs", total, f"one {system.modality.unit}, {points} points",
               "1e9 multiply-accumulates of linear layers"),
        Metric("macs", float(count_macs(slots, 0, 1)), "one evaluation of the field",
               "multiply-accumulates of linear layers"),
    ]  # fmt: skip
    if dead:
        how = f"parameters without use: {', '.join(dead)}"
        metrics.append(Metric("dead", unused, "released code", how))
    return metrics


def part_metrics(system: System) -> list[Metric]:
    """What the encoder and the prior of a system on the device ``meta`` take beside the field.

    ``encoding``: multiply-accumulates from one datum to its code. ``prior``: parameters of the
    prior and its codec. ``sampling``: multiply-accumulates from noise to one code, as the section
    ``evaluate`` samples. Decoding the code is none of these. What cannot be counted without values
    (tiles that points fall into) is left out.
    """
    found, context = [], _context(system)
    encoding = _try_to_count(lambda: encoding_macs(system.encoder, system, context))
    if encoding is not None:
        of = f"one datum, {context.values.shape[1]} points"
        found.append(Metric("encoding", encoding / 1e9, of, "1e9 multiply-accumulates to its code"))
    prior = system.prior
    if prior is None:
        return found
    found.append(Metric("prior", float(count_parameters(prior)), "prior", "parameters"))
    how_sampled = system.settings.evaluation
    sampling = _try_to_count(lambda: sampling_macs(prior, how_sampled))
    if sampling is not None:
        calls = denoiser_calls(prior, how_sampled)
        how = f", {calls} calls of the denoiser" if calls else ""
        found.append(Metric("sampling", sampling / 1e9, "one code",
                            f"1e9 multiply-accumulates{how}"))  # fmt: skip
    return found


def encoding_macs(encoder: Encoder, system: System, context: Signal) -> int:
    """Multiply-accumulates of an encoder on one datum; those of descent times its steps."""
    if isinstance(encoder, AutoDecode):
        return encoding_macs(encoder.unseen, system, context)
    how = system.family, system.render.deterministic(), system.loss_fn
    if not isinstance(encoder, Cavia | Fit):
        return count_macs_of(lambda: encoder(context, *how))
    before = encoding_macs(encoder.start, system, context) if isinstance(encoder, Fit) else 0
    seen = encoder.points if isinstance(encoder, Fit) else None
    signal = context if seen is None else context.subset(seen)

    def step() -> None:
        code = system.family.conditioner.origin(1).detach().requires_grad_()
        with torch.enable_grad():
            reconstruction_loss(code, signal, *how).sum().backward(inputs=[code])

    return before + encoder.steps * count_macs_of(step)


def _context(system: System) -> Signal:
    """A datum as its encoder sees it, without values; of views that are no grid, all rays."""
    space = system.modality
    shape = space.axes or (getattr(space, "rays", None) or math.prod(space.shape()),)
    points = math.prod(shape)
    return Signal(
        torch.zeros(1, points, space.coord_dim),
        torch.zeros(1, points, space.value_dim),
        torch.zeros(1, dtype=torch.int64),
        space.axes or None,
    )


def denoiser_calls(prior: Prior, how: Evaluation) -> int:
    """How often the denoiser is called for a sample; 0 of priors that have none."""
    if not isinstance(prior, Diffusion):
        return 0
    options = how.options()
    spacing: Spacing = options.get("spacing", "trailing")
    times = prior.times(options.get("sampler", "ddim"), options.get("steps"), spacing)
    return len(times) * (2 if options.get("guidance", 1.0) != 1 else 1)


def sampling_macs(prior: Prior, how: Evaluation) -> int:
    """Multiply-accumulates of drawing one code, the codec's included.

    Of an autoregressive prior those of its transformer, in one pass over the whole sequence.
    """
    inner = torch.zeros(1, *prior.codec.inner_shape)
    if isinstance(prior, Diffusion):
        time = torch.zeros(1, dtype=torch.int64)
        call = count_macs_of(lambda: prior.denoiser(inner, time, time))
        decoding = count_macs_of(lambda: prior.codec.decode(inner))
        return denoiser_calls(prior, how) * call + decoding
    if isinstance(prior, Autoregressive):
        network, width = prior.network.to("meta"), prior.head.start().shape[-1]
        return count_macs_of(lambda: network(torch.zeros(1, network.length, width)))
    return 0


def _try_to_count(count: Callable[[], int]) -> int | None:
    """A count; None where it needs values, which the device ``meta`` does not have."""
    try:
        return count()
    except (NotImplementedError, RuntimeError, ValueError):
        return None


def speed_metrics(system: System, codes: Code) -> list[Metric]:
    """Decoding speed of these codes, one datum (or view) after another, and peak memory.

    For a datum too large to be held, only a strip of its rows is decoded.
    """
    camera = system.modality.cameras(count=1)
    values = math.prod(system.modality.shape()) * system.modality.value_dim
    large = camera is None and values > LIMIT
    if large:
        decode = lambda code: next(system.strips(code, values=TIMED))[1]
        codes = codes[:1]
    else:
        decode = lambda code: system.predict(code, cameras=camera).tensor
    warm = decode(codes[:1])
    devices.synchronize(system.device)
    began = time.perf_counter()
    decode(codes)
    devices.synchronize(system.device)
    seconds = time.perf_counter() - began
    count, of = float(len(codes)), f"{len(codes)} times one {system.modality.unit}"
    if large:
        rows, total = warm.shape[1], system.modality.shape()[0]
        count, of = rows / total, f"{rows} of the {total} rows of one datum"
    where = f"{system.device.type}, {torch.get_num_threads()} threads"
    memory = float(devices.peak_memory(system.device))
    return [
        Metric("decoded", count / seconds, of, f"a second, {where}"),
        Metric("memory", memory, "this process", "bytes, peak"),
    ]


PUBLISHED = {
    "Table 1": ["functa:celebahq64", "gem:celebahq64", "gasp:celebahq64",
                "mnif:celebahq64-S", "mnif:celebahq64-L"],
    "Table 2": ["gasp:shapenet32", "gem:shapenet64", "mnif:shapenet64-S", "mnif:shapenet64-L"],
    "Table 3": ["functa:srncars", "mnif:srncars"],
}  # fmt: skip
"""The neural fields of mNIF's Tables 1 to 3 (arXiv:2310.19464)."""

PARTS = ("encoder", "encoding", "prior", "sampling")
"""Columns of what the published ones leave out; shown where a system has such a part."""
COLUMNS = ("learnable", "parameters", "inference", "gmacs", "macs", "decoded", "memory", *PARTS)
USUAL = ("learnable", "inference", "gmacs", "decoded", "memory")
"""Columns of every table; the others are shown where a number was published."""


def cost_row(
    name: str, device: str = "auto", timed: bool = True, permit: Permit = NOTHING
) -> dict[str, Any]:
    """The columns of an untrained recipe: ours and, where printed, the published ones.

    Where a published number was measured otherwise (``expected.differs``) there is none.

    decoded: data (of views: views) a second, one after another, for at least a second.
    memory:  bytes, the most that decoding one took above what the process (on an accelerator: the
             weights) held before. It is of a process alone: see ``cost_row_apart``.
    """
    tune_process()  # a process of its own is not the command line's
    recipe = recipes.load(name)
    with torch.device("meta"):
        system = assemble_without_data(recipe, permit=permit, prior=True)
        found = {m.name: m.value for m in [*count_metrics(system), *part_metrics(system)]}
    if timed:  # a table of codes is no part of decoding
        system = assemble_without_data(recipe, 1, permit).use(devices.kernels)
        found |= _time_decoding(system.to(devices.pick(device)))
    published = system.settings.expected
    differs = published.get("differs", {})
    other = set(COLUMNS) if isinstance(differs, str) else set(differs)
    columns: dict[str, Any] = {
        key: {"ours": found.get(key), "published": None if key in other else published.get(key)}
        for key in COLUMNS
    }
    if not isinstance(system.encoder, Nothing):
        columns["learnable"]["codes_and_rates"] = found["encoder"]
    return {"recipe": name} | columns


def cost_row_apart(*arguments: Any) -> dict[str, Any]:
    """``cost_row`` in a process of its own, so that its memory is its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(cost_row, *arguments).result()


def _time_decoding(system: System) -> dict[str, float]:
    code = system.family.conditioner.origin(1).detach()
    decode = partial(system.predict, code, cameras=system.modality.cameras(count=1))
    devices.forget_peak(system.device)
    before = devices.held_memory(system.device)
    decode()
    devices.synchronize(system.device)
    peak = devices.peak_memory(system.device)
    times, began = 0, time.perf_counter()
    while (seconds := time.perf_counter() - began) < 1:
        decode()
        devices.synchronize(system.device)
        times += 1
    return {"decoded": times / seconds, "memory": max(0, peak - before)}
