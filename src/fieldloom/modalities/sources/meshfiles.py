"""Mesh files of five formats, read by trimesh after their sizes and references are checked.

Packed files hold many meshes.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, NonNegativeInt

from fieldloom.errors import InputError, quote, quote_path, shorten
from fieldloom.geometry.mesh import Mesh, as_mesh
from fieldloom.modalities.sources.files import (
    Refused,
    check_size,
    load_array,
    read_labels,
    read_npz,
    read_offsets,
)

TRIANGLES = 1 << 24
"""The largest mesh in triangles, with repeated parts, unless its file is larger."""
NUMBERS = 1 << 26
"""The most numbers in all arrays of a GLB file, which may overlap, unless it is larger."""


class FoundMesh(NamedTuple):
    """A mesh, and what was left out of it: faces without area; points, lines and cameras."""

    mesh: Mesh
    flat: int = 0
    others: int = 0


Load = Callable[[], FoundMesh]
"""Reads one mesh. Raises InputError where it cannot."""


def check_mesh(vertices: ArrayLike, faces: ArrayLike, name: str, others: int = 0) -> FoundMesh:
    """The mesh of these arrays (see ``as_mesh``), and how many faces have no area."""
    mesh = as_mesh(vertices, faces, name)
    return FoundMesh(mesh, len(np.asarray(faces)) - len(mesh.faces), others)


def read_mesh(file: Path, large: bool = False) -> FoundMesh:
    """A mesh file; the parts of a scene become one mesh, in float64, with its axes as stored.

    Polygons are cut into triangles. No other file is opened: materials and textures are ignored,
    and a shape's data in other files are missing. Raises InputError where it cannot be read, or has
    no surface.
    """
    name = quote_path(file)
    try:
        import trimesh
    except ImportError:
        raise InputError("reading mesh files needs trimesh: pip install trimesh.") from None
    try:
        content, kind = file.read_bytes(), file.suffix.lower()[1:]
        if kind in CHECKS:
            CHECKS[kind](name, content, large)
        others = _count_others(kind, content)
        if kind == "obj":
            content = _count_from_first(content)
        # Without processing, so that the checks here apply to the vertices of the file.
        with _silent("trimesh"):
            scene = trimesh.load_scene(
                io.BytesIO(content), file_type=kind, process=False, skip_materials=True
            )
            placed = [scene.geometry[scene.graph[node][1]] for node in scene.graph.nodes_geometry]
            others += sum(not hasattr(part, "faces") for part in placed)
            count = sum(len(getattr(part, "faces", ())) for part in placed)
            most = max(TRIANGLES, len(content) // 6)  # three indices of 16 bits each, at least
            check_size(name, count, "triangles", most, large)
            whole = scene.to_mesh()
        vertices, faces = np.asarray(whole.vertices), np.asarray(whole.faces)
    except (Refused, MemoryError, ImportError):
        raise  # not faults of the file's content
    except Exception as error:  # parsers of five formats fail in any way on a broken file
        raise InputError(f"{name} is not a readable mesh: {shorten(str(error))}.") from None
    return check_mesh(vertices, faces, name, others)


def read_packed_meshes(
    packed: Path, large: bool = False
) -> tuple[list[tuple[str, Load]], list[Any] | None]:
    """The names of the meshes of an ``.npz``, each still to be checked, and their classes, if any.

    ``read_meshes`` describes its arrays.
    """
    file, path = read_npz(packed), quote_path(packed)
    vertices = load_array(file, "verts", axes=(2,), large=large)
    faces = load_array(file, "faces", "integers", axes=(2,), large=large)
    ends_v, ends_f = [0, len(vertices)], [0, len(faces)]
    if "vert_offsets" in file:
        ends_v = read_offsets(file, "vert_offsets", len(vertices), "vertices")
        ends_f = read_offsets(file, "face_offsets", len(faces), "faces")
    if len(ends_v) != len(ends_f) or len(ends_v) < 2:
        raise InputError(
            f"{path} has {len(ends_v)} vert_offsets and {len(ends_f)} face_offsets: "
            "both are one more than its meshes."
        )
    items: list[tuple[str, Load]] = []
    for i in range(len(ends_v) - 1):
        name = f"mesh {i} of {path}"
        part = vertices[ends_v[i] : ends_v[i + 1]], faces[ends_f[i] : ends_f[i + 1]]
        items.append((name, partial(check_mesh, *part, name)))
    labels = None
    if "category" in file:
        labels = read_labels(file, "category", len(ends_v) - 1, "meshes")
    return items, labels


def _count_others(kind: str, content: bytes) -> int:
    """Points and lines of an OBJ or PLY file, cameras of a GLB file."""
    if kind == "obj":
        return len(re.findall(rb"^[ \t]*[lp][ \t]", content, re.MULTILINE))
    if kind == "ply":
        head = content.partition(b"end_header")[0]
        edges = re.search(rb"^element\s+edge\s+(\d{1,18})", head, re.MULTILINE)
        return int(edges[1]) if edges else 0
    return len(_glb_header(content).cameras) if kind == "glb" else 0


def _count_from_first(content: bytes) -> bytes:
    """An OBJ file whose faces count vertices from the first one of the file, which is 1.

    Negative indices count back from the line that they stand in, -1 is the last vertex before it.
    Where some corners of a face have normals or textures, and others none, no corner has any.
    """
    backward = rb"^[ \t]*f\b.*[ \t/](?:-|0+(?:[\s/]|$))"
    mixed = rb"^[ \t]*f\b(?=.*\d/)(?:.*[ \t]\d+(?:\s|$)|(?=.*//).*\d/\d)"
    if not any(re.search(pattern, content, re.MULTILINE) for pattern in (backward, mixed)):
        return content
    seen, lines = {b"v": 0, b"vt": 0, b"vn": 0}, content.replace(b"\\\n", b"").splitlines()
    for number, line in enumerate(lines):
        kind, *words = line.partition(b"#")[0].split() or [b""]
        if kind in seen:
            seen[kind] += 1
        elif kind == b"f":
            if len({re.sub(rb"[^/]+", b"1", word) for word in words}) > 1:
                words = [word.partition(b"/")[0] for word in words]
            corners = [
                b"/".join(
                    _count_forward(index, count)
                    for index, count in zip(word.split(b"/"), seen.values(), strict=False)
                )
                for word in words
            ]
            lines[number] = b" ".join([b"f", *corners])
    return b"\n".join(lines) + b"\n"


def _count_forward(index: bytes, count: int) -> bytes:
    """An index of one of the ``count`` lines so far, from 1 on. Raises ValueError for others."""
    if not index or (index.isdigit() and int(index)):
        return index
    if not 1 <= -int(index) <= count:
        raise ValueError(f"a face names the vertex {int(index)}, where the first is 1, the last -1")
    return str(count + 1 + int(index)).encode()


_guard = Lock()


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """A context in which this logger is silent: errors become one sentence instead."""
    logger = logging.getLogger(name)
    with _guard:  # the level is the process's own
        level = logger.level
        logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            logger.setLevel(level)


def _check_stl(name: str, content: bytes, large: bool) -> None:
    """The number of triangles in a binary STL file's header must be that of its bytes."""
    count = int.from_bytes(content[80:84], "little")
    if len(content) != 84 + 50 * count and b"\0" in content[:1024]:  # no text
        raise ValueError(f"it tells of {count:,} triangles, and has {len(content):,} bytes")


def _check_ply(name: str, content: bytes, large: bool) -> None:
    """Each element takes a line of a text, or at least a byte."""
    head, _, body = content.partition(b"end_header")
    count = sum(int(n) for n in re.findall(rb"^element\s+\S+\s+(\d{1,18})\s*$", head, re.MULTILINE))
    text = re.search(rb"^format\s+ascii", head, re.MULTILINE)
    most = max(body.count(b"\n"), body.count(b"\r")) if text else len(body)
    if count > most:
        raise ValueError(f"it tells of {count:,} elements, and has at most {most:,}")


def _check_off(name: str, content: bytes, large: bool) -> None:
    """Each vertex and face takes a line."""
    rest = content.partition(b"OFF")[2].splitlines()
    lines = [line for line in rest if line.partition(b"#")[0].strip()]
    count = sum(int(n) for n in b"".join(lines[:1]).split()[:2])
    if count > len(lines) - 1:
        raise ValueError(f"it tells of {count:,} vertices and faces, in {len(lines)} lines")


class Accessor(BaseModel):
    """An array in a GLB file."""

    count: NonNegativeInt
    type: str


class Buffer(BaseModel):
    """The bytes of a GLB file's arrays: in the file itself, unless there is a ``uri``."""

    uri: str | None = None


class Glb(BaseModel):
    """The part of a GLB file's JSON that is checked before trimesh reads it.

    Source: Khronos, glTF 2.0 (ISO/IEC 12113), sections 4 and 5.
    """

    accessors: list[Accessor] = []
    buffers: list[Buffer] = []
    cameras: list[Any] = []
    extensionsRequired: list[str] = []


def _glb_header(content: bytes) -> Glb:
    length = int.from_bytes(content[12:16], "little")
    if content[:4] != b"glTF" or len(content) < 20 + length:
        raise ValueError("its header is no GLB file's, or it is cut off")
    return Glb.model_validate_json(content[20 : 20 + length])


def _check_glb(name: str, content: bytes, large: bool) -> None:
    """Raise an error for arrays in other files or compressed, and for too many numbers."""
    header = _glb_header(content)
    for extension in header.extensionsRequired:
        if "compression" in extension:
            raise ValueError(f"its arrays need {quote(extension)}: write it without compression")
    for buffer in header.buffers:
        if buffer.uri is not None and not buffer.uri.startswith("data:"):
            raise ValueError(f"its arrays lie in another file, {quote(buffer.uri)}")
    columns = {"SCALAR": 1, "VEC2": 2, "VEC3": 3}
    count = sum(one.count * columns.get(one.type, 16) for one in header.accessors)
    check_size(name, count, "numbers", max(NUMBERS, len(content)), large)


CHECKS: dict[str, Callable[[str, bytes, bool], Any]] = {
    "stl": _check_stl,
    "ply": _check_ply,
    "off": _check_off,
    "glb": _check_glb,
}
"""Format -> the check of a file's header, before trimesh allocates what it claims."""
