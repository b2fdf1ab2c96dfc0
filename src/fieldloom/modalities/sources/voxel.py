"""Voxels: packed bits, arrays and binvox files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fieldloom.errors import InputError
from fieldloom.modalities.sources.shapes import (
    Cells,
    check_modality,
    check_skipped,
    classes_of,
    files_of,
)
from fieldloom.modalities.sources.source import (
    Limit,
    Source,
    Split,
    assemble,
    existing,
    member,
    read_npz,
)
from fieldloom.progress import track


def voxels(
    modality: Cells,
    path: str,
    key: str | None = None,
    label: str | None = None,
    split: Split = (0.9, 0.1),
    shuffle: bool = True,
    limit: Limit = None,
) -> Source:
    """Voxels (n, X, Y, Z): a ``.npz`` or ``.npy`` file, a ``.binvox`` file, or a folder of them.

    A packed ``.npz`` has ``bits`` (n, bytes), each row from ``np.packbits``, and ``shape``. Arrays
    hold booleans, uint8 (0 and 1, or 0 to 255) or floats in [0, 1]. Those that are an integer
    multiple of the modality's size are pooled to it: a cell is on where one of its parts is.
    Of binvox files the frame is known; their sub-folders are classes if all files lie in one.

    key: of the array in an ``.npz`` with several; label: of the array of labels, one a shape.
    """
    check_modality(modality)
    root = existing(path)
    if root.is_dir() or root.suffix.lower() == ".binvox":
        files = files_of(root, path, {".binvox"}, limit)
        read = {}
        for i, file in enumerate(track(files, "reading voxel files", len(files), "files")):
            try:
                read[i] = _binvox(file)
            except InputError:
                if len(files) == 1:
                    raise
        check_skipped([str(file) for file in files], read, "voxel files")
        tiles = [_pooled(bits[None], modality) for bits, _, _ in read.values()]
        meta = {
            "frame": torch.stack([_cell_frame(modality, at, side) for _, at, side in read.values()])
        }
        labels = classes_of(root, [files[i] for i in read])
        split = (1.0, 0.0) if len(read) == 1 else split
        return assemble(torch.cat(tiles), labels, split, shuffle, meta=meta)
    file = read_npz(root)
    labels = None if label is None else member(file, label, path)[:limit].tolist()
    if not isinstance(file, np.ndarray) and key is None and {"bits", "shape"} <= set(file):
        bits, shape = member(file, "bits", path)[:limit], member(file, "shape", path).tolist()
        if bits.dtype != np.uint8 or bits.ndim != 2 or bits.shape[1] != -(-np.prod(shape) // 8):
            raise InputError(f"'{path}': bits {bits.shape} are no packed rows of cells {shape}.")
        count = int(np.prod(shape))
        array = np.unpackbits(bits, axis=1, count=count).reshape(-1, *shape)
    else:
        array = _only(file, key, label, path)[:limit]
    data = _pooled(array, modality)
    return assemble(data, labels, split, shuffle)


def _binvox(file: Path) -> tuple[NDArray[np.uint8], list[float], float]:
    """A binvox file: 0 or 1 (x, y, z), the corner of its cube, and the cube's side.

    After a header of lines come pairs of bytes, a value and how often it follows; y runs fastest,
    then z, then x. Source: https://www.patrickmin.com/binvox/binvox.html
    """
    try:
        head, _, body = file.read_bytes().partition(b"\ndata\n")
        lines = [line.split() for line in head.decode("ascii").splitlines()]
        if not lines or lines[0][:1] != ["#binvox"]:
            raise ValueError("it does not begin with '#binvox'")
        fields = {line[0]: [float(x) for x in line[1:]] for line in lines[1:] if len(line) > 1}
        size = [int(x) for x in fields["dim"]]
        corner, side = fields.get("translate", [0.0] * 3), fields.get("scale", [1.0])[0]
        runs = np.frombuffer(body[: len(body) // 2 * 2], np.uint8).reshape(-1, 2)
        cells = int(runs[:, 1].sum(dtype=np.int64))
        if len(size) != 3 or len(set(size)) != 1 or cells != size[0] ** 3 or len(corner) != 3:
            raise ValueError(f"{cells} cells do not fill a cube with dim {size}")
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise InputError(f"'{file}' is not a readable binvox file: {error}.") from None
    values = np.repeat((runs[:, 0] > 0).astype(np.uint8), runs[:, 1])
    return values.reshape(size).transpose(0, 2, 1), corner, side


def _cell_frame(modality: Cells, corner: Sequence[float], side: float) -> Tensor:
    """The frame (4,) that leads from the modality's places to the centres of a cube's cells."""
    places = modality.grid()[0].double()
    cell = side / modality.size[0]
    scale = cell * (modality.size[0] - 1) / (places[-1, 0] - places[0, 0])
    centre = torch.tensor(corner, dtype=torch.float64) + cell / 2 - scale * places[0]
    return torch.cat([centre, scale[None]])


def _only(file: Any, key: str | None, label: str | None, path: str) -> NDArray[Any]:
    """The array of a ``.npy``, or the one named or alone in an ``.npz``."""
    if isinstance(file, np.ndarray):
        return file
    others = [name for name in file.files if name != label]
    if key is None and len(others) != 1:
        raise InputError(f"source.key: '{path}' has the arrays {', '.join(file)}; name one.")
    return member(file, key or others[0], path)


def _pooled(array: NDArray[Any], modality: Cells) -> Tensor:
    """(n, X, Y, Z) or (n, 1, X, Y, Z) -> (n, 1, *size), uint8 in 0 .. 255 or float32 in [0, 1]."""
    if array.ndim == 5 and array.shape[1] == 1:
        array = array[:, 0]
    size = modality.size
    if (
        array.ndim != 4
        or 0 in array.shape
        or any(have % want for have, want in zip(array.shape[1:], size, strict=True))
    ):
        raise InputError(
            f"source: voxels of the shape {array.shape} where the modality has {size}: give "
            "(n, X, Y, Z) of that size, or of a multiple of it."
        )
    if array.dtype == np.bool_ or (array.dtype == np.uint8 and array.max() <= 1):
        array = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype != np.uint8:
        if array.dtype.kind not in "uif" or not (array.min() >= 0 and array.max() <= 1):
            raise InputError("source: voxels other than booleans or uint8 must lie in [0, 1].")
        array = array.astype(np.float32)
    if array.shape[1:] != size:
        x, y, z = (have // want for have, want in zip(array.shape[1:], size, strict=True))
        blocks = array.reshape(len(array), size[0], x, size[1], y, size[2], z)
        array = blocks.max(axis=(2, 4, 6))
    return torch.from_numpy(np.ascontiguousarray(array[:, None]))
