"""Data of codes, a file each, in the formats that their modality has."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldloom.errors import InputError, unknown

if TYPE_CHECKING:
    from torch import Tensor

    from fieldloom.system import System


def check_format(system: System, kind: str | None, project: int) -> None:
    """Raise InputError for a file format that the run's data do not have."""
    from fieldloom.modalities import Voxels

    formats = [suffix[1:] for suffix in system.modality.formats]
    if kind is not None and kind not in formats:
        raise unknown("--format for this run's data", kind, formats)
    if project and not isinstance(system.modality, Voxels):
        raise InputError("--project moves vertices of meshes: this run has no shapes.")


def write_data(
    system: System,
    codes: Tensor,
    resolution: Any,
    folder: Path,
    kind: str | None,
    project: int,
    frames: Tensor | None = None,
) -> int:
    """The data of codes, a file each; how many could be written. Shapes without one are named."""
    from fieldloom import export
    from fieldloom.modalities import Voxels

    suffix = "" if kind is None else f".{kind}"
    empty = []
    for i in range(len(codes)):
        named = folder / f"{i:04d}{suffix}"
        frame = None if frames is None else frames[i]
        code = codes[i : i + 1]
        if project and isinstance(system.modality, Voxels):
            mesh = system.mesh(code, resolution, project, frame)
            there = mesh is not None
            if mesh is not None:
                path = named if suffix else named.with_suffix(".glb")
                export.mesh(mesh.vertices, mesh.faces, path)
        else:
            own = None if frame is None else frame[None]
            one = replace(system.predict(code, resolution), frame=own)
            there = system.modality.save(one, named) is not None
        if not there:
            empty.append(i)
    if empty:
        named_ones = ", ".join(map(str, empty[:8])) + (" ..." if len(empty) > 8 else "")
        warnings.warn(f"{len(empty)} of {len(codes)} have no surface: {named_ones}.", stacklevel=2)
    return len(codes) - len(empty)
