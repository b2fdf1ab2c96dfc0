"""Renderers turn a field into observations. They receive a function, never a network."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Generator

from fieldloom.types import Coords, Domain, Function, Values


@runtime_checkable
class Renderer(Protocol):
    def domain(self, coord_dim: int, value_dim: int) -> Domain:
        """What the field must map, for observations of these dimensions."""
        ...

    def __call__(
        self, function: Function, coords: Coords, generator: Generator | None = None
    ) -> Values: ...


class Direct:
    """An observation is the field's value at its coordinates: images, sound, shapes, maps."""

    def domain(self, coord_dim: int, value_dim: int) -> Domain:
        return Domain(coord_dim, 0, value_dim)

    def __call__(
        self, function: Function, coords: Coords, generator: Generator | None = None
    ) -> Values:
        return function(coords)


RENDERERS = {"direct": Direct}
