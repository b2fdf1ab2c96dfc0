"""Fitting: many Adam steps on the codes alone, any number of signals as stacked tensors.

Whatever a field meets (its draws, its rate, when it stops) is a function of its own signal and the
signal's place, so that a fit in a stack is the fit alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Generator, Tensor

from fieldloom import stopping
from fieldloom.conditioners import FlatWeights
from fieldloom.encoders.draws import drawing, picked, streams
from fieldloom.encoders.encoder import Encoder, Nothing, error
from fieldloom.encoders.stacks import Plateau, Stack, stack_size
from fieldloom.errors import InputError
from fieldloom.family import Family
from fieldloom.renderers import Renderer
from fieldloom.types import Code, LossFn, Signal


class Fit(Encoder):
    """Many Adam steps on the codes alone, all signals of the batch in stacks.

    steps, rate: of Adam.
    start:  the encoder whose answer is refined; ``nothing`` starts at the origin.
    origin: ``shared``, the conditioner's, or ``random``: each signal has a draw of its own, by its
            place (conditioner ``flat-weights``, and no ``start``).
    points: fitted to so many of a signal's points; None: to all.
    draw:   ``once``: they are the same ones in every step and signal; ``anew``: each step draws
            others, with replacement, by the signal's place and the step.
    keep:   ``best`` returns the best code that each signal met, so that a fit is never worse than
            its start (where points are drawn anew all of them are measured after every pass);
            ``last`` the final one, as published rows do.
    plateau: how rates fall and fields stop, each field by itself; None: neither.
    weight_decay: times the rate, taken off every number of a code in each step (AdamW).
    seed:   of random origins and draws.

    A pass has as many steps as draws of ``points`` make up a signal; one, where all are seen.
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

    def forward(self, signal: Signal, family: Family, render: Renderer, loss_fn: LossFn) -> Code:
        render, count = render.deterministic(), signal.coords.shape[1]
        points = count if self.points is None else min(self.points, count)
        size = stack_size(family, render, points, signal.coords.is_cpu)
        size = size if self.independent else max(1, len(signal))
        kept = {name: x.to(signal.coords.device) for name, x in stopping.kept().items()}
        found = [kept.pop("found")] if kept else []
        for first in range(sum(map(len, found)), max(1, len(signal)), size):
            part = signal.part(slice(first, first + size))
            try:
                found.append(self.fit(part, points, family, render, loss_fn, kept))
            except stopping.Paused as pause:
                none = family.conditioner.origin(0).detach()
                pause.tensors["found"] = torch.cat([none, *found])
                raise
            kept = {}
        return torch.cat(found)

    def fit(
        self,
        signal: Signal,
        points: int,
        family: Family,
        render: Renderer,
        loss_fn: LossFn,
        kept: Mapping[str, Tensor],
    ) -> Code:
        """The codes of one stack. kept: where it, or its start, was left before."""
        explain = (family, render, loss_fn)
        code = None
        if "step" not in kept:
            with stopping.named("start", kept):
                code = self.begin(signal, *explain).detach()
        seen = signal.thinned(points) if self.draw == "once" else signal
        return self.descend(code, seen, points, *explain, kept)

    def in_training(
        self, signal: Signal, family: Family, render: Renderer, loss_fn: LossFn
    ) -> Code:
        """The start's answer: what training can move is where descent begins."""
        return self.start.in_training(signal, family, render, loss_fn)

    def begin(self, signal: Signal, family: Family, render: Renderer, loss_fn: LossFn) -> Code:
        """Where descent begins."""
        if self.origin == "shared":
            return self.start(signal, family, render, loss_fn)
        if not isinstance(family.conditioner, FlatWeights):
            raise InputError(
                "fit.origin = 'random' needs conditioner 'flat-weights': codes are weights."
            )
        draw = lambda seed: family.conditioner.draw(Generator().manual_seed(seed))
        drawn = [draw(seed) for seed in streams(signal.index, self.seed).tolist()]
        return torch.cat(drawn).to(family.conditioner.start)

    def descend(
        self,
        code: Code | None,
        signal: Signal,
        points: int,
        family: Family,
        render: Renderer,
        loss_fn: LossFn,
        kept: Mapping[str, Tensor],
    ) -> Code:
        """Fit one stack from these codes, each step to so many points of every signal.

        kept: instead of codes, where it was left before. Raises Paused where it may be left now.
        """
        explain = (family, render, loss_fn)
        count, best = signal.coords.shape[1], self.keep == "best"
        if "step" in kept:
            begun, result = int(kept["step"]), kept["result"]
            stack = Stack.restore(kept)
            going = torch.zeros(len(signal), dtype=torch.bool, device=result.device)
            going[stack.place] = True
            signal = signal if bool(going.all()) else picked(signal, going)
        else:
            assert code is not None
            begun, stack, result = 0, Stack.begin(code, self.rate), code.clone()
        seen, a_pass = drawing(signal, points, self.seed), count // points
        for step in range(begun, self.steps):
            if stopping.pause_asked():
                told = {"step": torch.tensor(step), "result": result}
                raise stopping.Paused(stack.state() | told)
            with torch.enable_grad():
                leaf = stack.code.detach().requires_grad_()
                losses = error(leaf, seen(step), *explain)
                (grad,) = torch.autograd.grad(losses.sum(), leaf)
            losses = losses.detach()
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
            done, theirs = stack.take(~going), picked(signal, ~going)
            result[done.place] = self.kept(done, theirs, *explain)
            stack, signal = stack.take(going), picked(signal, going)
            if not len(signal):
                return result
            seen = drawing(signal, points, self.seed)
        result[stack.place] = self.kept(stack, signal, *explain)
        return result

    def kept(
        self, stack: Stack, signal: Signal, family: Family, render: Renderer, loss_fn: LossFn
    ) -> Code:
        """The codes that are the answer."""
        if self.keep == "best":
            stack.keep_best(errors(stack.code, signal, family, render, loss_fn))
        return stack.best if self.keep == "best" else stack.code


@torch.no_grad()
def errors(code: Code, signal: Signal, family: Family, render: Renderer, loss_fn: LossFn) -> Tensor:
    """``error`` of any number of signals, a stack at a time: (batch,)."""
    size = stack_size(family, render, signal.coords.shape[1], code.is_cpu)
    found = []
    for first in range(0, max(1, len(code)), size):
        some = slice(first, first + size)
        found.append(error(code[some], signal.part(some), family, render, loss_fn))
    return torch.cat(found)
