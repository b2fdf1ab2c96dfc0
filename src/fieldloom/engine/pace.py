"""The pace of a stage's steps on this machine, and what follows from it and a budget of time."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fieldloom.engine import device as devices
from fieldloom.engine.feed import Feed, feed_steps
from fieldloom.engine.loop import Training
from fieldloom.progress import announce
from fieldloom.settings import Stage

FRACTION, SHORTEST, LONGEST = 0.01, 0.3, 3.0
"""The least time that is measured: this part of a budget, within so many seconds."""

LINES, CHECKPOINTS, APART = 100, 4, 300.0
"""Of a stage with a budget: lines of its log; checkpoints, at most so many seconds apart."""


class Pace(NamedTuple):
    """Seconds of one step, and the seconds that it took to measure them."""

    step: float
    took: float


def measure_pace(
    training: Training,
    feed: Feed[Any],
    data: int,
    *,
    seed: int,
    micro: int,
    device: torch.device,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Pace:
    """The pace of a stage's next steps, on the real data, of a budget of so many seconds.

    Steps are taken in runs of 1, 1, 2, 4, 8 ... until a run takes long enough, and that one is
    counted: the runs before it warm up caches, allocators and recorded steps. A first step that
    takes a tenth of the budget is counted itself. Everything that a checkpoint holds, and torch's
    generators, are afterwards as they were; data, feed and ``micro``: as of ``loop``. clock: what
    seconds are read from.
    """
    tensors, numbers = training.state()
    before = {name: tensor.clone() for name, tensor in tensors.items()}, numbers
    micro = training.micro_of(micro)
    steps = count(training.step)
    training.objective.train()
    began = clock()
    parts = training.parts_of(micro)
    batches = feed_steps(feed, training.stage, seed, training.tag, steps, data, parts)

    def run(length: int) -> float:
        start = clock()
        for _ in range(length):
            training.advance(next(batches), micro, seed, device)
        training.unread.clear()  # of other devices: real steps are checked
        devices.synchronize(device)
        return clock() - start

    with devices.keep_random(device), closing(batches):
        try:
            length, took = 1, run(1)
            if took < seconds / 10:
                took = run(1)
            enough = min(LONGEST, max(SHORTEST, FRACTION * seconds), seconds / 10)
            while took < enough:
                length *= 2
                took = run(length)
        finally:
            training.unread.clear()
            training.restore(before)
    return Pace(took / length, clock() - began)


def plan_steps(stage: Stage, done: int, pace: Pace, seconds: float) -> dict[str, Any]:
    """The settings of a stage of which ``done`` steps are done, from its pace and a budget.

    A warm-up keeps its part of the steps, where the stage only begins.
    """
    further = max(1, _round_down(max(0.0, seconds - pace.took) / pace.step))
    steps, apart = done + further, max(1, int(APART / pace.step))
    planned: dict[str, Any] = {
        "steps": steps,
        "log_every": max(1, steps // LINES),
        "save_every": max(1, min(further // CHECKPOINTS, apart)),
        "minutes": None,
    }
    if stage.warmup and not done:
        planned["warmup"] = max(1, stage.warmup * steps // stage.steps)
    return planned


def _round_down(number: float) -> int:
    """A number with at most three digits that are not 0."""
    whole = int(number)
    unit = 10 ** max(0, len(str(whole)) - 3)
    return whole // unit * unit


OFF, PART, BRIEF = 1.5, 0.05, 5.0
"""How many times longer, or shorter, than planned steps take where that is said; the part of a
budget, and the seconds, after which it is looked at."""


class Watch:
    """Says once, in a stage with a budget, that its steps take another time than was planned.

    It is called after each step. steps: of the stage. seconds: of the budget. run: the folder, for
    what to do.
    """

    def __init__(self, name: str, steps: int, pace: Pace, seconds: float, run: str | Path) -> None:
        self.name, self.steps, self.pace, self.run = name, steps, pace.step, run
        self.seconds, self.began = seconds, time.monotonic()
        self.first: tuple[float, int] | None = None
        self.said = False

    def __call__(self, step: int) -> None:
        now = time.monotonic()
        if self.first is None:  # the first step may record what the others repeat
            self.first = now, step
        began, first = self.first
        if self.said or step == first or now - began < max(BRIEF, PART * self.seconds):
            return
        each = (now - began) / (step - first)
        if not 1 / OFF <= each / self.pace <= OFF:
            self.said = True
            announce(self.describe(step, each, self.seconds - (now - self.began)))

    def describe(self, done: int, each: float, left: float) -> str:
        """The line. each: seconds of a step, as they are; left: seconds of the budget."""
        total = (self.seconds - left + (self.steps - done) * each) / 60
        line = (
            f"{self.name}: {describe_seconds(each)} a step, planned were "
            f"{describe_seconds(self.pace)}: its {self.steps:,} steps come to {total:.3g} minutes "
            f"instead of {self.seconds / 60:.3g}. To end in time, stop it (Ctrl-C), then "
        )
        further = _round_down(max(0.0, left) / each)
        if not further:
            return f"{line}'fieldloom train --finish --run {self.run}'."
        resume = f"fieldloom train --resume --run {self.run}"
        return f"{line}'{resume} --set train.{self.name}.steps={done + further}'."


def describe_seconds(seconds: float) -> str:
    """``2.9 ms``."""
    units = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))
    size, unit = next((x for x in units if seconds >= x[0]), units[-1])
    return f"{seconds / size:.3g} {unit}"


def describe_plan(name: str, done: int, steps: int, pace: Pace, minutes: int | float) -> str:
    """What a budget comes to, as a line for the user."""
    time = f"{minutes:g} minute" + ("" if minutes == 1 else "s")
    count, further, whole = steps - done, "", ""
    if done:
        further, whole = "further ", f", {steps:,} in all"
    planned = f"{count:,} {further}step{'' if count == 1 else 's'} in {time}{whole}"
    return f"{name}: {describe_seconds(pace.step)} a step on this machine: {planned}"
