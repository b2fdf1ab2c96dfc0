"""Where a verb writes: its own file inside the run, or a path that does not exist yet."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fieldloom.cli.options import permit
from fieldloom.errors import InputError

if TYPE_CHECKING:
    from fieldloom.system import System

FILES = {".png", ".jpg", ".jpeg", ".gif", ".webp", ".tif", ".tiff", ".mp4", ".webm", ".wav", ".npy",
         ".npz", ".glb", ".ply", ".obj", ".stl", ".off", ".pdf"}  # fmt: skip
"""Suffixes of single files."""


def output(run: str | Path, out: Path | None, default: str = "") -> Path:
    """The file or folder that a verb writes.

    out: what the user asked for; None: ``default``, inside the run, which this verb may replace.
    Raises InputError for a file that training writes, for what is there already (unless the user
    allows to overwrite it), and where a link leads out of the run.
    """
    from fieldloom.engine.run import Run

    if out is None:
        return Run(run).inside(default)
    check_free(out)
    within = out.is_relative_to(run) and ".." not in out.relative_to(run).parts
    return Run(run).inside(out.relative_to(run)) if within else out


def folder_output(run: str | Path, out: Path | None, default: str) -> Path:
    """The folder that a verb writes files into, as ``output``.

    Raises InputError for a name with a suffix of such files.
    """
    if out is not None and out.suffix.lower() in FILES and not out.is_dir():
        raise InputError(f"--out '{out}': a folder is written, with a file for each datum in it.")
    return output(run, out, default)


def output_of_state(system: System, path: Path, out: Path | None) -> Path:
    """The path, or with ``-unfinished`` in its name where weights are of a checkpoint.

    So no picture of an unfinished run stays under the name of the finished one's: where the run is
    finished, what the same verb drew of its checkpoint is removed. out: what the user asked for,
    whose name stays.
    """
    from fieldloom.drawing.files import remove_earlier

    if out is not None:
        return path
    begun = path.with_name(f"{path.stem}-unfinished{path.suffix}")
    if system.unfinished is not None:
        return output(begun.parent, None, begun.name)
    if begun.is_dir() and not begun.is_symlink():
        remove_earlier(begun, system.modality.formats)
        with suppress(OSError):  # other files are in it
            begun.rmdir()
    elif begun.is_file():
        begun.unlink()
    return path


def sheet_output(out: Path) -> Path:
    """The path of a sheet of images, a PNG. Raises InputError for the suffix of another file."""
    if out.suffix.lower() not in ("", ".png") and out.suffix.lower() in FILES:
        raise InputError(f"--out '{out}': a sheet of images is written as a .png.")
    return with_suffix(out, ".png")


def check_free(out: Path) -> None:
    """Raise InputError for files of a run, and for a path that exists, unless --overwrite."""
    from fieldloom.engine.lock import is_occupied

    check_not_own(out)
    if is_occupied(out) and not permit().overwrite:
        raise InputError(f"'{out}' is there already: give another --out, or --overwrite.")


def with_suffix(path: Path, suffix: str) -> Path:
    """The path with another suffix. Raises InputError where it names no file."""
    if path.name in ("", ".."):
        raise InputError(f"--out '{path}' names no file.")
    return path.with_suffix(suffix)


def check_not_own(path: Path) -> None:
    """Raise InputError for the files that a run consists of: recipe, weights, codes, state, log."""
    from fieldloom.engine.layout import RECIPE, RESERVED
    from fieldloom.engine.lock import NAME

    for named in (path.absolute(), path.resolve()):
        for part in (named, *named.parents):
            if part.name in (*RESERVED, NAME) and (part.parent / RECIPE).is_file():
                raise InputError(f"'{path}' belongs to the run itself: give another --out.")


def has_key(path: Path, key: str) -> bool:
    """Whether a file is a JSON object with this key, as the verb itself writes it."""
    from fieldloom.engine.schemas import parse_json, read_text

    try:
        content = parse_json(read_text(path), path)
    except InputError:
        return False
    return isinstance(content, dict) and key in content
