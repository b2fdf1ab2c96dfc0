"""What a verb works on: a trained run, or overrides of a recipe."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fieldloom.cli.options import Device, permit

if TYPE_CHECKING:
    from fieldloom.recipe import Recipe
    from fieldloom.system import System


def load_system(run: str, device: Device) -> System:
    """The system of a run's folder, with what the user allows."""
    from fieldloom.engine.run import Run

    return Run(run).read_system(device.value, permit())


def parse_overrides(recipe: Recipe, overrides: Iterable[str]) -> list[Recipe]:
    """Layers over a recipe from the texts of ``--set``, each read by the type of its key."""
    overrides = list(overrides)
    if not overrides:
        return []
    from fieldloom.assembly import parse_overrides as parse  # late: it imports torch

    return parse(recipe, overrides, permit())
