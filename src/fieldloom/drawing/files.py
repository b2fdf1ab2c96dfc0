"""Decoded data as files in their usual format, as a sheet of images, or as an animation."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from fieldloom import export
from fieldloom.errors import InputError, name_argument, unknown
from fieldloom.evaluation import in_batches
from fieldloom.modalities.modality import Resolution
from fieldloom.progress import PATIENCE, track
from fieldloom.system import System
from fieldloom.types import Cameras, Code, Data


def check_file_format(system: System, format: str | None, project: int = 0) -> None:
    """Raise InputError for a file format, or a projection, that the run's data do not have."""
    formats = [suffix[1:] for suffix in system.modality.formats]
    if format is not None and format not in formats:
        raise unknown("format of this run's data", format, formats)
    if project and system.modality.kind != "shapes":
        raise InputError(
            f"{name_argument('project')} moves the vertices of meshes: this run is of no shapes."
        )


def write_data(
    system: System,
    codes: Code,
    folder: str | Path,
    resolution: Resolution | None = None,
    format: str | None = None,
    project: int = 0,
    frames: Tensor | None = None,
) -> list[Path]:
    """Decode codes (batch, tokens, width) and write each datum into a file: ``0000.png`` and so on.

    format: one of the modality's, as ``glb``; None: its default. project: of shapes, Newton steps
    of a mesh's vertices onto the surface. frames: of shapes, centre and scale of the originals
    (batch, 4). Shapes without a surface are left out, with a warning. Files of an earlier call are
    removed, so that a folder holds those of one call. Raises InputError as ``check_file_format``.
    """
    check_file_format(system, format, project)
    folder, paths, empty = Path(folder), [], []
    remove_earlier(folder, system.modality.formats)
    for i in track(range(len(codes)), "writing", len(codes), "files", PATIENCE):
        path = folder / (f"{i:04d}" if format is None else f"{i:04d}.{format}")
        frame = None if frames is None else frames[i]
        written = write_datum(system, codes[i : i + 1], path, resolution, project, frame)
        if written is None:
            empty.append(i)
        else:
            paths.append(written)
    if empty:
        names = ", ".join(map(str, empty[:8])) + (" ..." if len(empty) > 8 else "")
        warnings.warn(f"{len(empty)} of {len(codes)} have no surface: {names}.", stacklevel=2)
    return paths


def remove_earlier(folder: Path, formats: Collection[str]) -> None:
    """Remove the files of a folder that are named as ``write_data`` names its own; no others.

    formats: the suffixes that it writes. Names of more than six digits are dates, not indices.
    """
    for file in folder.glob("[0-9]*.*"):
        if re.fullmatch(r"\d{4,6}", file.stem) and file.suffix in formats and file.is_file():
            file.unlink()


def write_datum(
    system: System,
    code: Code,
    path: Path,
    resolution: Resolution | None = None,
    project: int = 0,
    frame: Tensor | None = None,
) -> Path | None:
    """Decode one code (1, tokens, width) into a file; None where a shape has no surface.

    path: its suffix says the format; without one it is the default. frame: (4,), of a shape.
    """
    if system.modality.kind == "shapes" and path.suffix != ".npy":
        mesh = system.mesh(code, resolution, project, frame)
        path = path if path.suffix else path.with_suffix(".glb")
        return None if mesh is None else export.mesh(mesh.vertices, mesh.faces, path)
    own = None if frame is None else frame[None]
    return system.modality.save(replace(system.predict(code, resolution), frame=own), path)


def needs_files(system: System) -> bool:
    """Whether a sheet of images does not show all of the data; it does of images alone."""
    return system.modality.kind != "images"


def write_sheet(
    system: System, codes: Code, path: str | Path, resolution: Resolution | None = None
) -> Path | None:
    """Write images of decoded codes as one PNG; None where these data cannot be shown."""
    system.check_memory(len(codes), resolution)
    data = in_batches(lambda part: system.decode(part, resolution), "decoding", codes)
    sheet = export.join_images([system.modality.to_image(one) for one in data])
    return None if sheet is None else export.png(sheet, path)


def write_animation(
    system: System,
    codes: Code,
    path: str | Path,
    resolution: Resolution | None = None,
    views: int = 1,
    turning: bool = False,
) -> Path:
    """Write decoded codes one after another, and back, as a GIF.

    views: of scenes: the number of cameras, evenly around, whose pictures are side by side.
    turning: of scenes: whether these cameras go around once from the first code to the last.

    Raises InputError where these data cannot be shown as images.
    """
    every = system.modality.cameras(count=views * (len(codes) if turning else 1))

    def decode(part: Code, places: Tensor) -> Data:
        if every is None:
            return system.decode(part, resolution)
        which = torch.arange(views) * (every.count // views)
        which = places[:, None] + which if turning else which
        return system.decode(part, resolution, Cameras(every.c2w[which], every.intrinsics[which]))

    data = in_batches(decode, "decoding", codes, torch.arange(len(codes)))
    if every is None:
        images = [system.modality.to_image(one) for one in data]
        frames = [export.pixels(image) for image in images if image is not None]
    else:
        frames = [export.sheet(one, views) for one in data]
    if not frames:
        raise InputError("interpolate writes pictures: this run's data cannot be shown as one.")
    return export.gif(frames + frames[-2:0:-1], path)
