"""Fitting: many Adam steps on the codes alone, any number of signals as stacked tensors.

Whatever a code meets (the points that are sampled, its rate, when it stops) is a function of its
own signal and the signal's index, so that a fit in a stack is the same as a fit alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor

from fieldloom import stopping
from fieldloom.encoders.draws import point_sampler, select, streams
from fieldloom.encoders.encoder import Encoder, Nothing, error
from fieldloom.encoders.stacks import Plateau, Stack, stack_size
from fieldloom.errors import InputError
from fieldloom.family import Family
from fieldloom.renderers import Renderer
from fieldloom.types import Code, LossFn, Signal


class Step(NamedTuple):
    """Where the descent of one stack of signals is, before a step or after the last one.

    step:    how many steps are done.
    seconds: how long they took, the caller's own time left out.
    losses:  (batch,), the loss of each code on the points that the next step sees.
    code:    (batch, tokens, width), of the signals that have not stopped.
    """

    step: int
    seconds: float
    losses: Tensor
    code: Code


OnStep = Callable[[Step], bool | None]
"""What is called before each step and after the last; where it answers True, the descent ends."""


class Fit(Encoder):
    """Many Adam steps on the codes alone, from another encoder's answer or from the origin.

    All signals of a batch are fitted together, in stacks.

    steps, rate: of Adam.
    start:  the encoder whose answer is refined; ``nothing`` starts at the conditioner's origin.
    origin: ``shared``, the conditioner's, or ``random``: each signal starts at a random code of its
            own, by its index (conditioner ``flat-weights``, and no ``start``).
    points: how many of a signal's points a step sees; None: all.
    draw:   ``once``: they are the same ones in every step and signal; ``anew``: each step samples
            others, with replacement, by the signal's index and the step.
    keep:   ``best`` returns the code of the lowest loss that each signal met, so that a fit is
            never worse than its start (where points are sampled anew, the loss on all of them is
            measured after every pass); ``last`` the final one, as published rows do.
    plateau: how rates fall and signals stop, each by itself; None: neither.
    weight_decay: times the rate, taken off every number of a code in each step (AdamW).
    seed:   of random origins and of sampled points.

    A pass has as many steps as samples of ``points`` make up a signal; one, where all are seen.
    """

    splits_batches = True

    def __init__(
        self,
        steps: int = 200,
        rate: float = 1e-2,
        start: Encoder | None = None,
        keep: Literal["best", "last"] = "best",
        points: int | None = None,
        draw: Literal["once", "anew"] = "once",
        origin: Literal["shared", "random"] = "shared",
        plateau: Plateau | None = None,
        weight_decay: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if steps < 0 or rate <= 0 or (points is not None and points < 1) or weight_decay < 0:
            raise InputError(
                f"fit: steps = {steps}, rate = {rate}, points = {points}, weight_decay = "
                f"{weight_decay}: positive."
            )
        if origin == "random" and start is not None:
            raise InputError("fit: origin = 'random' leaves nothing for a start: give one of both.")
        self.steps, self.rate, self.keep, self.points = steps, rate, keep, points
        self.draw, self.origin, self.plateau = draw, origin, plateau
        self.weight_decay, self.seed = weight_decay, seed
        self.start = start or Nothing()
        self.independent, self.reads_grid = self.start.independent, self.start.reads_grid

    def forward(
        self,
        signal: Signal,
        family: Family,
        render: Renderer,
        loss_fn: LossFn,
        on_step: OnStep | None = None,
    ) -> Code:
        """The codes of a batch of signals: (batch, tokens, width).

        on_step: is told where the descent of each stack is, for curves over time and for progress.
        """
        return self.refine(None, signal, family, render, loss_fn, on_step)

    def refine(
        self,
        code: Code | None,
        signal: Signal,
        family: Family,
        render: Renderer,
        loss_fn: LossFn,
        on_step: OnStep | None = None,
    ) -> Code:
        """As ``forward``, from these codes (batch, tokens, width); None: from the start's."""
        render, count = render.deterministic(), signal.coords.shape[1]
        points = count if self.points is None else min(self.points, count)
        size = stack_size(family, render, points, signal.coords.is_cpu)
        size = size if self.independent else max(1, len(signal))
        kept = {name: x.to(signal.coords.device) for name, x in stopping.take_state().items()}
        found = [kept.pop("found")] if kept else []
        for first in range(sum(map(len, found)), max(1, len(signal)), size):
            some = slice(first, first + size)
            part, begun = signal.part(some), None if code is None else code[some].detach()
            try:
                found.append(self.fit(begun, part, points, family, render, loss_fn, kept, on_step))
            except stopping.Paused as pause:
                none = family.conditioner.origin(0).detach()
                pause.tensors["found"] = torch.cat([none, *found])
                raise
            kept = {}
        return torch.cat(found)

    def fit(
        self,
        code: Code | None,
        signal: Signal,
        points: int,
        family: Family,
        render: Renderer,
        loss_fn: LossFn,
        kept: Mapping[str, Tensor],
        on_step: OnStep | None = None,
    ) -> Code:
        """The codes of one stack. kept: where it, or its start, was left before."""
        explain = (family, render, loss_fn)
        if code is None and "step" not in kept:
            with stopping.substep("start", kept):
                code = self.begin(signal, *explain).detach()
        seen = signal.thin(points) if self.draw == "once" else signal
        return self.descend(code, seen, points, *explain, kept, on_step)

    def in_training(
        self, signal: Signal, family: Family, render: Renderer, loss_fn: LossFn
    ) -> Code:
        """The start's answer: what training can move is where descent begins."""
        return self.start.in_training(signal, family, render, loss_fn)

    def begin(self, signal: Signal, family: Family, render: Renderer, loss_fn: LossFn) -> Code:
        """Where descent begins."""
        if self.origin == "shared":
            return self.start(signal, family, render, loss_fn)
        if family.conditioner.layout is None:
            raise InputError(
                "fit.origin = 'random' needs conditioner 'flat-weights': codes are weights."
            )
        draw = lambda seed: family.conditioner.draw(Generator().manual_seed(seed))
        codes = [draw(seed) for seed in streams(signal.index, self.seed).tolist()]
        return torch.cat(codes).to(family.conditioner.origin(0))

    def descend(
        self,
        code: Code | None,
        signal: Signal,
        points: int,
        family: Family,
        render: Renderer,
        loss_fn: LossFn,
        kept: Mapping[str, Tensor],
        on_step: OnStep | None = None,
    ) -> Code:
        """Fit one stack from these codes, each step to so many points of every signal.

        kept: instead of codes, where it was left before. Raises Paused where it may be left now.
        """
        now = (lambda: seconds_now(signal.coords)) if on_step is not None else (lambda: 0.0)
        explain = (family, render, loss_fn)
        count, best = signal.coords.shape[1], self.keep == "best"
        if "step" in kept:
            begun, result = int(kept["step"]), kept["result"]
            stack = Stack.restore(kept)
            going = torch.zeros(len(signal), dtype=torch.bool, device=result.device)
            going[stack.place] = True
            signal = signal if bool(going.all()) else select(signal, going)
        else:
            assert code is not None
            begun, stack, result = 0, Stack.begin(code, self.rate), code.clone()
        seen, a_pass = point_sampler(signal, points, self.seed), count // points
        began = now()
        for step in range(begun, self.steps):
            if stopping.should_pause():
                told = {"step": torch.tensor(step), "result": result}
                raise stopping.Paused(stack.state() | told)
            seconds = now() - began
            with torch.enable_grad():
                leaf = stack.code.detach().requires_grad_()
                losses = error(leaf, seen(step), *explain)
                (grad,) = torch.autograd.grad(losses.sum(), leaf)
            losses = losses.detach()
            if on_step is not None:
                paused = now()
                if on_step(Step(step, seconds, losses, leaf.detach())):
                    break
                began += now() - paused  # the clock stands still meanwhile
            if best and step % a_pass == 0:
                stack.keep_best(losses if points == count else errors(leaf, signal, *explain))
            stack.step(grad, step + 1, self.weight_decay)
            if self.plateau is None:
                continue
            stack.summed = stack.summed + losses
            if (step + 1) % a_pass:
                continue
            stack.look(stack.summed / a_pass, self.plateau)
            stack.summed = torch.zeros_like(losses)
            going = stack.rate > 0
            if self.plateau.stop is None or 2 * int(going.sum()) > len(going):
                continue
            # what stopped costs as much as what goes on: leave it out
            done, theirs = stack.take(~going), select(signal, ~going)
            result[done.place] = self.kept(done, theirs, *explain)
            stack, signal = stack.take(going), select(signal, going)
            if not len(signal):
                return result
            seen = point_sampler(signal, points, self.seed)
        else:
            if on_step is not None:
                seconds = now() - began
                with torch.no_grad():
                    losses = error(stack.code, seen(self.steps), *explain)
                on_step(Step(self.steps, seconds, losses, stack.code))
        result[stack.place] = self.kept(stack, signal, *explain)
        return result

    def point_evaluations(self, points: int) -> int:
        return self.steps * (self.points or points)

    def kept(
        self, stack: Stack, signal: Signal, family: Family, render: Renderer, loss_fn: LossFn
    ) -> Code:
        """The codes that are the answer."""
        if self.keep == "best":
            stack.keep_best(errors(stack.code, signal, family, render, loss_fn))
        return stack.best if self.keep == "best" else stack.code


@torch.no_grad()
def errors(code: Code, signal: Signal, family: Family, render: Renderer, loss_fn: LossFn) -> Tensor:
    """As ``error``, of any number of signals, a stack at a time and without gradients: (batch,)."""
    size = stack_size(family, render, signal.coords.shape[1], code.is_cpu)
    found = []
    for first in range(0, max(1, len(code)), size):
        some = slice(first, first + size)
        found.append(error(code[some], signal.part(some), family, render, loss_fn))
    return torch.cat(found)


def seconds_now(tensor: Tensor) -> float:
    """The time on a clock, once the device of a tensor has done what it was asked to."""
    if not tensor.is_cpu:
        torch.accelerator.synchronize(tensor.device)
    return time.perf_counter()
