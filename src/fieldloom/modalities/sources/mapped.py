"""Files decoded once into a cache, and mapped from there: data larger than memory would allow.

The cache lies in ``$FIELDLOOM_CACHE``, else ``$XDG_CACHE_HOME/fieldloom``, else
``~/.cache/fieldloom``. Whatever is in it may be deleted at any time; a process that was killed
while it decoded leaves a hidden file there.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fieldloom import export

Blocks = Iterable[NDArray[np.uint8]]

FORMAT = 1
"""Of the cached arrays: decoding that gives other numbers needs another one."""


def mapped(
    files: Sequence[Path], options: Mapping[str, Any], decode: Callable[[], Blocks]
) -> NDArray[np.uint8]:
    """What ``decode`` gives, joined along the first axis: an array that is mapped from a file.

    decode:  blocks (n, *rest) of uint8, one after another; it is asked only where the same files
             (path, size and time of change) were not decoded before with the same ``options``.
    Where the cache cannot be written a warning says so, and the array is held in memory.
    """
    cached = _place(files, options)
    found = _opened(cached)
    if found is not None:
        return found
    try:
        export.atomically(cached, lambda file: _write(file, decode()))
    except OSError as error:
        found = _opened(cached)  # another process may have written it just now
        if found is not None:
            return found
        what = files[0] if len(files) == 1 else files[0].parent
        warnings.warn(
            f"the cache '{cached.parent}' cannot be written ({error.strerror or error}): "
            f"'{what.name}' is held in memory; set FIELDLOOM_CACHE to another folder.",
            stacklevel=3,
        )
        return _held(decode())
    found = _opened(cached)
    return _held(decode()) if found is None else found


def mapped_by_parts(
    files: Sequence[Path],
    options: Mapping[str, Any],
    parts: Sequence[tuple[Sequence[Path], Callable[[], Blocks]]],
) -> NDArray[np.uint8]:
    """As ``mapped`` what all parts give, one after another; for what takes hours.

    parts: the files of each, and its ``decode``. Each part is kept as soon as it is there, so that
    what is stopped goes on with the part that it was at; they are removed when all are joined. A
    part may be empty.
    """
    told = [dict(options) | {"part": number} for number in range(len(parts))]

    def blocks() -> Blocks:
        for (own, decode), options_of in zip(parts, told, strict=True):
            part = mapped(own, options_of, decode)
            if len(part):
                yield part

    found = mapped(files, options, blocks)
    if _place(files, options).is_file():  # else the parts are all that is kept
        for (own, _), options_of in zip(parts, told, strict=True):
            with suppress(OSError):  # it never was, or the cache is somebody else's
                _place(own, options_of).unlink()
    return found


def cache() -> Path:
    """The folder of decoded files."""
    if own := os.environ.get("FIELDLOOM_CACHE"):
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(shared) / "fieldloom"


def _place(files: Sequence[Path], options: Mapping[str, Any]) -> Path:
    return cache() / f"{files[0].stem[:40]}-{_key(files, options)}.npy"


def _key(files: Sequence[Path], options: Mapping[str, Any]) -> str:
    stats = [(str(file.resolve()), file.stat()) for file in files]
    told = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
    content = json.dumps([FORMAT, told, options], sort_keys=True)
    return hashlib.blake2b(content.encode(), digest_size=12).hexdigest()


def _held(blocks: Blocks) -> NDArray[np.uint8]:
    found = list(blocks)
    return np.concatenate(found) if found else np.empty(0, np.uint8)


def _opened(cached: Path) -> NDArray[np.uint8] | None:
    """The cached array, None where there is none, or none that is whole.

    Pages are mapped "copy on write": the array counts as writable, the file never changes.
    """
    try:
        found = np.load(cached, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return np.asarray(found)


def _write(file: BinaryIO, blocks: Blocks) -> None:
    """An array as ``.npy``, block by block; how long it is stands in the header at the end."""
    count, rest = 0, ()
    for block in blocks:
        if not count:
            rest = block.shape[1:]
            _header(file, (0, *rest))
        file.write(np.ascontiguousarray(block).data)
        count += len(block)
    file.seek(0)
    _header(file, (count, *rest))  # NumPy pads headers so that a longer first axis fits in


def _header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    told = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, told)
