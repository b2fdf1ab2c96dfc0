"""Shapes: voxels (packed bits, arrays, binvox) and meshes, asked at a grid or at scattered points.

They stand in the cube [-1, 1]; ``meta["frame"]`` (n, 4), float64, leads back to where they stood:
centre x, y, z and a scale, with original = coordinates * scale + centre.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from fieldloom.errors import InputError
from fieldloom.geometry.inside import inside, signed
from fieldloom.geometry.mesh import Mesh, checked, sample, to_unit
from fieldloom.modalities.sources.pictures import UNREADABLE
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
from fieldloom.types import Coords

Target = Literal["occupancy", "distance"]
T = TypeVar("T")

SUFFIXES = {".obj", ".ply", ".stl", ".off", ".glb"}
BETA = 2.0
"""How near faces are summed one by one (see ``winding``): far ones hardly move a point's side."""


@runtime_checkable
class Cells(Protocol):
    """What a source of shapes asks of a modality: three axes, one channel, places in [-1, 1]."""

    size: tuple[int, ...]
    channels: int

    def grid(self, resolution: int | tuple[int, ...] | None = None) -> Coords: ...


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
    _check_modality(modality)
    root = existing(path)
    if root.is_dir() or root.suffix.lower() == ".binvox":
        files = _files(root, path, {".binvox"}, limit)
        items = [(str(file), partial(_binvox, file)) for file in files]
        read, good = _readable(items, "voxel files")
        tiles = [_pooled(bits[None], modality) for bits, _, _ in read]
        meta = {"frame": torch.stack([_cell_frame(modality, at, side) for _, at, side in read])}
        labels = _classes(root, [files[i] for i in good])
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


def meshes(
    modality: Cells,
    path: str,
    target: Target = "occupancy",
    reach: float = 0.9,
    samples: int | None = None,
    near: float = 0.5,
    spread: float = 0.02,
    truncation: float = 0.1,
    seed: int = 0,
    split: Split = (0.9, 0.1),
    shuffle: bool = True,
    limit: Limit = None,
) -> Source:
    """Meshes: a folder, one file (OBJ, PLY, STL, OFF, GLB), or a packed ``.npz``.

    A packed file has ``verts`` and ``faces``, and for several shapes ``vert_offsets`` and
    ``face_offsets`` (faces count from each shape's own first vertex) and ``category``, their class.
    Sub-folders of a folder are classes if all files lie in one. Each shape is centred and scaled to
    [-reach, reach]; open ones, and parts turned inside out, have an inside too (winding number
    above 0.5 or below -0.5). Needs trimesh for files other than ``.npz``.

    target:     ``occupancy``: 1 inside. ``distance``: 0.5 - d / (2 truncation), clipped to [0, 1],
                with d the distance, negative inside: 1 inside, 0.5 on the surface.
    samples:    None: data (n, 1, *size) at the modality's grid. A number: data (n, samples, 1) at
                ``meta["coords"]`` (n, samples, 3), float32.
    near:       the share of samples beside the surface, first in order, by a Gaussian of the
                standard deviation ``spread`` in each coordinate; the others are uniform in the
                cube.
    truncation: the distance, in the cube's unit, that counts as far.
    seed:       of the samples, with the place of each shape.
    """
    _check_modality(modality)
    _check_numbers(reach, samples, near, spread, truncation)
    root = existing(path)
    if root.suffix == ".npz":
        items, labels = _packed(root, path, limit)
    else:
        files = _files(root, path, SUFFIXES, limit)
        items = [(str(file), partial(_mesh, file)) for file in files]
        labels = _classes(root, files)
    ask = partial(_target, target=target, truncation=truncation)
    grid = None if samples is not None else modality.grid()[0]

    def one(place: int, load: Callable[[], Mesh]) -> tuple[Tensor, Tensor, Tensor]:
        mesh, frame = to_unit(load(), reach)
        if grid is not None:
            return ask(mesh, grid).reshape(1, *modality.size), grid[:0], frame
        coords = _scattered(mesh, samples or 0, near, spread, _generator(seed, place))
        return ask(mesh, coords)[:, None], coords, frame

    asked = [(name, partial(one, i, load)) for i, (name, load) in enumerate(items)]
    read, good = _readable(asked, "meshes")
    data, coords, frames = (torch.stack(part) for part in zip(*read, strict=True))
    meta = {"frame": frames} if samples is None else {"frame": frames, "coords": coords}
    chosen = None if labels is None else [labels[i] for i in good]
    split = (1.0, 0.0) if len(data) == 1 else split
    return assemble(data, chosen, split, shuffle, meta=meta)


def _check_modality(modality: Cells) -> None:
    if len(modality.size) != 3 or min(modality.size) < 2 or modality.channels != 1:
        raise InputError(
            f"this source reads shapes, not data of the size {modality.size} with "
            f"{modality.channels} channels: the modality needs three axes and 1 channel."
        )
    places = modality.grid()[0]
    low, high = float(places.min()), float(places.max())
    if abs(low) > 1.001 or abs(high) > 1.001 or high - low < 1.999 - 2 / min(modality.size):
        raise InputError(
            f"modality.coords run from {low:g} to {high:g}: shapes stand in [-1, 1], so set "
            "low = -1 and high = 1."
        )


def _check_numbers(
    reach: float, samples: int | None, near: float, spread: float, truncation: float
) -> None:
    right = {
        "reach": (reach, 0 < reach <= 1, "above 0, at most 1"),
        "samples": (samples, samples is None or samples >= 1, "at least 1"),
        "near": (near, 0 <= near <= 1, "a share, from 0 to 1"),
        "spread": (spread, spread > 0, "above 0"),
        "truncation": (truncation, truncation > 0, "above 0"),
    }
    for name, (value, fits, words) in right.items():
        if not fits:
            raise InputError(f"source.{name} = {value} is not right: it is {words}.")


def _files(root: Path, path: str, suffixes: set[str], limit: int | None) -> list[Path]:
    """The file itself, or those of a folder and its sub-folders, in the order of their names."""
    found = [root] if root.is_file() else sorted(f for f in root.rglob("*") if f.is_file())
    files = list(islice((f for f in found if f.suffix.lower() in suffixes), limit))
    if not files:
        raise InputError(f"source.path = '{path}' holds no {', '.join(sorted(suffixes))} file.")
    return files


def _classes(root: Path, files: Sequence[Path]) -> list[str] | None:
    """The outermost sub-folder of each file, if all lie in one and there are several."""
    if root.is_file():
        return None
    parts = [file.relative_to(root).parts[:-1] for file in files]
    return [p[0] for p in parts] if all(parts) and len({p[0] for p in parts}) > 1 else None


def _readable(items: Sequence[tuple[str, Callable[[], T]]], what: str) -> tuple[list[T], list[int]]:
    """What the named items load, and the places of those that could be read.

    Others are named in one warning and skipped. Raises InputError where they are too many, and the
    item's own where there is just one.
    """
    read, good, bad = [], [], []
    for i, (name, load) in enumerate(track(items, f"reading {what}", len(items), what)):
        try:
            read.append(load())
            good.append(i)
        except InputError:
            if len(items) == 1:
                raise
            bad.append(name)
    if len(bad) > UNREADABLE * len(items):
        raise InputError(f"{len(bad)} of {len(items)} {what} cannot be read: {', '.join(bad[:5])}.")
    if bad:
        warnings.warn(f"skipped {len(bad)} unreadable {what}: {', '.join(bad)}.", stacklevel=3)
    return read, good


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


def _packed(
    root: Path, path: str, limit: int | None
) -> tuple[list[tuple[str, Callable[[], Mesh]]], list[str] | None]:
    """The meshes of an ``.npz``, each still to be checked, and their classes."""
    file = read_npz(root)
    vertices, faces = member(file, "verts", path), member(file, "faces", path)
    ends_v, ends_f = [0, len(vertices)], [0, len(faces)]
    if "vert_offsets" in file:
        ends_v = member(file, "vert_offsets", path).tolist()
        ends_f = member(file, "face_offsets", path).tolist()
    if len(ends_v) != len(ends_f) or len(ends_v) < 2:
        raise InputError(
            f"'{path}' has {len(ends_v)} vert_offsets and {len(ends_f)} face_offsets: "
            "both are one more than its meshes."
        )
    items: list[tuple[str, Callable[[], Mesh]]] = []
    for i in range(min(len(ends_v) - 1, limit or len(ends_v))):
        name = f"mesh {i} of {path}"
        part = vertices[ends_v[i] : ends_v[i + 1]], faces[ends_f[i] : ends_f[i + 1]]
        items.append((name, partial(checked, *part, name)))
    labels = None
    if "category" in file:
        labels = member(file, "category", path).tolist()
        if len(labels) != len(ends_v) - 1:
            raise InputError(f"'{path}' has {len(labels)} categories for {len(ends_v) - 1} meshes.")
    return items, None if labels is None else labels[: len(items)]


def _mesh(file: Path) -> Mesh:
    """A mesh file; the parts of a scene become one mesh."""
    try:
        import trimesh
    except ImportError:
        raise InputError("reading mesh files needs trimesh: pip install trimesh.") from None
    try:
        # Not processed: vertices stay as they are, and the checks here see what the file holds.
        whole = trimesh.load_scene(file, process=False).to_mesh()
        vertices, faces = np.asarray(whole.vertices), np.asarray(whole.faces)
    except Exception as error:  # parsers of five formats fail in any way on a broken file
        raise InputError(f"'{file}' is not a readable mesh: {error}.") from None
    return checked(vertices, faces, f"'{file}'")


def _generator(seed: int, place: int) -> Generator:
    """Draws of one shape: none depends on how many others there are."""
    state = np.random.SeedSequence((seed, place)).generate_state(1, np.uint32)
    return torch.Generator().manual_seed(int(state[0]))


def _scattered(mesh: Mesh, count: int, near: float, spread: float, generator: Generator) -> Tensor:
    """Points (count, 3), float32, in the cube: a share beside the surface, the rest anywhere."""
    close = round(near * count)
    surface, _ = sample(mesh, close, generator)
    noise = torch.randn(close, 3, generator=generator, dtype=torch.float64)
    beside = surface + spread * noise
    anywhere = 2 * torch.rand(count - close, 3, generator=generator, dtype=torch.float64) - 1
    return torch.cat([beside, anywhere]).clamp(-1, 1).float()


def _target(mesh: Mesh, points: Tensor, target: Target, truncation: float) -> Tensor:
    """The data at points (n, 3): uint8, 0 or 255, for occupancy, else float32 in [0, 1]."""
    if target == "occupancy":
        return inside(mesh, points, BETA).to(torch.uint8) * 255
    # Beyond the truncation the data are flat: no need to look further.
    far = signed(mesh, points, BETA, most=truncation)
    return (0.5 - far / (2 * truncation)).clamp(0, 1).float()
