"""A picture that is fitted by a small field, and runs of it that are stopped."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from fieldloom import recipe, stopping
from fieldloom.errors import Interrupted
from fieldloom.training import train

SMALL = [
    "modality.size=24", "field.width=8", "field.grid.levels=2",
    "train.field.points=50", "train.field.steps=12", "train.field.ema=0.9",
    "train.field.log_every=3", "train.field.save_every=5",
]  # fmt: skip


def picture(folder: Path, *changes: str) -> recipe.Recipe:
    """A picture fitted by a hash grid, whose rows have an optimizer of their own."""
    pixels = np.random.default_rng(0).integers(0, 255, (24, 24, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "picture.png")
    source = ["source.name=image", f"source.path={folder / 'picture.png'}"]
    return recipe.load("loe:small-table1-hash", [*source, *SMALL, *changes])


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Let the user ask to stop at the so-manieth step that is trained from now on."""
    seen: list[int] = []

    def asked() -> bool:
        seen.append(1)
        return len(seen) >= steps

    names = ("Paused", "pausable", "stoppable")
    own = {name: getattr(stopping, name) for name in names} | {"stop_requested": asked}
    monkeypatch.setattr("fieldloom.engine.loop.stopping", SimpleNamespace(**own))


def stopped(own: recipe.Recipe | None, run: Path, steps: int, **named: object) -> str:
    """Train, and be stopped after so many steps; what is said."""
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, steps)
        with pytest.raises(Interrupted) as said:
            train(own, str(run), resume=own is None, **named)
    return str(said.value)
