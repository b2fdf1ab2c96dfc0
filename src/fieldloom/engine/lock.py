"""One writer at a time in a folder."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from fieldloom.engine.schemas import Holder, parse_json, validate_content
from fieldloom.errors import FieldloomError, InputError, quote_path
from fieldloom.process import alive

NAME = ".lock"
FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextmanager
def hold_lock(folder: Path) -> Iterator[None]:
    """Hold a folder's lock; makes the folder, and removes it again where it stays empty.

    The file names the host, the process and when it began. The lock of a process that ended,
    however it did, is taken over. Raises InputError where another process holds it, also one of
    another host, of which only the user can know whether it still runs.
    """
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"'{folder}' cannot be made: {error.strerror}.") from None
    handle = _acquire(folder / NAME, folder)
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / NAME).unlink()
        os.close(handle)
        if made:
            with suppress(OSError):
                folder.rmdir()


def _acquire(path: Path, folder: Path) -> int:
    """The descriptor of the lock file, which no other process of this host holds."""
    while True:
        try:
            handle = os.open(path, FLAGS, 0o644)
        except OSError as error:
            raise FieldloomError(f"'{folder}' cannot be written: {error.strerror}.") from None
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise InputError(f"'{path}' is no file: delete it.")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            known = True
        except BlockingIOError:
            os.close(handle)
            raise InputError(_refusal(path, folder)) from None
        except OSError:  # a file system without locks: only the text can tell
            known = False
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                break
        os.close(handle)  # its last holder has removed it just now
    try:
        other = _holder(path)
        here = other is not None and other.host == socket.gethostname()
        if other is not None and not (here and (known or not alive(other.process))):
            raise InputError(_refusal(path, folder))
    except BaseException:
        os.close(handle)
        raise
    now = datetime.now(UTC).isoformat(timespec="seconds")
    holder = {"host": socket.gethostname(), "process": os.getpid(), "start": now}
    os.truncate(handle, 0)
    os.pwrite(handle, (json.dumps(holder) + "\n").encode(), 0)
    return handle


def _holder(path: Path) -> Holder | None:
    """Who wrote a lock file; None where it cannot be parsed."""
    try:
        content = path.read_text(encoding="utf-8")
        return validate_content(Holder, parse_json(content, path), path)
    except (OSError, UnicodeDecodeError, InputError):
        return None


def _refusal(path: Path, folder: Path) -> str:
    other = _holder(path)
    if other is None:
        return f"'{folder}' is being written by another process: wait for it."
    who = f"process {other.process} on {other.host}, since {other.start}"
    if other.host == socket.gethostname():
        return f"'{folder}' is being written by {who}: wait for it, or stop it."
    return f"'{folder}' is being written by {who}: if that no longer runs, delete '{path}'."


def find_writer(folder: Path) -> Holder | None:
    """Who writes into a folder now; None where nobody does.

    The lock of a process of this host that has ended, however it did, says nothing; whether one of
    another host still runs only the user can know.
    """
    path = folder / NAME
    other = _holder(path)
    if other is None or other.host != socket.gethostname():
        return other
    if not alive(other.process):
        return None
    try:  # another process may have its number by now
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # it holds the lock, or the file system has none
        return other
    finally:
        os.close(handle)
    return None


def is_occupied(path: Path) -> bool:
    """Whether a path is a file, or a folder with more than a lock in it."""
    return any(x.name != NAME for x in path.iterdir()) if path.is_dir() else os.path.lexists(path)


def check_free(path: Path, overwrite: bool) -> None:
    """Raise InputError for a path that is there already, unless it may be overwritten."""
    if not overwrite and is_occupied(path):
        raise InputError(f"{quote_path(path)} is there already: overwrite=True replaces it.")
