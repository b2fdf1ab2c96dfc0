"""Mesh files of five formats; files that are no mesh get one sentence."""

import json
import logging

import pytest
import torch

from fieldloom.modalities.sources import meshfiles
from fieldloom.modalities.sources.meshes import read_meshes
from fieldloom.permit import Permit
from fuzz import good
from refusals import READERS, draw, little_memory, refused, write
from solids import box, grid

LARGE, NETWORK = Permit(large=True), Permit(network=True)


# -- voxels, meshes


STL = bytes(80) + (10**9).to_bytes(4, "little") + bytes(100)
PLY = "ply\nformat {}\nelement vertex {}\nproperty float x\nproperty float y\nproperty float z\n"
FACES = "element face {}\nproperty list uchar int vertex_indices\nend_header\n"


def glb(**told) -> bytes:
    text = json.dumps({"asset": {"version": "2.0"}} | told).encode()
    text += b" " * (-len(text) % 4)
    head = (len(text) + 20).to_bytes(4, "little") + len(text).to_bytes(4, "little")
    return b"glTF\x02\0\0\0" + head + b"JSON" + text


ACCESSOR = {"count": 10**12, "type": "VEC3", "componentType": 5126}
SHARED = {"bufferView": 0, "count": 10**6, "type": "MAT4", "componentType": 5126}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.stl", STL, "tells of 1,000,000,000 triangles, and has 184 bytes"),
        ("a.stl", b"solid a\nfacet normal x y z\nvertex 1 2\nvertex b\nendsolid a", "no.* mesh"),
        ("a.stl", b"solid a\nendsolid a\n", "no faces|readable mesh"),
        ("a.ply", (PLY.format("binary_little_endian 1.0", 10**9) + FACES.format(1)).encode(),
         "tells of 1,000,000,001 elements, and has at most 1"),
        ("a.ply", (PLY.format("ascii 1.0", 3) + FACES.format(1) + "0 0 0\n1 0 0\n0 1 0").encode(),
         "tells of 4 elements, and has at most 3"),
        ("a.off", b"OFF\n8 12 0\n0 0 0\n1 0 0\n", "tells of 20 vertices and faces, in 3 lines"),
        ("a.off", b"OFF\n1000000000000 12 0\n", "tells of 1,000,000,000,012"),
        ("a.off", b"OFF\none two\n", "readable mesh"),
        ("a.glb", glb(accessors=[ACCESSOR], bufferViews=[]), "3,000,000,000,000 numbers.*--large"),
        ("a.glb", glb(accessors=[SHARED] * 100), "1,600,000,000 numbers"),
        ("a.glb", glb(accessors=[{"count": -1, "type": "VEC3"}]), "readable mesh"),
        ("a.glb", glb(accessors=3), "readable mesh"),
        ("a.glb", glb(buffers=[{"uri": "../secret.bin", "byteLength": 3}]), "another file"),
        ("a.glb", glb()[:-5], "cut off"),
        ("a.glb", b"glTF\x02\0\0\0" + b"\xff" * 12 + b"[" * 5000, "readable mesh"),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 1000000000\n", "readable mesh"),
        ("a.obj", b"v 0 0 0\nv 1e200 0 0\nv 0 1 0\nf 1 2 3\n", "beyond 1e"),
        ("a.obj", b"v 0 0\nv 1 0\nf 1 2 3\n", "no faces|readable mesh|three columns"),
    ],
)  # fmt: skip
def test_mesh_files_that_are_none(name, content, words, tmp_path, caplog, capfd):
    path = str(write(tmp_path / name, content))
    with little_memory(3e7), caplog.at_level(logging.DEBUG):
        refused(words, READERS["meshes"], path)
    assert not [record for record in caplog.records if record.name.startswith("trimesh")]
    assert "Traceback" not in capfd.readouterr().err
    assert logging.getLogger("trimesh").level == logging.NOTSET


def test_parts_that_stand_in_many_places_are_counted(tmp_path, monkeypatch):
    trimesh = pytest.importorskip("trimesh")
    scene, ball = trimesh.Scene(), trimesh.creation.icosphere()
    for i in range(5):
        moved = trimesh.transformations.translation_matrix([2 * i, 0, 0])
        scene.add_geometry(ball, geom_name="ball", node_name=f"{i}", transform=moved)
    path = str(write(tmp_path / "a.glb", scene.export(file_type="glb")))
    monkeypatch.setattr(meshfiles, "TRIANGLES", 50)
    refused("tells of 6,400 triangles, and more than", READERS["meshes"], path)
    assert READERS["meshes"](path, permit=LARGE).data.tensor.any()


def test_meshes_open_no_file_beside_them(tmp_path, monkeypatch):
    """Materials and textures that they name lie anywhere."""
    trimesh = pytest.importorskip("trimesh")
    write(tmp_path / "beside.mtl", b"newmtl a\nmap_Kd beside.png\n")
    write(tmp_path / "beside.png", good.picture(draw(), "png"))
    box, data, asked = trimesh.creation.box(), [], []
    resolve = lambda self, name: asked.append(name) or (tmp_path / name).read_bytes()
    monkeypatch.setattr(trimesh.resolvers.FilePathResolver, "get", resolve)
    obj = box.export(file_type="obj").encode()
    ply = box.export(file_type="ply", encoding="ascii")
    for name, content in (
        ("a.obj", b"mtllib beside.mtl\nusemtl a\n" + obj),
        ("a.ply", ply.replace(b"\ncomment", b"\ncomment TextureFile beside.png\ncomment", 1)),
    ):
        assert b"beside" in content
        path = write(tmp_path / name, content)
        data.append(READERS["meshes"](str(path)).data.tensor)
        assert not asked
        trimesh.load(path)
        assert asked  # what trimesh itself would do
        asked.clear()
    assert torch.equal(*data)


@pytest.mark.parametrize("suffix", ["obj", "ply", "stl", "off", "glb"])
def test_mesh_files_of_every_format(tmp_path, suffix):
    trimesh = pytest.importorskip("trimesh")
    mesh = box((2.0, 1.0, 0.5), at=(10.0, 20.0, -5.0))
    trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).export(tmp_path / f"box.{suffix}")
    source = read_meshes(grid(), str(tmp_path / f"box.{suffix}"), extent=0.8)
    assert source.data.tensor.dtype == torch.uint8
    assert (len(source.train), len(source.test)) == (1, 0)
    inside = (grid().grid()[0].abs() < torch.tensor([0.8, 0.4, 0.2])).all(1)
    assert torch.equal(source.data.tensor.flatten() == 255, inside)
    frame = source.data.frame
    assert frame.dtype == torch.float64
    torch.testing.assert_close(frame[0], torch.tensor([10, 20, -5, 2.5], dtype=torch.float64))


def test_the_parts_of_a_scene_are_one_mesh(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    scene = trimesh.Scene()
    cube = trimesh.Trimesh(box().vertices, box().faces)
    scene.add_geometry(cube, transform=trimesh.transformations.translation_matrix([-1.5, 0, 0]))
    scene.add_geometry(cube, transform=trimesh.transformations.translation_matrix([1.5, 0, 0]))
    scene.export(tmp_path / "two.glb")
    data = read_meshes(grid(16), str(tmp_path / "two.glb"), extent=1.0).data.tensor[0, 0]
    across = (data[:, 8, 8] > 0).tolist()  # 4 long: two of 1 with a gap of 2
    assert across == [True] * 4 + [False] * 8 + [True] * 4
