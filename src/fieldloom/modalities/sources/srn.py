"""Objects in the layout of SRN's ShapeNet cars and chairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fieldloom.errors import InputError, quote_path, shorten
from fieldloom.geometry.cameras import check_pose, opengl_from_opencv
from fieldloom.modalities.sources.cameras import NO_DEPTHS, Depths
from fieldloom.modalities.sources.files import find_path, name_path
from fieldloom.modalities.sources.folders import list_folder
from fieldloom.modalities.sources.numbers import Range
from fieldloom.modalities.sources.pictures import Background, NamedImage
from fieldloom.modalities.sources.scenes import Every, Frame, Scene, check_missing, scenes_to_source
from fieldloom.modalities.sources.source import Limit, Source, Split
from fieldloom.modalities.views import Views
from fieldloom.permit import NOTHING, Permit
from fieldloom.progress import BRIEF, track

LARGEST = 1 << 16
"""Bytes of a file with a few numbers."""


def read_srn(
    modality: Views,
    path: str,
    views: Limit = None,
    background: Background = "white",
    split: Split = (0.9, 0.1),
    shuffle: bool = True,
    limit: Limit = None,
    frame: Frame = "cameras",
    suggest: bool = True,
    range: Range = None,
    hold_out: Every = None,
    depths: Depths = NO_DEPTHS,
    permit: Permit = NOTHING,
) -> Source:
    """An object in the layout of SRN's ShapeNet cars and chairs, or a folder of such objects.

    An object is a folder with ``rgb/*.png``, ``pose/*.txt`` of the same names (16 numbers, OpenCV
    camera-to-world) and ``intrinsics.txt``: ``f cx cy 0`` first, ``height width`` last, perhaps
    with a ``1`` below it where the poses are world-to-camera.
    views: the number of views of each object that are used, the first ones.
    frame, hold_out, suggest, depths: as of ``read_transforms``. range: the numbers that become 0
    and 1.
    Source: arXiv:1906.01618 and the layout of its data.
    """
    root = find_path(path)
    here = lambda folder: (folder / "rgb").is_dir() or (folder / "intrinsics.txt").is_file()
    folders = [root] if here(root) else [f for f in list_folder(root) if f.is_dir() and here(f)]
    if not folders:
        raise InputError(
            f"{name_path(path)} holds no object: a folder with rgb, pose and intrinsics.txt."
        )
    folders, scenes = folders[:limit], []
    for folder in track(folders, "reading cameras", len(folders), "objects", BRIEF):
        scenes.append(_read_object(folder, views))
    return scenes_to_source(
        modality,
        scenes,
        path,
        views=views,
        background=background,
        split=split,
        shuffle=shuffle,
        frame=frame,
        suggest=suggest,
        permit=permit,
        given=range,
        hold_out=hold_out,
        depths=depths,
    )


def _read_object(folder: Path, views: int | None) -> Scene:
    """Read one object. Raises InputError for missing files, and numbers that do not fit."""
    name = quote_path(folder)
    poses = {f.stem: f for f in list_folder(folder / "pose") if f.suffix == ".txt"}
    files = {f.stem: f for f in list_folder(folder / "rgb") if f.suffix == ".png"}
    stems = sorted(poses.keys() | files.keys())
    if not stems:
        raise InputError(f"{name} has no frames: rgb/*.png with pose/*.txt of the same names.")
    missing = [
        folder / where / f"{stem}.{suffix}"
        for stem in stems
        for where, there, suffix in (("rgb", files, "png"), ("pose", poses, "txt"))
        if stem not in there
    ]
    check_missing(folder, missing, len(stems))
    stems = stems[:views]
    images: list[NamedImage] = [(quote_path(files[s]), files[s]) for s in stems]
    table = folder / "intrinsics.txt"
    full, size, inverse = parse_intrinsics(table, read_lines(table))
    c2w = read_poses([poses[stem] for stem in stems])
    if inverse:
        check_pose(c2w, [quote_path(poses[stem]) for stem in stems])
        c2w = torch.linalg.inv(c2w)
    count = len(stems)
    return Scene(name, images, [size] * count, opengl_from_opencv(c2w), full.expand(count, 4))


def parse_intrinsics(
    table: Path, lines: Sequence[Sequence[float]]
) -> tuple[Tensor, tuple[float, float], bool]:
    """fx, fy, cx, cy, the images' (height, width), and whether poses are world-to-camera.

    lines: the numbers of ``intrinsics.txt``. Raises InputError for another layout.
    """
    sizes = [i for i, line in enumerate(lines) if len(line) == 2]
    if not sizes or len(lines[0]) not in (3, 4) or min(lines[sizes[-1]]) < 1:
        raise InputError(
            f"{quote_path(table)} must begin with 'f cx cy 0' and end with 'height width'."
        )
    focal, cx, cy = lines[0][:3]
    size = lines[sizes[-1]][0], lines[sizes[-1]][1]
    inverse = any(line[0] for line in lines[sizes[-1] + 1 :])
    return torch.tensor([focal, focal, cx, cy], dtype=torch.float64), size, inverse


def read_poses(files: Sequence[Path]) -> Tensor:
    """Matrices (n, 4, 4) of files with 16 numbers each. Raises InputError for any other number."""
    rows = [[x for line in read_lines(file) for x in line] for file in files]
    for file, row in zip(files, rows, strict=True):
        if len(row) != 16:
            raise InputError(
                f"{quote_path(file)} has {len(row)} numbers: a pose is 4 x 4, 16 numbers."
            )
    return torch.tensor(rows, dtype=torch.float64).unflatten(1, (4, 4))


def read_lines(file: Path) -> list[list[float]]:
    """The numbers of each line of a text that is not empty. Raises InputError for others."""
    try:
        if file.stat().st_size > LARGEST:
            raise ValueError(f"it has more than {LARGEST:,} bytes")
        text = file.read_text(encoding="utf-8-sig").splitlines()
        lines = [[float(x) for x in line.split()] for line in text if line.strip()]
        if not all(math.isfinite(x) for line in lines for x in line):
            raise ValueError("all must be finite")
        return lines
    except (OSError, ValueError) as error:
        raise InputError(
            f"{quote_path(file)} is no file of numbers that can be read: {shorten(str(error))}."
        ) from None
