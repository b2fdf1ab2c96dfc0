"""The file of a scene of Blender, instant-ngp or nerfstudio: ``transforms.json`` and the like."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fieldloom.errors import InputError, quote, quote_path, shorten

Part = Literal["train", "val", "test", "all"]

PARTS: tuple[Part, ...] = ("train", "val", "test")
OTHER_LENSES = ("ftheta_p0", "latlong", "equirectangular", "orthographic")
"""Keys of instant-ngp that ask for a camera of another kind."""

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
    near: Number | None = None
    far: Number | None = None
    ftheta_p0: Number | None = None
    latlong: bool | None = None
    equirectangular: bool | None = None
    orthographic: bool | None = None


class View(Camera):
    """One of the frames of a file."""

    file_path: str
    mask_path: str | None = None
    transform_matrix: tuple[Row, Row, Row, Row]


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


def read_file(file: Path) -> TransformsFile:
    try:
        return TransformsFile.model_validate_json(file.read_bytes())
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
        return f"{where} has no 'file_path'."
    if key == "transform_matrix":
        return f"{where} has no 'transform_matrix' of 4 x 4 finite numbers."
    truths = dict.fromkeys(("is_fisheye", *OTHER_LENSES[1:]), "true or false")
    right = (truths | {"camera_model": "name", "mask_path": "name"}).get(key, "finite number")
    return f"{where} has {key} = {quote(first['input'])}, which is no {right}."
