"""What a reader has read, how it took it, and what it passed over: one value, one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from fieldloom.errors import shorten

NAMED = 5
"""Names of a list that the line says; of longer lists it says how many more there are."""
LISTED = 20
"""Names of a list that a table says."""
KEPT = 100
"""Names of a list that a run's file keeps."""


@dataclass(frozen=True)
class Summary:
    """What was read; the line and the entries of ``facts`` say the same.

    thing:  one of the data in words: ``image``, ``mesh``, ``scene``.
    count:  how many were read.
    taken:  aspect -> how it was read, guessed or changed, in a few words, in the order of the
            line: ``size`` -> ``64 x 64``, ``range`` -> ``numbers from 0 to 4,095``.
    passed_over: reason -> names of what was passed over, such as ``unreadable``. Of a
            reason that begins with ``not`` (``not images``) the line names the kinds of files;
            reasons without names are dropped.
    unit:   one of what was passed over, in words, where it is no file.
    """

    thing: str = "datum"
    count: int = 0
    taken: Mapping[str, str] = field(default_factory=dict)
    passed_over: Mapping[str, Sequence[str]] = field(default_factory=dict)
    unit: str = "file"

    def __post_init__(self) -> None:
        passed = {reason: names for reason, names in self.passed_over.items() if names}
        object.__setattr__(self, "passed_over", passed)

    def describe(self) -> str:
        """One line: ``27 images, 64 x 64; 2 files passed over: 2 unreadable (a.png, b.png)``."""
        parts = [", ".join([count_things(self.count, self.thing), *self.taken.values()])]
        if self.passed_over:
            total = sum(map(len, self.passed_over.values()))
            reasons = [
                f"{len(x):,} {reason} ({list_names(_kinds(x) if reason.startswith('not ') else x)})"
                for reason, x in self.passed_over.items()
            ]
            parts.append(f"{count_things(total, self.unit)} passed over: {', '.join(reasons)}")
        return "; ".join(parts)

    def rows(self) -> list[tuple[str, str]]:
        """The same as pairs of an aspect and its words, with more names of files."""
        passed = [
            (f"passed over, {reason}", list_names(names, LISTED))
            for reason, names in self.passed_over.items()
        ]
        return [("data", count_things(self.count, self.thing)), *self.taken.items(), *passed]

    def facts(self) -> dict[str, Any]:
        """The same as values that JSON can hold."""
        return {
            "line": self.describe(),
            "thing": self.thing,
            "count": self.count,
            "taken": dict(self.taken),
            "passed_over": {
                reason: {"count": len(names), "names": list(names[:KEPT])}
                for reason, names in self.passed_over.items()
            },
        }


NO_SUMMARY = Summary()
"""Of a reader that says nothing of its own."""


def count_things(count: int, thing: str) -> str:
    """``1 image``, ``27 images``, ``1,000 meshes``."""
    plural = {"datum": "data", "mesh": "meshes", "class": "classes"}.get(thing, f"{thing}s")
    return f"{count:,} {thing if count == 1 else plural}"


def list_names(names: Sequence[str], most: int = NAMED) -> str:
    """The first few names, and how many more there are: ``a, b, c ... and 7 more``."""
    some, more = ", ".join(shorten(name, 40) for name in names[:most]), len(names) - most
    return f"{some} and {more:,} more" if more > 0 else some


def describe_size(shape: Sequence[int]) -> str:
    """``64 x 64``; ``8,192 samples`` of one axis."""
    if len(shape) == 1:
        return f"{shape[0]:,} samples"
    return " x ".join(str(n) for n in shape)


def _kinds(names: Sequence[str]) -> list[str]:
    """The kinds of files, each once: their suffixes, or the names of those without one."""
    files = [PurePath(name) for name in names]
    return list(dict.fromkeys(file.suffix or file.name for file in files))
