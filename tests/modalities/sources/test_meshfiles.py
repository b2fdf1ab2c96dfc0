"""Mesh files of five formats; files that are no mesh get one sentence."""

import json
import logging

import numpy as np
import pytest
import torch

from fieldloom import export
from fieldloom.errors import InputError
from fieldloom.geometry.mesh import area, triangles, volume
from fieldloom.modalities import Voxels
from fieldloom.modalities.sources import meshfiles
from fieldloom.modalities.sources.meshes import read_meshes
from fieldloom.permit import Permit
from fuzz import good
from refusals import READERS, draw, little_memory, refused, write
from solids import ball, box, grid

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
        ("a.glb", glb(accessors=[ACCESSOR], bufferViews=[]), "3,000,000,000,000 numbers.*large="),
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


QUAD = b"v 0 0 0\nv 2 0 0\nv 2 1 0\nv 0 1 0\nv 5 5 5\n"


@pytest.mark.parametrize(
    ("faces", "corners", "others"),
    [
        (b"f 1 2 3 4\n", 6, 0),
        (b"vn 0 0 1\nf 1//1 2//1 3//1 4//1\nl 1 2\np 3 4\n", 6, 2),
        (b"f -5 -4 -3 -2\nv 9 9 9\nv 9 9 9\nf -7 -6 -5\n", 9, 0),
        (b"vt 0 0\nvt 1 0\nf -5/-2 -4/-1 \\\n-3/-1\nv 7 7 7\nvt 0 1\nf -6 -4 -3\n", 6, 0),
        (b"vn 0 0 1\nvt 0 0\nf 1/1/1 2/1 3//1 4\n", 6, 0),
        (b"o one\nf 1 2 3\ng two\nf 1 3 4\nl 1 2 3\n", 6, 1),
        (b"f 1 2 3\nf 1 3 4\nf 1 1 2\nf 1 2 2 1\n", 6, 0),
    ],
)
def test_faces_of_obj_files(faces, corners, others, tmp_path):
    """Polygons, vertices counted back, objects, lines, points, flat faces: a rectangle."""
    found = meshfiles.read_mesh(write(tmp_path / "a.obj", QUAD + faces))
    assert (found.mesh.faces.size, found.others) == (corners, others)
    assert found.mesh.vertices.min(0).tolist() == [0, 0, 0]
    if others or (corners == 6 and b"-5" not in faces):
        assert found.mesh.vertices.max(0).tolist() == [2, 1, 0]
        assert area(found.mesh) == 2
    assert found.flat == (3 if b"1 1 2" in faces else 0)


@pytest.mark.parametrize("index", [b"0", b"-6", b"-9/1"])
def test_vertices_that_an_obj_file_does_not_have(index, tmp_path):
    path = write(tmp_path / "a.obj", QUAD + b"f 1 2 " + index + b"\n")
    refused("names the vertex (0|-6|-9), where the first is 1", meshfiles.read_mesh, path)


def test_clouds_and_compressed_files_are_said_to_be_so(tmp_path):
    cloud = (PLY.format("ascii 1.0", 2) + "end_header\n0 0 0\n1 0 0\n").encode()
    refused("has no faces", READERS["meshes"], str(write(tmp_path / "a.ply", cloud)))
    packed = glb(extensionsRequired=["KHR_draco_mesh_compression"])
    refused("without compression", READERS["meshes"], str(write(tmp_path / "a.glb", packed)))


def test_what_a_file_holds_beside_its_surface_is_said(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    cube, folder = box(), tmp_path / "meshes"
    folder.mkdir()
    lines = [*(f"v {x} {y} {z}" for x, y, z in cube.vertices), "l 1 2", "f 1 1 2"]
    lines += [f"f {a} {b} {c}" for a, b, c in cube.faces + 1]
    write(folder / "a.obj", "\n".join(lines).encode())
    ply = PLY.format("ascii 1.0", 8) + FACES.format(12).replace(
        "end_header", "element edge 1\nproperty int vertex1\nproperty int vertex2\nend_header"
    )
    rows = [*(f"{x} {y} {z}" for x, y, z in cube.vertices)]
    rows += [*(f"3 {a} {b} {c}" for a, b, c in cube.faces), "0 1", ""]
    write(folder / "b.ply", (ply + "\n".join(rows)).encode())
    scene = trimesh.Scene(
        [trimesh.Trimesh(cube.vertices, cube.faces), trimesh.PointCloud(np.eye(3))]
    )
    write(folder / "c.glb", scene.export(file_type="glb"))
    for _ in range(2):  # from the files, and from the cache
        source = read_meshes(grid(), str(folder), split=(3, 0))
        assert source.summary.describe() == (
            "3 meshes, 8 x 8 x 8, closed, 1 with faces without area (a.obj), with points, "
            "lines, cameras or further scenes left out"
        )
        assert (source.data.frame[:, 3] == 0.5 / 0.9).all()


@pytest.mark.parametrize("corners", [5, 6, 9])
def test_polygons_of_off_files(corners, tmp_path):
    """A prism's ends have more corners than a quad's four; its area is known."""
    angle = 2 * np.pi * np.arange(corners) / corners
    rows = [
        f"{x} {y} {z}" for z in (0, 1) for x, y in zip(np.cos(angle), np.sin(angle), strict=True)
    ]
    ends = [range(corners)[::-1], range(corners, 2 * corners)]
    sides = [(i, (i + 1) % corners) for i in range(corners)]
    faces = [*ends, *((a, b, b + corners, a + corners) for a, b in sides)]
    rows += [" ".join(map(str, (len(face), *face))) for face in faces]
    text = f"OFF # a prism\n{2 * corners} {len(faces)} 0\n\n" + "\n".join(rows) + "\n"
    mesh = meshfiles.read_mesh(write(tmp_path / "a.off", text.encode())).mesh
    side = 2 * np.sin(np.pi / corners)
    expected = corners * np.sin(2 * np.pi / corners) + corners * side
    assert area(mesh) == pytest.approx(expected)
    assert volume(mesh) == pytest.approx(corners * np.sin(2 * np.pi / corners) / 2)


def test_scenes_of_glb_files(tmp_path):
    """The default one is read, and that there are others is said; without any nothing is placed."""
    trimesh = pytest.importorskip("trimesh")
    scene, there = trimesh.Scene(), np.diag([2.0, 2, 2, 1])
    there[:3, 3] = 5, 0, 0
    scene.add_geometry(trimesh.creation.box((1, 1, 1)), node_name="a", geom_name="box")
    scene.graph.update("b", "world", matrix=there, geometry="box")
    content = scene.export(file_type="glb")
    length = int.from_bytes(content[12:16], "little")
    told = json.loads(content[20 : 20 + length])
    rest = content[20 + length :]

    def placed(**change):
        head = glb(**(told | change))
        size = (len(head) + len(rest)).to_bytes(4, "little")
        return write(tmp_path / "a.glb", head[:8] + size + head[12:] + rest)

    names = [node["name"] for node in told["nodes"]]
    scenes = [{"nodes": [names.index(name)]} for name in "ab"]
    for number, ends in enumerate(([-0.5, 0.5], [4, 6])):
        found = meshfiles.read_mesh(placed(scenes=scenes, scene=number))
        assert np.ptp(found.mesh.vertices[:, 0]) == pytest.approx(ends[1] - ends[0])
        assert found.mesh.vertices[:, 0].min() == pytest.approx(ends[0])
        assert found.others == 1
    with pytest.raises(InputError, match="it has no scene"):
        meshfiles.read_mesh(placed(scenes=[]))


@pytest.mark.parametrize("suffix", export.MESHES)
@pytest.mark.parametrize("place", [(0.0, 0.0, 0.0), (5e5 + 1 / 3, 4e6 + 1 / 7, 100.0)])
def test_meshes_far_from_the_origin_come_back(suffix, place, tmp_path):
    """To a millionth of their size, through the file, its frame, and the file of a level set."""
    unit = ball(24, 1.0)
    path = export.mesh(unit.vertices + np.array(place), unit.faces, tmp_path / f"a{suffix}")
    read = meshfiles.read_mesh(path).mesh
    np.testing.assert_allclose(
        triangles(read), triangles(unit) + np.array(place), atol=1e-6, rtol=0
    )
    data = read_meshes(grid(), str(path)).data
    expected = torch.tensor([*place, 1 / 0.9], dtype=torch.float64)
    torch.testing.assert_close(data.frame[0], expected, atol=1e-6, rtol=0)
    far = Voxels(8).save(data.as_float(), tmp_path / f"far{suffix}")
    here = Voxels(8).mesh(data.as_float().tensor[0])
    moved = here.vertices / 0.9 + np.array(place)
    np.testing.assert_allclose(
        triangles(meshfiles.read_mesh(far).mesh), moved[here.faces], atol=2e-6, rtol=0
    )


def test_nodes_of_glb_files_are_placed_in_double_precision(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    scene = trimesh.Scene()
    turned = trimesh.transformations.rotation_matrix(0.3, [1, 2, 3])
    turned[:3, 3] = 5e5 + 1 / 3, 4e6, 100
    cube = trimesh.Trimesh(box().vertices, box().faces, process=False)
    scene.add_geometry(cube, transform=turned)
    path = write(tmp_path / "a.glb", scene.export(file_type="glb"))
    expected = box().vertices @ turned[:3, :3].T + turned[:3, 3]
    np.testing.assert_allclose(
        triangles(meshfiles.read_mesh(path).mesh), expected[box().faces], atol=1e-8, rtol=0
    )
