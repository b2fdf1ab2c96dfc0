"""Files behind an address (``s3://bucket/folder``), through fsspec: listed once, read in parts.

Nothing is fetched unless the user allows the network. Credentials are those of fsspec's own
environment (``~/.aws``, ``GOOGLE_APPLICATION_CREDENTIALS``, ``HF_TOKEN`` ...): an address with a
password or a query is refused, since runs keep addresses. Needs the extra ``remote``.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

from fieldloom.errors import (
    InputError,
    name_argument,
    nearest,
    quote_path,
    shorten,
    strip_credentials,
)
from fieldloom.modalities.sources.files import BYTES, Refused, check_size, name_path
from fieldloom.modalities.sources.folders import HIDDEN, FoundFiles, is_hidden
from fieldloom.permit import Permit

T = TypeVar("T")

PACKAGES = {
    "s3": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "hf": "huggingface_hub",
    "http": "aiohttp requests",
    "https": "aiohttp requests",
    "memory": "",
}
"""Protocols that are read -> the packages that fsspec needs for them.

fsspec knows more of them; some run code of what they read, or lead to any file of this machine.
"""
OWN = ("memory",)
"""Protocols that need no network."""
TRIES, PAUSE = 4, 0.5
"""How often something is asked for, and the seconds before the second time; each pause is twice the
one before."""
STAMPS = ("ETag", "etag", "md5", "content_md5", "sha256", "blob_id", "oid", "LastModified",
          "last_modified", "mtime", "updated", "created")  # fmt: skip
"""What file systems call that by which a change is seen, the surest first."""
STRANGE = "strange names"
"""A reason to pass objects over."""
HELD = 1 << 30
"""Bytes of a set that are kept in memory once they are fetched; of a larger set none."""
DEPTH, LOOKED_AT = 4, 1000
"""Levels of folders, and files, at which ``peek`` looks."""
AT_ONCE = 16
"""Objects that are asked for at once."""


@dataclass(frozen=True)
class StoredObject:
    """An object behind an address (``stored.Stored``).

    It holds no connection: each process makes its own.
    """

    name: str
    size: int
    stamp: str

    def read(self, start: int, length: int) -> bytes:
        """As many bytes from ``start`` on, fewer at the end.

        Raises Refused, with the address, where they cannot be fetched: a set must not lose data
        because a network was down.
        """
        length = max(0, min(length, self.size - start))
        if not length:
            return b""
        system, path = connect(self.name)
        found = ask(self.name, lambda: system.cat_file(path, start=start, end=start + length))
        if len(found) != length:
            raise Refused(
                f"{quote_path(self.name)} gave {len(found):,} bytes where {length:,} were asked "
                "for: its server reads no parts of files, or the object has changed."
            )
        return found


class Listing(NamedTuple):
    """What lies below an address.

    objects: by their names relative to it, sorted; a single object by its own. strange: names that
    are no plain paths below the address (``../a.png``, ``a//b.png``), which are not followed.
    """

    objects: dict[str, StoredObject]
    strange: list[str]


def check_address(address: str, permit: Permit) -> None:
    """Raise InputError for an address that is not read, Refused where the user must allow it."""
    protocol = address.partition("://")[0]
    if "::" in address:
        raise InputError(f"{name_path(address)} is a chain of addresses (::): give one address.")
    if protocol not in PACKAGES:
        near = nearest(protocol, PACKAGES)
        hint = f"; did you mean {near}://?" if near else "."
        there = ", ".join(f"{name}://" for name in PACKAGES)
        raise InputError(f"{name_path(address)} cannot be read{hint} Read are {there}.")
    if strip_credentials(address) != address:
        raise InputError(
            f"{name_path(address)} holds credentials or a query, and a run keeps the address of "
            "its data: leave them out, and set them as fsspec reads them (~/.aws, ~/.netrc, "
            "variables of the environment)."
        )
    if protocol not in OWN and not permit.network:
        allows = name_argument("network", True)
        raise Refused(f"{name_path(address)} lies elsewhere: {allows} allows to fetch it.")


def connect(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path there. Raises InputError without its package."""
    protocol = address.partition("://")[0]
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise InputError(
            f"{quote_path(address)} needs the package fsspec: pip install 'fieldloom[remote]'."
        ) from None
    try:
        return url_to_fs(address)
    except ImportError:
        needed = PACKAGES[protocol]
        plural = "s" if " " in needed else ""
        raise InputError(
            f"{quote_path(address)} needs the package{plural} {' and '.join(needed.split())}: "
            f"pip install {needed}."
        ) from None
    except Exception as error:  # a file system fails in its own ways to begin
        raise InputError(f"{quote_path(address)} cannot be read: {describe(error)}.") from None


def ask(name: str, call: Callable[[], T]) -> T:
    """What a call to a file system gives, tried ``TRIES`` times.

    Raises Refused with the name where it fails every time, at once where the object is not there
    or may not be read.
    """
    pause = PAUSE
    for left in reversed(range(TRIES)):
        try:
            return call()
        except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
            reason = "does not exist" if isinstance(error, FileNotFoundError) else describe(error)
            raise Refused(f"{quote_path(name)} cannot be fetched: {reason}.") from None
        except Exception as error:  # the network fails in many ways
            if not left:
                raise Refused(
                    f"{quote_path(name)} cannot be fetched, after {TRIES} tries: {describe(error)}."
                ) from None
        time.sleep(pause)
        pause *= 2
    raise AssertionError


def describe(error: Exception) -> str:
    """A reason for a message; some errors of the network have no words."""
    return shorten(str(error)) or type(error).__name__


def list_objects(address: str, permit: Permit) -> Listing:
    """The objects below an address, or the one that it names: one listing, with all stamps.

    Raises InputError where nothing is there, or the address is not to be read.
    """
    check_address(address, permit)
    system, path = connect(address)
    found = ask(address, lambda: system.find(path, detail=True))
    if not found:
        raise InputError(f"{name_path(address)} holds nothing, or does not exist.")
    root = system.unstrip_protocol(path).rstrip("/")
    objects, strange = dict[str, StoredObject](), list[str]()
    for one in _stamp(system, found.items()):
        name = one.name.removeprefix(f"{root}/")
        if one.name == root:
            objects[name.rpartition("/")[2]] = one
        elif name.endswith("/"):  # some stores have objects for folders
            continue
        elif name == one.name or {"", ".", ".."} & set(name.split("/")):
            strange.append(name)
        else:
            objects[name] = one
    return Listing(dict(sorted(objects.items())), sorted(strange))


@dataclass(frozen=True)
class Objects:
    """Objects below an address, by their relative names, as files of a folder are known."""

    objects: Mapping[str, StoredObject]

    def describe(self, file: Path) -> str:
        """The address of an object in quotes, for a message."""
        return quote_path(self.objects[file.as_posix()].name)

    def stamp(self, file: Path) -> str:
        """A text that changes when the content of an object may have."""
        one = self.objects[file.as_posix()]
        return f"{one.name} {one.stamp}"

    def read(self, file: Path) -> bytes:
        """The content of an object, fetched. Raises Refused where that fails."""
        one = self.objects[file.as_posix()]
        check_size(self.describe(file), one.size, "bytes", BYTES, large=False)
        return one.read(0, one.size)

    def measure(self, files: Iterable[Path]) -> int:
        """The bytes of these objects together."""
        return sum(self.objects[file.as_posix()].size for file in files)


def find_objects(
    address: str, suffixes: Collection[str], what: str, permit: Permit
) -> tuple[FoundFiles, Objects]:
    """The objects below an address whose names end so, as ``find_files`` finds those of a folder.

    Raises InputError where there are none.
    """
    listing = list_objects(address, permit)
    passed: dict[str, list[str]] = {f"not {what}": [], HIDDEN: [], STRANGE: listing.strange}
    objects = dict[str, StoredObject]()
    for name, one in listing.objects.items():
        if any(map(is_hidden, name.split("/"))):
            passed[HIDDEN].append(name)
        elif PurePosixPath(name).suffix.lower() in suffixes:
            objects[name] = one
        else:
            passed[f"not {what}"].append(name)
    if not objects:
        ends = Counter(PurePosixPath(name).suffix or name for name in passed[f"not {what}"])
        others = ", ".join(f"{n:,} {end}" for end, n in ends.most_common(3))
        there = f", but {shorten(others)}" if others else ""
        raise InputError(f"{name_path(address)} holds no {what}{there}.")
    return FoundFiles(Path(), [Path(name) for name in objects], passed), Objects(objects)


def hold(read: Callable[[int], bytes], size: int) -> Callable[[int], bytes]:
    """What fetches an item once where all items, of ``size`` bytes, may be held in memory."""
    return cache(read) if size <= HELD else read


def peek(address: str, permit: Permit) -> list[str]:
    """Names of files at an address, the first ``LOOKED_AT``: by these its kind is found.

    Raises InputError where nothing is there, or the address is not to be read.
    """
    check_address(address, permit)
    system, path = connect(address)

    def look() -> list[str]:
        if not system.isdir(path):
            return [path] if system.exists(path) else []
        names = list[str]()
        for _, _, files in system.walk(path, maxdepth=DEPTH):
            names += [name for name in files if not is_hidden(name)]
            if len(names) >= LOOKED_AT:
                break
        return names

    found = ask(address, look)
    if not found:
        raise InputError(f"{name_path(address)} holds nothing, or does not exist.")
    return found


def match_objects(pattern: str, permit: Permit) -> list[StoredObject]:
    """The objects that an address with ``*``, ``?`` or ``[...]`` names, or one without, sorted.

    Raises Refused where there is none.
    """
    check_address(pattern, permit)
    system, path = connect(pattern)
    if re.search(r"[*?\[]", path):
        found = ask(pattern, lambda: system.glob(path, detail=True))
    else:
        found = {path: ask(pattern, lambda: system.info(path))}
    return sorted(_stamp(system, found.items()), key=lambda one: one.name)


def _stamp(system: Any, found: Iterable[tuple[str, dict[str, Any]]]) -> list[StoredObject]:
    """Objects by what a file system tells of them; what a listing leaves out is asked for."""

    def one(item: tuple[str, dict[str, Any]]) -> StoredObject:
        path, info = item
        name = system.unstrip_protocol(path)
        if info.get("size") is None:
            info = ask(name, lambda: system.info(path))
        if info.get("size") is None:
            raise InputError(f"{quote_path(name)} cannot be read in parts: its size is not told.")
        seen = next((str(info[key]) for key in STAMPS if info.get(key) is not None), "")
        return StoredObject(name, int(info["size"]), f"{info['size']} {seen}")

    files = [(path, info) for path, info in found if info.get("type") != "directory"]
    if all(info.get("size") is not None for _, info in files):
        return [one(item) for item in files]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(one, files))
