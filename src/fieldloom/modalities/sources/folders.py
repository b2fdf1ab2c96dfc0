"""The files of a folder: which are data, and what the names of its sub-folders tell of them."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fieldloom.errors import InputError, quote_path
from fieldloom.modalities.sources.files import name_path
from fieldloom.modalities.sources.paths import Each, Names, Paths, divide_name
from fieldloom.modalities.sources.source import PART_OF, Depth, Limit, Split, choose, dividing_parts
from fieldloom.modalities.sources.summary import count_things, list_names

HIDDEN, UNREADABLE = "hidden", "unreadable"
"""Reasons to pass a file over."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is no data: those that a dot hides (``.git``,
    ``.ipynb_checkpoints``), among them macOS's companions (``._a.jpg``), and ``__MACOSX``."""
    return name.startswith(".") or name == "__MACOSX"


def walk(root: Path) -> Iterator[tuple[Path, str]]:
    """Every file below a folder, with "" or the reason to pass it over, in no order.

    Symbolic links are followed, and each folder is listed once: by its own path rather than by a
    link's. A link to a folder in which it lies is a circle, and ends there. Hidden folders, and
    folders that cannot be listed, are one entry; so are links to nothing.
    """
    folders, links, listed = [(root, os.path.realpath(root))], list[tuple[Path, str]](), set[str]()
    while folders or links:
        links = links if folders else sorted(links)
        folder, real = folders.pop() if folders else links.pop(0)
        if real in listed:
            continue
        listed.add(real)
        try:
            with os.scandir(folder) as found:
                entries = list(found)
        except OSError:
            yield folder, UNREADABLE
            continue
        for entry in entries:
            path, linked = folder / entry.name, entry.is_symlink()
            if is_hidden(entry.name):
                yield path, HIDDEN
            elif not _is_folder(entry):
                yield path, "" if _is_file(entry) else UNREADABLE
            elif not linked:
                folders.append((path, os.path.join(real, entry.name)))
            elif not Path(real).is_relative_to(target := os.path.realpath(path)):
                links.append((path, target))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link into itself, or through a folder without permission
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


@dataclass(frozen=True)
class Grouping:
    """What the sub-folders tell of each file: its class, and its part; None where they do not.

    taken: what a summary says of it.
    """

    labels: Sequence[Any] | None = None
    parts: list[str] | None = None
    taken: Mapping[str, str] = field(default_factory=dict)

    def keep(self, which: Collection[int]) -> Grouping:
        """That of some of the files; one class alone is none."""
        labels = None if self.labels is None else [self.labels[i] for i in which]
        labels = None if labels is None or len(set(labels)) < 2 else labels
        parts = None if self.parts is None else [self.parts[i] for i in which]
        return replace(self, labels=labels, parts=parts)


@dataclass(frozen=True)
class FoundFiles:
    """The files of a folder that are data, sorted by path, and those that were passed over.

    passed_over: reason -> names relative to the folder, as in ``Summary``. groups: what the
    sub-folders tell, by ``depth``, once they are asked (``classify``). beside: files that are
    left out by a limit, which does not change the classes of the others.
    """

    root: Path
    files: Sequence[Path]
    passed_over: Mapping[str, Sequence[str]] = field(default_factory=dict)
    groups: Grouping = Grouping()
    depth: Depth = None
    beside: Sequence[Path] = ()

    @property
    def names(self) -> Sequence[str]:
        """The paths of the files, for messages."""
        return Each(self.files, quote_path)

    @property
    def short_names(self) -> list[str]:
        """The paths of the files relative to the folder, for a summary."""
        base = self.root if self.root.is_dir() else self.root.parent
        return [file.relative_to(base).as_posix() for file in self.files]

    def keep(self, which: Collection[int]) -> FoundFiles:
        """The files of these indices alone."""
        return replace(self, files=take_files(self.files, which), groups=self.groups.keep(which))

    def keep_readable(self, which: Collection[int]) -> FoundFiles:
        """The files of these indices; the others are passed over, and tell no classes."""
        if len(which) == len(self.files) and not self.beside:
            passed = {**self.passed_over, UNREADABLE: sorted(self.passed_over.get(UNREADABLE, ()))}
            return replace(self, groups=self.groups.keep(which), passed_over=passed)
        bad = sorted(set(range(len(self.files))) - set(which))
        names = [*self.passed_over.get(UNREADABLE, ()), *self.keep(bad).short_names]
        kept = take_files(self.files, which)
        files = [*kept, *self.beside] if self.beside else kept
        whole = replace(self, files=files, beside=())
        groups = whole.classify(self.depth).groups.keep(range(len(which)))
        passed_over = {**self.passed_over, UNREADABLE: sorted(names)}
        return replace(self.keep(which), groups=groups, passed_over=passed_over)

    def limit(self, limit: Limit, split: Split) -> FoundFiles:
        """At most ``limit`` files, as ``choose`` takes them."""
        if limit is None or limit >= len(self.files):
            return self
        parts = self.groups.parts if dividing_parts(self.groups.parts, split) else None
        chosen = choose(limit, len(self.files), self.groups.labels, parts)
        left = sorted(set(range(len(self.files))) - set(chosen))
        return replace(self.keep(chosen), beside=take_files(self.files, left))

    def classify(self, depth: Depth) -> FoundFiles:
        """The same files with their classes and parts, as the folder's sub-folders tell."""
        return (
            self if self.root.is_file() else replace(self, groups=self._group(depth), depth=depth)
        )

    def _group(self, depth: Depth) -> Grouping:
        """The class and the part of each file (``find_classes``, ``find_parts``).

        Raises InputError for files that do not lie as deep as ``depth``.
        """
        files = self.files
        folders = (
            files.folders()
            if isinstance(files, Paths)
            else [file.relative_to(self.root).parts[:-1] for file in files]
        )
        found = find_parts(folders)
        rest = [names for _, names in found]
        outside = sum(part is None for part, _ in found)
        parts = [part for part, _ in found if part is not None]
        taken = {}
        if outside and dividing_parts(parts):
            folders_of_parts = list_names(list(dict.fromkeys(parts)))
            taken["parts"] = (
                f"not divided by the folders {folders_of_parts}, since {outside:,} of "
                f"{len(found):,} files lie in none of them"
            )
        shallow = [
            i for i, names in enumerate(rest) if len(names) < (1 if depth is None else depth)
        ]
        if depth is not None and shallow:
            raise InputError(
                f"source.label_depth = {depth}: {quote_path(self.files[shallow[0]])} lies in "
                f"{count_things(len(rest[shallow[0]]), 'folder')} below source.path, folders of "
                "parts not counted."
            )
        labels = None if shallow else find_classes(rest, depth)
        if 0 < len(shallow) < len(rest):
            taken["classes"] = (
                f"no classes, with {len(shallow):,} of {len(rest):,} files outside their folders"
            )
        elif labels is None and depth is None and len(set(rest)) > 1:  # n01/images, and images
            taken["classes"] = f"no classes, since all their folders are named {rest[0][-1]}"
        return Grouping(labels, parts if parts and not outside else None, taken)


def find_files(root: Path, path: str, suffixes: Collection[str], what: str) -> FoundFiles:
    """The file itself, or the files of a folder and its sub-folders (``walk``), sorted by path.

    path: as the user wrote it. what: the files in words; those of other suffixes are passed over as
    ``not <what>``. Raises InputError where there are none.
    """
    names: list[str] = []
    others: list[tuple[Path, str]] = []
    passed: dict[str, list[str]] = {f"not {what}": [], HIDDEN: [], UNREADABLE: []}
    for file, reason in walk(root) if root.is_dir() else [(root, "")]:
        if not reason and file.suffix.lower() in suffixes:
            names.append(divide_name(file, root) if file != root else "")
        else:
            others.append((file, reason))
    for file, reason in sorted(others, key=lambda entry: entry[::-1]):  # hidden ones come last
        right = file.suffix.lower() in suffixes
        folder = bool(reason) and os.path.isdir(file)
        if not reason or (reason == HIDDEN and not right and not folder):
            reason = f"not {what}"
        name = file.relative_to(root).as_posix() if file != root else file.name
        passed[reason].append(f"{name}/" if folder else name)
    if not names:
        raise InputError(
            f"{name_path(path)} holds no {what}{_describe_others(passed)}. Files of "
            f"{what} end in {_list_suffixes(suffixes)}."
        )
    names.sort()
    return FoundFiles(root, Paths(root, names) if root.is_dir() else [root], passed)


def take_files(files: Sequence[Path], which: Collection[int]) -> Sequence[Path]:
    """The files of these indices."""
    return files.take(which) if isinstance(files, Paths) else [files[i] for i in which]


COMMON = (".png", ".jpg", ".tif", ".webp", ".gif", ".obj", ".ply", ".stl", ".glb")
"""Suffixes that a message names first."""
PACKED_AWAY = {".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".bz2", ".xz"}
NOT_DECODED = {".heic", ".heif", ".nef", ".cr2", ".cr3", ".arw", ".dng", ".raf", ".orf", ".rw2"}
"""Suffixes of archives, and of photographs that nothing here decodes."""


def _list_suffixes(suffixes: Collection[str]) -> str:
    """``.png, .jpg and 40 more``."""
    known = [suffix for suffix in COMMON if suffix in suffixes]
    return list_names([*known, *sorted(set(suffixes) - set(known))])


def _describe_others(passed: Mapping[str, Sequence[str]]) -> str:
    """What a folder without data holds instead, and what helps; the end of a sentence."""
    if not any(passed.values()):
        return ": it is empty"
    names = [name for reason, some in passed.items() if reason.startswith("not ") for name in some]
    kinds = Counter(Path(name).suffix.lower() or name for name in names)
    told = [f"{n:,} {kind}" for kind, n in kinds.most_common(3)]
    if bad := passed[UNREADABLE]:
        told.append(f"{len(bad):,} {UNREADABLE} ({list_names(bad)})")
    if hidden := passed[HIDDEN]:
        told.append(f"{len(hidden):,} {HIDDEN}")
    help = "; unpack archives first" if kinds.keys() & PACKED_AWAY else ""
    help += (
        "; convert raw photographs and HEIC to JPEG or PNG" if kinds.keys() & NOT_DECODED else ""
    )
    return f", but {', '.join(told)}{help}"


def list_folder(root: Path) -> list[Path]:
    """What lies directly in a folder and is not hidden, sorted by name; nothing where it is none.

    Raises InputError for a folder that cannot be listed.
    """
    if not root.is_dir():
        return []
    try:
        return sorted(root / name for name in os.listdir(root) if not is_hidden(name))
    except OSError as error:
        raise InputError(f"{quote_path(root)} cannot be read: {error.strerror or error}.") from None


def find_parts(folders: Sequence[Names]) -> list[tuple[str | None, Names]]:
    """The folder of each file that is a part (``PART_OF``), if any, and its other folders.

    ``train`` alone among folders of other names (``bus``, ``car``) is no part, but one of them.
    """
    beside = defaultdict[Names, set[str]](set)
    for names in set(folders):
        for i, name in enumerate(names):
            beside[names[:i]].add(name)

    def is_part(names: Names, i: int) -> bool:
        if names[i].lower() not in PART_OF:
            return False
        kinds = {PART_OF.get(name.lower()) for name in beside[names[:i]]}
        return None not in kinds or len(kinds) > 2

    found = {}
    for names in set(folders):
        parts = [i for i in range(len(names)) if is_part(names, i)]
        rest = tuple(name for i, name in enumerate(names) if i not in parts)
        found[names] = (names[parts[0]] if parts else None, rest)
    return [found[names] for names in folders]


def find_classes(folders: Sequence[Names], depth: Depth) -> list[str] | None:
    """The class of each file by its folders, without parts; None where there are not several.

    depth: the class is this one of the folders, from 1 on. None: the folder in which the file lies.
    Where each of these holds a single file (an object a folder, ``chair/1a6f/model.obj``), or all
    have one name (``chair/images/1.png``), it is the folder above, and so on.
    """
    chosen = [names[:depth] for names in folders]
    if depth is None:
        while all(chosen) and _tell_nothing(chosen):
            chosen = [names[:-1] for names in chosen]
        chosen = chosen if all(chosen) else list(folders)
    labels = [names[-1] for names in chosen if names]
    return labels if len(set(labels)) > 1 else None


def _tell_nothing(folders: Sequence[Names]) -> bool:
    """Whether folders of classes would be one a file, or all of one name."""
    return len(set(folders)) == len(folders) or len({names[-1] for names in folders}) == 1
