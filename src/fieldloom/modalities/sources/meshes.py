"""Meshes, evaluated once at a grid or at scattered points, and cached."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from fieldloom.errors import InputError, quote
from fieldloom.geometry.boundary import Boundary, find_boundary
from fieldloom.geometry.inside import inside, signed_distance
from fieldloom.geometry.mesh import Centre, Mesh, normalize_mesh, sample_surface
from fieldloom.modalities.sources.cache import memory_map_by_parts
from fieldloom.modalities.sources.files import Refused, check_skipped, find_path
from fieldloom.modalities.sources.folders import UNREADABLE, FoundFiles, Grouping, find_files
from fieldloom.modalities.sources.meshfiles import Load, read_mesh, read_packed_meshes
from fieldloom.modalities.sources.shapes import Cells, check_modality
from fieldloom.modalities.sources.source import Depth, Limit, Source, Split, choose, make_source
from fieldloom.modalities.sources.summary import Summary, count_things, describe_size, list_names
from fieldloom.permit import NOTHING, Permit
from fieldloom.progress import BRIEF, Progress

Target = Literal["occupancy", "distance"]

MESHES_PER_PART = 16
"""Meshes after which their data are cached: about a minute, at 200,000 samples each."""

SUFFIXES = {".obj", ".ply", ".stl", ".off", ".glb"}
MOST = 1 << 26
"""The largest number of samples of a shape or its surface: rows of NumPy hold 2^31 bytes."""
BETA = 2.0
"""``beta`` of ``winding_number``: distant faces hardly change the side of a point."""
RULE = 2
"""The version of cached meshes: it has to change where the same mesh gives other data."""
FACTS = np.dtype(
    [
        ("closed", "?"),
        ("inside_out", "?"),
        ("turned", "<i8"),
        ("doubled", "<i8"),
        ("sheets", "<i8"),
        ("flat", "<i8"),
        ("others", "<i8"),
        ("inside", "<f8"),
    ],
    align=True,
)
"""What the summary tells of a mesh: see ``Boundary`` and ``FoundMesh``; ``inside`` is the share of
its data that are above 0.5."""


@dataclass(frozen=True)
class Query:
    """The data to compute of each mesh; ``read_meshes`` describes the fields."""

    target: Target
    extent: float
    centre: Centre
    dilation: float
    samples: int | None
    near_surface: float
    spread: float
    truncation: float
    seed: int
    surface: int

    def __post_init__(self) -> None:
        right = {
            "extent": (0 < self.extent <= 1, "above 0, at most 1"),
            "dilation": (0 <= self.dilation <= 1, "from 0 to 1"),
            "samples": (self.samples is None or 1 <= self.samples <= MOST, f"from 1 to {MOST}"),
            "near_surface": (0 <= self.near_surface <= 1, "a fraction, from 0 to 1"),
            "spread": (0 < self.spread < math.inf, "above 0, and finite"),
            "truncation": (0 < self.truncation < math.inf, "above 0, and finite"),
            "seed": (0 <= self.seed < 1 << 64, "from 0 to 2^64"),
            "surface": (1 <= self.surface <= MOST, f"from 1 to {MOST}"),
        }
        for name, (fits, words) in right.items():
            if not fits:
                value = quote(getattr(self, name))
                raise InputError(f"source.{name} = {value} is not right: it is {words}.")


def read_meshes(
    modality: Cells,
    path: str,
    target: Target = "occupancy",
    extent: float = 0.9,
    centre: Centre = "box",
    dilation: float = 0.0,
    samples: int | None = None,
    near_surface: float = 0.5,
    spread: float = 0.02,
    truncation: float = 0.1,
    seed: int = 0,
    surface: int = 2048,
    split: Split = (0.9, 0.1),
    shuffle: bool = True,
    limit: Limit = None,
    label_depth: Depth = None,
    permit: Permit = NOTHING,
) -> Source:
    """Meshes: a folder, one file (OBJ, PLY, STL, OFF, GLB), or a packed ``.npz``.

    A packed file has ``verts`` and ``faces``, and for several shapes ``vert_offsets`` and
    ``face_offsets`` (faces count from each shape's own first vertex) and ``category``, their class.
    Sub-folders are classes and parts, and ``label_depth`` is as of images. Each shape is centred
    and scaled to [-extent, extent]. Inside is what its faces wind around (winding number above
    0.5), each taken once and turned outwards, which may be open: see ``inside``. Files other than
    ``.npz`` need trimesh.

    extent:     to which each shape reaches in the cube, whose own sides are at -1 and 1.
    target:     ``occupancy``: 1 inside. ``distance``: 0.5 - d / (2 truncation), clipped to [0, 1],
                with d the distance, negative inside: 1 inside, 0.5 on the surface.
    centre:     as in ``normalize_mesh``.
    dilation:   distance, in the cube's unit, by which the surface is moved outwards.
    samples:    None: data (n, 1, *size) at the modality's grid. A number: data (n, samples, 1) at
                ``coords`` (n, samples, 3), float32.
    near_surface: the fraction of samples near the surface, which come first: surface points plus
                Gaussian noise of the standard deviation ``spread`` in each coordinate; the others
                are uniform in the cube.
    spread:     of the samples near the surface, in the cube's unit.
    truncation: the distance, in the cube's unit, at which data reach 0 and 1.
    seed:       of the samples, with the index of each shape.
    surface:    with samples, the number of points on the surface of each mesh, ``surface``
                (n, surface, 3), float32, with which generated shapes are compared.

    Data are computed once, into the memory-mapped cache (see ``cache``); a stopped process
    continues where it stopped.
    """
    check_modality(modality)
    query = Query(
        target, extent, centre, dilation, samples, near_surface, spread, truncation, seed, surface
    )
    root = find_path(path)
    packed = root.suffix == ".npz" and root.is_file()
    if packed:
        found = FoundFiles(root, [root])
        items, labels = read_packed_meshes(root, permit.large)
        which = choose(limit or len(items), len(items), labels)
        items = [items[i] for i in which]
    else:
        found = find_files(root, path, SUFFIXES, "meshes")
        found = found.classify(label_depth).limit(limit, split)
        loads = [partial(read_mesh, file, permit.large) for file in found.files]
        items = list(zip(found.names, loads, strict=True))
        labels, which = None, range(len(items))
    grid = None if samples is not None else modality.grid()[0]
    row = _row_type(query, modality.size)
    where = None if grid is None else [list(modality.size), grid[[0, -1]].tolist()]
    options: dict[str, Any] = {"meshes": asdict(query), "grid": where, "limit": limit}
    options["rule"] = RULE
    if [*which] != [*range(len(items))]:  # the first ones have no other key than ever
        options["which"] = [*which]
    filled, faults = _read_rows(found.files, options, items, partial(_fill_row, query, row, grid))
    rows: NDArray[Any] = filled.view(row).reshape(-1)
    indices = rows["index"].tolist()
    for i in set(range(len(items))) - set(indices) - set(faults):  # an earlier process failed on it
        faults[i] = InputError(f"{items[i][0]} is tried again when it changes.")
    check_skipped([name for name, _ in items], dict(sorted(faults.items())), "meshes")
    if packed:
        groups = Grouping(None if labels is None else [labels[which[i]] for i in indices])
        bad = [f"mesh {which[i]}" for i in sorted(faults)]
        found = replace(found, passed_over={UNREADABLE: bad})
        short = [f"mesh {which[i]}" for i in indices]
    else:
        found = found.keep_readable(indices)
        groups, short = found.groups, found.short_names
    facts = rows["facts"]
    if target == "occupancy" and not facts["inside"].any():
        raise InputError(_explain_no_inside(short, modality.size, samples))
    taken = {**groups.taken, **_describe_facts(facts, short)}
    return make_source(
        torch.from_numpy(rows["values"]),
        groups.labels,
        (1.0, 0.0) if len(rows) == 1 else split,
        shuffle,
        extras={
            name: torch.from_numpy(rows[name])
            for name in (["frame"] if samples is None else ["frame", "coords", "surface"])
        },
        parts=groups.parts,
        summary=Summary(
            "mesh", taken=taken, passed_over=found.passed_over, unit="mesh" if packed else "file"
        ),
    )


def _describe_facts(facts: NDArray[Any], names: Sequence[str]) -> dict[str, str]:
    """The facts about all meshes in words, for the summary."""
    inverted, turned = facts["inside_out"], facts["turned"] > 0
    told = {
        "closed": [("closed", facts["closed"]), ("open", ~facts["closed"])],
        "orientation": [("inside out", inverted), ("turned in part", turned)],
        "doubled": [("with doubled faces", facts["doubled"] > 0)],
        "sheets": [("with sheets", facts["sheets"] > 0)],
        "flat": [("with faces without area", facts["flat"] > 0)],
        "others": [("with points, lines, cameras or further scenes left out", facts["others"] > 0)],
        "inside": [("without an inside", facts["inside"] == 0)],
    }
    words = {
        aspect: ", ".join(_tell(what, which, names) for what, which in some if which.any())
        for aspect, some in told.items()
    }
    return {aspect: text for aspect, text in words.items() if text}


def _tell(what: str, which: NDArray[np.bool_], names: Sequence[str]) -> str:
    """``closed`` where all are; ``8 closed``; ``2 open (a.obj, b.obj)``."""
    if which.all():
        return what
    some = [names[i] for i in np.flatnonzero(which).tolist()]
    return f"{len(some):,} {what}" + ("" if what == "closed" else f" ({list_names(some, 2)})")


def _explain_no_inside(names: Sequence[str], size: Sequence[int], samples: int | None) -> str:
    one = f"{names[0]} has no"
    if len(names) > 1:
        one = f"none of {count_things(len(names), 'mesh')} has an"
    where = f"at {describe_size(size)} points" if samples is None else f"at {samples:,} samples"
    which = "" if len(names) == 1 else f" ({list_names(names)})"
    return (
        f"source.path: {one} inside {where}{which}: open sheets bound nothing, and thin parts "
        "fall between the points. source.dilation = 0.05 thickens them, with target = "
        '"occupancy" or "distance"; or close their surfaces.'
    )


def _row_type(query: Query, size: tuple[int, ...]) -> np.dtype[np.void]:
    """The cached row of a mesh: its index, its facts, its frame and its values.

    With scattered samples it also has their coordinates, and points of the surface.
    """
    kind = "|u1" if query.target == "occupancy" else "<f4"
    fields: list[Any] = [("index", "<i8"), ("facts", FACTS), ("frame", "<f8", (4,))]
    shape: tuple[int, ...] = (1, *size)
    if query.samples is not None:
        fields += [("coords", "<f4", (query.samples, 3)), ("surface", "<f4", (query.surface, 3))]
        shape = (query.samples, 1)
    return np.dtype([*fields, ("values", kind, shape)], align=True)


def _read_rows(
    files: Sequence[Path],
    options: Mapping[str, Any],
    items: Sequence[tuple[str, Load]],
    fill: Callable[[int, Load], NDArray[np.uint8]],
) -> tuple[NDArray[np.uint8], dict[int, InputError]]:
    """Rows of all meshes that can be read, from the cache, which is filled part by part.

    Also the errors of meshes that failed just now, by their indices.
    """
    faults: dict[int, InputError] = {}
    with Progress("reading meshes", len(items), unit="meshes", least=BRIEF) as progress:

        def rows(some: range) -> Iterator[NDArray[np.uint8]]:
            for i in some:
                try:
                    yield fill(i, items[i][1])
                except Refused:
                    raise
                except InputError as error:
                    if len(items) == 1:
                        raise
                    faults[i] = error  # it is skipped: its index is missing from the rows
                progress.update(i + 1)

        parts = []
        for first in range(0, len(items), MESHES_PER_PART):
            some = range(first, min(first + MESHES_PER_PART, len(items)))
            own = files if len(files) == 1 else files[some.start : some.stop]
            parts.append((own, partial(rows, some)))
        return memory_map_by_parts(files, options, parts), faults


def _fill_row(
    query: Query,
    row: np.dtype[np.void],
    grid: Tensor | None,
    index: int,
    load: Load,
) -> NDArray[np.uint8]:
    """One mesh as a row's bytes (1, bytes)."""
    loaded = load()
    mesh, frame = normalize_mesh(loaded.mesh, query.extent, query.centre)
    boundary = find_boundary(mesh)
    filled = np.zeros(1, row)
    filled["index"], filled["frame"] = index, frame.numpy()
    coords = grid
    if coords is None:
        coords = _sample_points(mesh, query, _seed_generator(query.seed, index))
        on, _ = sample_surface(mesh, query.surface, _seed_generator(query.seed, index, 1))
        filled["coords"], filled["surface"] = coords.numpy(), on.float().numpy()
    values = _compute_target(mesh, boundary, coords, query).numpy()
    filled["values"] = values.reshape(row["values"].shape)
    share = (values > (127 if query.target == "occupancy" else 0.5)).mean()
    for name in ("closed", "inside_out", "turned", "doubled", "sheets"):
        filled["facts"][name] = getattr(boundary, name)
    for name, value in (("flat", loaded.flat), ("others", loaded.others), ("inside", share)):
        filled["facts"][name] = value
    return filled.view(np.uint8).reshape(1, -1)


def _seed_generator(seed: int, index: int, *stream: int) -> Generator:
    """A generator for one shape, which does not depend on the number of other shapes."""
    state = np.random.SeedSequence((seed, index, *stream)).generate_state(1, np.uint32)
    return torch.Generator().manual_seed(int(state[0]))


def _sample_points(mesh: Mesh, query: Query, generator: Generator) -> Tensor:
    """Points (samples, 3), float32, in the cube: some near the surface, the others uniform."""
    count = query.samples or 0
    close = round(query.near_surface * count)
    surface, _ = sample_surface(mesh, close, generator)
    noise = torch.randn(close, 3, generator=generator, dtype=torch.float64)
    near = surface + query.spread * noise
    anywhere = 2 * torch.rand(count - close, 3, generator=generator, dtype=torch.float64) - 1
    return torch.cat([near, anywhere]).clamp(-1, 1).float()


def _compute_target(mesh: Mesh, boundary: Boundary, points: Tensor, query: Query) -> Tensor:
    """The data at points (n, 3): uint8, 0 or 255, for occupancy, else float32 in [0, 1]."""
    if query.target == "occupancy" and query.dilation == 0:
        return inside(mesh, points, BETA, boundary).to(torch.uint8) * 255
    # Beyond the most, data are constant, so that larger distances are not needed.
    occupancy = query.target == "occupancy"
    most = 2 * query.dilation if occupancy else query.truncation + query.dilation
    far = signed_distance(mesh, points, BETA, most, boundary)
    if occupancy:
        return (far <= query.dilation).to(torch.uint8) * 255
    return (0.5 - (far - query.dilation) / (2 * query.truncation)).clamp(0, 1).float()
