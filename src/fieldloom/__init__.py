"""fieldloom: fit, encode, generate and evaluate neural fields.

A prior draws a code; a conditioner turns the code into weights; a field evaluates them at
coordinates; a renderer turns the field into observations; an encoder goes back.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fieldloom.api import encode, evaluate, fit, render, show, train, view
    from fieldloom.assembly import build, register
    from fieldloom.codes.dataset import CodeDataset
    from fieldloom.codes.files import open_codes
    from fieldloom.engine.run import load, save
    from fieldloom.family import Family
    from fieldloom.inspection import inspect
    from fieldloom.planning import plan
    from fieldloom.system import System
    from fieldloom.types import Cameras, Data

__version__ = "0.1.0"
__all__ = ["Cameras", "CodeDataset", "Data", "Family", "System", "build", "encode", "evaluate",
           "fit", "fit_files", "inspect", "load", "open_codes", "plan", "register", "render",
           "save", "show", "train", "view"]  # fmt: skip

_HOMES = {
    "Cameras": "fieldloom.types",
    "CodeDataset": "fieldloom.codes.dataset",
    "Data": "fieldloom.types",
    "Family": "fieldloom.family",
    "System": "fieldloom.system",
    "build": "fieldloom.assembly",
    "encode": "fieldloom.api",
    "evaluate": "fieldloom.api",
    "fit": "fieldloom.api",
    "fit_files": "fieldloom.api",
    "inspect": "fieldloom.inspection",
    "load": "fieldloom.engine.run",
    "open_codes": "fieldloom.codes.files",
    "plan": "fieldloom.planning",
    "register": "fieldloom.assembly",
    "render": "fieldloom.api",
    "save": "fieldloom.engine.run",
    "show": "fieldloom.api",
    "train": "fieldloom.api",
    "view": "fieldloom.api",
}


def __getattr__(name: str) -> Any:  # torch is imported with the first part that needs it
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'fieldloom' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
