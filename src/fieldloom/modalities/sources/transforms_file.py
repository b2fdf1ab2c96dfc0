"""The file of a scene of Blender, instant-ngp or nerfstudio: ``transforms.json`` and the like."""

from __future__ import annotations

import math
from codecs import BOM_UTF8
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from fieldloom import memory
from fieldloom.errors import InputError, quote, quote_path, shorten
from fieldloom.geometry.distortion import Lens
from fieldloom.modalities.sources.pictures import FullSize, NamedImage, stored_size
from fieldloom.permit import Permit

Part = Literal["train", "val", "test", "all"]

PARTS: tuple[Part, ...] = ("train", "val", "test")
MODELS = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE")
"""Names of nerfstudio's and COLMAP's models whose coefficients are those of ``Lens``."""
OTHER_LENSES = ("ftheta_p0", "latlong", "equirectangular", "orthographic")
"""Keys of instant-ngp that ask for a camera of another kind."""

UNPACKED = 32
"""How many times its size a file takes up while it is read, at the most: ``0,`` is a number."""

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
    k5: Number | None = None
    k6: Number | None = None
    p1: Number | None = None
    p2: Number | None = None
    sk_x: Number | None = None
    sk_y: Number | None = None
    near: Number | None = None
    far: Number | None = None
    ftheta_p0: Number | None = None
    latlong: bool | None = None
    equirectangular: bool | None = None
    orthographic: bool | None = None


class View(Camera):
    """One of the frames of a file."""

    file_path: Annotated[str, Field(min_length=1)]
    mask_path: str | None = None
    transform_matrix: tuple[Row, Row, Row, Row] | tuple[Row, Row, Row]

    @property
    def pose(self) -> tuple[Row, ...]:
        """4 x 4: the last row of an affine matrix may be left out."""
        return (*self.transform_matrix, (0.0, 0.0, 0.0, 1.0))[:4]


class TransformsFile(Camera):
    """A ``transforms.json``. The lists of names are nerfstudio's: the parts of a lone file."""

    frames: list[View]
    aabb_scale: Number | None = None
    train_filenames: list[str] | None = None
    val_filenames: list[str] | None = None
    test_filenames: list[str] | None = None

    def names_of_parts(self) -> dict[Part, list[str]]:
        """The lists that the file has."""
        lists = {part: getattr(self, f"{part}_filenames") for part in PARTS}
        return {part: names for part, names in lists.items() if names is not None}


def read_file(file: Path, permit: Permit) -> TransformsFile:
    """What a file holds. Raises InputError where that is no scene."""
    try:
        memory.check(quote_path(file), UNPACKED * file.stat().st_size, permit)
        content = file.read_bytes().removeprefix(BOM_UTF8)
        return TransformsFile.model_validate_json(content)
    except OSError as error:
        raise InputError(f"{quote_path(file)} cannot be read: {shorten(str(error))}.") from None
    except ValidationError as error:
        raise InputError(_describe_fault(file, error)) from None


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
    if key.endswith("_filenames"):
        return f"{where} has {key} that are no list of file names."
    if key == "file_path":
        empty = first["type"] == "string_too_short"
        return f"{where} has {'an empty' if empty else 'no'} 'file_path': it names the image."
    if key == "transform_matrix":
        return f"{where} has no 'transform_matrix' of 4 x 4 finite numbers."
    truths = dict.fromkeys(("is_fisheye", *OTHER_LENSES[1:]), "true or false")
    right = (truths | {"camera_model": "name", "mask_path": "name"}).get(key, "finite number")
    return f"{where} has {key} = {quote(first['input'])}, which is no {right}."


class ParsedCamera(NamedTuple):
    """fx, fy, cx, cy in pixels of an image, its (height, width), and its lens, None of a pinhole.

    The size is ``w`` and ``h``, of which the stored image may be a smaller copy, or else its own.
    """

    intrinsics: Tensor
    size: FullSize
    lens: Lens | None


def parse_camera(image: NamedImage, keys: Mapping[str, Any], large: bool) -> ParsedCamera:
    """The camera of a frame, by its keys and those of its file.

    Raises InputError where it is none of ``MODELS``.
    """
    name = image[0]
    lens = _parse_lens(name, keys)
    stored = (0, 0) if {"h", "w"} <= keys.keys() else stored_size(image, large)
    height, width = keys.get("h", float(stored[0])), keys.get("w", float(stored[1]))
    if min(height, width) < 1:
        raise InputError(
            f"the camera of {name} has h = {height:g}, w = {width:g}: both are at least 1."
        )
    fx = keys.get("fl_x", _focal_length(keys.get("camera_angle_x"), width))
    if fx is None:
        raise InputError(f"the frame of {name} has no focal length: fl_x or camera_angle_x.")
    fy = keys.get("fl_y", _focal_length(keys.get("camera_angle_y"), height) or fx)
    numbers = [fx, fy, keys.get("cx", width / 2), keys.get("cy", height / 2)]
    return ParsedCamera(torch.tensor(numbers, dtype=torch.float64), (height, width), lens)


def _parse_lens(name: str, keys: Mapping[str, Any]) -> Lens | None:
    """The lens of a frame: Brown's of k1 ... k3, p1, p2, or the fisheye of k1 ... k4."""
    other = [key for key in OTHER_LENSES if key in keys and keys[key] is not False]
    model = keys.get("camera_model", "PINHOLE")
    if model not in MODELS or other:
        key = other[0] if other else "camera_model"
        raise InputError(
            f"the frame of {name} has {key} = {shorten(str(keys[key]))}: undistort the images to a "
            f"pinhole camera first, or take one of {', '.join(MODELS)}."
        )
    k1, k2, k3, k4, p1, p2 = (keys.get(key, 0.0) for key in ("k1", "k2", "k3", "k4", "p1", "p2"))
    fisheye = model == "OPENCV_FISHEYE" or bool(keys.get("is_fisheye"))
    unused = ("p1", "p2", "k5", "k6") if fisheye else ("k4", "k5", "k6")
    wrong = [key for key in ("sk_x", "sk_y", *unused) if keys.get(key)]
    if wrong:
        raise InputError(
            f"the frame of {name} has {wrong[0]} = {keys[wrong[0]]:g}, which "
            f"{'a fisheye' if fisheye else 'a camera that is no fisheye'} does not have."
        )
    lens = Lens((k1, k2, k3, k4), fisheye=True) if fisheye else Lens((k1, k2, k3), (p1, p2))
    return None if lens.straight else lens


def _focal_length(angle: float | None, extent: float) -> float | None:
    """Focal length in pixels, from a field of view in radians and an extent in pixels."""
    return None if angle is None else extent / (2 * math.tan(angle / 2) or math.nan)
