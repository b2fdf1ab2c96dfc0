"""Runs near a path that is none: what a message offers instead."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from fieldloom import recipe
from fieldloom.engine.layout import RECIPE
from fieldloom.errors import InputError, is_command, nearest, printable, quote_path

USUAL = Path("runs")
"""Where runs are, where no other place is given."""
LOOKED_AT = 1000
"""Entries of a folder that are looked at."""
NAMED = 5
"""Runs that a message names."""


def find_runs(folder: Path) -> list[str]:
    """The runs in a folder, by their paths, in their order."""
    return sorted(str(one) for one in _entries(folder) if (one / RECIPE).is_file())


def _entries(folder: Path) -> Iterator[Path]:
    try:
        yield from islice(folder.iterdir(), LOOKED_AT)
    except OSError:  # no folder, or without permission
        return


def no_run(folder: Path) -> InputError:
    """The error for a path that is no run, with the nearest one that is."""
    what = f"{quote_path(folder)} is not a run"
    inside = find_runs(folder)
    if len(inside) > 1:
        more = f" and {len(inside) - NAMED} more" if len(inside) > NAMED else ""
        named = ", ".join(map(printable, inside[:NAMED]))
        return InputError(f"{what}, but holds {len(inside)}: {named}{more}; name one of them.")
    if inside:
        return InputError(f"{what}; did you mean {quote_path(inside[0])}, the run in it?")
    if name := _find_recipe(folder):
        own = USUAL / name.replace(":", "-")
        if (own / RECIPE).is_file():
            return InputError(f"{what} but a recipe; did you mean {quote_path(own)}, a run of it?")
        train = f"fieldloom train {name}" if is_command() else f'fieldloom.train("{name}", RUN)'
        return InputError(f"{what} but a recipe: {train} makes a run of it first.")
    beside = [*find_runs(folder.parent), *find_runs(USUAL)]
    names = {Path(run).name: run for run in beside}
    near = nearest(folder.name, names)
    if near is not None:
        return InputError(f"{what}; did you mean {quote_path(names[near])}?")
    if folder.is_file():
        return InputError(f"{what} but a file: a run is a folder with a {RECIPE}.")
    why = f"it holds no {RECIPE}" if folder.is_dir() else "there is no such folder"
    there = f" There {'are' if len(beside) > 1 else 'is'}: {', '.join(beside[:NAMED])}."
    return InputError(f"{what}: {why}.{there if beside else ''}")


def _find_recipe(path: Path) -> str | None:
    """The bundled recipe that a path names, with its variant, as ``mnif:digits``."""
    stem, _, variant = str(path).partition(":")
    bundled = recipe.list_recipes()
    if stem not in bundled or (variant and variant not in bundled[stem]):
        return None
    return shlex.quote(str(path))
