"""The parts of a set of scenes by a file of lists: ``car_splits.json`` beside ``cars``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from fieldloom.errors import InputError, quote_path, shorten
from fieldloom.modalities.sources.source import PART_OF, choose

ENDING = "_splits.json"
ORDER = ("test", "val", "train")
"""What is listed twice is in the first of these: nothing that is tested is trained on."""


class Parts(NamedTuple):
    """The scenes of a set that a file lists, and the part of each, a key of ``PART_OF``.

    name: of the file. outside: folders that it does not list; missing: what it lists, and is not
    there.
    """

    name: str
    folders: Sequence[Path]
    parts: Sequence[str]
    outside: Sequence[str]
    missing: Sequence[str]


def divide_by_file(root: Path, folders: Sequence[Path], limit: int | None) -> Parts | None:
    """The parts of scenes in ``root``; None where no file tells them, or it tells of others.

    limit: the number of scenes that are used; each part keeps its fraction.
    The file lies in the folder, or beside it by the beginning of its name. Source: the layout of
    learnit's ShapeNet (arXiv:2012.02189). Raises InputError for a file without such lists.
    """
    file = _find_file(root)
    part_of = {} if file is None else _read_lists(file)
    known = [folder for folder in folders if folder.name in part_of]
    if file is None or not known:
        return None
    there = {folder.name for folder in folders}
    parts = [part_of[folder.name] for folder in known]
    chosen = choose(limit or len(known), len(known), parts=parts)
    return Parts(
        shorten(file.name, 40),
        [known[i] for i in chosen],
        [parts[i] for i in chosen],
        [folder.name for folder in folders if folder.name not in part_of],
        sorted(name for name in part_of if name not in there),
    )


def _find_file(root: Path) -> Path | None:
    root = Path(os.path.abspath(root))
    inside = sorted(root.glob(f"?*{ENDING}"))
    beside = [
        file
        for file in sorted(root.parent.glob(f"?*{ENDING}"))
        if root.name.startswith(file.name.removesuffix(ENDING))
    ]
    found = inside or beside
    return found[0] if len(found) == 1 else None


def _read_lists(file: Path) -> dict[str, str]:
    """Name of a scene -> its part."""
    try:
        lists = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{quote_path(file)} is no JSON that can be read: {shorten(str(error))}."
        ) from None
    if not isinstance(lists, Mapping) or not all(_is_list(*item) for item in lists.items()):
        raise InputError(f"{quote_path(file)} must have lists of names, as 'train' and 'test'.")
    found: dict[str, str] = {}
    for part in ORDER:
        for key, names in lists.items():
            if PART_OF[key.lower()] == part:
                for name in names:
                    found.setdefault(PurePosixPath(name).name, part)
    return found


def _is_list(key: str, names: Any) -> bool:
    right = key.lower() in PART_OF and isinstance(names, list)
    return right and all(isinstance(name, str) for name in names)
