"""Tar archives of samples (WebDataset): where their members lie, without unpacking any.

Members with the same name up to its first dot are one sample: ``0001.jpg``, ``0001.cls``,
``0001.json``. Source: https://github.com/webdataset/webdataset. Nothing is ever extracted: names
of members are texts, whatever they say, and links are passed over.

The index of an archive is made once, by its headers, and kept in the cache
(``cache.cache_folder``); it is made anew where the archive changes.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from fieldloom import atomic
from fieldloom.errors import InputError, quote, quote_path, set_key, shorten
from fieldloom.modalities.sources.cache import cache_folder
from fieldloom.modalities.sources.folders import HIDDEN, is_hidden
from fieldloom.modalities.sources.formats import SUFFIXES
from fieldloom.modalities.sources.stored import Stored

FORMAT = 1
"""The version of indices: it has to change where other members would be found."""
HEADER, LABEL = 1 << 20, 1 << 20
"""The longest header (of long names), and the longest member with a class, in bytes."""
BLOCK = tarfile.BLOCKSIZE

COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ\x00": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
}
"""The first bytes of compressed files -> the format, and the program that undoes it."""

OTHERS, FURTHER, LINKS = "not images", "further images", "links"
"""Reasons to pass members over, beside ``HIDDEN``: samples without an image, a second image of a
sample, and what is no plain file."""


class Wanted(NamedTuple):
    """What is read of each sample.

    key:   the extension of the images (``jpg``, ``seg.png``); None: any of an image.
    label: the extension of the members that hold the class, of JSON with keys behind it:
           ``cls``, ``json.label``.
    """

    key: str | None = None
    label: str = "cls"

    @property
    def keys(self) -> list[str]:
        """The keys of JSON that lead to the class."""
        return self.label.split(".")[1:] if self.label.startswith("json.") else []


class Samples(NamedTuple):
    """The images of an archive, in its order.

    names: of their members; offsets, sizes: of their contents, in bytes; labels: the class of
    each, None where a sample has none. passed: reason -> members that are passed over.
    """

    names: list[str]
    offsets: list[int]
    sizes: list[int]
    labels: list[str | int | None]
    passed: dict[str, list[str]]


class Member(NamedTuple):
    """A member's name, and where its content lies, in bytes."""

    name: str
    offset: int
    size: int


def index_archive(archive: Stored, wanted: Wanted, block: int) -> Samples:
    """The images of an archive, from the cache or by its headers.

    block: bytes that are read at a time. Raises InputError for what is no whole, plain archive,
    and for a sample whose image or class has no single meaning.
    """
    about = json.dumps([FORMAT, archive.name, archive.stamp, *wanted])
    key = hashlib.blake2b(about.encode(), digest_size=12).hexdigest()
    kept = cache_folder() / "tars" / f"{key}.json"
    with suppress(OSError, ValueError, TypeError):
        return Samples(*json.loads(kept.read_bytes()))
    found = read_headers(archive, wanted, block)
    with suppress(OSError):  # without a cache it is made each time
        atomic.write_text(json.dumps(found), kept)
    return found


def read_headers(archive: Stored, wanted: Wanted, block: int) -> Samples:
    """The images of an archive by its headers (see ``index_archive``)."""
    stream = Window(archive, block)
    samples: dict[str, dict[str, Member]] = {}
    labels: dict[str, str | int | None] = {}
    found = Samples([], [], [], [], {OTHERS: [], FURTHER: [], HIDDEN: [], LINKS: []})
    for member in list_members(archive, stream, found.passed):
        stem, extension = split_name(member.name)
        samples.setdefault(stem, {})[extension] = member  # of one name the last one counts
        if extension == wanted.label or (wanted.keys and extension == "json"):
            labels[stem] = read_label(archive, stream, member, wanted.keys)
    for stem, members in samples.items():
        image, further = choose_image(archive, members, wanted.key)
        found.passed[FURTHER].extend(one.name for one in further)
        if image is None:
            found.passed[OTHERS].extend(one.name for one in members.values())
            continue
        found.names.append(image.name)
        found.offsets.append(image.offset)
        found.sizes.append(image.size)
        found.labels.append(labels.get(stem))
    return found


def list_members(
    archive: Stored, stream: Window, passed: Mapping[str, list[str]]
) -> Iterator[Member]:
    """The plain files of an archive, whose headers are read one after the other.

    passed: gets the names of hidden members, and of those that are links, devices or stored in
    pieces. Raises InputError where the archive is compressed, damaged or cut off.
    """
    head = stream.read(8)
    for first, (form, program) in COMPRESSED.items():
        if head.startswith(first):
            raise InputError(
                f"{quote_path(archive.name)} is compressed ({form}), so that its members cannot be "
                f"read one by one: unpack it to a plain .tar once, with {program}."
            )
    stream.seek(0)
    try:
        with tarfile.open(fileobj=stream, mode="r:") as opened:  # type: ignore[call-overload]
            while (member := opened.next()) is not None:
                opened.members.clear()  # it would keep all of them
                if member.size < 0 or opened.offset <= member.offset:
                    raise tarfile.ReadError("a header tells of a negative size")
                if member.isdir():
                    continue
                if any(map(is_hidden, set(member.name.split("/")) - {".", ".."})):
                    passed[HIDDEN].append(member.name)
                elif not member.isreg() or member.issparse():
                    passed[LINKS].append(member.name)
                elif member.offset_data + member.size > archive.size:
                    raise tarfile.ReadError(f"it is cut off within '{member.name}'")
                else:
                    yield Member(member.name, member.offset_data, member.size)
            stream.seek(opened.offset)
            if (mark := stream.read(BLOCK)) != bytes(BLOCK):
                raise tarfile.ReadError("it is damaged" if mark else "it is cut off at its end")
    except InputError:
        raise
    except Exception as error:  # tarfile fails in many ways on a broken file
        raise InputError(
            f"{quote_path(archive.name)} is no whole tar archive: {shorten(str(error))}."
        ) from None


def split_name(name: str) -> tuple[str, str]:
    """The sample of a member and its extension: ``a/01`` and ``seg.png`` of ``a/01.seg.png``."""
    folder, slash, file = name.rpartition("/")
    stem, _, extension = file.partition(".")
    return folder + slash + stem, extension.lower()


def choose_image(
    archive: Stored, members: Mapping[str, Member], key: str | None
) -> tuple[Member | None, list[Member]]:
    """The image of a sample, and its other images. Raises InputError where there is no telling.

    members: by their extensions. key: see ``Wanted``; without one a plain extension (``png``)
    comes before a longer one (``seg.png``).
    """
    images = [e for e in members if f".{e.rpartition('.')[2]}" in SUFFIXES]
    plain = [e for e in images if f".{e}" in SUFFIXES] or images
    if key is not None:
        return members.get(key.lower()), []
    if len(plain) > 1:
        names = " and ".join(quote_path(members[e].name) for e in plain[:2])
        raise InputError(
            f"{quote_path(archive.name)}: {names} are one sample: "
            f"{set_key('source.key', plain[0])} tells which of them is its image."
        )
    chosen = plain[0] if plain else None
    further = [members[e] for e in images if e != chosen]
    return (None if chosen is None else members[chosen]), further


def read_label(archive: Stored, stream: Window, member: Member, keys: Sequence[str]) -> str | int:
    """The class that a member holds: a text, or what stands under the keys of its JSON.

    Raises InputError where that is neither a text nor an integer.
    """
    name = f"source.label: {quote_path(member.name)} of {quote_path(archive.name)}"
    if member.size > LABEL:
        raise InputError(f"{name} is no class, but {member.size:,} bytes.")
    before = stream.tell()
    stream.seek(member.offset)
    content = stream.read(member.size)
    stream.seek(before)
    try:
        found: Any = json.loads(content) if keys else content.decode().strip()
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name} cannot be read: {shorten(str(error))}.") from None
    for key in keys:
        if not isinstance(found, dict) or key not in found:
            has = ", ".join(found) if isinstance(found, dict) else ""
            raise InputError(f"{name} has no {quote(key)}; it has {shorten(has) or 'no keys'}.")
        found = found[key]
    if isinstance(found, bool) or not isinstance(found, str | int) or found == "":
        raise InputError(f"{name} has the class {quote(found)}: a text or an integer is right.")
    return found


class Window:
    """A file of which ``block`` bytes at a time are held, as a stream for ``tarfile``.

    It refuses to read more than a header is long at once, whatever a file claims.
    """

    def __init__(self, file: Stored, block: int) -> None:
        self.file, self.block = file, block
        self.place, self.start, self.held = 0, 0, b""

    def tell(self) -> int:
        return self.place

    def seek(self, place: int) -> int:
        if place < 0:
            raise tarfile.ReadError("a header has a negative size")
        self.place = place
        return place

    def read(self, length: int) -> bytes:
        if not 0 <= length <= HEADER:
            raise tarfile.ReadError(f"a header tells of {length:,} bytes")
        length = max(0, min(length, self.file.size - self.place))
        first = self.place - self.start
        if first < 0 or first + length > len(self.held):
            self.held = self.file.read(self.place, max(length, self.block))
            self.start, first = self.place, 0
        found = self.held[first : first + length]
        self.place += len(found)
        return found

    def close(self) -> None:
        self.held = b""
