"""Pictures, sheets, animations, meshes. Every file is written beside, then renamed."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fieldloom.errors import InputError


def atomically(path: Path, write: Callable[[BinaryIO], object]) -> Path:
    """Let ``write`` fill a new file beside ``path``, then put it in its place.

    Whatever goes wrong, a file that was at ``path`` before is still whole, and nothing is left
    over.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(beside, 0o666 & ~_umask())
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write(content: bytes, path: Path) -> Path:
    return atomically(path, lambda file: file.write(content))


def text(content: str, path: Path) -> Path:
    return write(content.encode(), path)


def npy(data: Tensor, path: Path) -> Path:
    return atomically(path, lambda file: np.save(file, data.detach().float().cpu().numpy()))


def pixels(image: Tensor) -> NDArray[np.uint8]:
    """(channel, height, width) in [0, 1] -> uint8 (height, width, 3): clamped, rounded."""
    image = image.detach().float().cpu().clamp(0, 1)
    image = image.expand(3, -1, -1) if len(image) == 1 else image[:3]
    return (image * 255).round().byte().permute(1, 2, 0).numpy()


def png(image: Tensor, path: Path) -> Path:
    """One image (channel, height, width) in [0, 1] as a PNG."""
    return write(png_bytes(pixels(image)), path)


def png_bytes(array: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def sheet(images: Tensor, columns: int, size: int | None = None, gap: int = 2) -> NDArray[np.uint8]:
    """Images (batch, channel, height, width) side by side on white: uint8 (height, width, 3).

    size: the height that each is shown at, by nearest neighbour, so that pixels stay visible.
    """
    tiles = [pixels(image) for image in images]
    return _grid([_nearest(x, size) for x in tiles] if size is not None else tiles, columns, gap)


def _grid(tiles: Sequence[NDArray[np.uint8]], columns: int, gap: int = 2) -> NDArray[np.uint8]:
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


def gif(frames: Sequence[NDArray[np.uint8]], path: Path, seconds: float = 0.08) -> Path:
    """Frames uint8 (height, width, 3) as an animation that loops."""
    first, *rest = [Image.fromarray(frame) for frame in frames]
    return atomically(
        path,
        lambda file: first.save(
            file, "GIF", save_all=True, append_images=rest, duration=int(seconds * 1000), loop=0
        ),
    )


def mp4(frames: Sequence[NDArray[np.uint8]], path: Path, rate: int = 12) -> Path:
    """Frames uint8 (height, width, 3) as H.264; an odd row or column is repeated."""
    import av

    padded = [np.pad(x, ((0, x.shape[0] % 2), (0, x.shape[1] % 2), (0, 0)), "edge") for x in frames]

    def encode(file: BinaryIO) -> None:
        with av.open(file, "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=rate)
            stream.height, stream.width = padded[0].shape[:2]
            stream.pix_fmt = "yuv420p"
            for frame in padded:
                picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))

    return atomically(path, encode)


MESHES = (".glb", ".ply", ".obj", ".stl", ".off")


def mesh(vertices: NDArray[np.float64], faces: NDArray[np.int64], path: Path) -> Path:
    """Triangles, vertices (V, 3) and faces (F, 3), as the format that the path's suffix names."""
    import trimesh

    if path.suffix not in MESHES:
        raise InputError(f"'{path.name}': a mesh is written as one of {', '.join(MESHES)}.")
    made = trimesh.Trimesh(vertices, faces, process=False)
    content = made.export(file_type=path.suffix[1:])
    return write(content.encode() if isinstance(content, str) else bytes(content), path)


FRAMES = (".png", ".gif", ".mp4")


def frames(pictures: Sequence[NDArray[np.uint8]], path: Path) -> Path:
    """Pictures uint8 (height, width, 3), one after another (GIF, MP4) or as one sheet (PNG)."""
    check_frames(path)
    if path.suffix == ".gif":
        return gif(pictures, path)
    if path.suffix == ".mp4":
        return mp4(pictures, path)
    return write(png_bytes(_grid(pictures, min(len(pictures), 8))), path)


def check_frames(path: Path) -> None:
    """Raise InputError for a path that ``frames`` cannot write."""
    if path.suffix not in FRAMES:
        raise InputError(f"'{path.name}': pictures are written as one of {', '.join(FRAMES)}.")


def pictures(images: Sequence[Tensor | None]) -> NDArray[np.uint8] | None:
    """Pictures (3, height, width) as a square sheet, one alone as it is; None for what has none."""
    shown = [pixels(image) for image in images if image is not None]
    if len(shown) <= 1:
        return shown[0] if shown else None
    return _grid(shown, max(1, round(len(shown) ** 0.5)))
