"""A memory-mapped cache of decoded files, for data that are larger than memory.

The cache folder is ``$FIELDLOOM_CACHE``, else ``$XDG_CACHE_HOME/fieldloom``, else
``~/.cache/fieldloom``. Its files may be deleted at any time; partial files of processes that were
killed while decoding are removed when the next file is written.

A cached array is identified by the content of the files that it was decoded from, and not by their
paths or times: it ends with a key of that content and a digest of itself, and is decoded again
where either differs. The key covers the whole of a file up to ``WHOLE`` bytes, and of a larger one
``BLOCKS`` blocks, the first and the last among them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fieldloom import atomic
from fieldloom.errors import quote_path

Blocks = Iterable[NDArray[np.uint8]]

FORMAT = 3
"""The version of cached arrays: it has to change where decoding gives other numbers."""
WHOLE, BLOCK, BLOCKS = 1 << 24, 1 << 16, 64
MARK = b"fieldloom"
SEAL = len(MARK) + 2 * (12 + 16)
"""Bytes behind a cached array: the mark, the key and the digest."""


def memory_map(
    files: Sequence[Path], options: Mapping[str, Any], decode: Callable[[], Blocks]
) -> NDArray[np.uint8]:
    """The blocks of ``decode``, concatenated along the first axis, as a memory-mapped array.

    decode: yields blocks (n, *rest) of uint8; it is called only where files of the same content
            have not been decoded before with the same ``options``.

    Where the cache cannot be written the array is in memory, and a warning says so.
    """
    return _memory_map(files, _key([_content(file) for file in files], options), decode)


def memory_map_by_parts(
    files: Sequence[Path],
    options: Mapping[str, Any],
    parts: Sequence[tuple[Sequence[Path], Callable[[], Blocks]]],
) -> NDArray[np.uint8]:
    """As ``memory_map``, for the concatenation of several parts: for decoding that takes hours.

    parts: the files and the ``decode`` of each part. Each part is cached as soon as it is complete,
    so that a stopped process continues with the part where it stopped; the parts are removed when
    the whole is complete. A part may be empty.
    """
    seen = {file: _content(file) for file in {*files, *(f for own, _ in parts for f in own)}}
    key = lambda own, options: _key([seen[file] for file in own], options)
    whole = key(files, options)
    keys = [key(own, dict(options) | {"part": i}) for i, (own, _) in enumerate(parts)]

    def blocks() -> Blocks:
        for (own, decode), key_of in zip(parts, keys, strict=True):
            part = _memory_map(own, key_of, decode)
            if len(part):
                yield part

    found = _memory_map(files, whole, blocks)
    if _path_of(files, whole).is_file():  # otherwise only the parts are cached
        for (own, _), key_of in zip(parts, keys, strict=True):
            with suppress(OSError):  # it does not exist, or the cache is not writable
                _path_of(own, key_of).unlink()
    return found


def _memory_map(files: Sequence[Path], key: str, decode: Callable[[], Blocks]) -> NDArray[np.uint8]:
    cached = _path_of(files, key)
    found = _open_cached(cached, key)
    if found is not None:
        return found
    try:
        atomic.remove_partial(cached.parent)
        atomic.write_atomically(cached, lambda file: _write_sealed(file, key, decode()))
    except OSError as error:
        found = _open_cached(cached, key)  # another process may have written it just now
        if found is not None:
            return found
        what = files[0] if len(files) == 1 else files[0].parent
        warnings.warn(
            f"the cache {quote_path(cached.parent)} cannot be written "
            f"({error.strerror or error}): {quote_path(what.name)} is held in memory; set "
            "FIELDLOOM_CACHE to another folder.",
            stacklevel=4,
        )
        return _join_blocks(decode())
    found = _open_cached(cached, key)
    return _join_blocks(decode()) if found is None else found


def cache_folder() -> Path:
    """The folder of decoded files."""
    if own := os.environ.get("FIELDLOOM_CACHE"):
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(shared) / "fieldloom"


def _path_of(files: Sequence[Path], key: str) -> Path:
    """The path of a key's array: an existing one of any name, or a new one."""
    readable = re.sub(r"[^\w-]+", "_", files[0].stem)[:40]
    return next(cache_folder().glob(f"*-{key}.npy"), cache_folder() / f"{readable}-{key}.npy")


def _key(contents: Sequence[str], options: Mapping[str, Any]) -> str:
    text = json.dumps([FORMAT, contents, options], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _content(file: Path) -> str:
    """A text that identifies a file's content; of a large one also its time of change."""
    try:
        with file.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            changed = file.stat().st_mtime_ns if size > WHOLE else 0
            return (
                f"{file.suffix.lower()} {digest_stream(stream, size)} {changed}"  # its format, too
            )
    except OSError as error:  # decoding will say so
        return f"unread: {error.errno}"


def digest_stream(stream: Any, size: int) -> str:
    """A digest of a stream's first ``size`` bytes: of all of them, or of evenly spaced blocks."""
    seen = hashlib.blake2b(f"{size}".encode(), digest_size=16)
    starts, length = [0], size
    if size > WHOLE:
        starts = [(size - BLOCK) * i // (BLOCKS - 1) for i in range(BLOCKS)]
        length = BLOCK
    for start in starts:
        stream.seek(start)
        seen.update(stream.read(length))
    return seen.hexdigest()


def _join_blocks(blocks: Blocks) -> NDArray[np.uint8]:
    found = list(blocks)
    return np.concatenate(found) if found else np.empty(0, np.uint8)


def _open_cached(cached: Path, key: str) -> NDArray[np.uint8] | None:
    """The cached array; None where there is none, or where it is incomplete or of another key.

    Pages are mapped "copy on write": the array is writable, and the file never changes.
    """
    try:
        with cached.open("rb") as stream:
            size = max(0, stream.seek(0, os.SEEK_END) - SEAL)
            seal = _seal(key, digest_stream(stream, size))
            stream.seek(size)
            if stream.read() != seal:
                return None
        found = np.load(cached, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return np.asarray(found)


def _seal(key: str, digest: str) -> bytes:
    return MARK + key.encode() + digest.encode()


def _write_sealed(file: BinaryIO, key: str, blocks: Blocks) -> None:
    """Write an array as ``.npy``, followed by the seal that ``_open_cached`` checks."""
    _write(file, blocks)
    file.flush()
    with open(file.name, "rb") as written:
        size = written.seek(0, os.SEEK_END)
        seal = _seal(key, digest_stream(written, size))
    file.seek(size)
    file.write(seal)


def _write(file: BinaryIO, blocks: Blocks) -> None:
    """Write an array as ``.npy``, block by block; at the end the header gets its length."""
    count, rest = 0, ()
    for block in blocks:
        if not count:
            rest = block.shape[1:]
            _write_header(file, (0, *rest))
        file.write(np.ascontiguousarray(block).data)
        count += len(block)
    file.seek(0)
    _write_header(file, (count, *rest))  # NumPy pads headers so that a longer first axis fits in


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
