"""How data, and codes, become the batches of a stage on its device."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Generator, Tensor

from fieldloom.engine import device as devices
from fieldloom.engine.feed import Feed
from fieldloom.modalities.sources import Source
from fieldloom.objectives import CodeBatch
from fieldloom.settings import Stage
from fieldloom.system import System
from fieldloom.types import Batch, Data, Lazy

Moved = TypeVar("Moved", Data, Batch)


def feed_data(system: System, source: Source, stage: Stage, device: torch.device) -> Feed[Any]:
    """How the data of the training part come to the device: they stay there, or are read ahead."""
    keep_grid, observe = system.encoder.reads_grid, system.modality.observe
    observed = partial(observe, points=stage.points, together=stage.together, keep_grid=keep_grid)
    few = stage.points is not None and not keep_grid

    def move(held: Moved) -> Moved:
        return held.map(lambda x: devices.send(x, device))

    def read(indices: Tensor, generator: Generator | None) -> Data | Batch:
        data = replace(source.take(source.train[indices]), index=indices)
        # only the few points move where there are few: the data may be huge
        held: Any = observed(data, generator=generator) if few else data
        return held.map(lambda x: devices.pin(x, device))

    def send(held: Any) -> Batch:
        return move(held) if few else observed(move(held))

    kept = replace(source.data, surface=None)  # which is for evaluation only
    if not isinstance(kept.values, Tensor) or not devices.holds(device, size_of(kept, source)):
        streamed = not isinstance(kept.values, Tensor)
        return Feed(read, send, devices.steps_ahead(device, streamed))
    whole = kept.part(source.train).to(device)
    return Feed(
        lambda indices, generator: indices,
        lambda indices: observed(take_there(whole, indices, device)),
    )


def size_of(data: Data, source: Source) -> int:
    """The bytes of the training part of a source's data, of lazy values as they are read."""
    values = math.prod(data.shape[1:]) * data.values.dtype.itemsize
    return (values + sum(x[:1].nbytes for x in data.extras().values())) * len(source.train)


def take_there(whole: Data, indices: Tensor, device: torch.device) -> Data:
    """Some of the data that are on a device, which is not waited for."""
    there = devices.send(devices.pin(indices, device), device)
    return replace(whole.rows(indices, there), index=there)


def feed_codes(codes: Tensor | Lazy, labels: Tensor | None, device: torch.device) -> Feed[Any]:
    """How codes, on the device or read batch by batch, become batches with their labels."""
    classes = None if labels is None else labels.to(device)

    def move(held: Tensor) -> Tensor:
        return devices.send(devices.pin(held, device), device)

    def take(code: Tensor, indices: Tensor) -> CodeBatch:
        return CodeBatch(code, None if classes is None else classes[indices])

    if isinstance(codes, Tensor):
        there = codes

        def send(indices: Tensor) -> CodeBatch:
            indices = move(indices)
            return take(there[indices], indices)

        return Feed(lambda indices, generator: indices, send)
    return Feed(
        lambda indices, generator: (codes.read(indices), indices),
        lambda held: take(move(held[0]), move(held[1])),
        devices.steps_ahead(device),
    )
