"""Which tar archives are meant: one, those of a folder, or those that a pattern stands for.

Patterns are those of WebDataset: ``train-{000000..000146}.tar``, ``{train,val}-*.tar``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from itertools import product
from pathlib import Path, PurePath
from typing import NamedTuple

from fieldloom.errors import InputError, quote_path
from fieldloom.modalities.sources.files import (
    find_path,
    find_similar,
    is_address,
    locate,
    name_path,
)
from fieldloom.modalities.sources.folders import find_files, walk
from fieldloom.modalities.sources.remote import AT_ONCE, find_objects, match_objects
from fieldloom.modalities.sources.stored import Stored, find_stored
from fieldloom.permit import NOTHING, Permit

SUFFIX = ".tar"
PACKED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
"""The ends of compressed archives, which are refused in a sentence of their own."""
NAMES = 100_000
"""The most names that a pattern stands for."""
BRACES = re.compile(r"\{([^{}]*)\}")


class Found(NamedTuple):
    """Archives, their names relative to what was asked for, and what was passed over."""

    archives: Sequence[Stored]
    names: Sequence[str]
    passed: Mapping[str, Sequence[str]]


def is_pattern(path: str) -> bool:
    """Whether a path stands for several names of archives, and is not there itself."""
    if not re.search(r"[*?\[{]", path):
        return False
    try:
        return is_address(path) or not locate(path).exists()
    except (OSError, ValueError):
        return True


def find_archives(path: str, permit: Permit = NOTHING) -> Found:
    """The archives at a path or an address, or those that a pattern names, sorted.

    Raises InputError where there are none, or one that is named is missing.
    """
    if is_address(path):
        return _find_objects(path, permit)
    if is_pattern(path):
        files = [file for name in expand(path) for file in _match_files(name, path)]
        return Found([find_stored(file) for file in files], [file.name for file in files], {})
    root = find_path(path)
    if root.is_file():
        return Found([find_stored(root)], [root.name], {})
    try:
        inside = find_files(root, path, {SUFFIX}, "tar archives")
    except InputError:
        files = sorted(file for file, reason in walk(root) if not reason)
        packed = [file for file in files if file.name.lower().endswith(PACKED_TARS)]
        if not packed:
            raise
        return Found([find_stored(file) for file in packed], [file.name for file in packed], {})
    stored = [find_stored(file) for file in inside.files]
    return Found(stored, inside.short_names, inside.passed_over)


def _match_files(name: str, pattern: str) -> list[Path]:
    place = locate(name)
    found = [place] if place.is_file() else sorted(map(Path, glob(str(place))))
    if not found:
        raise InputError(
            f"{name_path(pattern)} stands for {quote_path(name)}, which is not there"
            f"{find_similar(name)}."
        )
    return found


def _find_objects(path: str, permit: Permit) -> Found:
    if is_pattern(path) or path.endswith(SUFFIX):
        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = pool.map(lambda name: match_objects(name, permit), expand(path))
            objects = [one for some in found for one in some]
        if not objects:
            raise InputError(f"{name_path(path)} stands for no object that is there.")
        return Found(objects, [PurePath(one.name).name for one in objects], {})
    files, there = find_objects(path, {SUFFIX}, "tar archives", permit)
    return Found([*there.objects.values()], [*there.objects], files.passed_over)


def expand(pattern: str) -> list[str]:
    """The names that the braces of a pattern stand for: ``a-{00..02}``, ``{train,val}-0``.

    Raises InputError for more than ``NAMES``.
    """
    names = [pattern]
    while any(map(BRACES.search, names)):  # braces within braces, from the inside
        choices = [_choices(name, pattern) for name in names]
        if sum(math.prod(map(len, parts)) for parts in choices) > NAMES:
            raise _too_many(pattern)
        names = ["".join(parts) for some in choices for parts in product(*some)]
    return [*dict.fromkeys(names)]


def _choices(name: str, pattern: str) -> list[list[str]]:
    """The parts of a name, for each what it may be; braces hold a list, or a range of numbers."""
    found = []
    for i, part in enumerate(BRACES.split(name)):
        ends = re.fullmatch(r"(\d{1,18})\.\.(\d{1,18})", part) if i % 2 else None
        found.append(part.split(",") if i % 2 else [part])
        if ends is not None:
            first, last = int(ends[1]), int(ends[2])
            if abs(last - first) >= NAMES:
                raise _too_many(pattern)
            padded = any(len(text) > 1 and text.startswith("0") for text in ends.groups())
            width = max(map(len, ends.groups())) if padded else 1  # as wide as these
            step = 1 if last >= first else -1
            found[-1] = [f"{number:0{width}}" for number in range(first, last + step, step)]
    return found


def _too_many(pattern: str) -> InputError:
    return InputError(f"{name_path(pattern)} stands for more than {NAMES:,} names.")
