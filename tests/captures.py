"""A stand-in for CUDA graphs on other devices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from torch import Tensor

import apart
import journeys
from fieldloom import recipe
from fieldloom.engine import device as devices
from fieldloom.engine import execution
from fieldloom.training import train


class Rerun:
    """What was captured, run again on the same inputs into the same results."""

    def __init__(self, run: Callable[[], list[Tensor]], made: list[Tensor]) -> None:
        self.run, self.made = run, made

    def replay(self) -> None:
        for kept, fresh in zip(self.made, self.run(), strict=True):
            kept.copy_(fresh)


def capture(device: torch.device, run: Callable[[], list[Tensor]]) -> tuple[Rerun, list[Tensor]]:
    """As ``device.capture``. Raises RuntimeError where the device ``apart`` is waited for."""
    for _ in range(2):
        run()
    before = apart.WAITS.copy()
    made = run()
    if before != apart.WAITS:
        raise RuntimeError(f"waits for the device: {apart.WAITS - before}")
    return Rerun(run, made), made


@contextmanager
def stand_in(capture: Callable[..., object] = capture) -> Iterator[list[str]]:
    """A context in which every device captures. Yields what is said meanwhile."""
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "can_capture", lambda device: True)
        patch.setattr(devices, "capture", capture)
        patch.setattr(execution, "announce", said.append)
        yield said


def captured_journey(name: str) -> list[str]:
    """What is said where the stages of a journey are trained on the device, their steps captured.

    Where nothing is said, every step of a ``capturable`` objective was.
    """
    journey = (journeys.JOURNEYS | journeys.BYWAYS)[name]
    with TemporaryDirectory() as place, stand_in() as said:
        overrides = f"{journeys.SHORT} {journey.overrides}".split()
        if journey.write is not None:
            overrides.append(f"source.path={journey.write(Path(place))}")
        train(recipe.load(journey.recipe, overrides), f"{place}/run", device=apart.NAME)
    return said
