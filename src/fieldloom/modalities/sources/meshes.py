"""Meshes, evaluated once at a grid or at scattered points, and cached."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fieldloom.errors import InputError
from fieldloom.geometry.mesh import Centre, Mesh
from fieldloom.modalities.sources.cache import memory_map_by_parts
from fieldloom.modalities.sources.files import Refused, check_skipped, find_path
from fieldloom.modalities.sources.folders import UNREADABLE, FoundFiles, Grouping, find_files
from fieldloom.modalities.sources.meshdata import THICKNESS, Query, Target, fill_row, row_type
from fieldloom.modalities.sources.meshfiles import Load, read_mesh, read_packed_meshes
from fieldloom.modalities.sources.shapes import Cells, check_modality
from fieldloom.modalities.sources.source import Depth, Limit, Source, Split, choose, make_source
from fieldloom.modalities.sources.summary import Summary, count_things, describe_size, list_names
from fieldloom.permit import NOTHING, Permit
from fieldloom.progress import BRIEF, Progress

MESHES_PER_PART = 16
"""Meshes after which their data are cached: about a minute, at 200,000 samples each."""

SUFFIXES = {".obj", ".ply", ".stl", ".off", ".glb"}
UP = {".glb": 1, ".obj": 1}
"""Suffix -> the axis that points upwards: of GLB by its definition, of OBJ as most programs write
it. PLY, STL, OFF and arrays do not say: z, as of scanners' and printers' beds."""
RULE = 3
"""The version of cached meshes: it has to change where the same mesh gives other data."""


def read_meshes(
    modality: Cells,
    path: str,
    target: Target = "occupancy",
    extent: float = 0.9,
    centre: Centre = "box",
    dilation: float = 0.0,
    samples: int | None = None,
    on_surface: float = 0.0,
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
                with d the distance, negative inside: 1 inside, 0.5 on the surface. ``unsigned``:
                the same with the distance to an open surface, which is 0.5 at a distance of
                ``dilation`` (0.01 at least) on both sides. ``auto``: ``unsigned`` where less than
                0.8 of the surface bounds an inside (``bounding_share``), else ``distance``.
    centre:     as in ``normalize_mesh``.
    dilation:   distance, in the cube's unit, by which the surface is moved outwards.
    samples:    None: data (n, 1, *size) at the modality's grid. A number: data (n, samples, 1) at
                ``coords`` (n, samples, 3), float32.
    on_surface: the fraction of samples that are on the surface, at the distance 0; they come first.
    near_surface: the fraction of samples near the surface, which come next: surface points plus
                Gaussian noise of the standard deviation ``spread`` in each coordinate; the others
                are uniform in the cube.
    spread:     of the samples near the surface, in the cube's unit.
    truncation: the distance, in the cube's unit, at which data reach 0 and 1.
    seed:       of the samples, with the index of each shape.
    surface:    with samples, the number of points on the surface of each mesh, ``surface``
                (n, surface, 3), float32, with which generated shapes are compared.

    Meshes are drawn with the axis upwards that their format implies (``UP``), unless the modality
    says ``up``. Data are computed once, into the memory-mapped cache (see ``cache``); a stopped
    process continues where it stopped.
    """
    check_modality(modality)
    near = on_surface, near_surface, spread
    query = Query(target, extent, centre, dilation, samples, *near, truncation, seed, surface)
    found = _find_meshes(path, label_depth, limit, split, permit)
    grid = None if samples is not None else modality.grid()[0]
    row = row_type(query, modality.size)
    where = None if grid is None else [list(modality.size), grid[[0, -1]].tolist()]
    options: dict[str, Any] = {"meshes": asdict(query), "grid": where, "limit": limit}
    options["rule"] = RULE
    if [*found.which] != [*range(len(found.items))]:  # the first ones have no other key than ever
        options["which"] = [*found.which]
    filled, faults = _read_rows(
        found.files.files, options, found.items, partial(fill_row, query, row, grid)
    )
    rows: NDArray[Any] = filled.view(row).reshape(-1)
    indices = rows["index"].tolist()
    tried = set(indices) | set(faults)
    for i in set(range(len(found.items))) - tried:  # an earlier process failed on it
        faults[i] = InputError(f"{found.items[i][0]} is tried again when it changes.")
    check_skipped([name for name, _ in found.items], dict(sorted(faults.items())), "meshes")
    groups, short, passed_over = found.readable(indices, sorted(faults))
    facts = rows["facts"]
    if target == "occupancy" and not facts["inside"].any():
        raise InputError(_explain_no_inside(short, modality.size, samples))
    upward, words = _find_up(modality, short, found.packed)
    taken = {**groups.taken, **_describe_facts(facts, short), **words}
    suggested: dict[str, Any] = {"up": upward}
    if len(rows) == 1 and target != "occupancy":
        taken |= _explain_unsigned(rows[:1], max(dilation, THICKNESS))
        suggested["truncation"] = truncation
    unit = "mesh" if found.packed else "file"
    extras = ["frame"] if samples is None else ["frame", "coords", "surface"]
    source = make_source(
        torch.from_numpy(rows["values"]),
        groups.labels,
        (1.0, 0.0) if len(rows) == 1 else split,
        shuffle,
        suggests={"modality": suggested},
        extras={name: torch.from_numpy(rows[name]) for name in extras},
        parts=groups.parts,
        summary=Summary("mesh", taken=taken, passed_over=passed_over, unit=unit),
    )
    originals = [
        partial(_read_original, found.items[i][1], row["frame"])
        for i, row in zip(indices, rows, strict=True)
    ]
    return replace(source, originals=originals)


class _Found(NamedTuple):
    """The meshes at a path. items: names, and how each is read. which: their places in a packed
    file, whose classes are ``labels``."""

    packed: bool
    files: FoundFiles
    items: list[tuple[str, Load]]
    labels: Any
    which: Sequence[int]

    def readable(
        self, indices: Sequence[int], faults: Sequence[int]
    ) -> tuple[Grouping, Sequence[str], Mapping[str, Sequence[str]]]:
        """Of the meshes that were read: classes and parts, short names, what was passed over."""
        if not self.packed:
            kept = self.files.keep_readable(indices)
            return kept.groups, kept.short_names, kept.passed_over
        labels = None if self.labels is None else [self.labels[self.which[i]] for i in indices]
        named = lambda places: [f"mesh {self.which[i]}" for i in places]
        return Grouping(labels), named(indices), {UNREADABLE: named(faults)}


def _find_meshes(
    path: str, label_depth: Depth, limit: Limit, split: Split, permit: Permit
) -> _Found:
    """The meshes of a packed file, of a folder, or of one file; as of ``read_meshes``."""
    root = find_path(path)
    if root.suffix == ".npz" and root.is_file():
        items, labels = read_packed_meshes(root, permit.large)
        which = choose(limit or len(items), len(items), labels)
        items = [items[i] for i in which]
        return _Found(True, FoundFiles(root, [root]), items, labels, which)
    found = find_files(root, path, SUFFIXES, "meshes")
    found = found.classify(label_depth).limit(limit, split)
    loads = [partial(read_mesh, file, permit.large) for file in found.files]
    items = list(zip(found.names, loads, strict=True))
    return _Found(False, found, items, None, range(len(items)))


def _read_original(load: Load, frame: NDArray[np.float64]) -> Mesh:
    """The mesh of a file in the cube, where its frame (4,) leads back from."""
    mesh = load().mesh
    return Mesh((mesh.vertices - frame[:3]) / frame[3], mesh.faces)


def _find_up(modality: Cells, names: Sequence[str], packed: bool) -> tuple[int, dict[str, str]]:
    """The axis that points upwards in most of the files, and words about it where it is a guess."""
    kinds = [".npz"] if packed else [Path(name).suffix.lower() for name in names]
    (upward, _), *_ = Counter(UP.get(kind, 2) for kind in kinds).most_common(1)
    if getattr(modality, "up_given", True) or set(kinds) == {".glb"}:
        return upward, {}
    return upward, {"up": f"{'xyz'[upward]} taken as up (modality.up)"}


def _explain_unsigned(rows: NDArray[Any], away: float) -> dict[str, str]:
    """Where the distances of the one mesh have no sign: why, and where its surface is then."""
    facts, frame = rows["facts"][0], rows["frame"][0]
    if not facts["unsigned"]:
        return {}
    edges, away = f"{facts['open_edges']:,} of {facts['edges']:,} edges", away * frame[3]
    words = f"unsigned distances, since it is open at {edges} and hardly bounds an inside"
    return {"unsigned": f"{words}: its surface comes back on both sides, {away:.3g} away"}


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
