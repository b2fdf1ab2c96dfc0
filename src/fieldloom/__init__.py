"""fieldloom: fit, encode, generate and evaluate neural fields.

A prior draws a code; a conditioner turns the code into weights; a field evaluates them at
coordinates; a renderer turns the field into observations; an encoder goes back.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fieldloom.assembly import build, register
    from fieldloom.engine.run import load, save
    from fieldloom.family import Family
    from fieldloom.system import System

__version__ = "0.1.0"
__all__ = ["Family", "System", "build", "load", "register", "save"]

_HOMES = {
    "Family": "fieldloom.family",
    "System": "fieldloom.system",
    "build": "fieldloom.assembly",
    "load": "fieldloom.engine.run",
    "register": "fieldloom.assembly",
    "save": "fieldloom.engine.run",
}


def __getattr__(name: str) -> Any:  # torch is imported with the first part that needs it
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'fieldloom' has no attribute '{name}'")
