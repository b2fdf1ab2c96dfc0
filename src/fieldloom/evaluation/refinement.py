"""Test-time optimisation: what an encoder answers, refined on the very signal it was found from."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fieldloom.encoders import Nothing, error
from fieldloom.encoders.draws import drawing
from fieldloom.engine.device import synchronize
from fieldloom.errors import InputError
from fieldloom.family import Family
from fieldloom.metrics.paired import psnr
from fieldloom.progress import Progress
from fieldloom.settings import Stage
from fieldloom.system import System
from fieldloom.types import Code, Data, Signal

What = Literal["codes", "weights"]

RATES: Mapping[What, float] = {"codes": 1e-2, "weights": 1e-4}
"""Of Adam, where none is asked for: small runs gained most at these (weights: TransINR's own)."""


class Moment(NamedTuple):
    """Codes (batch, tokens, width) after so many steps, and the seconds that these took.

    errors: (batch,), the system's reconstruction loss on the points that the next step sees.
    """

    step: int
    seconds: float
    errors: Tensor
    code: Tensor


class Refined(NamedTuple):
    """``system.decode(code)`` are the refined data.

    start: the encoder's codes, of the system that was refined. before, after: (batch,), PSNR in dB
    over the known points of what the codes were found from.
    """

    system: System
    code: Code
    start: Code
    before: Tensor
    after: Tensor


def descend(
    system: System,
    signal: Signal,
    code: Code,
    steps: int,
    rate: float,
    points: int | None = None,
    seed: int = 0,
) -> Iterator[Moment]:
    """Adam on the codes alone, from the given ones: a moment before each step, and one at the end.

    Each code descends on its own signal's error alone. The clock stands still while the caller has
    a moment. points: so many of a signal's known points, drawn anew for each step; None: all.
    """
    render, loss_fn = system.render.deterministic(), system.loss_fn
    draw = drawing(signal, points or signal.coords.shape[1], seed)
    code = code.detach().clone().requires_grad_()
    adam, seconds = torch.optim.Adam([code], rate), 0.0
    for step in range(steps + 1):
        began = time.perf_counter()
        with torch.enable_grad():
            seen = draw(step)
            losses = error(code, seen, system.family, render, loss_fn)
        synchronize(code.device)
        took = time.perf_counter() - began
        yield Moment(step, seconds, losses.detach(), code.detach().clone())
        if step < steps:
            began = time.perf_counter()
            (code.grad,) = torch.autograd.grad(losses.sum(), code)
            adam.step()
            synchronize(code.device)
            seconds += took + time.perf_counter() - began


def with_family(system: System, family: Family) -> System:
    """The same data, renderer and loss with other functions; it neither encodes nor samples."""
    return System(
        system.modality,
        system.render,
        system.loss_fn,
        family.to(system.device),
        Nothing(),
        None,
        system.recipe,
        system.link,
    )


def unfolded(system: System, code: Code) -> tuple[System, Tensor]:
    """The same functions with all their weights as codes (batch, 1, weights), to descend on.

    The system decodes such codes of any signal, not only of these.
    """
    family = system.family.unfold(code)
    return with_family(system, family), family.conditioner.origin(len(code)).detach()


def refine(
    system: System,
    data: Data,
    what: What = "codes",
    steps: int = 100,
    rate: float | None = None,
    points: int | None = None,
    seed: int = 0,
) -> Refined:
    """Encode data, then let Adam descend, for each signal apart, from the encoder's answer.

    what:   ``codes``: the family stays as it is; ``weights``: all weights of each function, with
            the code's tokens where these are weights (``Family.unfold``).
    rate:   None: as ``RATES`` has it.
    points: of a signal, drawn anew for each step; None: as many as a step of training saw. Views
            take theirs from those that a code is found from, never from those held out.

    A signal whose PSNR did not rise keeps the encoder's answer. Sources: arXiv:2310.05624, section
    4.5 (both variants; rates and steps are not published); TransINR's released code refines weights
    by 100 steps of Adam at 1e-4 on 1024 rays each.

    Raises InputError where there is no code to refine, or the system cannot encode.
    """
    rate = RATES[what] if rate is None else rate
    if steps < 0 or rate <= 0 or (points is not None and points < 1):
        raise InputError(f"refine: steps = {steps}, rate = {rate}, points = {points}: positive.")
    if what == "codes" and not system.family.has_code:
        raise InputError("refine: this run's signals have no codes; refine weights instead.")
    start, stage = system.encode(data), system.settings.of_field
    points = points or stage.points
    whole = system.modality.encoding(data.part(slice(1))).coords.shape[1]
    points = None if points is None or points >= whole else points
    size = at_once(stage, points or whole)
    firsts = range(0, len(data), size)
    done: list[Refined] = []
    with Progress("refining", len(firsts) * (steps + 1)) as progress:
        for first in firsts:
            some = slice(first, first + size)
            signal = system.modality.encoding(data.part(some)).to(system.device)
            places = torch.arange(first, first + len(signal), device=system.device)
            signal = replace(signal, index=places)  # what is drawn depends on no company
            begin, turned = start[some], system
            if what == "weights":
                turned, begin = unfolded(system, begin)
            for moment in descend(turned, signal, begin, steps, rate, points, seed):
                progress.update(len(done) * (steps + 1) + moment.step + 1)
            before, after = (closeness(turned, code, signal) for code in (begin, moment.code))
            better = after > before
            code = torch.where(better.to(begin.device)[:, None, None], moment.code, begin)
            best = torch.where(better, after, before)
            done.append(Refined(turned, code.cpu(), start[some].cpu(), before, best))
    joined = [torch.cat(parts) for parts in zip(*(one[1:] for one in done), strict=True)]
    return Refined(done[-1].system, *joined)


def at_once(stage: Stage, points: int) -> int:
    """Signals of so many points that hold no more of them than a micro-batch of training did."""
    size = stage.micro or stage.batch
    return max(1, size * (stage.points or points) // max(points, 1))


def closeness(system: System, code: Code, signal: Signal) -> Tensor:
    """PSNR of each code over the known points of its signal, not clamped: (batch,) dB."""
    places = signal.coords.to(system.device)
    made = system.modality.denormalize(torch.cat(list(system.evaluate(code, places)))).cpu()
    true = system.modality.denormalize(signal.values).cpu()
    known = torch.ones(true.shape[:2], dtype=torch.bool)
    known = known if signal.mask is None else signal.mask.cpu()
    pairs = zip(made, true, known, strict=True)
    return torch.cat([psnr(m[there].mT[None], t[there].mT[None]) for m, t, there in pairs])
