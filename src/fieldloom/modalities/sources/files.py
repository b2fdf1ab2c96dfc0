"""Opening files of data safely: their paths, their sizes, and the arrays that they contain.

Sizes in a header are checked before anything is allocated, and paths in a file are followed only
within its folder.
"""

from __future__ import annotations

import math
import os
import re
import warnings
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote_from_bytes, unquote_to_bytes

import numpy as np
from numpy.typing import NDArray

from fieldloom.errors import (
    InputError,
    escape_bytes,
    name_argument,
    name_value,
    nearest,
    quote,
    quote_path,
    set_key,
    shorten,
)
from fieldloom.modalities.sources.summary import NAMED

PIXELS = 1 << 28
"""The largest image, or frame of a video, in pixels."""
CELLS = 1 << 28
"""The largest shape in voxels."""
SAMPLES = 1 << 28
"""The longest audio file in samples of all its channels."""
BYTES = 1 << 31
"""The largest array in bytes, unless the file itself is larger."""

LOOKED_AT = 1000
"""Names beside a path that is not there, of which the most similar is offered."""

TOLERATED = 0.1
"""The largest fraction of unreadable files that is skipped with a warning."""


class Refused(InputError):
    """An input that needs a permit (``--large``, ``--network``), or a path outside its folder.

    It is never skipped, unlike a broken file among many.
    """


def check_size(what: str, size: int, unit: str, most: int, large: bool) -> None:
    """Raise Refused where ``what`` claims more than ``most`` such units, unless large."""
    if size > most and not large:
        count = f"{size:,}" if size < 1 << 60 else "more than 10^18"
        raise Refused(
            f"{what} tells of {count} {unit}, and more than {most:,} are refused, since a small "
            "file can unpack to more than memory holds: "
            f"{name_argument('large', True)} reads it."
        )


def check_skipped(names: Sequence[str], faults: Mapping[int, InputError], what: str) -> None:
    """Warn that items were skipped, with the reason of the first; the summary names them.

    faults: their indices, and what is wrong with them. Raises InputError where there are too many
    faults; the fault itself where there is one item.
    """
    if not faults:
        return
    if len(names) == 1:
        raise faults[0]
    reason = str(next(iter(faults.values())))
    if len(faults) > TOLERATED * len(names):
        some, more = ", ".join(names[i] for i in list(faults)[:NAMED]), len(faults) - NAMED
        if len(faults) > 1:
            reason = f"{some}{f' and {more} more' if more > 0 else ''}; {reason}"
        raise InputError(f"{len(faults)} of {len(names)} {what} cannot be read: {reason}")
    first = "" if len(faults) == 1 else ", the first"
    warnings.warn(f"skipped {len(faults)} unreadable {what}{first}: {reason}", stacklevel=3)


def locate(path: str) -> Path:
    """A user's path, where ``~`` is a home, or a ``file:`` URI; there need not be such a file.

    ``file:///data/caf%E9`` is how a recipe, which is UTF-8, keeps a path that is not (RFC 8089).
    """
    uri = re.fullmatch(r"file:(?://(?:localhost)?(?=/))?(.+)", path, re.DOTALL)
    if uri is None or Path(path).exists():
        return Path(os.path.expanduser(path))
    return Path(os.fsdecode(unquote_to_bytes(uri[1])))


def is_address(path: str) -> bool:
    """Whether a user's path leads elsewhere (``s3://bucket/folder``), unlike a ``file:`` URI."""
    return re.match(r"(?!file:)[A-Za-z][\w+.-]*://", path) is not None


def is_empty_folder(path: Path) -> bool:
    """Whether a path is of a folder with nothing in it."""
    try:
        return path.is_dir() and next(path.iterdir(), None) is None
    except OSError:  # without permission
        return False


def path_to_text(path: str | Path) -> str:
    """A path as a recipe keeps it: as it is or, where it is not UTF-8, as a ``file:`` URI."""
    text = str(path)
    if escape_bytes(text) == text:
        return text
    return f"file:{'//' if os.path.isabs(text) else ''}{quote_from_bytes(os.fsencode(text))}"


def find_path(path: str) -> Path:
    """The file or folder at a user's path. Raises InputError where there is none."""
    if is_address(path):
        raise InputError(
            f"{name_path(path)} is an address, and no file of this machine: the sources 'folder' "
            "and 'tar' read images from there."
        )
    try:
        found = locate(path)
        there = bool(path) and found.exists()
    except (OSError, ValueError):  # too long, or without permission
        there = False
    if not there:
        raise InputError(
            f"{name_path(path)} does not exist, or cannot be seen{find_similar(path)}."
        )
    return found


def name_path(path: str | Path) -> str:
    """The path of a source for a message: ``--source 'x'``, or ``source.path = 'x'``."""
    return name_value("source.path", quote_path(path))


def find_similar(path: str) -> str:
    """The most similar name beside one that is not there, as the end of a sentence."""
    try:
        missing = locate(path)
        beside = {one.name: one for one in islice(missing.parent.iterdir(), LOOKED_AT)}
    except (OSError, ValueError):
        return ""
    near = nearest(missing.name, beside)
    return "" if near is None else f"; {quote_path(beside[near])} is there"


def find_file(path: str, hint: str = "") -> Path:
    """The file at a user's path. Raises InputError where there is none.

    hint: the end of the sentence about a folder.
    """
    found = find_path(path)
    if not found.is_file():
        raise InputError(f"{name_path(path)} is a folder, and this source reads one file{hint}.")
    return found


def resolve_inside(file: Path, name: str) -> Path:
    """The path of a name that ``file`` contains. Raises Refused for paths outside its folder."""
    folder = file.parent
    try:
        rest = os.path.relpath(folder / name, folder)
    except ValueError:  # another drive, a null character
        rest = os.pardir
    if rest.split(os.sep)[0] in (os.pardir, os.curdir):
        raise refuse_outside(file, name)
    return folder / rest


def refuse_outside(file: Path, name: str) -> Refused:
    """The error for a name in ``file`` that leads out of its folder."""
    return Refused(
        f"{quote_path(file)} names {quote_path(name)}, which lies outside its folder: names in "
        "files are followed only within it."
    )


@dataclass(frozen=True)
class Archive:
    """The names of the arrays in an ``.npz``; None for a ``.npy``, which holds one array."""

    path: Path
    names: tuple[str, ...] | None

    def __contains__(self, name: str) -> bool:
        return name in (self.names or ())


Kind = Literal["numbers", "integers", "bytes", "labels"]
KINDS: dict[Kind, str] = {"numbers": "biuf", "integers": "iu", "bytes": "u", "labels": "biufUS"}
"""Kind of array -> NumPy's kinds. Python objects are never allowed: they are pickles."""

SOME: Collection[int] = range(1, 65)
"""Any number of axes; a lone number has none."""


def read_npz(path: Path) -> Archive:
    """The arrays of a ``.npz`` or ``.npy`` file, which ``load_array`` reads."""
    try:
        with path.open("rb") as file:
            head = file.read(6)
        if head == b"\x93NUMPY":
            return Archive(path, None)
        with zipfile.ZipFile(path) as archive:
            names = [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]
        return Archive(path, tuple(names))
    except Exception as error:  # zipfile fails in many ways on a broken file
        raise InputError(
            f"{quote_path(path)} is not a readable .npz or .npy file: {shorten(str(error))}."
        ) from None


def load_array(
    file: Archive,
    name: str | None,
    kind: Kind = "numbers",
    axes: Collection[int] = SOME,
    large: bool = False,
) -> NDArray[Any]:
    """One array of a file (name None: that of a ``.npy``), in the machine's byte order.

    kind, axes: the allowed kind of data and numbers of axes. Raises InputError for other arrays,
    before they are read, and for broken files; Refused for an array that would be too large.
    """
    path = quote_path(file.path)
    what = path if name is None else f"the array '{shorten(name)}' of {path}"
    if name is not None and file.names is None:
        fix = set_key("source.name", "array")
        raise InputError(f"{path} holds one array, not a packed file: {fix}.")
    if name is not None and name not in file:
        has = shorten(", ".join(file.names or ())) or "none"
        raise InputError(f"{path} has no array '{shorten(name)}'; it has {has}.")
    try:
        with _stream(file, name) as (stream, size):
            shape, dtype = _header(stream)
            _check_array(what, shape, dtype, kind, axes)
            count = math.prod(shape) * dtype.itemsize
            most = max(BYTES, file.path.stat().st_size)
            check_size(what, count, "bytes", most, large)
            if stream.tell() + count != size:
                raise ValueError(f"{quote(shape)} of {dtype} do not fill its {size:,} bytes")
            stream.seek(0)
            array = np.lib.format.read_array(stream, allow_pickle=False)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # NumPy, zipfile and zlib fail in many ways on a broken file
        raise InputError(f"{what} is not a readable array: {shorten(str(error))}.") from None
    wide = dtype.kind == "f" and dtype.itemsize > 8  # PyTorch has no longer floats
    return array.astype(np.float64 if wide else dtype.newbyteorder("="), copy=False)


def shape_of_array(path: Path) -> tuple[int, ...]:
    """The shape of a file's array, of several that of ``x_train`` or the first, by its header.

    Raises InputError for files that cannot be read.
    """
    file = read_npz(path)
    names = file.names or (None,)
    name = next((name for name in names if name == "x_train"), names[0])
    try:
        with _stream(file, name) as (stream, _):
            return _header(stream)[0]
    except Exception as error:  # NumPy, zipfile and zlib fail in many ways on a broken file
        raise InputError(
            f"{quote_path(path)} is not a readable array: {shorten(str(error))}."
        ) from None


def array_name(file: Archive, key: str | None, label: str | None) -> str | None:
    """The name of the array to read: the given one, or the only one; None for a ``.npy``."""
    if file.names is None:
        return None
    others = [name for name in file.names if name != label]
    if key is None and len(others) != 1:
        has = shorten(", ".join(file.names)) or "none"
        fix = f", as {set_key('source.key', file.names[0])}" if file.names else ""
        raise InputError(
            f"source.key: {quote_path(file.path)} has the arrays {has}; name one{fix}."
        )
    return others[0] if key is None else key


@contextmanager
def _stream(file: Archive, name: str | None) -> Iterator[tuple[Any, int]]:
    """A stream of the stored array, and its length in bytes."""
    if name is None:
        with file.path.open("rb") as stream:
            yield stream, file.path.stat().st_size
    else:
        with zipfile.ZipFile(file.path) as archive:
            info = archive.getinfo(f"{name}.npy")
            with archive.open(info) as stream:
                yield stream, info.file_size


def _header(stream: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"it is of the version {version}, where 1.0 and 2.0 are right")
    if min(shape, default=0) < 0:
        raise ValueError(f"its header has the shape {quote(shape)}")
    return shape, dtype


def _check_array(
    what: str, shape: tuple[int, ...], dtype: np.dtype[Any], kind: Kind, axes: Collection[int]
) -> None:
    if dtype.hasobject:
        raise InputError(f"{what} is not a readable array: it holds Python objects, no {kind}.")
    if dtype.kind not in KINDS[kind] or (kind == "bytes" and dtype.itemsize > 1):
        raise InputError(f"{what} holds {quote(dtype.name)}, where {kind} are right.")
    if len(shape) not in axes:
        right = "at least 1" if axes is SOME else " or ".join(map(str, axes))
        raise InputError(f"{what} has the shape {quote(shape)}: its axes must be {right}.")


def read_labels(file: Archive, name: str, count: int, things: str) -> list[Any]:
    """Labels, one for each of ``count`` things. Raises InputError for any other number."""
    labels = load_array(file, name, "labels").reshape(-1)
    if len(labels) != count:
        raise InputError(
            f"source.label: {quote_path(file.path)} has {len(labels)} '{shorten(name)}' for "
            f"{count} {things}."
        )
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise InputError(f"source.label: {quote_path(file.path)} has '{shorten(name)}' of NaN.")
    return labels.tolist()


def read_offsets(file: Archive, name: str, total: int, things: str) -> list[int]:
    """Ascending offsets into ``total`` things; each part begins where the one before it ends."""
    offsets = load_array(file, name, "integers", axes=(1,))
    ordered = len(offsets) < 2 or bool((offsets[1:] >= offsets[:-1]).all())
    if len(offsets) < 1 or not ordered or offsets[0] < 0 or offsets[-1] > total:
        raise InputError(
            f"the array '{shorten(name)}' of {quote_path(file.path)} must grow from 0 to at most "
            f"{total}, the number of {things}, without a step back."
        )
    return offsets.tolist()
