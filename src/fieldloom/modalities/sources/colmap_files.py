"""Files of a sparse model of COLMAP, in binary and in text.

The format is COLMAP's (https://colmap.github.io/format.html): cameras, images whose poses are
OpenCV's world-to-camera, and points. Numbers in a file are checked against its size before anything
is made from them.
"""

from __future__ import annotations

import struct
from array import array
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from fieldloom import memory
from fieldloom.errors import InputError, quote, quote_path, shorten
from fieldloom.geometry.distortion import Lens
from fieldloom.modalities.sources.pictures import FullSize
from fieldloom.permit import Permit

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

UNPACKED = 4
"""How many times its size a file takes up while it is read, at the most."""
LONGEST_NAME = 4096
"""Bytes of an image's name."""


class ModelCamera(NamedTuple):
    """size: (height, width). intrinsics: fx, fy, cx, cy. lens: None of a pinhole."""

    size: FullSize
    intrinsics: tuple[float, float, float, float]
    lens: Lens | None


class ModelImage(NamedTuple):
    """pose: the quaternion w, x, y, z and the translation, world to camera, OpenCV."""

    name: str
    camera: int
    pose: tuple[float, ...]


class Fault(Exception):
    """What is wrong with a file, in words."""


def read_cameras(file: Path, permit: Permit) -> dict[int, ModelCamera]:
    """The cameras of ``cameras.bin`` or ``cameras.txt``, by their numbers.

    Raises InputError for a file that is not what its suffix says, and for models that there are
    not; so do the functions below.
    """
    return _read(file, _binary_cameras, _text_cameras, permit)


def read_images(file: Path, permit: Permit) -> list[ModelImage]:
    """The images of ``images.bin`` or ``images.txt``, in the order of their names."""
    found = _read(file, _binary_images, _text_images, permit)
    return sorted(found, key=lambda one: one.name)


def read_points(file: Path, permit: Permit) -> Tensor:
    """The places of the points of ``points3D.bin`` or ``points3D.txt``: (points, 3), float64."""
    found = _read(file, _binary_points, _text_points, permit)
    return torch.tensor(found, dtype=torch.float64).unflatten(0, (-1, 3))


def _read(
    file: Path,
    binary: Callable[[bytes], Parsed],
    text: Callable[[bytes], Parsed],
    permit: Permit,
) -> Parsed:
    """What a file holds."""
    name = quote_path(file)
    try:
        memory.check(name, UNPACKED * file.stat().st_size, permit)
        content = file.read_bytes()
        return binary(content) if file.suffix == ".bin" else text(content.removeprefix(BOM_UTF8))
    except InputError:
        raise
    except (OSError, ValueError, Fault) as error:
        raise InputError(
            f"{name} is no file of COLMAP that can be read: {shorten(str(error), 400)}."
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

    def end(self) -> None:
        """Raise Fault where something is left."""
        left = len(self.content) - self.at
        if left:
            raise Fault(f"it goes on for {left:,} bytes after what it tells of")

    def name(self) -> str:
        end = self.content.find(b"\0", self.at, self.at + LONGEST_NAME)
        if end < 0:
            raise Fault("an image's name has no end")
        start, self.at = self.at, end + 1
        return _decode(self.content[start:end])


def _decode(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _binary_cameras(content: bytes) -> dict[int, ModelCamera]:
    data, found = Bytes(content), dict[int, ModelCamera]()
    for _ in range(data.count(24)):
        number, model, width, height = data.take("IiQQ")
        if model not in NAMES:
            raise Fault(f"camera {number} has the model number {model}; {_right_models()}")
        name = NAMES[int(model)]
        parameters = data.take(f"{len(MODELS[name][1].split())}d")
        _add_camera(found, int(number), name, float(width), float(height), parameters)
    data.end()
    return found


def _text_cameras(content: bytes) -> dict[int, ModelCamera]:
    found = dict[int, ModelCamera]()
    for line in _lines(content):
        words = line.split()
        if len(words) < 4:
            raise Fault(
                f"a camera of {quote(line)}, where a number, model, width, height are right"
            )
        number, width, height = int(words[0]), float(words[2]), float(words[3])
        if words[1] not in MODELS:
            raise Fault(f"camera {number} has the model {shorten(words[1])}; {_right_models()}")
        _add_camera(found, number, words[1], width, height, tuple(map(float, words[4:])))
    return found


def _right_models() -> str:
    return f"right are {', '.join(MODELS)}"


def _add_camera(
    found: dict[int, ModelCamera],
    number: int,
    model: str,
    width: float,
    height: float,
    parameters: Sequence[float],
) -> None:
    """Add a camera to those that were found. Raises Fault where its numbers are wrong."""
    names = MODELS[model][1].split()
    if number in found:
        raise Fault(f"it has two cameras of the number {number}")
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
    found[number] = ModelCamera((height, width), numbers, None if lens.straight else lens)


def _binary_images(content: bytes) -> list[ModelImage]:
    data, found = Bytes(content), dict[int, ModelImage]()
    for _ in range(data.count(73)):
        number, *pose, camera = data.take("I7dI")
        _add_image(found, int(number), ModelImage(data.name(), int(camera), tuple(pose)))
        data.skip(24 * data.count(24))  # where points are seen
    data.end()
    return list(found.values())


def _text_images(content: bytes) -> list[ModelImage]:
    """Two lines an image, of which the second, where points are seen, may be empty."""
    lines, found = iter(content.split(b"\n")), dict[int, ModelImage]()
    for raw in lines:
        line = raw.strip()
        if not line or line.startswith(b"#"):
            continue
        words = line.split(maxsplit=9)
        if len(words) < 10:
            raise Fault(f"an image of {quote(_decode(line))}, where ten entries are right")
        name, pose = _decode(words[9]), tuple(map(float, words[1:8]))
        _add_image(found, int(words[0]), ModelImage(name, int(words[8]), pose))
        seen = next(lines, b"").split()
        if len(seen) % 3:
            raise Fault(
                f"the line below {quote(name)} must tell where points are seen, three numbers "
                "each, or be empty"
            )
    return list(found.values())


def _add_image(found: dict[int, ModelImage], number: int, image: ModelImage) -> None:
    if number in found:
        raise Fault(
            f"it has two images of the number {number}, {quote(found[number].name)} and "
            f"{quote(image.name)}"
        )
    found[number] = image


def _binary_points(content: bytes) -> array[float]:
    data, found = Bytes(content), array("d")
    for _ in range(data.count(51)):
        found.extend(data.take("Q3d3Bd")[1:4])
        data.skip(8 * data.count(8))  # the images that show it
    data.end()
    return found


def _text_points(content: bytes) -> array[float]:
    found = array("d")
    for line in _lines(content):
        words = line.split(maxsplit=4)
        if len(words) < 4:
            raise Fault(f"a point of {quote(line)}, where a number and x, y, z are right")
        found.extend(map(float, words[1:4]))
    return found


def _lines(content: bytes) -> Iterator[str]:
    """The lines of a text that are neither empty nor comments."""
    for line in content.decode("utf-8").splitlines():
        text = line.strip()
        if text and not text.startswith("#"):
            yield text
