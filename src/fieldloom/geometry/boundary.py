"""The faces of a mesh that bound its inside, turned outwards: what files get wrong, mended.

Faces may be stored twice, parts may be turned inside out or be sheets that bound nothing, and a
soup of triangles has no common orientation. Winding numbers need faces that are there once and
point outwards.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fieldloom.geometry.mesh import Mesh, areas, face_normals, triangles

DIRECTIONS = 13
"""Lines through each point of a surface, along which both of its sides look."""
WORK, MOST = 2**17, 256
"""Faces that all parts' points may have before them, and the most points of one part."""
HIDDEN = 0.02
"""A part is hidden where a smaller share of the lines leaves it freely on either side."""
EQUAL = 0.9
"""A sheet's two sides see alike: the side that sees less sees at least this much of the other."""
AGREE = 0.8
"""A file's orientation is believed where 0.9 of the area that is seen points the same way."""
TOUCH = 1e-6
"""Surfaces within this distance, in the mesh's extent, do not hide each other."""
ROUNDING = 1e9
"""Steps of the mesh's extent in which positions of vertices are compared."""
TINY = 1e-300  # the least divisor, where an area is zero
PAIRS = 2**18  # pairs of a line and a face in one block


class Boundary(NamedTuple):
    """What bounds the inside of a mesh, and what was done to find it.

    mesh:    the faces that bound it, outwards; the mesh itself where nothing had to be mended,
             None where no face bounds anything.
    closed:  whether the surface has no border: each edge belongs to an even number of faces.
    doubled: faces that were left out, because others have the same corners.
    sheets:  faces that were left out, because they look alike on both sides.
    turned:  faces that were turned round.
    inside_out: whether all faces point inwards, consistently. They are as good: nothing is turned.
    """

    mesh: Mesh | None
    closed: bool
    doubled: int = 0
    sheets: int = 0
    turned: int = 0
    inside_out: bool = False


class Parts(NamedTuple):
    """Faces that hang together by edges of exactly two faces, and their common orientation.

    part:   of each face, its part's number.
    sign:   of each face, 1, or -1 where it is stored against the common orientation.
    closed: of each part, whether all its edges belong to exactly two faces.
    """

    part: NDArray[np.int64]
    sign: NDArray[np.int64]
    closed: NDArray[np.bool_]


def find_boundary(mesh: Mesh) -> Boundary:
    """The faces that bound the inside of a mesh, turned outwards.

    1. Vertices at equal positions are one. Faces with the same corners are one face.
    2. Faces that share an edge with one other face get its orientation; so arise parts.
    3. Where all parts are closed, were oriented, and point the same way, nothing changes. Otherwise
       each part is seen from both sides, along lines in 13 directions: the side from which more
       lines leave freely is its outside. A part whose sides see alike is a sheet: a leaf, the
       ground. It bounds nothing, and is left out.
    4. A part that is hidden by others keeps its orientation, relative to the parts that are seen: a
       wall that is turned inwards is a cavity's. Where the file has none, or is wrong about the
       parts that are seen, the outside of a hidden part that is not closed is where lines cross an
       even number of faces more often.

    Source of the views from both sides: Takayama et al. 2014, "A simple method for correcting facet
    orientations in polygon meshes based on ray casting".
    """
    corners = _merge_vertices(mesh)
    kept, facing = _merge_doubled(corners)
    doubled = len(corners) - len(kept)
    corners = np.where(facing[:, None] < 0, corners[kept][:, ::-1], corners[kept])
    single = Mesh(mesh.vertices, mesh.faces[kept])
    size = areas(single)
    parts = _find_parts(corners, size)
    volume = np.bincount(parts.part, _cones(single) * parts.sign * np.where(facing < 0, -1, 1))
    plain = not doubled and (parts.sign > 0).all()
    if plain and parts.closed.all() and ((volume > 0).all() or (volume < 0).all()):
        return Boundary(mesh, True, inside_out=bool((volume < 0).all()))
    stored = np.bincount(parts.part, (parts.sign < 0) | (facing == 0)) == 0
    oriented = parts.sign * np.where(facing < 0, -1, 1)
    turn, sheet = _look(_turn(single, oriented), parts, stored, size)
    sign, bounds = oriented * turn[parts.part], ~sheet[parts.part]
    known = bounds & (facing != 0)
    inside_out = bool(known.any() and (sign[known] < 0).all())
    turned = 0 if inside_out else int((sign[known] < 0).sum())
    sheets = int((~bounds).sum())
    found = Boundary(mesh, False, doubled, sheets, turned, inside_out)
    if not bounds.any():
        return found._replace(mesh=None)
    closed = bool((_edges(corners[bounds])[1] % 2 == 0).all())
    if doubled or sheets or turned:
        faces = _turn(single, sign).faces[bounds]
        used, indices = np.unique(faces, return_inverse=True)
        found = found._replace(mesh=Mesh(mesh.vertices[used], indices.reshape(-1, 3)))
    return found._replace(closed=closed)


def count_open_edges(mesh: Mesh) -> tuple[int, int]:
    """How many edges belong to one face only, and how many edges there are.

    Vertices at equal positions are one, and so are faces with the same corners.
    """
    corners = _merge_vertices(mesh)
    _, counts = _edges(corners[_merge_doubled(corners)[0]])
    return int((counts == 1).sum()), len(counts)


def _merge_vertices(mesh: Mesh) -> NDArray[np.int64]:
    """The corners of the faces, where vertices at equal positions have one number.

    Positions are equal up to rounding, unless a face would lose a corner to that.
    """
    low = mesh.vertices.min(0)
    steps = np.rint((mesh.vertices - low) * (ROUNDING / (mesh.vertices - low).max()))
    for positions in (steps, mesh.vertices):
        _, places = np.unique(positions, axis=0, return_inverse=True)
        corners = places.reshape(-1)[mesh.faces]
        if (corners != np.roll(corners, 1, axis=1)).all():
            break
    return corners


def _turn(mesh: Mesh, sign: NDArray[np.int64]) -> Mesh:
    return Mesh(mesh.vertices, np.where(sign[:, None] < 0, mesh.faces[:, ::-1], mesh.faces))


def _cones(mesh: Mesh) -> NDArray[np.float64]:
    """Six times the signed volume of the cone from the mean vertex to each face."""
    corners = triangles(mesh) - mesh.vertices.mean(0)
    return np.einsum("fi,fi->f", corners[:, 0], face_normals(mesh))


def _merge_doubled(corners: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of one face of each set of corners, and how to orient it.

    facing: 1 as it is stored, -1 against it, after the majority of the faces with these corners; 0
    where as many are stored one way as the other.
    """
    a, b, c = corners.T
    sign = np.sign(b - a) * np.sign(c - a) * np.sign(c - b)  # of the permutation that sorts them
    _, first, group = np.unique(np.sort(corners, 1), axis=0, return_index=True, return_inverse=True)
    net = np.sign(np.bincount(group.reshape(-1), sign)).astype(np.int64) * sign[first]
    order = np.argsort(first)
    return first[order], net[order]


def _edges(corners: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each edge of the faces the number of its undirected edge, (3 faces,), and their counts."""
    ends = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
    low, high = ends.min(1), ends.max(1)
    _, number, counts = np.unique(
        low * (corners.max() + 1) + high, return_inverse=True, return_counts=True
    )
    return number.reshape(-1), counts


def _find_parts(corners: NDArray[np.int64], size: NDArray[np.float64]) -> Parts:
    """The parts of faces; the common orientation is the one in which most of the area is stored.

    In a graph with two nodes a face, one for each orientation, neighbours are linked in agreeing
    orientations; an orientable part gives two components, one for each of its orientations.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(corners)
    number, counts = _edges(corners)
    order = np.argsort(number, kind="stable")
    first = (np.cumsum(counts) - counts)[counts == 2]
    one, two = order[first], order[first + 1]
    ends = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
    cross = np.where(ends[one, 0] == ends[two, 0], count, 0)  # they run along the edge alike
    one, two = one % count, two % count
    rows, columns = (
        np.concatenate([one, one + count]),
        np.concatenate([two + cross, two + count - cross]),
    )
    graph = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(2 * count, 2 * count))
    _, node = connected_components(graph, directed=False)
    own, other = node[:count], node[count:]
    least = np.minimum(own, other)
    _, part = np.unique(least, return_inverse=True)
    sign = np.where(own == least, 1, -1)
    sign *= np.where(np.bincount(part, size * sign) < 0, -1, 1)[part]
    closed = np.bincount(part, (counts[number] != 2).reshape(3, count).any(0)) == 0
    return Parts(part, sign, closed)


def _look(
    mesh: Mesh, parts: Parts, stored: NDArray[np.bool_], size: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Whether to turn each part, 1 or -1, and whether it is a sheet.

    stored: parts whose orientation the file has.
    """
    free, even = _see(mesh, parts.part)
    hidden = free.max(0) < HIDDEN
    front, back = np.where(hidden, even, free)
    turn = np.where(back > front, -1, 1)
    sheet = np.minimum(front, back) >= EQUAL * np.maximum(front, back)
    seen = np.bincount(parts.part, size) * (~hidden & ~sheet & stored)
    agree = (seen * turn).sum() / max(seen.sum(), TINY)  # 1: all as stored; -1: all turned
    trusted = hidden & stored & (parts.closed | (abs(agree) > AGREE))
    turn[trusted] = -1 if agree < 0 else 1
    sheet &= ~trusted
    return turn, sheet


def _see(mesh: Mesh, part: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shares of the lines from each part that meet no face, and an even number: (2, parts) each.

    The first row is of the front, the second of the back. Lines count by their cosine.
    """
    low, high = mesh.vertices[mesh.faces].min((0, 1)), mesh.vertices[mesh.faces].max((0, 1))
    corners = (triangles(mesh) - (low + high) / 2) / (high - low).max()
    face, points = _place_points(corners, part)
    normals = face_normals(mesh)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), TINY)
    count, of = part.max() + 1, part[face]
    total, free, even = np.zeros(count), np.zeros((2, count)), np.zeros((2, count))
    for direction in _directions():
        cosine = normals[face] @ direction
        weight = np.abs(cosine)
        total += np.bincount(of, weight, count)
        crossings = _count_crossings(corners, points, face, direction)
        for side, met in enumerate(np.where(cosine > 0, crossings, crossings[::-1])):
            free[side] += np.bincount(of, weight * (met == 0), count)
            even[side] += np.bincount(of, weight * (met % 2 == 0), count)
    return free / np.maximum(total, TINY), even / np.maximum(total, TINY)


def _directions() -> NDArray[np.float64]:
    """Directions (13, 3) of lines: a spiral on a hemisphere, turned away from the axes."""
    i = np.arange(DIRECTIONS)
    z = 1 - (i + 0.5) / DIRECTIONS
    angle = i * np.pi * (3 - np.sqrt(5)) + 0.3
    radius = np.sqrt(1 - z * z)
    spiral = np.stack([radius * np.cos(angle), radius * np.sin(angle), z], 1)
    turn, _ = np.linalg.qr(np.array([[0.9, 0.3, 0.2], [-0.4, 0.8, 0.5], [0.1, -0.6, 0.7]]))
    return spiral @ turn


def _place_points(
    corners: NDArray[np.float64], part: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Points that are spread over the area of each part, and the faces that they lie on."""
    size = areas(Mesh(corners.reshape(-1, 3), np.arange(3 * len(corners)).reshape(-1, 3)))
    order = np.argsort(part, kind="stable")
    ends = np.cumsum(size[order])
    whole = np.bincount(part, size)
    first = np.cumsum(whole) - whole
    depth = 1 + size.sum()  # about as many faces stand along a line, in a unit cube
    each = min(max(int(WORK / (len(whole) * depth)), 1), MOST)
    wanted = first[:, None] + whole[:, None] * (np.arange(each) + 0.5) / each
    face = order[np.minimum(np.searchsorted(ends, wanted.reshape(-1)), len(order) - 1)]
    # Roberts 2018, the R2 sequence: fractions of multiples of powers of the plastic number.
    u, v = (np.arange(len(face)) * x % 1 for x in (0.7548776662466927, 0.5698402909980532))
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    u, v = 0.01 + 0.97 * u, 0.01 + 0.97 * v  # off the edges
    a, b, c = corners[face].swapaxes(0, 1)
    return face, a + u[:, None] * (b - a) + v[:, None] * (c - a)


def _count_crossings(
    corners: NDArray[np.float64],
    points: NDArray[np.float64],
    own: NDArray[np.int64],
    direction: NDArray[np.float64],
) -> NDArray[np.int64]:
    """How many faces the line through each point meets ahead and behind: (2, points).

    own: the face of each point, which does not count. The faces are projected along the direction,
    and found by the cells of a square grid.
    """
    across = np.linalg.svd(direction[None])[2][1:]
    flat, depth = corners @ across.T, corners @ direction
    spots, depths = points @ across.T, points @ direction
    low = flat.min((0, 1))
    span = max((flat.max((0, 1)) - low).max(), 1e-12) * (1 + 1e-9)
    cells, start, side = _fill_cells((flat - low) / span)
    cell = np.clip((spots - low) / span * side, 0, side - 1).astype(np.int64) @ [side, 1]
    (ax, ay), e, f = flat[:, 0].T, flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0]
    area = e[:, 0] * f[:, 1] - e[:, 1] * f[:, 0]
    area = np.where(area == 0, np.inf, area)  # seen edge-on
    counts = (start[1:] - start[:-1])[cell]
    met = np.zeros((2, len(points)), np.int64)
    ends = np.cumsum(counts)
    first = 0
    while first < len(points):
        done = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, done + PAIRS, "right")))
        row = np.repeat(np.arange(first, last), counts[first:last])
        begin = start[cell[first:last]] - (ends[first:last] - counts[first:last] - done)
        face = cells[np.repeat(begin, counts[first:last]) + np.arange(len(row))]
        x, y = spots[row, 0] - ax[face], spots[row, 1] - ay[face]
        u = (x * f[face, 1] - y * f[face, 0]) / area[face]
        v = (y * e[face, 0] - x * e[face, 1]) / area[face]
        hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (face != own[row]) & np.isfinite(area[face])
        row, face, u, v = row[hit], face[hit], u[hit], v[hit]
        a, b, c = depth[face].T
        ahead = a + u * (b - a) + v * (c - a) - depths[row]
        for k, far in enumerate((ahead, -ahead)):
            met[k, first:last] = np.bincount(row[far > TOUCH] - first, minlength=last - first)
        first = last
    return met


def _fill_cells(
    flat: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Triangles (faces, 3, 2) of the unit square by the cells that their boxes touch.

    Returns their indices cell by cell, where each cell's begin (side^2 + 1,), and the number of
    cells along a side: fewer where large triangles would fill too many.
    """
    side = max(1, int(np.sqrt(len(flat))))
    while True:
        low = np.clip(flat.min(1) * side, 0, side - 1).astype(np.int64)
        high = np.clip(flat.max(1) * side, 0, side - 1).astype(np.int64)
        width, height = (high - low + 1).T
        if side == 1 or (width * height).sum() <= 16 * len(flat):
            break
        side = side // 2
    counts = width * height
    face = np.repeat(np.arange(len(flat)), counts)
    nth = np.arange(len(face)) - np.repeat(np.cumsum(counts) - counts, counts)
    x, y = low[face, 0] + nth // height[face], low[face, 1] + nth % height[face]
    cell = x * side + y
    order = np.argsort(cell, kind="stable")
    start = np.concatenate([[0], np.cumsum(np.bincount(cell, minlength=side * side))])
    return face[order], start, side
