"""Copies of the checkpoints that a training writes, to be evaluated after it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from watching import repeatedly

from fieldloom.engine.run import Run

PAUSE = 2.0
"""Seconds between two looks for a new checkpoint."""

FILES = ("recipe.toml", "env.json", "data.json")


@contextmanager
def keep_checkpoints(run: Path, into: Path) -> Iterator[None]:
    """Copy every checkpoint of the field that is trained meanwhile, a run folder INTO/STEP each.

    Checkpoints that follow one another within ``PAUSE`` can be missed. Raises at the end what
    kept one from being copied.
    """
    with repeatedly(lambda: copy_checkpoint(run, into), PAUSE):
        yield


def copy_checkpoint(run: Path, into: Path) -> None:
    """Copy a run's checkpoint of the stage "field", where it has one that was not copied yet.

    A checkpoint is replaced as a whole, so that its copy is one, too.
    """
    state = run / "state.safetensors"
    part = into / "part"
    stamp = part.with_name("stamp")
    try:
        changed = str(state.stat().st_mtime_ns)
        if stamp.exists() and stamp.read_text() == changed:
            return
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        shutil.copyfile(state, part / state.name)
    except FileNotFoundError:  # none yet, or just dropped at the end of a stage
        return
    for name in FILES:
        shutil.copyfile(run / name, part / name)
    begun = Run(part).unfinished()
    if begun is not None and begun.stage == "field":
        to = into / str(begun.step)
        shutil.rmtree(to, ignore_errors=True)
        part.rename(to)
    stamp.write_text(changed)


def list_checkpoints(into: Path) -> dict[int, Path]:
    """Steps -> the run folder of the checkpoint after them, in rising order."""
    found = {int(path.name): path for path in into.glob("*") if path.name.isdigit()}
    return dict(sorted(found.items()))
