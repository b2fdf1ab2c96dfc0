"""Files that are written atomically: whole, or not at all."""

from __future__ import annotations

import os
import re
import socket
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import BinaryIO

from fieldloom.errors import InputError, quote
from fieldloom.process import alive

AnyPath = str | Path
"""A path, as text or not."""

PARTIAL = ".partial"
"""The suffix of a file that is being written; host and process of the writer stand before it."""


def as_path(path: AnyPath) -> Path:
    """A path, of text or a path. Raises InputError for others, and for no name of a file."""
    if not isinstance(path, str | Path) or "\0" in str(path) or not Path(path).name:
        raise InputError(f"path = {quote(path)}: the name of a file is needed.")
    return Path(path)


def write_atomically(
    path: AnyPath,
    write: Callable[[BinaryIO], object],
    place: Callable[[str, Path], object] = os.replace,
) -> Path:
    """Write a file atomically: ``write`` fills a temporary file, which is then renamed to ``path``.

    place: what gives the temporary file its name instead of a renaming. Whatever goes wrong, an
    older file at ``path`` stays whole, and the temporary file is removed. Only a killed process
    leaves it behind, for ``remove_partial``.
    """
    path = as_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = f"{socket.gethostname()}-{os.getpid()}"
    prefix = f".{path.name[:64]}.{writer}-"
    try:
        handle, beside = tempfile.mkstemp(prefix=prefix, suffix=PARTIAL, dir=path.parent)
    except OSError as error:
        error.filename = str(path)  # not the hidden one
        raise
    try:
        with open(beside, "wb", opener=lambda *named: handle) as file:  # keeps its name
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(beside, 0o666 & ~_umask())
        place(beside, path)
    except BaseException as error:
        Path(beside).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # so that a message can say where the disk is full
        raise
    return path


def remove_partial(folder: Path, own: Collection[str] = ()) -> None:
    """Remove the temporary files of processes that were killed while they wrote into a folder.

    own: names of files that no other process writes now; the temporary files of other names are
    removed where their writer has ended.
    """
    own, random = set(own), "[a-z0-9_]{8}"  # names of older versions
    for file in folder.glob(".*"):
        if not file.is_file() or file.is_symlink():
            continue
        before = re.fullmatch(rf"\.(.+)\.({random})", file.name)
        now = re.fullmatch(rf"\.(.+)\.[^/]+-\d+-[^-]+{re.escape(PARTIAL)}", file.name)
        left = before is not None and before[1] in own and re.search("[0-9_]", before[2])
        if left or (now is not None and (now[1] in own or _has_ended(file))):
            file.unlink(missing_ok=True)


def _has_ended(file: Path) -> bool:
    """Whether the writer of a temporary file has ended; False if it ran on another host."""
    found = re.search(rf"\.([^/]+)-(\d+)-[^-]+{re.escape(PARTIAL)}$", file.name)
    if found is None or not found[1].endswith(socket.gethostname()):
        return False
    return not alive(int(found[2]))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_bytes(content: bytes, path: AnyPath) -> Path:
    """Write a file atomically. Returns the path."""
    return write_atomically(path, lambda file: file.write(content))


def write_text(content: str, path: AnyPath) -> Path:
    """Write a text as UTF-8 atomically. Returns the path."""
    return write_bytes(content.encode(), path)


def write_new(content: str, path: AnyPath) -> bool:
    """Write a text as UTF-8 atomically where there is no file yet. Returns whether it was written.

    Of several processes that try it at once, on one host or on several, exactly one writes.
    """

    def link(beside: str, path: Path) -> None:
        os.link(beside, path)  # unlike a renaming, it fails where the name is taken
        os.unlink(beside)

    try:
        write_atomically(path, lambda file: file.write(content.encode()), link)
    except FileExistsError:
        return False
    return True
