"""Scenes of COLMAP: a sparse model, in binary or in text, and the images that it is of.

The format is COLMAP's (https://colmap.github.io/format.html): cameras, images whose poses are
OpenCV's world-to-camera, and points. Numbers in a file are checked against its size before anything
is made from them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from fieldloom.errors import InputError, quote, quote_path, shorten
from fieldloom.geometry.cameras import Poses, opengl_from_opencv, project_points
from fieldloom.geometry.distortion import Lens
from fieldloom.modalities.sources.cameras import NO_DEPTHS, Bounds, Box, Depths
from fieldloom.modalities.sources.files import find_path, resolve_inside
from fieldloom.modalities.sources.folders import list_folder
from fieldloom.modalities.sources.numbers import Range
from fieldloom.modalities.sources.source import Limit, Source, Split
from fieldloom.modalities.sources.summary import count_things
from fieldloom.modalities.sources.views import (
    FARTHEST,
    Background,
    Every,
    Frame,
    Scene,
    check_any_there,
    scenes_to_source,
)
from fieldloom.modalities.views import Views
from fieldloom.permit import NOTHING, Permit
from fieldloom.progress import BRIEF, track

Parsed = TypeVar("Parsed")

MODELS = {
    "SIMPLE_PINHOLE": (0, "f cx cy"),
    "PINHOLE": (1, "fx fy cx cy"),
    "SIMPLE_RADIAL": (2, "f cx cy k1"),
    "RADIAL": (3, "f cx cy k1 k2"),
    "OPENCV": (4, "fx fy cx cy k1 k2 p1 p2"),
    "OPENCV_FISHEYE": (5, "fx fy cx cy k1 k2 k3 k4"),
    "FULL_OPENCV": (6, "fx fy cx cy k1 k2 p1 p2 k3 k4 k5 k6"),
    "SIMPLE_RADIAL_FISHEYE": (8, "f cx cy k1"),
    "RADIAL_FISHEYE": (9, "f cx cy k1 k2"),
}
"""Name of a camera model -> its number in binary files, and the names of its parameters."""
NAMES = {number: name for name, (number, _) in MODELS.items()}

PLACES = ("sparse/0", "sparse", "colmap/sparse/0", "colmap/sparse", "")
"""Folders of a scene where its model is looked for."""
SUFFIXES = (".bin", ".txt")
LONGEST_NAME = 4096
"""Bytes of an image's name."""
POINTS = 20_000
"""Points that are looked at, evenly spaced among all, for depths and the box."""
USUAL = 0.001, 0.999
"""Quantiles of the points' depths in a view that near and far are taken from."""
INNER = 0.01, 0.99
"""Quantiles of the points' coordinates along each axis that the box is taken from."""
MARGIN = 0.1
"""By how much near, far and the box are widened, relative to themselves."""


class ModelCamera(NamedTuple):
    """size: (height, width). intrinsics: fx, fy, cx, cy. lens: None of a pinhole."""

    size: tuple[float, float]
    intrinsics: tuple[float, float, float, float]
    lens: Lens | None


class ModelImage(NamedTuple):
    """pose: the quaternion w, x, y, z and the translation, world to camera, OpenCV."""

    name: str
    camera: int
    pose: tuple[float, ...]


class Fault(Exception):
    """What is wrong with a file, in words."""


def read_colmap(
    modality: Views,
    path: str,
    images: str | None = None,
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
    """A scene with a model of COLMAP, or a folder of such scenes.

    The model (``cameras``, ``images`` and perhaps ``points3D``, all ``.bin`` or all ``.txt``) lies
    in ``sparse/0``, ``sparse``, ``colmap/sparse/0`` or the folder itself. Views are in the order of
    their images' names. The points tell near, far and the box that the scene lies in.
    images: the folder of the images beside ``sparse``: ``images_4`` holds copies of a quarter of
            the size. None: ``images``, or else the first of ``images_2``, ``images_4`` ...
    views: the number of views of each scene that are used, the first ones.
    frame, hold_out, suggest, depths: as of ``read_transforms``. range: the numbers that become 0
    and 1. Images may be of distorting lenses, and missing, as there.
    """
    root = find_path(path)
    folders = [root] if _find_model(root) else [f for f in list_folder(root) if _find_model(f)]
    if not folders:
        raise InputError(
            f"source.path = {quote_path(path)} holds no model of COLMAP: sparse/0 with cameras and "
            "images, .bin or .txt."
        )
    folders, scenes = folders[:limit], []
    for folder in track(folders, "reading cameras", len(folders), "scenes", BRIEF):
        scenes.append(_read_scene(folder, images, views))
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
        large=permit.large,
        given=range,
        hold_out=hold_out,
        depths=depths,
    )


def _find_model(root: Path) -> tuple[Path, str] | None:
    """The folder of a scene's model and the suffix of its files, if it has one."""
    for place in PLACES:
        for suffix in SUFFIXES:
            if all((root / place / f"{name}{suffix}").is_file() for name in ("cameras", "images")):
                return root / place, suffix
    return None


def _read_scene(root: Path, images: str | None, views: int | None) -> Scene:
    found = _find_model(root)
    assert found is not None  # ``read_colmap`` has looked
    folder, suffix = found
    binary = suffix == ".bin"
    cameras = _read(folder / f"cameras{suffix}", _binary_cameras if binary else _text_cameras)
    posed = _read(folder / f"images{suffix}", _binary_images if binary else _text_images)
    posed = sorted(posed, key=lambda one: one.name)
    if not posed:
        raise InputError(f"{quote_path(folder)} has no images: a scene has at least one.")
    lost = [one for one in posed if one.camera not in cameras]
    if lost:
        raise InputError(
            f"{quote_path(folder / f'images{suffix}')} has the camera {lost[0].camera}, which "
            f"cameras{suffix} does not have."
        )
    place, told = _find_images(root, images)
    files = [resolve_inside(place / "images", one.name) for one in posed]
    missing = [file for file in files if not file.is_file()]
    check_any_there(place, missing, len(files))
    pairs = [(one, file) for one, file in zip(posed, files, strict=True) if file.is_file()]
    pairs = pairs[:views]
    own = [cameras[one.camera] for one, _ in pairs]
    c2w = _to_opengl([one.pose for one, _ in pairs])
    intrinsics = torch.tensor([one.intrinsics for one in own], dtype=torch.float64)
    file = folder / f"points3D{suffix}"
    points = _read(file, _binary_points if binary else _text_points) if file.is_file() else []
    at = torch.tensor(points, dtype=torch.float64).reshape(-1, 3)
    at = at[(at.abs() <= FARTHEST).all(1)]  # NaN is not
    bounds = _bounds_of_points(at, c2w, intrinsics, [one.size for one in own])
    box = _box_of_points(at) if bounds else None
    if box is not None:
        told["box"] = f"box of {count_things(len(points), 'point')}"
    models = sum(_find_model(one) is not None for one in _numbered(folder))
    if models > 1:
        told["model"] = f"model {folder.name} of {models}"
    return Scene(
        quote_path(root),
        [(quote_path(file), file) for _, file in pairs],
        [one.size for one in own],
        c2w,
        intrinsics,
        lenses=[one.lens for one in own],
        bounds=bounds,
        bounds_from="from the points",
        box=box,
        missing=[file.name for file in missing],
        told=told,
    )


def _numbered(folder: Path) -> list[Path]:
    """The folders of models beside this one, which COLMAP numbers; none where it has no number."""
    return [f for f in list_folder(folder.parent) if f.is_dir()] if folder.name.isdigit() else []


def _find_images(root: Path, images: str | None) -> tuple[Path, dict[str, str]]:
    """The folder of a scene's images, and what is said of it. The path may be the model's own."""
    found = _find_model(root)
    inside = found is not None and found[0] == root
    for base in (root, *root.parents[:2]) if inside else (root,):
        copies = sorted(base.glob("images_*"), key=lambda f: (len(f.name), f.name))
        for folder in [base / images] if images else [base / "images", *copies]:
            if folder.is_dir():
                plain = folder.name == "images"
                return folder, {} if plain else {"images": f"images of {shorten(folder.name, 40)}"}
    raise InputError(
        f"{quote_path(root)} has no folder '{shorten(images or 'images')}' of the images that its "
        "model is of: set source.images to its name."
    )


def _to_opengl(poses: Sequence[Sequence[float]]) -> Poses:
    """Camera-to-world (views, 4, 4) of OpenGL from world-to-camera quaternions, translations."""
    numbers = torch.tensor(poses, dtype=torch.float64)
    quaternion, translation = numbers[:, :4], numbers[:, 4:]
    w, x, y, z = (quaternion / quaternion.norm(dim=1, keepdim=True)).unbind(1)
    rotation = torch.stack([
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ], 1).unflatten(1, (3, 3))  # fmt: skip
    back = rotation.mT
    c2w = torch.eye(4, dtype=torch.float64).repeat(len(numbers), 1, 1)
    c2w[:, :3, :3] = back
    c2w[:, :3, 3] = -(back @ translation.unsqueeze(-1)).squeeze(-1)
    return opengl_from_opencv(c2w)


def _bounds_of_points(
    points: Tensor, c2w: Poses, intrinsics: Tensor, sizes: Sequence[tuple[float, float]]
) -> Bounds | None:
    """Depths between which nearly all points lie that a view shows; None without such points."""
    some = points[:: 1 + len(points) // POINTS]
    ends = []
    for pose, own, (height, width) in zip(c2w, intrinsics, sizes, strict=True):
        pixel, depth = project_points(some, pose, own)
        shown = (pixel > 0).all(1) & (pixel < pixel.new_tensor([width, height])).all(1)
        seen = depth[shown & (depth > 0)]
        if len(seen):
            ends.append(seen.quantile(seen.new_tensor(USUAL)))
    if not ends:
        return None
    low, high = torch.stack(ends).unbind(1)
    return float(low.min()) * (1 - MARGIN), float(high.max()) * (1 + MARGIN)


def _box_of_points(points: Tensor) -> Box:
    """The box in which nearly all points lie."""
    some = points[:: 1 + len(points) // POINTS]
    low, high = some.quantile(some.new_tensor(INNER), 0)
    margin = MARGIN * (high - low) / 2
    corners = [(low - margin).tolist(), (high + margin).tolist()]
    (a, b, c), (d, e, f) = corners
    return (a, b, c), (d, e, f)


# -- files


def _read(file: Path, parse: Callable[[bytes], Parsed]) -> Parsed:
    """What a file holds. Raises InputError where it is not what it should be."""
    try:
        return parse(file.read_bytes())
    except (OSError, ValueError, Fault) as error:
        raise InputError(
            f"{quote_path(file)} is no file of COLMAP that can be read: {shorten(str(error))}."
        ) from None


class Bytes:
    """A binary file, little-endian, from its beginning to its end."""

    def __init__(self, content: bytes) -> None:
        self.content, self.at = content, 0

    def take(self, layout: str) -> tuple[Any, ...]:
        self.skip(size := struct.calcsize(f"<{layout}"))
        return struct.unpack_from(f"<{layout}", self.content, self.at - size)

    def skip(self, count: int) -> None:
        if count > len(self.content) - self.at:
            raise Fault(f"it ends after {len(self.content):,} bytes, before what it tells of")
        self.at += count

    def count(self, least: int) -> int:
        """A number of entries, of at least so many bytes each."""
        (count,) = self.take("Q")
        if count * least > len(self.content) - self.at:
            raise Fault(f"it tells of {count:,} entries, which its size does not hold")
        return int(count)

    def name(self) -> str:
        end = self.content.find(b"\0", self.at, self.at + LONGEST_NAME)
        if end < 0:
            raise Fault("an image's name has no end")
        start, self.at = self.at, end + 1
        return _decode(self.content[start:end])


def _decode(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _binary_cameras(content: bytes) -> dict[int, ModelCamera]:
    data, found = Bytes(content), {}
    for _ in range(data.count(24)):
        number, model, width, height = data.take("iiQQ")
        if model not in NAMES:
            raise Fault(f"camera {number} has the model number {model}; {_right_models()}")
        name = NAMES[int(model)]
        parameters = data.take(f"{len(MODELS[name][1].split())}d")
        found[int(number)] = _make_camera(
            int(number), name, float(width), float(height), parameters
        )
    return found


def _text_cameras(content: bytes) -> dict[int, ModelCamera]:
    found = {}
    for line in _lines(content):
        words = line.split()
        if len(words) < 4:
            raise Fault(
                f"a camera of {quote(line)}, where a number, model, width, height are right"
            )
        number, width, height = int(words[0]), float(words[2]), float(words[3])
        if words[1] not in MODELS:
            raise Fault(f"camera {number} has the model {shorten(words[1])}; {_right_models()}")
        parameters = tuple(map(float, words[4:]))
        found[number] = _make_camera(number, words[1], width, height, parameters)
    return found


def _right_models() -> str:
    return f"right are {', '.join(MODELS)}"


def _make_camera(
    number: int, model: str, width: float, height: float, parameters: Sequence[float]
) -> ModelCamera:
    names = MODELS[model][1].split()
    if len(parameters) != len(names):
        raise Fault(f"camera {number} has {len(parameters)} parameters, where {model} has {names}")
    if not (1 <= width < 1 << 31 and 1 <= height < 1 << 31):
        raise Fault(f"camera {number} is of {height:g} x {width:g} pixels")
    own = dict(zip(names, parameters, strict=True))
    fisheye = model.endswith("FISHEYE")
    radial = tuple(own.get(f"k{i}", 0.0) for i in range(1, 5 if fisheye else 7))
    lens = Lens(radial, (own.get("p1", 0.0), own.get("p2", 0.0)), fisheye)
    both = own.get("f", 0.0)
    numbers = own.get("fx", both), own.get("fy", both), own["cx"], own["cy"]
    return ModelCamera((height, width), numbers, None if lens.straight else lens)


def _binary_images(content: bytes) -> list[ModelImage]:
    data, found = Bytes(content), []
    for _ in range(data.count(73)):
        _, *pose, camera = data.take("I7dI")
        name = data.name()
        data.skip(24 * data.count(24))  # where points are seen
        found.append(ModelImage(name, int(camera), tuple(pose)))
    return found


def _text_images(content: bytes) -> list[ModelImage]:
    """Two lines an image, of which the second, where points are seen, may be empty."""
    lines, found = iter(content.split(b"\n")), []
    for raw in lines:
        line = raw.strip()
        if not line or line.startswith(b"#"):
            continue
        words = line.split(maxsplit=9)
        if len(words) < 10:
            raise Fault(f"an image of {quote(_decode(line))}, where ten entries are right")
        pose = tuple(map(float, words[1:8]))
        found.append(ModelImage(_decode(words[9]), int(words[8]), pose))
        seen = next(lines, b"").split()
        if len(seen) % 3:
            raise Fault(
                f"the line below {quote(found[-1].name)} must tell where points are seen, three "
                "numbers each, or be empty"
            )
    return found


def _binary_points(content: bytes) -> list[tuple[float, ...]]:
    data, found = Bytes(content), []
    for _ in range(data.count(51)):
        found.append(data.take("Q3d3Bd")[1:4])
        data.skip(8 * data.count(8))  # the images that show it
    return found


def _text_points(content: bytes) -> list[tuple[float, ...]]:
    found = []
    for line in _lines(content):
        words = line.split()
        if len(words) < 4:
            raise Fault(f"a point of {quote(line)}, where a number and x, y, z are right")
        found.append(tuple(map(float, words[1:4])))
    return found


def _lines(content: bytes) -> Iterator[str]:
    """The lines of a text that are neither empty nor comments."""
    for line in content.decode("utf-8").splitlines():
        if line.strip() and not line.strip().startswith("#"):
            yield line.strip()
