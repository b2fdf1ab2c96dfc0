"""How benchmarks time what they compare."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from fieldloom.engine import device as devices

CPU = torch.device("cpu")


def in_turns(
    tasks: Mapping[str, Callable[[], Any]], rounds: int, device: torch.device = CPU
) -> dict[str, list[float]]:
    """Seconds of each task, ``rounds`` of each. All are run once untimed, then in turns."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(rounds + 1):
        for name, task in tasks.items():
            devices.synchronize(device)
            began = time.perf_counter()
            task()
            devices.synchronize(device)
            if turn:
                times[name].append(time.perf_counter() - began)
    return times
