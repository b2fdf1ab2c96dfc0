"""Where a verb writes: its own name inside the run, or a place that holds nothing yet."""

from __future__ import annotations

import os
from pathlib import Path

from fieldloom.cli.options import permit
from fieldloom.errors import InputError


def output(run: str | Path, out: Path | None, default: str = "") -> Path:
    """The file or folder that a verb writes.

    out: what the user asked for; None: ``default``, inside the run, which this verb may replace.
    Raises InputError for a file that training writes, for what is there already (unless the user
    allows to overwrite it), and where a link leads out of the run.
    """
    from fieldloom.engine.run import Run

    if out is None:
        return Run(run).inside(default)
    check_free(out)
    within = out.is_relative_to(run) and ".." not in out.relative_to(run).parts
    return Run(run).inside(out.relative_to(run)) if within else out


def check_free(out: Path) -> None:
    """Raise InputError for what training writes, and for what is there, unless it may be lost."""
    check_not_own(out)
    if is_occupied(out) and not permit().overwrite:
        raise InputError(f"'{out}' is there already: give another --out, or --overwrite.")


def with_suffix(path: Path, suffix: str) -> Path:
    """The path with another suffix. Raises InputError where it names no file."""
    if path.name in ("", ".."):
        raise InputError(f"--out '{path}' names no file.")
    return path.with_suffix(suffix)


def check_not_own(path: Path) -> None:
    """Raise InputError for what a run is made of: its recipe, weights, codes, state, log."""
    from fieldloom.engine.lock import NAME
    from fieldloom.engine.run import RECIPE, RESERVED

    for named in (path.absolute(), path.resolve()):
        for part in (named, *named.parents):
            if part.name in (*RESERVED, NAME) and (part.parent / RECIPE).is_file():
                raise InputError(f"'{path}' belongs to the run itself: give another --out.")


def has_key(path: Path, key: str) -> bool:
    """Whether a file is JSON, a table with that key: what the verb itself writes."""
    from fieldloom.engine.schemas import parse_json, read_text

    try:
        content = parse_json(read_text(path), path)
    except InputError:
        return False
    return isinstance(content, dict) and key in content


def is_occupied(path: Path) -> bool:
    """Whether something would be lost there; a lock alone is nothing."""
    from fieldloom.engine.lock import NAME

    there = any(x.name != NAME for x in path.iterdir()) if path.is_dir() else os.path.lexists(path)
    return there
