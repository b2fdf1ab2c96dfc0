"""Loads the trained run that a verb works on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fieldloom.cli.options import Device, permit

if TYPE_CHECKING:
    from fieldloom.system import System


def load_system(run: str, device: Device) -> System:
    """The system of a run's folder, with what the user allows."""
    from fieldloom.engine.run import Run

    return Run(run).read_system(device.value, permit())
