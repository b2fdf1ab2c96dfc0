"""Fitting: many Adam steps on the codes alone, any number of signals as stacked tensors.

The sampled points, the learning rate and the stopping time of a code depend only on its own signal
and the signal's index, so that a fit in a stack is the same as a fit alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor

from fieldloom import stopping
from fieldloom.encoders.draws import hash_indices, point_sampler, select_signals
from fieldloom.encoders.encoder import Encoder, Nothing, reconstruction_loss
from fieldloom.encoders.stacks import Plateau, Stack, stack_size
from fieldloom.errors import InputError
from fieldloom.family import Family
from fieldloom.renderers import Renderer
from fieldloom.types import Code, LossFn, Signal


class Step(NamedTuple):
    """Where the descent of one stack of signals is, before a step or after the last one.

    step:    number of steps done so far.
    seconds: how long they took, without the time of the caller's ``on_step``.
    losses:  (batch,), the loss of each code on the points that the next step sees.
    code:    (batch, tokens, width), of the signals that have not stopped.
    """

    step: int
    seconds: float
    losses: Tensor
    code: Code


OnStep = Callable[[Step], bool | None]
"""Called before each step and after the last one; the descent ends where it returns True."""


class Watch:
    """Calls ``on_step``, and measures the seconds of a descent without those of the calls.

    Without ``on_step`` it measures nothing, so that no device is synchronized.
    """

    def __init__(self, on_step: OnStep | None, tensor: Tensor) -> None:
        self.on_step, self.tensor, self.began = on_step, tensor, 0.0

    def start(self) -> None:
        self.began = self._now()

    def seconds(self) -> float:
        """Seconds since the start, without those of the calls so far."""
        return self._now() - self.began

    def report(self, step: int, seconds: float, losses: Tensor, code: Code) -> bool:
        """Call ``on_step``; whether it asks to end the descent."""
        if self.on_step is None:
            return False
        called = self._now()
        ends = bool(self.on_step(Step(step, seconds, losses, code.detach())))
        self.began += self._now() - called
        return ends

    def _now(self) -> float:
        return 0.0 if self.on_step is None else seconds_now(self.tensor)


OF_ZERO = 0.1
"""The size that a code of 0 counts as, for a relative rate."""


class Fit(Encoder):
    """Many Adam steps on the codes alone, starting at another encoder's codes or at the origin.

    All signals of a batch are fitted together, in stacks.

    steps, rate: number of Adam's steps, and its learning rate.
    relative: whether the rate of a signal is times the root mean square of the code where its
            descent begins; a code of 0, as most origins are, counts as one of 0.1.
    start:  the encoder whose codes are refined; ``nothing`` starts at the conditioner's origin.
    origin: ``shared``: all signals start at the conditioner's origin; ``random``: each signal
            starts at a random code of its own, drawn by its index (conditioner ``flat-weights``,
            and no ``start``).
    points: number of a signal's points that a step sees; None: all.
    draw:   ``once``: every step and every signal uses the same points; ``anew``: each step samples
            new ones, with replacement, by the signal's index and the step.
    keep:   ``best`` returns each signal's code of the lowest loss, so that a fit is never worse
            than its start (where points are sampled anew, the loss on all of them is measured
            after every pass); ``last`` returns the final code, as published rows do.
    keep_every: passes between two looks for the best code. To keep one is to copy it, which takes
            as long as a step where a code is larger than the points that a step sees.
    plateau: how learning rates fall and signals stop, each by itself; None: neither.
    weight_decay: of AdamW; times the rate it is the fraction of a code taken off in each step.
    seed:   of random origins and of sampled points.

    A pass is the number of steps whose samples of ``points`` together make up one signal: one step
    where all points are seen.
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
        keep_every: int = 1,
        relative: bool = False,
    ) -> None:
        super().__init__()
        if keep_every < 1:
            raise InputError(f"fit: keep_every = {keep_every}: at least 1.")
        few = steps < 0 or (points is not None and points < 1)
        if few or not 0 < rate < math.inf or weight_decay < 0:
            raise InputError(
                f"fit: steps = {steps}, rate = {rate}, points = {points}, weight_decay = "
                f"{weight_decay}: positive."
            )
        if origin == "random" and start is not None:
            raise InputError("fit: origin = 'random' leaves nothing for a start: give one of both.")
        self.steps, self.rate, self.keep, self.points = steps, rate, keep, points
        self.draw, self.origin, self.plateau = draw, origin, plateau
        self.weight_decay, self.seed, self.keep_every = weight_decay, seed, keep_every
        self.relative = relative
        self.start = start or Nothing()
        self.independent, self.reads_grid = self.start.independent, self.start.reads_grid
        self.divisible = self.start.divisible

    def forward(
        self,
        signal: Signal,
        family: Family,
        render: Renderer,
        loss_fn: LossFn,
        on_step: OnStep | None = None,
    ) -> Code:
        """The codes of a batch of signals: (batch, tokens, width).

        on_step: is called with the state of each stack's descent, for curves over time and for
            progress.
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
        paused = {name: x.to(signal.coords.device) for name, x in stopping.take_state().items()}
        found = [paused.pop("found")] if paused else []
        for first in range(sum(map(len, found)), max(1, len(signal)), size):
            some = slice(first, first + size)
            part, begun = signal.part(some), None if code is None else code[some].detach()
            try:
                codes = self.fit(begun, part, points, family, render, loss_fn, paused, on_step)
                found.append(codes)
            except stopping.Paused as pause:
                none = family.conditioner.origin(0).detach()
                pause.tensors["found"] = torch.cat([none, *found])
                raise
            paused = {}
        return torch.cat(found)

    def fit(
        self,
        code: Code | None,
        signal: Signal,
        points: int,
        family: Family,
        render: Renderer,
        loss_fn: LossFn,
        paused: Mapping[str, Tensor],
        on_step: OnStep | None = None,
    ) -> Code:
        """The codes of one stack. paused: the state in which it, or its start, paused before."""
        model = (family, render, loss_fn)
        if code is None and "step" not in paused:
            with stopping.substep("start", paused):
                code = self.begin(signal, *model).detach()
        seen = signal.thin(points) if self.draw == "once" else signal
        return self.descend(code, seen, points, *model, paused, on_step)

    def training_codes(
        self, signal: Signal, family: Family, render: Renderer, loss_fn: LossFn
    ) -> Code:
        """The codes of ``start``: training moves the point where descent begins."""
        return self.start.training_codes(signal, family, render, loss_fn)

    def begin(self, signal: Signal, family: Family, render: Renderer, loss_fn: LossFn) -> Code:
        """The codes where descent begins: (batch, tokens, width)."""
        if self.origin == "shared":
            return self.start(signal, family, render, loss_fn)
        if family.conditioner.layout is None:
            raise InputError(
                "fit.origin = 'random' needs conditioner 'flat-weights': codes are weights."
            )
        draw = lambda seed: family.conditioner.draw(Generator().manual_seed(seed))
        codes = [draw(seed) for seed in hash_indices(signal.index, self.seed).tolist()]
        return torch.cat(codes).to(family.conditioner.origin(0))

    def descend(
        self,
        code: Code | None,
        signal: Signal,
        points: int,
        family: Family,
        render: Renderer,
        loss_fn: LossFn,
        paused: Mapping[str, Tensor],
        on_step: OnStep | None = None,
    ) -> Code:
        """Descend from these codes of one stack; each step sees ``points`` points of every signal.

        paused: the state in which the stack paused before; it is taken instead of the codes.
        Raises Paused where the stack can pause now.
        """
        model, watch = (family, render, loss_fn), Watch(on_step, signal.coords)
        count, best = signal.coords.shape[1], self.keep == "best"
        begun, stack, result, signal = self._begin_stack(code, signal, paused)
        seen, pass_steps = point_sampler(signal, points, self.seed), count // points
        look_steps = steps_between_looks(pass_steps, signal.coords.is_cpu)
        watch.start()
        for step in range(begun, self.steps):
            if stopping.should_pause():
                progress = {"step": torch.tensor(step), "result": result}
                raise stopping.Paused(stack.state() | progress)
            seconds = watch.seconds()
            losses, grad = losses_and_grad(stack.code, seen(step), *model)
            if watch.report(step, seconds, losses, stack.code):
                break
            if best and step % (self.keep_every * pass_steps) == 0:
                whole = points == count
                all_losses = reconstruction_loss_in_stacks
                stack.keep_best(losses if whole else all_losses(stack.code, signal, *model))
            stack.step(grad, step + 1, self.weight_decay)
            if self.plateau is None:
                continue
            stack.summed = stack.summed + losses
            if (step + 1) % pass_steps:
                continue
            stack.lower_rates(stack.summed / pass_steps, self.plateau)
            stack.summed = torch.zeros_like(losses)
            if (step + 1) % look_steps:
                continue
            rest, signal = self._drop_stopped(stack, signal, result, *model)
            if rest is stack:
                continue
            if not len(signal):
                return result
            stack, seen = rest, point_sampler(signal, points, self.seed)
        else:
            if on_step is not None:
                seconds = watch.seconds()
                with torch.no_grad():
                    losses = reconstruction_loss(stack.code, seen(self.steps), *model)
                watch.report(self.steps, seconds, losses, stack.code)
        result[stack.place] = self._select_codes(stack, signal, *model)
        return result

    def rates_of(self, code: Code) -> Tensor:
        """The learning rates of signals whose descent begins at these codes: (batch,)."""
        size = code.square().mean((1, 2)).sqrt()
        size = torch.where(size > 0, size, OF_ZERO) if self.relative else torch.ones_like(size)
        return (self.rate * size).to(code.dtype)  # under autocast a mean is float32

    def _begin_stack(
        self, code: Code | None, signal: Signal, paused: Mapping[str, Tensor]
    ) -> tuple[int, Stack, Code, Signal]:
        """The first step, the stack, the codes found so far, and the signals that still descend."""
        if "step" not in paused:
            assert code is not None
            return 0, Stack.begin(code, self.rates_of(code)), code.clone(), signal
        stack, result = Stack.restore(paused), paused["result"]
        going = torch.zeros(len(signal), dtype=torch.bool, device=result.device)
        going[stack.place] = True
        rows = going.nonzero().flatten()
        signal = signal if len(rows) == len(signal) else select_signals(signal, rows)
        return int(paused["step"]), stack, result, signal

    def _drop_stopped(
        self,
        stack: Stack,
        signal: Signal,
        result: Code,
        family: Family,
        render: Renderer,
        loss_fn: LossFn,
    ) -> tuple[Stack, Signal]:
        """The stack and its signals without those that stopped, once these are at least half.

        A stopped signal costs as much as one that goes on. Its code is written into ``result``.
        """
        if self.plateau is None or self.plateau.stop is None:
            return stack, signal
        going = (stack.rate > 0).cpu()
        if 2 * int(going.sum()) > len(going):
            return stack, signal
        stay, stop = (rows.nonzero().flatten().to(stack.code.device) for rows in (going, ~going))
        done, theirs = stack.take(stop), select_signals(signal, stop)
        result[done.place] = self._select_codes(done, theirs, family, render, loss_fn)
        return stack.take(stay), select_signals(signal, stay)

    def _select_codes(
        self, stack: Stack, signal: Signal, family: Family, render: Renderer, loss_fn: LossFn
    ) -> Code:
        """The best codes or the last ones, as ``keep`` says: (signals, tokens, width)."""
        if self.keep == "last":
            return stack.code
        losses = reconstruction_loss_in_stacks(stack.code, signal, family, render, loss_fn)
        stack.keep_best(losses)
        return stack.best

    def point_evaluations(self, points: int) -> int:
        return self.steps * (self.points or points)


LOOK = 64
"""Steps of a descent on an accelerator after which it is asked which signals have stopped."""


def steps_between_looks(pass_steps: int, on_cpu: bool) -> int:
    """After how many steps a stack looks for signals that have stopped: a multiple of a pass.

    To look is to wait for the device, which costs nothing on a CPU. A signal that has stopped stays
    as it is, so that looking late finds the same codes.
    """
    return pass_steps if on_cpu else -(-LOOK // pass_steps) * pass_steps


def losses_and_grad(
    code: Code, signal: Signal, family: Family, render: Renderer, loss_fn: LossFn
) -> tuple[Tensor, Tensor]:
    """The reconstruction loss of each code, (batch,), and its gradient, shaped as the code."""
    with torch.enable_grad():
        leaf = code.detach().requires_grad_()
        losses = reconstruction_loss(leaf, signal, family, render, loss_fn)
        (grad,) = torch.autograd.grad(losses.sum(), leaf)
    return losses.detach(), grad


@torch.no_grad()
def reconstruction_loss_in_stacks(
    code: Code, signal: Signal, family: Family, render: Renderer, loss_fn: LossFn
) -> Tensor:
    """``reconstruction_loss`` of any number of signals, without gradients: (batch,).

    The signals are evaluated one stack after another, so that memory stays bounded.
    """
    size = stack_size(family, render, signal.coords.shape[1], code.is_cpu)
    found = []
    for first in range(0, max(1, len(code)), size):
        some = slice(first, first + size)
        found.append(reconstruction_loss(code[some], signal.part(some), family, render, loss_fn))
    return torch.cat(found)


def seconds_now(tensor: Tensor) -> float:
    """The time in seconds, read once the tensor's device has finished its pending work."""
    if not tensor.is_cpu:
        torch.accelerator.synchronize(tensor.device)
    return time.perf_counter()
