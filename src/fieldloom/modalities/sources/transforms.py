"""Scenes of Blender, instant-ngp and nerfstudio: pictures beside a ``transforms.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fieldloom.errors import InputError
from fieldloom.geometry.cameras import Size, opengl_from_opencv
from fieldloom.modalities.sources.source import Limit, Source, Split, existing
from fieldloom.modalities.sources.views import (
    Background,
    Bounds,
    Picture,
    Scene,
    check_missing,
    opened,
    source_of,
)
from fieldloom.modalities.views import Views
from fieldloom.progress import track

Convention = Literal["opengl", "opencv"]
Part = Literal["train", "val", "test", "all"]

PARTS = ("train", "val", "test")
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
MODELS = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV")
"""Models that are a pinhole where all of ``DISTORTION`` are 0."""
SUFFIXES = ("", ".png", ".jpg", ".jpeg", ".webp")
"""What a ``file_path`` may lack."""


def transforms(
    modality: Views,
    path: str,
    part: Part = "train",
    convention: Convention = "opengl",
    views: Limit = None,
    background: Background = "white",
    split: Split = (0.9, 0.1),
    shuffle: bool = True,
    limit: Limit = None,
) -> Source:
    """A scene of Blender, instant-ngp or nerfstudio, or a folder of such scenes.

    A scene is a folder with ``transforms.json``, or with ``transforms_train.json`` and the like,
    or one such file. Frames keep the file's order. Masks and depths are not read.
    part:       which of the files; ``all`` is train, val and test, in this order. A lone
                ``transforms.json`` is ``train``.
    convention: ``opencv`` poses (y down, looking along z) become OpenGL's.
    views:      the first so many of each scene.
    Lens distortion raises InputError: only pinhole pictures have straight rays.
    """
    root = existing(path)
    folders = [root] if _described(root) else sorted(f for f in root.glob("*/") if _described(f))
    if not folders:
        raise InputError(f"source.path = '{path}' holds no transforms.json: no scene is there.")
    folders, scenes = folders[:limit], []
    for folder in track(folders, "reading cameras", len(folders), "scenes"):
        scenes.append(_transforms(folder, part, convention, views))
    return source_of(modality, scenes, path, None, views, background, split, shuffle)


def _described(folder: Path) -> bool:
    return folder.suffix == ".json" if folder.is_file() else any(folder.glob("transforms*.json"))


def _transforms(root: Path, part: Part, convention: Convention, views: int | None) -> Scene:
    """One scene: frames of all its files of this part."""
    frames = [frame for file in _files(root, part) for frame in _frames(file)]
    if not frames:
        raise InputError(f"{root} has no frames: a scene has at least one picture.")
    found = [_file(file.parent, name) for file, name, _ in frames]
    check_missing(root, [str(f) for f, isfile in found if not isfile], len(frames))
    frames = frames[:views]
    pictures: list[Picture] = [(str(f), partial(Image.open, f)) for f, _ in found[:views]]
    with opened(*pictures[0]) as image:
        size = image.height, image.width
    names = [name for name, _ in pictures]
    c2w = torch.stack([_pose(frame[2], name) for frame, name in zip(frames, names, strict=True)])
    told = [_intrinsics(frame[2], size, name) for frame, name in zip(frames, names, strict=True)]
    return Scene(
        str(root),
        size,
        pictures,
        opengl_from_opencv(c2w) if convention == "opencv" else c2w,
        torch.stack(told),
        _bounds(frames[0][2], root),
    )


def _files(root: Path, part: Part) -> list[Path]:
    if root.is_file():
        return [root]
    wanted = PARTS if part == "all" else (part,)
    files = [f for p in wanted if (f := root / f"transforms_{p}.json").is_file()]
    lone = root / "transforms.json"
    if not files and lone.is_file() and part in ("train", "all"):
        files = [lone]
    if not files:
        there = ", ".join(sorted(f.name for f in root.glob("transforms*.json")))
        raise InputError(f"source.part = '{part}': {root} has only {there}.")
    return files


def _frames(file: Path) -> list[tuple[Path, str, Mapping[str, Any]]]:
    """(file, file_path, its keys over those of the whole file) of each frame."""
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} is no JSON that can be read: {error}.") from None
    frames = table.get("frames") if isinstance(table, dict) else None
    if not isinstance(frames, list):
        raise InputError(f"{file} has no list 'frames'.")
    shared = {key: value for key, value in table.items() if key != "frames"}
    found: list[tuple[Path, str, Mapping[str, Any]]] = []
    for i, frame in enumerate(frames):
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise InputError(f"frame {i} of {file} has no 'file_path'.")
        found.append((file, frame["file_path"], shared | frame))
    return found


def _file(folder: Path, name: str) -> tuple[Path, bool]:
    """The picture of a frame, and whether it is there."""
    for suffix in SUFFIXES:
        if (file := folder / f"{name}{suffix}").is_file():
            return file, True
    return folder / name, False


def _pose(keys: Mapping[str, Any], name: str) -> Tensor:
    try:
        matrix = np.asarray(keys["transform_matrix"], np.float64)
    except (KeyError, TypeError, ValueError):
        matrix = np.empty(0)
    if matrix.shape != (4, 4):
        raise InputError(f"the frame of {name} has no 'transform_matrix' of 4 x 4 numbers.")
    return torch.from_numpy(matrix)


def _intrinsics(keys: Mapping[str, Any], size: Size, name: str) -> Tensor:
    """fx, fy, cx, cy in pixels of the stored picture, (height, width) = ``size``.

    ``w`` and ``h`` say which size the keys belong to; a stored picture may be a smaller copy.
    """
    get = lambda key, default=None: _number(keys, key, name, default)
    model = keys.get("camera_model", "PINHOLE")
    if model not in MODELS or keys.get("is_fisheye"):
        key = "is_fisheye" if keys.get("is_fisheye") else "camera_model"
        raise InputError(
            f"the frame of {name} has {key} = {keys[key]}: undistort the pictures to a pinhole "
            "camera first."
        )
    bent = [key for key in DISTORTION if get(key, 0.0)]
    if bent:
        raise InputError(
            f"the frame of {name} has lens distortion {bent[0]} = {keys[bent[0]]}: undistort the "
            "pictures first, so that it is 0."
        )
    height, width = get("h", float(size[0])), get("w", float(size[1]))
    # A smaller copy is rounded to whole pixels; anything further off was cropped.
    if min(height, width) < 1 or abs(size[0] / height - size[1] / width) > 1 / min(height, width):
        raise InputError(
            f"{name} is {size[0]} x {size[1]} pixels, where its camera has h = {height:g}, w = "
            f"{width:g}: the proportions must agree."
        )
    fx = get("fl_x", _focal(get("camera_angle_x"), width))
    if fx is None:
        raise InputError(f"the frame of {name} has no focal length: fl_x or camera_angle_x.")
    fy = get("fl_y", _focal(get("camera_angle_y"), height) or fx)
    told = [fx, fy, get("cx", width / 2), get("cy", height / 2)]
    stored = torch.tensor([size[1] / width, size[0] / height] * 2, dtype=torch.float64)
    return torch.tensor(told, dtype=torch.float64) * stored


def _focal(angle: float | None, extent: float) -> float | None:
    """Pixels of focal length for a field of view in radians over so many pixels."""
    return None if angle is None else extent / (2 * math.tan(angle / 2) or math.nan)


def _number(keys: Mapping[str, Any], key: str, name: str, default: float | None) -> Any:
    value = keys.get(key)
    if value is None:
        return default
    if not isinstance(value, int | float):
        raise InputError(f"the frame of {name} has {key} = {value!r}, which is no number.")
    return float(value)


def _bounds(keys: Mapping[str, Any], root: Path) -> Bounds | None:
    near, far = (_number(keys, key, str(root), None) for key in ("near", "far"))
    return None if near is None or far is None else (near, far)
