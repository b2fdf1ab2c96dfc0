"""The fit of a single shape: its surface as a file, and a picture of it beside the original."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np

from fieldloom import export
from fieldloom.drawing.fits import draw_grid_fit
from fieldloom.evaluation.meshes import measure_fit
from fieldloom.geometry.mesh import denormalize_mesh
from fieldloom.geometry.preview import preview
from fieldloom.modalities import Voxels
from fieldloom.modalities.sources import Source
from fieldloom.progress import during
from fieldloom.system import System

SIDE = 512
"""Pixels of a picture's side."""


def draw_shape_fit(system: System, source: Source, folder: Path) -> list[str]:
    """Draw the fit of one mesh: ``fitted.glb`` in the mesh's own frame, and ``fitted.png``.

    The picture has the original on the left and the fit on the right. Shapes that are no meshes are
    drawn as grids. Returns lines for the user.
    """
    if len(source.originals) != 1:
        return draw_grid_fit(system, source, folder)
    modality = cast(Voxels, system.modality)
    code = system.family.conditioner.origin(1).detach()
    true = source.originals[0]()
    with during("finding the surface"):
        system.check_memory(1, None)
        datum = modality.sample(system.values_of(code))
        made = modality.mesh(datum)
    span = 1.04 * float(np.linalg.norm(np.ptp(true.vertices, axis=0))) / 2
    pictures = [preview(mesh, SIDE, up=modality.up, span=span) for mesh in (true, made)]
    files = [export.png(np.concatenate(pictures, 1), folder / "fitted.png")]
    frame = source.data.frame
    if made is not None:
        own = made if frame is None else denormalize_mesh(made, frame[0])
        files.insert(0, export.mesh(own.vertices, own.faces, folder / "fitted.glb"))
    size = " x ".join(map(str, datum.shape[1:]))
    named = f"fitted: {', '.join(map(str, files))} (original and fit, {size})"
    if made is None:
        return [named, "the fit has no surface: more steps may give it one."]
    with during("comparing it with the mesh"):
        found = {m.name: m.value for m in measure_fit(system, code, made, true)}
    words = [f"Chamfer distance {100 * found['mesh.chamfer']:.3g} % of its size"]
    if "mesh.iou" in found:
        words.append(f"IoU {found['mesh.iou']:.4f}")
    words.append(f"normal consistency {found['mesh.normals']:.4f}")
    return [named, f"against the mesh: {', '.join(words)}"]
