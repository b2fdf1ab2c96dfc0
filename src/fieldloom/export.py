"""Writes images, sheets, animations, audio and meshes, each file atomically."""

from __future__ import annotations

import io
import json
import math
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fieldloom.atomic import AnyPath, as_path, write_atomically, write_bytes
from fieldloom.errors import InputError, quote
from fieldloom.types import Cameras


def npy(data: Tensor, path: AnyPath) -> Path:
    """A tensor as a numpy file of float32."""
    return write_atomically(path, lambda file: np.save(file, data.detach().float().cpu().numpy()))


def cameras(cameras: Cameras, size: tuple[int, int], path: AnyPath) -> Path:
    """Pinhole cameras (views, 4, 4) as a ``transforms.json``, which names images ``0000.png`` ...

    size: (height, width) of the images that their intrinsics are of.
    """
    keys = ("fl_x", "fl_y", "cx", "cy")
    own = zip(cameras.c2w.tolist(), cameras.intrinsics.tolist(), strict=True)
    frames = [
        {
            "file_path": f"{i:04d}.png",
            "transform_matrix": pose,
            **dict(zip(keys, numbers, strict=True)),
        }
        for i, (pose, numbers) in enumerate(own)
    ]
    told = {"camera_model": "PINHOLE", "w": size[1], "h": size[0], "frames": frames}
    return write_bytes(json.dumps(told, indent=1).encode(), path)


def pixels(image: Tensor) -> NDArray[np.uint8]:
    """(channel, height, width) in [0, 1] -> uint8 (height, width, 3): clamped, rounded.

    One channel is grey; of more than three channels the first three are taken.
    """
    if not isinstance(image, Tensor) or image.ndim != 3 or 0 in image.shape or len(image) == 2:
        raise InputError(
            f"{_describe(image)} is no image: (channel, height, width), 1 or 3 channels."
        )
    image = image.detach().float().cpu().clamp(0, 1)
    image = image.expand(3, -1, -1) if len(image) == 1 else image[:3]
    return (image * 255).round().byte().permute(1, 2, 0).numpy()


def _describe(value: object) -> str:
    """A value in words, for an error."""
    shape = getattr(value, "shape", None)
    return type(value).__name__ if shape is None else f"an array of the shape {tuple(shape)}"


def png(image: Tensor | NDArray[np.uint8], path: AnyPath) -> Path:
    """One image (channel, height, width) in [0, 1], or uint8 (height, width, 3), as a PNG."""
    return write_bytes(png_bytes(image if isinstance(image, np.ndarray) else pixels(image)), path)


def png_bytes(array: NDArray[np.uint8]) -> bytes:
    """The content of a PNG of an image, uint8 (height, width, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def sheet(images: Tensor, columns: int, size: int | None = None, gap: int = 2) -> NDArray[np.uint8]:
    """Images (batch, channel, height, width) side by side on white: uint8 (height, width, 3).

    size: the height that each is resized to, by nearest neighbour, so that pixels stay visible.
    """
    tiles = [pixels(image) for image in images]
    return join_tiles(
        [_nearest(x, size) for x in tiles] if size is not None else tiles, columns, gap
    )


def join_tiles(tiles: Sequence[NDArray[np.uint8]], columns: int, gap: int = 2) -> NDArray[np.uint8]:
    """Images of one size, uint8 (height, width, 3), side by side on white, row by row."""
    height, width, _ = tiles[0].shape
    rows = -(-len(tiles) // columns)
    canvas = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for i, tile in enumerate(tiles):
        y, x = (i // columns) * (height + gap) + gap, (i % columns) * (width + gap) + gap
        canvas[y : y + height, x : x + width] = tile
    return canvas


def _nearest(tile: NDArray[np.uint8], height: int) -> NDArray[np.uint8]:
    width = max(1, round(tile.shape[1] * height / tile.shape[0]))
    return np.asarray(Image.fromarray(tile).resize((width, height), Image.Resampling.NEAREST))


def gif(frames: Iterable[NDArray[np.uint8]], path: AnyPath, seconds: float = 0.08) -> Path:
    """Frames uint8 (height, width, 3) as an animation that loops.

    seconds: of each frame, at least 0.02, since viewers show shorter ones more slowly.
    """
    first, rest = _split_first(frames, path)
    if not 0 <= seconds <= 600:
        raise InputError(f"seconds = {seconds}: of each frame, from 0 to 600.")
    milliseconds = max(20, int(seconds * 1000))
    return write_atomically(
        path,
        lambda file: Image.fromarray(first).save(
            file,
            "GIF",
            save_all=True,
            append_images=(Image.fromarray(frame) for frame in rest),
            duration=milliseconds,
            loop=0,
        ),
    )


def mp4(frames: Iterable[NDArray[np.uint8]], path: AnyPath, rate: int | float = 12) -> Path:
    """Frames uint8 (height, width, 3) as H.264, one at a time; an odd row or column is repeated.

    rate: frames a second.
    """
    import av

    first, rest = _split_first(frames, path)
    if not 0 < rate <= 1000:
        raise InputError(f"rate = {rate}: frames a second, above 0 and at most 1000.")
    height, width, _ = first.shape

    def encode(file: BinaryIO) -> None:
        with av.open(file, "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1001))
            stream.height, stream.width = height + height % 2, width + width % 2
            stream.pix_fmt = "yuv420p"
            for frame in chain([first], rest):
                padded = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
                image = av.VideoFrame.from_ndarray(padded, format="rgb24")
                container.mux(stream.encode(image))
            container.mux(stream.encode(None))

    return write_atomically(path, encode)


def _split_first(
    frames: Iterable[NDArray[np.uint8]], path: AnyPath
) -> tuple[NDArray[np.uint8], Iterator[NDArray[np.uint8]]]:
    """The first frame, and those after it."""
    rest = iter(frames)
    first = next(rest, None)
    if first is None:
        raise InputError(f"'{as_path(path).name}': a video has at least one frame.")
    if not isinstance(first, np.ndarray) or first.ndim != 3 or first.shape[2] != 3:
        raise InputError(
            f"{_describe(first)} is no frame: uint8 (height, width, 3), as pixels gives."
        )
    return first, rest


def wav(data: Tensor, rate: int, path: AnyPath) -> Path:
    """Audio (channel, samples) in [0, 1], 0.5 is silence, as 16-bit PCM: clamped, rounded.

    rate: samples a second.
    """
    return write_atomically(path, lambda file: _write_wav(data, rate, file))


def wav_bytes(data: Tensor, rate: int) -> bytes:
    """The content of ``wav``'s file."""
    buffer = io.BytesIO()
    _write_wav(data, rate, buffer)
    return buffer.getvalue()


def _write_wav(data: Tensor, rate: int, file: Any) -> None:
    import soundfile

    if not isinstance(data, Tensor) or data.ndim != 2 or 0 in data.shape:
        raise InputError(f"{_describe(data)} is no audio: (channel, samples).")
    if not isinstance(rate, int) or not 1 <= rate < 2**31:
        raise InputError(f"rate = {quote(rate)}: samples a second, a whole number above 0.")
    audio = data.detach().float().cpu() * 2 - 1
    levels = (audio * 32768).round().clamp(-32768, 32767).short().mT.numpy()
    soundfile.write(file, levels, rate, "PCM_16", format="WAV")


Strips = Iterable[tuple[int, NDArray[np.uint8]]]
"""(first row, uint8 (rows, width, channel)) from top to bottom: an image larger than memory."""


def png_from_strips(strips: Strips, shape: tuple[int, int, int], path: AnyPath) -> Path:
    """An image (height, width, 1 | 3) as a PNG, written strip by strip.

    Rows are filtered by their differences to the left pixel. Source: RFC 2083, sections 3 and 6.
    """
    height, width, channels = shape
    colour = 2 if channels == 3 else 0
    _check(shape)
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)

    def encode(file: BinaryIO) -> None:
        def chunk(kind: bytes, body: bytes) -> None:
            file.write(struct.pack(">I", len(body)) + kind + body)
            file.write(struct.pack(">I", zlib.crc32(kind + body)))

        file.write(b"\x89PNG\r\n\x1a\n")
        chunk(b"IHDR", header)
        packer = zlib.compressobj()
        for strip in _check_strips(strips, shape):
            rows = strip.reshape(len(strip), -1)
            left = np.pad(rows[:, :-channels], ((0, 0), (channels, 0)))
            filtered = np.pad(rows - left, ((0, 0), (1, 0)), constant_values=1)
            if body := packer.compress(filtered.tobytes()):
                chunk(b"IDAT", body)
        chunk(b"IDAT", packer.flush())
        chunk(b"IEND", b"")

    return write_atomically(path, encode)


def tiff(strips: Strips, shape: tuple[int, int, int], path: AnyPath, tile: int = 256) -> Path:
    """An image (height, width, 1 | 3) as a TIFF of deflated tiles, written row by row of tiles.

    tile: pixels of its side, a multiple of 16.
    """
    import tifffile

    if tile < 16 or tile % 16:
        raise InputError(f"tile = {tile}: a TIFF's tiles have a multiple of 16 pixels a side.")
    _check(shape)
    grey = shape[2] == 1
    tiles = _tiles(strips, shape, tile)

    def encode(file: BinaryIO) -> None:
        tifffile.imwrite(
            file,
            tiles,
            shape=shape[:2] if grey else shape,
            dtype=np.uint8,
            tile=(tile, tile),
            photometric="minisblack" if grey else "rgb",
            compression="zlib",
            predictor=True,
            metadata=None,
        )
        next(tiles, None)  # strips below the last row are an error, too

    return write_atomically(path, encode)


def _check(shape: tuple[int, int, int]) -> None:
    if shape[2] not in (1, 3) or min(shape) < 1:
        raise InputError(f"an image of the shape {shape} is not (height, width, 1 or 3).")


def _tiles(strips: Strips, shape: tuple[int, int, int], tile: int) -> Iterator[NDArray[np.uint8]]:
    """Tiles (tile, tile[, 3]) row by row, those at the right and the bottom filled up with 0."""
    height, width, channels = shape
    empty = lambda: np.zeros((tile, -(-width // tile) * tile, channels), np.uint8)
    band, filled, seen = empty(), 0, 0
    for strip in _check_strips(strips, shape):
        while len(strip):
            taken = strip[: tile - filled]
            band[filled : filled + len(taken), :width] = taken
            filled, seen, strip = filled + len(taken), seen + len(taken), strip[len(taken) :]
            if filled == tile or seen == height:
                columns = (band[:, x : x + tile] for x in range(0, width, tile))
                yield from (x[..., 0] if channels == 1 else x for x in columns)
                band, filled = empty(), 0


def _check_strips(strips: Strips, shape: tuple[int, int, int]) -> Iterator[NDArray[np.uint8]]:
    """Pass on the strips of an image. Raises InputError where they do not make up the image."""
    height, width, channels = shape
    reached = 0
    for first, strip in strips:
        fits = strip.shape[1:] == (width, channels) and reached + len(strip) <= height
        if first != reached or not fits:
            raise InputError(
                f"a strip {strip.shape} from row {first} on is not the next one, from row "
                f"{reached} on, of an image {shape}."
            )
        reached += len(strip)
        yield strip
    if reached != height:
        raise InputError(f"strips of an image {shape} end at row {reached}.")


MESHES = (".glb", ".ply", ".obj", ".stl", ".off")


def mesh(vertices: NDArray[np.float64], faces: NDArray[np.int64], path: AnyPath) -> Path:
    """Triangles, vertices (V, 3) and faces (F, 3), as the format that the path's suffix names.

    Far from the origin, too, coordinates keep seven digits and more of the mesh's own size: PLY has
    numbers of 64 bits; OBJ and OFF are text with enough digits; GLB, where numbers of 32 bits at
    their place would not do, has them relative to the centre, and the centre as its node's
    translation; STL, which has no such place, becomes text there.
    """
    path = as_path(path)
    for what, rows in (("vertices", vertices), ("faces", faces)):
        if np.ndim(rows) != 2 or np.shape(rows)[1] != 3:
            raise InputError(f"{what}: {_describe(rows)} is not (rows, 3).")
    if path.suffix not in MESHES:
        raise InputError(f"'{path.name}': a mesh is written as one of {', '.join(MESHES)}.")
    if not len(faces) or not np.isfinite(vertices).all():
        raise InputError(f"'{path.name}': a mesh has at least one face, and finite vertices.")
    if np.min(faces) < 0 or np.max(faces) >= len(vertices):
        raise InputError(f"'{path.name}': faces count vertices from 0 to {len(vertices) - 1}.")
    pack = {".glb": _glb, ".ply": _ply, ".obj": _obj, ".stl": _stl, ".off": _off}[path.suffix]
    return write_bytes(pack(np.asarray(vertices, np.float64), np.asarray(faces, np.int64)), path)


def _is_far(vertices: NDArray[np.float64]) -> bool:
    """Whether float32 would lose digits that coordinates relative to the centre keep."""
    return bool(np.abs(vertices).max() > 2 * np.ptp(vertices, axis=0).max())


def _glb(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> bytes:
    import trimesh

    centre = (vertices.min(0) + vertices.max(0)) / 2 if _is_far(vertices) else np.zeros(3)
    made = trimesh.Trimesh(vertices - centre, faces, process=False)
    scene = trimesh.Scene()
    scene.add_geometry(made, transform=trimesh.transformations.translation_matrix(centre))
    return bytes(scene.export(file_type="glb"))


def _ply(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> bytes:
    """Source: Turk 1994, "The PLY polygon file format"."""
    head = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(vertices)}\n"
        "property double x\nproperty double y\nproperty double z\n"
        f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    rows = np.empty(len(faces), [("count", "u1"), ("corners", "<i4", 3)])
    rows["count"], rows["corners"] = 3, faces
    return head.encode() + vertices.astype("<f8").tobytes() + rows.tobytes()


def _obj(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> bytes:
    lines = [f"v {row}" for row in _rows(vertices)]
    return _text([*lines, *(f"f {a} {b} {c}" for a, b, c in (faces + 1).tolist())])


def _off(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> bytes:
    head = ["OFF", f"{len(vertices)} {len(faces)} 0", *_rows(vertices)]
    return _text([*head, *(f"3 {a} {b} {c}" for a, b, c in faces.tolist())])


def _stl(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> bytes:
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-300)
    if _is_far(vertices):
        rows, lines = _rows(vertices), ["solid"]
        for normal, face in zip(normals.tolist(), faces.tolist(), strict=True):
            lines += ["facet normal {:.6f} {:.6f} {:.6f}".format(*normal), "outer loop"]
            lines += [f"vertex {rows[i]}" for i in face] + ["endloop", "endfacet"]
        return _text([*lines, "endsolid"])
    row = [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")]
    triangles = np.zeros(len(faces), row)
    triangles["normal"], triangles["corners"] = normals, corners
    return bytes(80) + struct.pack("<I", len(faces)) + triangles.tobytes()


def _rows(vertices: NDArray[np.float64]) -> list[str]:
    """Coordinates as text, to a billionth of the mesh's size or better."""
    size = float((vertices.max(0) - vertices.min(0)).max())
    digits = 9 - math.floor(math.log10(size)) if size > 0 else 9
    form = f"%.{min(max(digits, 0), 300)}f"
    return [f"{form} {form} {form}" % (x, y, z) for x, y, z in vertices.tolist()]


def _text(lines: Iterable[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()


FRAMES = (".png", ".gif", ".mp4")


def frames(images: Sequence[NDArray[np.uint8]], path: AnyPath) -> Path:
    """Images uint8 (height, width, 3), one after another (GIF, MP4) or as one sheet (PNG)."""
    path = as_path(path)
    check_frames(path)
    if not len(images):
        raise InputError(f"'{path.name}': there is no image to write.")
    if path.suffix == ".gif":
        return gif(images, path)
    if path.suffix == ".mp4":
        return mp4(images, path)
    return png(join_tiles(images, min(len(images), 8)), path)


def check_frames(path: AnyPath) -> None:
    """Raise InputError for a path that ``frames`` cannot write."""
    path = as_path(path)
    if path.suffix not in FRAMES:
        raise InputError(f"'{path.name}': images are written as one of {', '.join(FRAMES)}.")


def join_images(images: Sequence[Tensor | None]) -> NDArray[np.uint8] | None:
    """Images (3, height, width) as a square sheet; a single one as it is, None for none."""
    tiles = [pixels(image) for image in images if image is not None]
    if len(tiles) <= 1:
        return tiles[0] if tiles else None
    return join_tiles(tiles, max(1, round(len(tiles) ** 0.5)))
