"""The mesh that several tests share."""

import numpy as np
import pytest

from fieldloom.geometry.mesh import Mesh, as_mesh, normalize_mesh
from shared import shared


@pytest.fixture(scope="module")
def bunny() -> Mesh:
    file = np.load(shared("data", "mesh_bunny.npz"))
    return normalize_mesh(as_mesh(file["verts"], file["faces"], "bunny"), 0.9)[0]
