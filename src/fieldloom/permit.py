"""What the user allows, on the command line or in a call. Recipes, runs and files cannot."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Permit:
    """The user's permissions, passed from the command line or a Python call.

    trust:   modules whose classes a recipe may name as ``module:Class``.
    network: whether data and weights may be fetched.
    large:   whether sizes beyond the stated limits (pixels and cells of a file, memory that a
             recipe asks for) are tried.
    overwrite: whether a file or folder that is there is replaced.
    """

    trust: tuple[str, ...] = ()
    network: bool = False
    large: bool = False
    overwrite: bool = False


NOTHING = Permit()
