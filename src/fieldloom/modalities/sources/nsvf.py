"""Scenes in the layout of Neural Sparse Voxel Fields (arXiv:2007.11571)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fieldloom.errors import InputError, quote_path
from fieldloom.geometry.cameras import opengl_from_opencv
from fieldloom.modalities.sources.cameras import NO_DEPTHS, Box, Depths, bounds_of_box
from fieldloom.modalities.sources.files import find_path, name_path
from fieldloom.modalities.sources.folders import list_folder
from fieldloom.modalities.sources.numbers import Range
from fieldloom.modalities.sources.pictures import Background, FullSize, NamedImage, stored_size
from fieldloom.modalities.sources.scenes import (
    FARTHEST,
    Every,
    Frame,
    Scene,
    check_any_there,
    check_missing,
    scenes_to_source,
)
from fieldloom.modalities.sources.source import Limit, Source, Split
from fieldloom.modalities.sources.srn import parse_intrinsics, read_lines, read_poses
from fieldloom.modalities.sources.transforms_file import PARTS, Part
from fieldloom.modalities.views import Views
from fieldloom.permit import NOTHING, Permit
from fieldloom.progress import BRIEF, track

SUFFIXES = (".png", ".jpg", ".jpeg")


def read_nsvf(
    modality: Views,
    path: str,
    part: Part = "train",
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
    """A scene in the layout of NSVF, or a folder of such scenes.

    A scene is a folder with ``rgb``, ``pose/*.txt`` of the same names (4 x 4 numbers, OpenCV
    camera-to-world), ``intrinsics.txt`` (a matrix of 4 x 4 or 3 x 3, or as SRN's) and perhaps
    ``bbox.txt``: the lowest and the highest corner of its box, which tells near and far.
    Views whose images are missing are skipped, with a warning.
    part: names that begin with ``0_`` are train; ``2_`` test and ``1_`` val where there is ``2_``,
          or else ``1_`` test. ``all`` is train, val and test, in this order.
    views: the number of views of each scene that are used, the first ones.
    frame, hold_out, suggest, depths: as of ``read_transforms``. range: the numbers that become 0
    and 1.
    """
    root = find_path(path)
    here = lambda folder: (folder / "pose").is_dir() and (folder / "intrinsics.txt").is_file()
    folders = [root] if here(root) else [f for f in list_folder(root) if f.is_dir() and here(f)]
    if not folders:
        raise InputError(
            f"{name_path(path)} holds no scene of NSVF: a folder with rgb, pose and intrinsics.txt."
        )
    folders, scenes = folders[:limit], []
    for folder in track(folders, "reading cameras", len(folders), "scenes", BRIEF):
        scenes.append(_read_scene(folder, part, views, permit.large, bool(hold_out)))
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


def _read_scene(folder: Path, part: Part, views: int | None, large: bool, apart: bool) -> Scene:
    """One scene. apart: whether the test part follows that of training."""
    name = quote_path(folder)
    poses = {f.stem: f for f in list_folder(folder / "pose") if f.suffix == ".txt"}
    files = {f.stem: f for f in list_folder(folder / "rgb") if f.suffix.lower() in SUFFIXES}
    stems = divide_names(poses | files)
    if not any(stems.values()):
        raise InputError(f"{name} has no views: names in pose and rgb begin with 0_, 1_ or 2_.")
    chosen = [s for p in (PARTS if part == "all" else (part,)) for s in stems[p]]
    if not chosen:
        there = ", ".join(p for p in PARTS if stems[p])
        raise InputError(f"source.part = '{part}': {name} has only views of {there}.")
    without = [folder / "pose" / f"{s}.txt" for s in chosen if s not in poses]
    check_missing(folder, without, len(chosen))
    missing = [s for s in chosen if s not in files]
    check_any_there(folder, [folder / "rgb" / f"{s}.png" for s in missing], len(chosen))
    chosen = [s for s in chosen if s in files][:views]
    tested = [s for s in stems["test"] if s in files and s in poses]
    tested = tested if apart and part == "train" else []
    chosen = [*chosen, *tested]
    images: list[NamedImage] = [(quote_path(files[s]), files[s]) for s in chosen]
    intrinsics, size = _read_intrinsics(folder / "intrinsics.txt", images, large)
    c2w = opengl_from_opencv(read_poses([poses[s] for s in chosen]))
    count, box = len(chosen), _read_box(folder / "bbox.txt")
    known = {s for names in stems.values() for s in names}
    return Scene(
        name,
        images,
        [size] * count,
        c2w,
        intrinsics.expand(count, 4),
        bounds=None if box is None else bounds_of_box(c2w, box),
        bounds_from="from bbox.txt",
        box=box,
        part=f"part {part}",
        tested=len(tested),
        outside=sorted((poses | files).keys() - known),
        missing=missing,
    )


def divide_names(names: Iterable[str]) -> dict[Part, list[str]]:
    """The names of each part, in their order; those that begin with no number are in none."""
    begin = {i: sorted(name for name in names if name.startswith(f"{i}_")) for i in (0, 1, 2)}
    val, test = ([], begin[1]) if not begin[2] else (begin[1], begin[2])
    return {"train": begin[0], "val": val, "test": test}


def _read_intrinsics(
    table: Path, images: Sequence[NamedImage], large: bool
) -> tuple[Tensor, FullSize]:
    """fx, fy, cx, cy and the size of images, which a matrix does not tell: that of all of them."""
    lines = read_lines(table)
    side = {(3,) * 3: 3, (4,) * 4: 4}.get(
        tuple(map(len, lines)), 4 if list(map(len, lines)) == [16] else 0
    )
    if not side:
        numbers, size, inverse = parse_intrinsics(table, lines)
        if inverse:
            raise InputError(f"{quote_path(table)} says that poses are world-to-camera, as SRN's.")
        return numbers, size
    matrix = [x for line in lines for x in line]
    rows = [matrix[i * side : i * side + 3] for i in range(3)]
    (fx, skew, cx), (_, fy, cy), _ = rows
    if skew:
        raise InputError(f"{quote_path(table)} has a skew of {skew:g} pixels, where 0 is right.")
    sizes = [stored_size(image, large) for image in images]
    (height, width), other = sizes[0], next((size for size in sizes if size != sizes[0]), None)
    if other is not None:
        raise InputError(
            f"{quote_path(table)} tells no size, and {images[sizes.index(other)][0]} is {other[0]} "
            f"x {other[1]} where {images[0][0]} is {height} x {width} pixels: all must be alike."
        )
    return torch.tensor([fx, fy, cx, cy], dtype=torch.float64), (float(height), float(width))


def _read_box(table: Path) -> Box | None:
    """The box of a scene, with sides of its own; None where it has none."""
    if not table.is_file():
        return None
    numbers = [x for line in read_lines(table) for x in line]
    low, high = numbers[:3], numbers[3:6]
    right = all(-FARTHEST <= a < b <= FARTHEST for a, b in zip(low, high, strict=False))
    if len(high) < 3 or not right:
        raise InputError(
            f"{quote_path(table)} must begin with the lowest and the highest corner of the box, x, "
            f"y, z each, to {FARTHEST:g} at the most."
        )
    return (low[0], low[1], low[2]), (high[0], high[1], high[2])
