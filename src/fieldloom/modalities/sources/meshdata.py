"""The data of one mesh: occupancy or distance at a grid or at scattered points."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from fieldloom.errors import InputError, quote
from fieldloom.geometry.boundary import Boundary, count_open_edges, find_boundary
from fieldloom.geometry.inside import (
    boundary_distance,
    bounding_share,
    distance,
    inside,
    signed_distance,
)
from fieldloom.geometry.mesh import Centre, Mesh, normalize_mesh, sample_surface
from fieldloom.modalities.sources.meshfiles import Load

Target = Literal["occupancy", "distance", "unsigned", "auto"]

MOST = 1 << 26
"""The largest number of samples of a shape or its surface: rows of NumPy hold 2^31 bytes."""
BETA = 2.0
"""``beta`` of ``winding_number``: distant faces hardly change the side of a point."""
SOLID = 0.8
"""The share of a surface that surely bounds an inside (``bounding_share``), from which on ``auto``
takes signed distances."""
THICKNESS = 0.01
"""The least distance, in the cube's unit, at which unsigned distances have their surface."""
FACTS = np.dtype(
    [
        ("closed", "?"),
        ("inside_out", "?"),
        ("unsigned", "?"),
        ("turned", "<i8"),
        ("doubled", "<i8"),
        ("sheets", "<i8"),
        ("flat", "<i8"),
        ("others", "<i8"),
        ("open_edges", "<i8"),
        ("edges", "<i8"),
        ("inside", "<f8"),
    ],
    align=True,
)
"""What the summary tells of a mesh: see ``Boundary``, ``FoundMesh`` and ``count_open_edges``;
``inside`` is the share of its data that are above 0.5, ``unsigned`` whether distances have no sign.
"""


@dataclass(frozen=True)
class Query:
    """The data to compute of each mesh; ``read_meshes`` describes the fields."""

    target: Target
    extent: float
    centre: Centre
    dilation: float
    samples: int | None
    on_surface: float
    near_surface: float
    spread: float
    truncation: float
    seed: int
    surface: int

    def __post_init__(self) -> None:
        shares = self.on_surface + self.near_surface
        right = {
            "extent": (0 < self.extent <= 1, "above 0, at most 1"),
            "dilation": (0 <= self.dilation <= 1, "from 0 to 1"),
            "samples": (self.samples is None or 1 <= self.samples <= MOST, f"from 1 to {MOST}"),
            "on_surface": (0 <= self.on_surface <= 1, "a fraction, from 0 to 1"),
            "near_surface": (
                self.near_surface >= 0 and shares <= 1 + 1e-9,
                "a fraction, from 0 to 1, together with on_surface",
            ),
            "spread": (0 < self.spread < math.inf, "above 0, and finite"),
            "truncation": (0 < self.truncation < math.inf, "above 0, and finite"),
            "seed": (0 <= self.seed < 1 << 64, "from 0 to 2^64"),
            "surface": (1 <= self.surface <= MOST, f"from 1 to {MOST}"),
        }
        for name, (fits, words) in right.items():
            if not fits:
                value = quote(getattr(self, name))
                raise InputError(f"source.{name} = {value} is not right: it is {words}.")
        if self.on_surface and self.target == "occupancy":
            raise InputError(
                'source.on_surface: points of the surface are on neither side; target = "auto" '
                "gives them the distance 0."
            )


def row_type(query: Query, size: tuple[int, ...]) -> np.dtype[np.void]:
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


def fill_row(
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
    signed = query.target != "unsigned"
    if query.target == "auto":
        signed = bounding_share(mesh, boundary, BETA) >= SOLID
    filled = np.zeros(1, row)
    filled["index"], filled["frame"] = index, frame.numpy()
    if grid is None:
        coords, on = _sample_points(mesh, query, _seed_generator(query.seed, index))
        kept, _ = sample_surface(mesh, query.surface, _seed_generator(query.seed, index, 1))
        filled["coords"], filled["surface"] = coords.numpy(), kept.float().numpy()
    else:
        coords, on = grid, 0
    values = _compute_target(mesh, boundary, coords, on, signed, query).numpy()
    filled["values"] = values.reshape(row["values"].shape)
    facts = filled["facts"]
    for name in ("closed", "inside_out", "turned", "doubled", "sheets"):
        facts[name] = getattr(boundary, name)
    facts["inside"] = (values > (127 if query.target == "occupancy" else 0.5)).mean()
    facts["flat"], facts["others"], facts["unsigned"] = loaded.flat, loaded.others, not signed
    facts["open_edges"], facts["edges"] = count_open_edges(mesh)
    return filled.view(np.uint8).reshape(1, -1)


def _seed_generator(seed: int, index: int, *stream: int) -> Generator:
    """A generator for one shape, which does not depend on the number of other shapes."""
    state = np.random.SeedSequence((seed, index, *stream)).generate_state(1, np.uint32)
    return torch.Generator().manual_seed(int(state[0]))


def _sample_points(mesh: Mesh, query: Query, generator: Generator) -> tuple[Tensor, int]:
    """Points (samples, 3), float32, in the cube, and how many of them, the first, are on the
    surface; after them come those near it, then those that are uniform in the cube.
    """
    count = query.samples or 0
    on, close = round(query.on_surface * count), round(query.near_surface * count)
    close = min(close, count - on)
    surface, _ = sample_surface(mesh, on + close, generator)
    noise = torch.randn(close, 3, generator=generator, dtype=torch.float64)
    near = surface[on:] + query.spread * noise
    anywhere = 2 * torch.rand(count - on - close, 3, generator=generator, dtype=torch.float64) - 1
    return torch.cat([surface[:on], near, anywhere]).clamp(-1, 1).float(), on


def _compute_target(
    mesh: Mesh, boundary: Boundary, points: Tensor, on: int, signed: bool, query: Query
) -> Tensor:
    """The data at points (n, 3): uint8, 0 or 255, for occupancy, else float32 in [0, 1].

    on: how many points, the first, are on the surface.
    """
    if query.target == "occupancy" and query.dilation == 0:
        return inside(mesh, points, BETA, boundary).to(torch.uint8) * 255
    # Beyond the most, data are constant, so that larger distances are not needed.
    occupancy = query.target == "occupancy"
    dilation = query.dilation if signed else max(query.dilation, THICKNESS)
    most = 2 * dilation if occupancy else query.truncation + dilation
    if not signed:
        far = distance(mesh, points[on:], most)
        far = torch.cat([far.new_zeros(on), far])
    elif query.target == "auto":
        far = boundary_distance(mesh, points, boundary, on, BETA, most)
    else:
        far = signed_distance(mesh, points, BETA, most, boundary)
    if occupancy:
        return (far <= dilation).to(torch.uint8) * 255
    return (0.5 - (far - dilation) / (2 * query.truncation)).clamp(0, 1).float()
