"""Images in tar archives, as WebDataset keeps them: a folder of shards, one, or a pattern of names.

The archives may lie behind an address (``remote``). An image is read by its place in its archive,
when it is needed; nothing is unpacked.
"""

from __future__ import annotations

import builtins
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from fieldloom.errors import InputError, quote, quote_path, shorten
from fieldloom.modalities.grid import Grid
from fieldloom.modalities.sources import images
from fieldloom.modalities.sources.archives import Found, find_archives
from fieldloom.modalities.sources.decoding import upright_size
from fieldloom.modalities.sources.files import (
    BYTES,
    Refused,
    check_size,
    check_skipped,
    find_path,
    is_address,
    locate,
    name_path,
)
from fieldloom.modalities.sources.folders import UNREADABLE, find_classes, find_parts
from fieldloom.modalities.sources.formats import SUFFIXES, open_image
from fieldloom.modalities.sources.images import Cache, load_images
from fieldloom.modalities.sources.numbers import Range
from fieldloom.modalities.sources.paths import Each
from fieldloom.modalities.sources.remote import find_objects, hold
from fieldloom.modalities.sources.source import (
    PART_OF,
    Depth,
    Filter,
    Limit,
    Source,
    Split,
    choose,
    dividing_parts,
    make_source,
)
from fieldloom.modalities.sources.stored import Stored
from fieldloom.modalities.sources.summary import Summary, count_things
from fieldloom.modalities.sources.tars import OTHERS, Samples, Wanted, index_archive, split_name
from fieldloom.permit import NOTHING, Permit
from fieldloom.progress import BRIEF, track

NEAR, FAR = 1 << 13, 1 << 23
"""Bytes that are read at a time for an index: of a file here, and of an object elsewhere, where a
question takes longer than megabytes do."""


def read_tar(
    modality: Grid,
    path: str,
    key: str | None = None,
    label: str | None = None,
    split: Split = (0.9, 0.1),
    shuffle: bool = True,
    limit: Limit = None,
    label_depth: Depth = None,
    filter: Filter = "bicubic",
    range: Range = None,
    cache: Cache = "none",
    permit: Permit = NOTHING,
) -> Source:
    """Images in tar archives (WebDataset's shards): a folder of them, one, or a pattern of names.

    path: may have ``{000..146}``, ``{a,b}``, ``*`` and ``?``, and may be an address. key: the
    extension of the images where a sample has several (``jpg``, ``seg.png``). label: the extension
    of the members that hold the class, ``cls`` where there are such, or ``json.KEY``; without them
    classes are folders within the archives, as of ``folder`` (``label_depth``; 0: none).
    Archives named after a part (``train-000.tar``, ``val/000.tar``) divide the data as folders do.
    range: the numbers that become 0 and 1 (see ``numbers``). cache: ``decoded`` keeps the images of
    large sets decoded on the disk.
    """
    found = find_archives(path, permit)
    members, passed = index_archives(found, Wanted(key, label or "cls"), path)
    labels, taken = classify(members, label, label_depth)
    parts, parted = find_parts_of(found, members)
    dividing = parts if dividing_parts(parts, split) else None
    members_of_limit = choose(limit or len(members), len(members), labels, dividing)
    chosen = members.keep(members_of_limit)
    numbers = builtins.range(len(chosen))
    place = path if is_address(path) else os.path.abspath(locate(path))
    data, good, told = load_images(
        Each(numbers, chosen.describe),
        hold(chosen.read, int(chosen.sizes.sum())) if is_address(path) else chosen.read,
        modality,
        filter,
        permit.large,
        range,
        stamps=Each(numbers, chosen.stamp),
        place=f"{place}\0tar {limit}",
        cache=cache,
    )
    which = [members_of_limit[i] for i in good]
    bad = sorted({*members_of_limit} - {*which})
    passed[UNREADABLE] = [*passed.get(UNREADABLE, ()), *(members.names[i] for i in bad)]
    archives = {"archives": f"in {count_things(len(members.archives), 'tar archive')}"}
    return make_source(
        data,
        None if labels is None else [labels[i] for i in which],
        (1.0, 0.0) if len(good) == 1 else split,
        shuffle,
        filter=filter,
        parts=None if parts is None else [parts[i] for i in which],
        parted=parted,
        summary=Summary("image", taken={**archives, **taken, **told}, passed_over=passed),
    )


def size_of_first(reader: str, path: str, permit: Permit) -> tuple[int, int]:
    """(height, width), upright, of the first image of the source ``tar``, ``folder`` or ``packed``.

    Only what is needed for it is read.
    """
    if reader != "tar" and not is_address(path):
        return images.size_of_first(find_path(path), permit.large)
    if reader == "tar":
        found = find_archives(path, permit)
        first = next(iter(found.archives))
        members, _ = index_archives(found._replace(archives=[first]), Wanted(), path)
        content, name = members.read(0), members.describe(0)
    else:
        one = next(iter(find_objects(path, SUFFIXES, "images", permit)[1].objects.values()))
        content, name = one.read(0, one.size), quote_path(one.name)
    with open_image(content, name, permit.large) as image:
        return upright_size(image)


@dataclass(frozen=True)
class Members:
    """Images in archives, one after the other.

    place: the archive of each; names: of the members; offsets, sizes: of their contents in bytes;
    labels: their classes, None where there is none. large: whether any size is read.
    """

    archives: Sequence[Stored]
    place: NDArray[np.int64]
    names: Sequence[str]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    labels: Sequence[str | int | None]

    def __len__(self) -> int:
        return len(self.names)

    def keep(self, which: Sequence[int]) -> Members:
        """The images of these indices alone."""
        if len(which) == len(self):
            return self
        index = np.asarray(which, np.int64)
        return Members(
            self.archives,
            self.place[index],
            [self.names[i] for i in which],
            self.offsets[index],
            self.sizes[index],
            [self.labels[i] for i in which],
        )

    def describe(self, i: int) -> str:
        """The name of an image, for a message."""
        return f"{quote_path(self.names[i])} of {quote_path(self.archives[self.place[i]].name)}"

    def stamp(self, i: int) -> str:
        """A text that changes when the content of an image may have."""
        archive = self.archives[self.place[i]]
        return f"{archive.name} {archive.stamp} {self.offsets[i]} {self.sizes[i]}"

    def read(self, i: int) -> bytes:
        """The content of an image. Raises InputError where the archive is shorter by now."""
        size = int(self.sizes[i])
        check_size(self.describe(i), size, "bytes", BYTES, large=False)
        content = self.archives[self.place[i]].read(int(self.offsets[i]), size)
        if len(content) != size:
            raise InputError(f"{self.describe(i)} cannot be read: the archive ends before it does.")
        return content


def index_archives(
    found: Found, wanted: Wanted, path: str
) -> tuple[Members, dict[str, Sequence[str]]]:
    """The images of all archives, and what is passed over: reason -> names.

    Archives that cannot be read are passed over as files are (``check_skipped``). Raises
    InputError where there are no images.
    """
    block = FAR if is_address(path) else NEAR

    def look(archive: Stored) -> Samples | InputError:
        try:
            return index_archive(archive, wanted, block)
        except Refused:
            raise
        except InputError as error:
            return error

    with ThreadPoolExecutor() as pool:
        tried = pool.map(look, found.archives)
        title, count = "reading the headers of archives", len(found.archives)
        seen = list(track(tried, title, count, "archives", BRIEF))
    faults = {i: one for i, one in enumerate(seen) if isinstance(one, InputError)}
    names = [quote_path(archive.name) for archive in found.archives]
    check_skipped(names, faults, "archives")
    read = [(i, one) for i, one in enumerate(seen) if isinstance(one, Samples)]
    passed: dict[str, Sequence[str]] = dict(found.passed)
    passed[UNREADABLE] = [*passed.get(UNREADABLE, ()), *(found.names[i] for i in faults)]
    for _, one in read:
        for reason, some in one.passed.items():
            passed[reason] = [*passed.get(reason, ()), *some]
    counts = [len(one.names) for _, one in read]
    if not sum(counts):
        raise InputError(_describe_none(path, wanted, passed))
    members = Members(
        found.archives,
        np.repeat([i for i, _ in read], counts),
        [name for _, one in read for name in one.names],
        np.concatenate([np.asarray(one.offsets, np.int64) for _, one in read]),
        np.concatenate([np.asarray(one.sizes, np.int64) for _, one in read]),
        [label for _, one in read for label in one.labels],
    )
    return members, passed


def _describe_none(path: str, wanted: Wanted, passed: Mapping[str, Sequence[str]]) -> str:
    """The sentence about archives without images."""
    others = passed.get(OTHERS, ())
    ends = Counter(split_name(name)[1] or PurePath(name).name for name in others)
    there = ", ".join(f"{n:,} .{end}" for end, n in ends.most_common(3))
    key = "" if wanted.key is None else f" with the extension {quote(wanted.key)} (source.key)"
    return f"{name_path(path)} holds no images{key}{f', but {there}' if there else ''}."


Labels = list[str] | list[int]


def classify(
    members: Members, label: str | None, depth: Depth
) -> tuple[Labels | None, dict[str, str]]:
    """The class of each image, None without classes, and what is said of them.

    They are those that the samples hold or, where none does, the folders within the archives. Texts
    that are all integers are integers. Raises InputError where a class that was asked for is
    missing.
    """
    missing = [i for i, one in enumerate(members.labels) if one is None]
    if label is not None and missing:
        raise InputError(
            f"source.label: the sample of {members.describe(missing[0])} has no "
            f"'.{shorten(label.partition('.')[0])}', and {len(missing):,} of {len(members):,} have "
            "none: leave source.label out, or name what all of them have."
        )
    if len(missing) == len(members):
        return _classify_by_folders(members, depth)
    if missing:
        words = f"no classes, with {len(missing):,} of {len(members):,} samples without one"
        return None, {"classes": words}
    given = [one for one in members.labels if one is not None]
    if all(isinstance(one, int) or re.fullmatch(r"-?\d{1,18}", one) for one in given):
        return [int(one) for one in given], {}
    return [str(one) for one in given], {}


def _classify_by_folders(members: Members, depth: Depth) -> tuple[Labels | None, dict[str, str]]:
    rest = [names for _, names in find_parts(folders_of(members))]
    shallow = [i for i, names in enumerate(rest) if len(names) < (1 if depth is None else depth)]
    if depth is not None and shallow:
        raise InputError(
            f"source.label_depth = {depth}: {members.describe(shallow[0])} lies in "
            f"{count_things(len(rest[shallow[0]]), 'folder')}, folders of parts not counted."
        )
    if not shallow:
        return find_classes(rest, depth), {}
    if len(shallow) == len(rest):
        return None, {}
    words = f"no classes, with {len(shallow):,} of {len(rest):,} images outside their folders"
    return None, {"classes": words}


def folders_of(members: Members) -> list[tuple[str, ...]]:
    """The folders within its archive in which each image lies; those that lead out are none."""
    return [
        tuple(part for part in name.split("/")[:-1] if part not in ("", ".", ".."))
        for name in members.names
    ]


def find_parts_of(found: Found, members: Members) -> tuple[list[str] | None, str]:
    """The part of each image, a key of ``PART_OF``, and in words what tells it.

    That is the names of the archives and of their folders (``train-000.tar``, ``val/000.tar``) or,
    where these do not tell of all, the folders within them.
    """
    outer = [part for part, _ in find_parts([PurePath(one).parts[:-1] for one in found.names])]
    named = [part or _part_of_name(one) for part, one in zip(outer, found.names, strict=True)]
    by_archive = [named[i] for i in members.place.tolist()]
    by_folder = [part for part, _ in find_parts(folders_of(members))]
    for parts, words in ((by_archive, "the archives"), (by_folder, "the folders")):
        known = [part for part in parts if part is not None]
        if len(known) == len(parts):
            return known, words
    return None, ""


def _part_of_name(name: str) -> str | None:
    """The part of which an archive is by its name: ``train`` of ``imagenet-train-000000.tar``."""
    words = re.split(r"[^a-z]+", PurePath(name).stem.lower())
    parts = {PART_OF[word]: word for word in words if word in PART_OF}
    return next(iter(parts.values())) if len(parts) == 1 else None
