"""Refinement: Adam continues from an encoder's codes, on the signals that they encode."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fieldloom.encoders.fit import Fit, OnStep, Step
from fieldloom.errors import InputError
from fieldloom.family import Family
from fieldloom.progress import Progress
from fieldloom.renderers import Renderer
from fieldloom.types import Code, LossFn, Signal

What = Literal["codes", "weights"]

RATES: Mapping[What, float] = {"codes": 0.1, "weights": 1e-4}
"""Default rates of Adam. Codes': of their own root mean square, since codes of two systems differ
in size by a hundred (docs/decisions.md). Weights': TransINR's own."""

Quality = Callable[[Family, Code, Signal], Tensor]
"""How well codes of a family explain their signals, larger is better: (batch,)."""


class Refinement(NamedTuple):
    """The result of a refinement.

    family: the family that the codes belong to. code: the refined codes (batch, tokens, width).
    before, after: the quality of each code before and after the refinement, (batch,).
    """

    family: Family
    code: Code
    before: Tensor
    after: Tensor


def check_refinement(
    family: Family, what: What, steps: int, rate: float | None, points: int | None
) -> None:
    """Raise InputError for numbers out of range, and where there is no code to refine."""
    wrong = rate is not None and not 0 < rate < math.inf
    if steps < 0 or wrong or (points is not None and points < 1):
        raise InputError(f"refine: steps = {steps}, rate = {rate}, points = {points}: positive.")
    if what == "codes" and not family.has_code:
        raise InputError("refine: this run's signals have no codes; refine weights instead.")


def refine(
    code: Code,
    signal: Signal,
    family: Family,
    render: Renderer,
    loss_fn: LossFn,
    quality: Quality,
    what: What = "codes",
    steps: int = 100,
    rate: float | None = None,
    points: int | None = None,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> Refinement:
    """Refine the codes (batch, tokens, width) that an encoder found, by ``Fit``.

    what:   ``codes``: descend on the codes, and leave the family as it is; ``weights``: descend on
            all weights of each function, which become the codes of a new family
            (``Family.unfold``).
    rate:   of Adam; None: of codes a tenth of each signal's root mean square, of weights, also
            where codes are weights, 1e-4.
    points: of each signal, sampled anew for each step; None: all of its points.

    A signal whose quality did not rise keeps its first code. Sources:
    arXiv:2310.05624, section 4.5 (both variants; rates and steps are not published); TransINR's
    released code refines weights by 100 steps of Adam at 1e-4 on 1024 rays each.

    Raises InputError as ``check_refinement`` does.
    """
    check_refinement(family, what, steps, rate, points)
    if what == "weights":
        family = family.unfold(code)
        code = family.conditioner.origin(len(code)).detach()
    rate, relative = choose_rate(what, family, rate)
    fit = Fit(steps, rate, keep="last", points=points, draw="anew", seed=seed, relative=relative)
    refined = fit.refine(code, signal, family, render, loss_fn, on_step)
    before, after = quality(family, code, signal), quality(family, refined, signal)
    better = after > before
    best = torch.where(better.to(code.device)[:, None, None], refined, code)
    return Refinement(family, best, before, torch.where(better, after, before))


def choose_rate(what: What, family: Family, rate: float | None) -> tuple[float, bool]:
    """Adam's rate, and whether it is a part of the codes' size: by default, of codes that are no
    weights.
    """
    relative = rate is None and what == "codes" and family.conditioner.layout is None
    return (RATES["codes" if relative else "weights"] if rate is None else rate), relative


def refine_batches(
    batches: Iterable[tuple[Code, Signal]],
    count: int,
    family: Family,
    render: Renderer,
    loss_fn: LossFn,
    quality: Quality,
    what: What = "codes",
    steps: int = 100,
    rate: float | None = None,
    points: int | None = None,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> Refinement:
    """``refine`` one batch after another, with a progress bar; the results are on the CPU.

    batches: codes and their signals. count: of all signals, at least 1.
    """
    done, found = 0, []
    with Progress("refining", count * (steps + 1)) as progress:

        def tell(step: Step) -> bool | None:
            nonlocal done
            done += len(step.code)
            progress.update(done)
            return None if on_step is None else on_step(step)

        for code, signal in batches:
            parts = (family, render, loss_fn, quality, what, steps, rate, points, seed)
            found.append(refine(code, signal, *parts, tell))
    code = torch.cat([one.code.cpu() for one in found])
    before, after = (
        torch.cat([getattr(one, name) for one in found]) for name in ("before", "after")
    )
    return Refinement(found[-1].family, code, before, after)
