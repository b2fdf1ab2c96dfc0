"""A mesh becomes a field, and a mesh again, in its original position.

    python examples/mesh_to_field_and_back.py [MESH] --steps 400 --out outputs/mesh_to_field

The field learns a clipped signed distance at scattered points, half of them near the surface.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from trimesh import load_mesh
from trimesh.creation import torus

from fieldloom import Family, export
from fieldloom.conditioners import Shared
from fieldloom.fields import Siren
from fieldloom.geometry.inside import distance
from fieldloom.geometry.isosurface import project_to_level
from fieldloom.geometry.mesh import as_mesh, denormalize_mesh, sample_surface, volume
from fieldloom.metrics.losses import mse
from fieldloom.modalities import Points
from fieldloom.modalities.sources import SOURCES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mesh", nargs="?", help="OBJ, PLY, STL, OFF or GLB; default: a torus")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("outputs/mesh_to_field"))
    arguments = parser.parse_args()
    torch.manual_seed(0)
    if arguments.mesh is None:
        ring = torus(major_radius=2.0, minor_radius=0.7).apply_translation([5.0, 0.0, 0.0])
        arguments.mesh = export.mesh(ring.vertices, ring.faces, arguments.out / "original.ply")

    shape = Points(size=arguments.resolution)
    source = SOURCES["meshes"](shape, str(arguments.mesh), target="distance", samples=20_000)
    data = source.read(source.train)
    siren = Siren(coord_dim=3, value_dim=1, width=64, depth=5, frequency=15.0)
    family = Family(siren, Shared(siren.slots))
    code = family.conditioner.origin(1)

    adam = torch.optim.Adam(family.parameters(), 1e-3)
    for step in range(arguments.steps):
        signal = shape.observe(data, points=4000).target
        loss = mse(family(signal.coords, code), signal.values).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        if step % 50 == 0:
            print(f"step {step}: loss {loss.item():.5f}")

    with torch.no_grad():
        grid = shape.assemble(family(shape.grid(), code)).tensor
    unit = shape.mesh(grid[0])
    if unit is None:
        raise SystemExit("the field has no surface yet: more --steps")
    unit = project_to_level(
        unit, lambda x: (family(x, code) + 1) / 2, level=0.5, steps=3, max_step=0.05
    )
    back = denormalize_mesh(unit, data.frame[0])
    export.mesh(back.vertices, back.faces, arguments.out / "back.glb")
    export.png(shape.to_image(grid[0], 256), arguments.out / "back.png")

    loaded = load_mesh(arguments.mesh)
    true = as_mesh(loaded.vertices, loaded.faces, str(arguments.mesh))
    points, _ = sample_surface(back, 5000)
    apart = distance(true, points).mean() / data.frame[0, 3]
    print(f"volume {volume(true):.4g} -> {volume(back):.4g}")
    print(f"mean distance to the original: {apart:.4f} of half its longest side")
    print(f"mesh and image: {arguments.out}")


if __name__ == "__main__":
    main()
