"""Scenes of Blender, instant-ngp and nerfstudio: images with a ``transforms.json``."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from fieldloom.errors import InputError, quote, quote_path, shorten
from fieldloom.geometry.cameras import Size, opengl_from_opencv
from fieldloom.modalities.sources.files import find_path, resolve_inside
from fieldloom.modalities.sources.folders import list_folder
from fieldloom.modalities.sources.source import Limit, Source, Split
from fieldloom.modalities.sources.views import (
    Background,
    NamedImage,
    Scene,
    check_missing,
    scenes_to_source,
    stored_size,
)
from fieldloom.modalities.views import Views
from fieldloom.permit import NOTHING, Permit
from fieldloom.progress import track

Convention = Literal["opengl", "opencv"]
Part = Literal["train", "val", "test", "all"]

PARTS = ("train", "val", "test")
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
MODELS = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV")
"""Models that are a pinhole where all of ``DISTORTION`` are 0."""
SUFFIXES = ("", ".png", ".jpg", ".jpeg", ".webp")
"""Suffixes that are tried after a ``file_path``."""

Number = Annotated[float, Field(allow_inf_nan=False)]
Row = tuple[Number, Number, Number, Number]


class Camera(BaseModel):
    """Keys of a frame, or of the whole file for all its frames; others are not read."""

    model_config = ConfigDict(strict=True)

    camera_model: str | None = None
    is_fisheye: bool | None = None
    w: Number | None = None
    h: Number | None = None
    fl_x: Number | None = None
    fl_y: Number | None = None
    cx: Number | None = None
    cy: Number | None = None
    camera_angle_x: Number | None = None
    camera_angle_y: Number | None = None
    k1: Number | None = None
    k2: Number | None = None
    k3: Number | None = None
    k4: Number | None = None
    p1: Number | None = None
    p2: Number | None = None
    near: Number | None = None
    far: Number | None = None


class Frame(Camera):
    file_path: str
    transform_matrix: tuple[Row, Row, Row, Row]


class TransformsFile(Camera):
    """A ``transforms.json``."""

    frames: list[Frame]


def read_transforms(
    modality: Views,
    path: str,
    part: Part = "train",
    convention: Convention = "opengl",
    views: Limit = None,
    background: Background = "white",
    split: Split = (0.9, 0.1),
    shuffle: bool = True,
    limit: Limit = None,
    permit: Permit = NOTHING,
) -> Source:
    """A scene of Blender, instant-ngp or nerfstudio, or a folder of such scenes.

    A scene is a folder with ``transforms.json``, or with ``transforms_train.json`` and the like,
    or one such file. Frames keep the file's order. Masks and depths are not read.
    part:       which of the files; ``all`` is train, val and test, in this order. A lone
                ``transforms.json`` is ``train``.
    convention: ``opencv`` poses (y down, looking along z) become OpenGL's.
    views:      the number of views of each scene that are used, the first ones.
    Lens distortion raises InputError: only pinhole images have straight rays. So does an image
    outside the folder of its file.
    """
    root = find_path(path)
    within = lambda: [f for f in list_folder(root) if f.is_dir() and _holds_scene(f)]
    folders = [root] if _holds_scene(root) else within()
    if not folders:
        raise InputError(
            f"source.path = {quote_path(path)} holds no transforms.json: no scene is there."
        )
    folders, scenes = folders[:limit], []
    for folder in track(folders, "reading cameras", len(folders), "scenes"):
        scenes.append(_read_scene(folder, part, convention, views, permit.large))
    return scenes_to_source(
        modality, scenes, path, None, views, background, split, shuffle, permit.large
    )


def _holds_scene(folder: Path) -> bool:
    return folder.suffix == ".json" if folder.is_file() else any(folder.glob("transforms*.json"))


def _read_scene(
    root: Path, part: Part, convention: Convention, views: int | None, large: bool
) -> Scene:
    """One scene: frames of all its files of this part."""
    frames = [frame for file in _files_of_part(root, part) for frame in _read_frames(file)]
    if not frames:
        raise InputError(f"{quote_path(root)} has no frames: a scene has at least one image.")
    found = [_find_image(file, keys["file_path"]) for file, keys in frames]
    check_missing(root, [file for file, isfile in found if not isfile], len(frames))
    cameras = [keys for _, keys in frames[:views]]
    images: list[NamedImage] = [(quote_path(file), file) for file, _ in found[:views]]
    size = stored_size(images[0], large)
    c2w = torch.tensor([keys["transform_matrix"] for keys in cameras], dtype=torch.float64)
    intrinsics = [
        _parse_intrinsics(keys, size, name) for keys, (name, _) in zip(cameras, images, strict=True)
    ]
    near, far = cameras[0].get("near"), cameras[0].get("far")
    return Scene(
        quote_path(root),
        size,
        images,
        opengl_from_opencv(c2w) if convention == "opencv" else c2w,
        torch.stack(intrinsics),
        None if near is None or far is None else (near, far),
    )


def _files_of_part(root: Path, part: Part) -> list[Path]:
    if root.is_file():
        return [root]
    wanted = PARTS if part == "all" else (part,)
    files = [f for p in wanted if (f := root / f"transforms_{p}.json").is_file()]
    lone = root / "transforms.json"
    if not files and lone.is_file() and part in ("train", "all"):
        files = [lone]
    if not files:
        there = ", ".join(sorted(f.name for f in root.glob("transforms*.json")))
        raise InputError(f"source.part = '{part}': {quote_path(root)} has only {shorten(there)}.")
    return files


def _read_frames(file: Path) -> list[tuple[Path, Mapping[str, Any]]]:
    """For each frame the file, and its keys merged over those of the whole file."""
    try:
        scene = TransformsFile.model_validate_json(file.read_bytes())
    except OSError as error:
        raise InputError(f"{quote_path(file)} cannot be read: {shorten(str(error))}.") from None
    except ValidationError as error:
        raise InputError(_describe_fault(file, error)) from None
    shared = scene.model_dump(exclude={"frames"}, exclude_unset=True)
    return [(file, shared | frame.model_dump(exclude_unset=True)) for frame in scene.frames]


def _describe_fault(file: Path, error: ValidationError) -> str:
    """A sentence about the first fault of a file."""
    first = error.errors(include_url=False)[0]
    name, keys = quote_path(file), first["loc"]
    if first["type"] == "json_invalid":
        return f"{name} is no JSON that can be read: {shorten(first['msg'])}."
    if keys in ((), ("frames",)):
        return f"{name} has no list 'frames'."
    in_frame = keys[0] == "frames"
    where = f"frame {keys[1]} of {name}" if in_frame else name
    key = str(next(iter(keys[2:] if in_frame else keys), "file_path"))
    if key == "file_path":
        return f"{where} has no 'file_path'."
    if key == "transform_matrix":
        return f"{where} has no 'transform_matrix' of 4 x 4 finite numbers."
    right = {"camera_model": "name", "is_fisheye": "true or false"}.get(key, "finite number")
    return f"{where} has {key} = {quote(first['input'])}, which is no {right}."


def _find_image(file: Path, name: str) -> tuple[Path, bool]:
    """The image of a frame of ``file``, and whether it is there."""
    found = resolve_inside(file, name)
    tried = [found.parent / f"{found.name}{suffix}" for suffix in SUFFIXES]
    there = [image for image in tried if os.path.isfile(image)]
    return (there or tried)[0], bool(there)


def _parse_intrinsics(keys: Mapping[str, Any], size: Size, name: str) -> Tensor:
    """fx, fy, cx, cy in pixels of the stored image, (height, width) = ``size``.

    ``w`` and ``h`` are the size that the keys refer to; a stored image may be a smaller copy.
    """
    keys = {key: value for key, value in keys.items() if value is not None}
    if keys.get("camera_model", "PINHOLE") not in MODELS or keys.get("is_fisheye"):
        key = "is_fisheye" if keys.get("is_fisheye") else "camera_model"
        raise InputError(
            f"the frame of {name} has {key} = {shorten(str(keys[key]))}: undistort the images to "
            "a pinhole camera first."
        )
    bent = [key for key in DISTORTION if keys.get(key)]
    if bent:
        raise InputError(
            f"the frame of {name} has lens distortion {bent[0]} = {keys[bent[0]]:g}: undistort the "
            "images first, so that it is 0."
        )
    height, width = keys.get("h", float(size[0])), keys.get("w", float(size[1]))
    # A smaller copy is rounded to whole pixels; anything further off was cropped.
    if min(height, width) < 1 or abs(size[0] / height - size[1] / width) > 1 / min(height, width):
        raise InputError(
            f"{name} is {size[0]} x {size[1]} pixels, where its camera has h = {height:g}, w = "
            f"{width:g}: the proportions must agree."
        )
    fx = keys.get("fl_x", _focal_length(keys.get("camera_angle_x"), width))
    if fx is None:
        raise InputError(f"the frame of {name} has no focal length: fl_x or camera_angle_x.")
    fy = keys.get("fl_y", _focal_length(keys.get("camera_angle_y"), height) or fx)
    numbers = [fx, fy, keys.get("cx", width / 2), keys.get("cy", height / 2)]
    stored = torch.tensor([size[1] / width, size[0] / height] * 2, dtype=torch.float64)
    return torch.tensor(numbers, dtype=torch.float64) * stored


def _focal_length(angle: float | None, extent: float) -> float | None:
    """Focal length in pixels, from a field of view in radians and an extent in pixels."""
    return None if angle is None else extent / (2 * math.tan(angle / 2) or math.nan)
