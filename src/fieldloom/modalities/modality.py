"""What a datum is: data <-> a set of observations."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import Generator, Tensor

from fieldloom.types import Batch, Coords, Values

Resolution = int | tuple[int, ...]


@runtime_checkable
class Modality(Protocol):
    coord_dim: int
    value_dim: int

    def observe(
        self,
        data: Tensor,
        index: Tensor | None = None,
        label: Tensor | None = None,
        points: int | None = None,
        generator: Generator | None = None,
    ) -> Batch: ...

    def grid(self, resolution: Resolution | None = None) -> Coords: ...

    def assemble(self, values: Values, resolution: Resolution | None = None) -> Tensor: ...

    def save(self, data: Tensor, path: Path) -> Path: ...
