"""Voxels: packed bits, arrays and binvox files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fieldloom.errors import InputError, quote, quote_path, shorten
from fieldloom.modalities.sources.files import (
    BYTES,
    CELLS,
    Archive,
    Refused,
    array_name,
    check_size,
    check_skipped,
    find_file,
    find_path,
    load_array,
    read_labels,
    read_npz,
)
from fieldloom.modalities.sources.folders import find_files
from fieldloom.modalities.sources.numbers import Range, scale_array
from fieldloom.modalities.sources.shapes import Cells, check_modality
from fieldloom.modalities.sources.source import Depth, Limit, Source, Split, choose, make_source
from fieldloom.modalities.sources.summary import Summary, describe_size
from fieldloom.permit import NOTHING, Permit
from fieldloom.progress import BRIEF, track


def read_voxels(
    modality: Cells,
    path: str,
    key: str | None = None,
    label: str | None = None,
    split: Split = (0.9, 0.1),
    shuffle: bool = True,
    limit: Limit = None,
    label_depth: Depth = None,
    range: Range = None,
    permit: Permit = NOTHING,
) -> Source:
    """Voxels (n, X, Y, Z), or (X, Y, Z) of one shape: ``.npz``, ``.npy``, ``.binvox``, or a folder.

    A packed ``.npz`` has ``bits`` (n, bytes), each row from ``np.packbits``, and ``shape``. Arrays
    hold booleans or numbers; range: those that become 0 and 1 (see ``numbers``). Voxels of an
    integer multiple of the modality's size are max-pooled to it: a cell is occupied where a part of
    it is. Data of binvox files have a frame; their sub-folders are classes and parts, as of images.

    key: name of the array in an ``.npz`` with several. label: name of the array of labels.
    label_depth: of a folder, as of images.
    """
    check_modality(modality)
    root = find_path(path)
    if root.is_dir() or root.suffix.lower() == ".binvox":
        return _read_binvox_files(
            modality, root, path, split, shuffle, limit, label_depth, permit.large
        )
    file = read_npz(find_file(path))
    packed = key is None and "bits" in file and "shape" in file
    if packed:
        held = load_array(file, "bits", "bytes", axes=(2,), large=permit.large)
    else:
        held = load_array(file, array_name(file, key, label), large=permit.large)
        held = held[None] if held.ndim == 3 else held
    labels = None if label is None else read_labels(file, label, len(held), "shapes")
    if limit is not None and limit < len(held):
        which = list(choose(limit, len(held), labels))
        held, labels = held[which], None if labels is None else [labels[i] for i in which]
    array = _unpack_bits(file, held, permit.large) if packed else held
    size = array.shape[-3:] if modality.native else modality.size
    data, taken = _pool_cells(array, size, range)
    split = (1.0, 0.0) if len(data) == 1 else split
    suggests, summary = _suggest_size(modality, size), Summary("shape", taken=taken)
    return make_source(data, labels, split, shuffle, suggests=suggests, summary=summary)


def _suggest_size(modality: Cells, size: tuple[int, ...]) -> dict[str, dict[str, Any]]:
    """The recipe's section that voxels suggest: their own size, where the modality has none."""
    return {"modality": {"size": list(size)}} if modality.native else {}


def _read_binvox_files(
    modality: Cells,
    root: Path,
    path: str,
    split: Split,
    shuffle: bool,
    limit: int | None,
    label_depth: int | None,
    large: bool,
) -> Source:
    found = find_files(root, path, {".binvox"}, "voxels").classify(label_depth)
    found = found.limit(limit, split)
    files = found.files
    tiles, frames, faults, taken = {}, [], {}, dict[str, str]()
    size = None if modality.native else modality.size
    for i, file in enumerate(track(files, "reading voxel files", len(files), "files", BRIEF)):
        try:
            bits, corner, side = _read_binvox(file, large)
        except Refused:
            raise
        except InputError as error:
            faults[i] = error
        else:
            size = size or bits.shape  # the first one's, where the modality has none
            tiles[i], pooled = _pool_cells(bits[None], size)
            taken |= pooled
            frames.append(_cell_frame(modality, size, corner, side))
    check_skipped(found.names, faults, "voxel files")
    found = found.keep_readable(tiles)
    groups = found.groups
    split = (1.0, 0.0) if len(tiles) == 1 else split
    return make_source(
        torch.cat(list(tiles.values())),
        groups.labels,
        split,
        shuffle,
        suggests=_suggest_size(modality, size or modality.size),
        extras={"frame": torch.stack(frames)},
        parts=groups.parts,
        summary=Summary("shape", taken={**taken, **groups.taken}, passed_over=found.passed_over),
    )


def _unpack_bits(file: Archive, bits: NDArray[np.uint8], large: bool) -> NDArray[np.bool_]:
    """Voxels (n, X, Y, Z) of packed rows (n, bytes)."""
    path = quote_path(file.path)
    shape = load_array(file, "shape", "integers", axes=(1,)).tolist()
    cells = math.prod(shape)
    if len(shape) != 3 or min(shape) < 1 or bits.shape[1] != -(-cells // 8):
        raise InputError(f"{path}: bits {bits.shape} are no packed rows of cells {quote(shape)}.")
    check_size(path, cells, "cells in a shape", CELLS, large)
    most = max(BYTES, 8 * file.path.stat().st_size)
    check_size(path, cells * len(bits), "cells", most, large)
    return np.unpackbits(bits, axis=1, count=cells).reshape(-1, *shape).view(np.bool_)


def _read_binvox(file: Path, large: bool) -> tuple[NDArray[np.bool_], list[float], float]:
    """Voxels (x, y, z) of a binvox file, the corner of its cube, and the cube's side.

    After a header of lines come pairs of bytes, a value and its number of repetitions; y varies
    fastest, then z, then x. Source: https://www.patrickmin.com/binvox/binvox.html
    """
    name = quote_path(file)
    try:
        head, _, body = file.read_bytes().partition(b"\ndata\n")
        lines = [line.split() for line in head.decode("ascii").splitlines()]
        if not lines or lines[0][:1] != ["#binvox"]:
            raise ValueError("it does not begin with '#binvox'")
        fields = {line[0]: [float(x) for x in line[1:]] for line in lines[1:] if len(line) > 1}
        size = [int(x) for x in fields["dim"]]
        corner, side = fields.get("translate", [0.0] * 3), fields.get("scale", [1.0])[0]
        if len(corner) != 3 or not np.isfinite([*corner, side]).all() or side <= 0:
            raise ValueError(f"its cube begins at {corner} and has the side {side}")
        runs = np.frombuffer(body[: len(body) // 2 * 2], np.uint8).reshape(-1, 2)
        cells = int(runs[:, 1].sum(dtype=np.int64))
        if len(size) != 3 or len(set(size)) != 1 or min(size) < 1 or cells != size[0] ** 3:
            raise ValueError(f"{cells} cells do not fill a cube with dim {size}")
    except (OSError, ValueError, KeyError, IndexError, OverflowError) as error:
        raise InputError(f"{name} is not a readable binvox file: {shorten(str(error))}.") from None
    what = f"{name} ({file.stat().st_size:,} bytes, dim {size[0]})"
    check_size(what, cells, "cells", CELLS, large)
    values = np.repeat(runs[:, 0] > 0, runs[:, 1])
    return values.reshape(size).transpose(0, 2, 1), corner, side


def _cell_frame(
    modality: Cells, size: tuple[int, ...], corner: Sequence[float], side: float
) -> Tensor:
    """The frame (4,) that leads from the modality's grid to the centres of a cube's cells."""
    coords = modality.grid(size)[0].double()
    cell = side / size[0]
    scale = cell * (size[0] - 1) / (coords[-1, 0] - coords[0, 0])
    centre = torch.tensor(corner, dtype=torch.float64) + cell / 2 - scale * coords[0]
    return torch.cat([centre, scale[None]])


def _pool_cells(
    array: NDArray[Any], size: tuple[int, ...], given: Range = None
) -> tuple[Tensor, dict[str, str]]:
    """(n, X, Y, Z) or (n, 1, X, Y, Z) -> (n, 1, *size), uint8 or float32 in [0, 1]; how it is read.

    given: ``source.range``.
    """
    if array.ndim == 5 and array.shape[1] == 1:
        array = array[:, 0]
    if (
        array.ndim != 4
        or 0 in array.shape
        or any(have % want for have, want in zip(array.shape[1:], size, strict=True))
    ):
        raise InputError(
            f"source: voxels of the shape {array.shape} where the modality has {size}: give "
            "(n, X, Y, Z) of that size, or of a multiple of it."
        )
    taken: dict[str, str] = {}
    stored = array.dtype
    array, scale = scale_array(array, given)
    if stored in (np.bool_, np.uint8) and (scale.low, scale.high) == (0, 1):
        array = array.astype(np.uint8) * np.uint8(255)
    if scale.words:
        taken["range"] = scale.words
    if array.shape[1:] != size:
        x, y, z = (have // want for have, want in zip(array.shape[1:], size, strict=True))
        blocks = array.reshape(len(array), size[0], x, size[1], y, size[2], z)
        array = blocks.max(axis=(2, 4, 6))
        taken["resized"] = f"pooled from {describe_size((x * size[0], y * size[1], z * size[2]))}"
    return torch.from_numpy(np.ascontiguousarray(array[:, None])), taken
