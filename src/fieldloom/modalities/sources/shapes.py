"""What sources of shapes have in common: which files, which classes, which modality.

Shapes stand in the cube [-1, 1]; the data's ``frame``, float64, leads back to where they stood.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from fieldloom.errors import InputError, quote_path
from fieldloom.types import Coords


@runtime_checkable
class Cells(Protocol):
    """What a source of shapes asks of a modality: three axes in [-1, 1], one channel."""

    size: tuple[int, ...]
    channels: int

    def grid(self, resolution: int | tuple[int, ...] | None = None) -> Coords: ...


def check_modality(modality: Cells) -> None:
    """Raise InputError for a modality that is not of shapes in [-1, 1]."""
    if len(modality.size) != 3 or min(modality.size) < 2 or modality.channels != 1:
        raise InputError(
            f"this source reads shapes, not data of the size {modality.size} with "
            f"{modality.channels} channels: the modality needs three axes and 1 channel."
        )
    coords = modality.grid()[0]
    low, high = float(coords.min()), float(coords.max())
    if abs(low) > 1.001 or abs(high) > 1.001 or high - low < 1.999 - 2 / min(modality.size):
        raise InputError(
            f"modality.coords run from {low:g} to {high:g}: shapes stand in [-1, 1], so set "
            "low = -1 and high = 1."
        )


def files_of(root: Path, path: str, suffixes: set[str], limit: int | None) -> list[Path]:
    """The file itself, or those of a folder and its sub-folders, in the order of their names."""
    found = [root] if root.is_file() else sorted(f for f in root.rglob("*") if f.is_file())
    files = [f for f in found if f.suffix.lower() in suffixes][:limit]
    if not files:
        kinds = ", ".join(sorted(suffixes))
        raise InputError(f"source.path = {quote_path(path)} holds no {kinds} file.")
    return files


def classes_of(root: Path, files: Sequence[Path]) -> list[str] | None:
    """The outermost sub-folder of each file, if all lie in one and there are several."""
    if root.is_file():
        return None
    parts = [file.relative_to(root).parts[:-1] for file in files]
    return [p[0] for p in parts] if all(parts) and len({p[0] for p in parts}) > 1 else None
