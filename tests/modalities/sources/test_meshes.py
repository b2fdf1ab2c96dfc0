"""Own meshes as data: targets at a grid, scattered samples, points of the surface."""

import numpy as np
import pytest
import torch

from fieldloom import export
from fieldloom.errors import InputError
from fieldloom.geometry.inside import signed_distance, winding_number
from fieldloom.geometry.mesh import Mesh, as_mesh, denormalize_mesh, normalize_mesh
from fieldloom.modalities import Points
from fieldloom.modalities.grid import Placement
from fieldloom.modalities.sources.meshes import read_meshes
from fieldloom.modalities.sources.source import choose
from fuzz import good
from refusals import READERS, npz, refused
from shared import shared
from solids import ball, box, flip, grid, join, loosen, move, sheet

MESHES = good.packed_meshes()


# -- voxels, meshes


@pytest.mark.parametrize(
    ("vertices", "faces", "words"),
    [
        (np.float64(0), np.int64(0), "has vertices"),
        (np.zeros((3, 3)), np.int64(3), "has vertices"),
        ([[0, 0, 0], [1, 1]], [[0, 1, 2]], "rows of different lengths"),
        ([["a", "b", "c"]], [[0, 0, 0]], "vertices are numbers"),
        ([[None] * 3], [[0, 0, 0]], "vertices are numbers"),
        (np.full((3, 3), 1e200), [[0, 1, 2]], "beyond"),
        (np.eye(3), np.array([[0, 1, 2**64 - 1]], np.uint64), "faces with corners"),
    ],
)
def test_arrays_that_are_no_mesh(vertices, faces, words):
    refused(words, as_mesh, vertices, faces, "it")


@pytest.mark.parametrize(
    ("name", "value"),
    [("samples", 10**12), ("surface", 2**40), ("seed", -1), ("spread", np.inf), ("extent", np.nan),
     ("truncation", np.inf), ("samples", 10**400)],
)  # fmt: skip
def test_numbers_of_samples_that_are_none(name, value, tmp_path):
    path = npz(tmp_path / "a.npz", **MESHES)
    refused(f"source.{name} = .* is not right", READERS["meshes"], path, **{name: value})


def write_obj(path, mesh):
    lines = [f"v {x} {y} {z}" for x, y, z in mesh.vertices]
    lines += [f"f {a} {b} {c}" for a, b, c in mesh.faces + 1]
    path.write_text("\n".join(lines))


@pytest.fixture
def folder(tmp_path):
    pytest.importorskip("trimesh")
    for name, half in (("flat", (1.0, 1.0, 0.3)), ("long", (1.0, 0.2, 0.2))):
        (tmp_path / name).mkdir()
        for i in range(6):
            write_obj(tmp_path / name / f"{i}.obj", box(half, at=(float(i), 0.0, 0.0)))
    return tmp_path


def test_a_folder_of_meshes(folder):
    source = read_meshes(grid(), str(folder), split=(10, 2), shuffle=False)
    assert source.data.shape == (12, 1, 8, 8, 8)
    assert source.names == ("flat", "long")
    assert source.labels.tolist() == [0] * 6 + [1] * 6
    assert source.data.frame[:6, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert torch.equal(source.data.tensor[0], source.data.tensor[5])  # centred: the same box
    assert not torch.equal(source.data.tensor[0], source.data.tensor[6])
    assert len(read_meshes(grid(), str(folder), limit=3).data) == 3


def test_unreadable_meshes_are_named_and_skipped(folder):
    write_obj(folder / "flat" / "flat.obj", box((1.0, 1.0, 0.0)))  # a box without height: no harm
    (folder / "long" / "nan.obj").write_text("v 0 0 0\nv nan 0 0\nv 0 1 0\nf 1 2 3\n")
    with pytest.warns(UserWarning, match="skipped 1 unreadable meshes: .*nan.obj"):
        source = read_meshes(grid(4), str(folder))
    assert len(source.data) == 13
    assert source.labels.tolist() == [0] * 7 + [1] * 6
    (folder / "long" / "none.obj").write_text("nothing")
    with pytest.raises(InputError, match=r"2 of 15 meshes cannot be read: .*nan.obj', .*none.obj'"):
        read_meshes(grid(4), str(folder))


def test_one_broken_mesh_is_said_to_be_broken(tmp_path):
    pytest.importorskip("trimesh")
    write_obj(
        tmp_path / "line.obj", Mesh(np.outer(np.arange(3.0), [1, 2, 3]), np.array([[0, 1, 2]]))
    )
    (tmp_path / "points.obj").write_text("v 0 0 0\nv 1 0 0\n")
    (tmp_path / "empty.stl").write_bytes(b"")
    (tmp_path / "broken.glb").write_bytes(b"glTF nothing at all")
    (tmp_path / "broken.ply").write_bytes(b"ply\nformat ascii 1.0\nelement vertex 3\nend_header\n")
    for name, fault in [
        ("line.obj", "has no area"),
        ("points.obj", "no faces|not a readable mesh"),
        ("empty.stl", "no faces|not a readable mesh"),
        ("broken.glb", "not a readable mesh"),
        ("broken.ply", "no faces|not a readable mesh"),
    ]:
        with pytest.raises(InputError, match=f"{name}' .*({fault})"):
            read_meshes(grid(), str(tmp_path / name))
    with pytest.raises(InputError, match="does not exist"):
        read_meshes(grid(), str(tmp_path / "nowhere"))
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(InputError, match=r"holds no .*\.obj"):
        read_meshes(grid(), str(tmp_path / "a.txt"))


def packed(path, **more):
    parts = [box((1.0, 0.5, 0.25)), box((0.2, 0.2, 1.0), at=(3.0, 0.0, 0.0)), box()]
    np.savez(
        path,
        verts=np.concatenate([p.vertices for p in parts]).astype(np.float32),
        faces=np.concatenate([p.faces for p in parts]).astype(np.int32),
        vert_offsets=np.arange(4) * 8,
        face_offsets=np.arange(4) * 12,
        **more,
    )


def test_packed_meshes(tmp_path):
    packed(tmp_path / "p.npz", category=np.array(["b", "a", "b"]))
    source = read_meshes(grid(), str(tmp_path / "p.npz"), extent=1.0, split=(2, 1), shuffle=False)
    assert source.names == ("a", "b")
    assert source.labels.tolist() == [1, 0, 1]
    assert (source.data.tensor[2] == 255).all()  # a cube that fills the cube
    assert source.data.tensor.float().mean((1, 2, 3, 4))[0].item() == 255 / 8
    packed(tmp_path / "wrong.npz", category=np.array(["b", "a"]))
    with pytest.raises(InputError, match="has 2 'category' for 3 meshes"):
        read_meshes(grid(), str(tmp_path / "wrong.npz"))
    np.savez(tmp_path / "no.npz", verts=np.zeros((3, 3)))
    with pytest.raises(InputError, match="has no array 'faces'"):
        read_meshes(grid(), str(tmp_path / "no.npz"))


@pytest.mark.slow
def test_targets_at_the_grid_are_what_they_say():
    path = shared("data", "mesh_bunny.npz")
    file = np.load(path)
    mesh, _ = normalize_mesh(as_mesh(file["verts"], file["faces"], "bunny"), 0.9)
    places = grid(12).grid()[0].double()
    inside = read_meshes(grid(12), str(path)).data.tensor
    assert torch.equal(inside.flatten() == 255, winding_number(mesh, places) > 0.5)
    far = read_meshes(grid(12), str(path), target="distance", truncation=0.2)
    expected = (0.5 - signed_distance(mesh, places) / 0.4).clamp(0, 1).float()
    assert far.data.tensor.dtype == torch.float32
    torch.testing.assert_close(far.data.tensor.flatten(), expected)
    assert torch.equal(far.data.tensor > 0.5, inside == 255)
    back = denormalize_mesh(mesh, far.data.frame[0])
    assert np.abs(back.vertices.min(0) - file["verts"].min(0)).max() < 1e-3


def test_scattered_samples(tmp_path):
    packed(tmp_path / "p.npz")
    ask = dict(
        samples=400, near_surface=0.25, spread=0.05, target="distance", split=(3, 0), shuffle=False
    )
    source = read_meshes(grid(), str(tmp_path / "p.npz"), **ask)
    coords = source.data.coords
    assert source.data.shape == (3, 400, 1)
    assert (coords.shape, coords.dtype) == ((3, 400, 3), torch.float32)
    assert coords.abs().max() <= 1
    # Of the third, a cube of 0.9: the closed form of its distance.
    offset = coords[2].double().abs() - 0.9
    true = offset.clamp(min=0).norm(dim=1) + offset.amax(1).clamp(max=0)
    expected = (0.5 - true / 0.2).clamp(0, 1).float()
    torch.testing.assert_close(source.data.tensor[2, :, 0], expected, atol=1e-6, rtol=0)
    assert true[:100].abs().max() < 0.05 * 6
    assert 0.02 < true[:100].square().mean().sqrt() < 0.06  # the Gaussian, across the surface
    assert true[100:].abs().max() > 0.5
    assert not torch.equal(coords[0, 100:], coords[1, 100:])
    again = read_meshes(grid(), str(tmp_path / "p.npz"), **ask)
    assert source.facts()["fingerprint"] == again.facts()["fingerprint"]
    fewer = read_meshes(grid(), str(tmp_path / "p.npz"), limit=2, **{**ask, "split": (2, 0)})
    assert torch.equal(fewer.data.coords, coords[:2])
    other = read_meshes(grid(), str(tmp_path / "p.npz"), seed=1, **ask)
    assert not torch.equal(other.data.coords, coords)
    inside = read_meshes(grid(), str(tmp_path / "p.npz"), **{**ask, "target": "occupancy"})
    assert torch.equal(inside.data.tensor == 255, source.data.tensor > 0.5)


def test_points_of_the_surface_stand_beside_samples(tmp_path):
    packed(tmp_path / "p.npz")
    ask = dict(samples=50, split=(3, 0), shuffle=False)
    source = read_meshes(grid(), str(tmp_path / "p.npz"), surface=300, **ask)
    on = source.data.surface
    assert (on.shape, on.dtype) == ((3, 300, 3), torch.float32)
    offset = on[2].double().abs() - 0.9  # the third is a cube of 0.9
    assert (offset.amax(1).abs() < 1e-6).all()
    assert 30 < (on[2, :, 0] > 0.9 - 1e-6).sum() < 70  # a sixth of them on each side
    assert torch.equal(
        read_meshes(grid(), str(tmp_path / "p.npz"), **ask).data.tensor, source.data.tensor
    )


def test_shapes_are_grown_and_centred_as_asked(tmp_path):
    packed(tmp_path / "p.npz")
    ask = dict(samples=2000, spread=0.1, split=(3, 0), shuffle=False)
    read = lambda **more: read_meshes(grid(), str(tmp_path / "p.npz"), **ask, **more)
    source = read(dilation=0.05)
    offset = source.data.coords[2].double().abs() - 0.9  # of the third, a cube of 0.9
    far = offset.clamp(min=0).norm(dim=1) + offset.amax(1).clamp(max=0)
    sure = (far - 0.05).abs() > 1e-6
    assert torch.equal(source.data.tensor[2, sure, 0] == 255, (far < 0.05)[sure])
    assert (source.data.tensor[2] > read().data.tensor[2]).any()
    moved = read(dilation=0.05, target="distance").data.tensor[2, :, 0]
    expected = (0.5 - (far - 0.05) / 0.2).clamp(0, 1).float()
    torch.testing.assert_close(moved, expected, atol=1e-6, rtol=0)
    lopsided = Mesh(np.array([[0.0, 0, 0], [4, 0, 0], [0, 1, 0], [0, 0, 1]]), box().faces[:0])
    middle, frame = normalize_mesh(lopsided, 0.9, "vertices")
    np.testing.assert_allclose(frame[:3], [1, 0.25, 0.25])
    np.testing.assert_allclose(middle.vertices.mean(0), 0, atol=1e-12)
    assert np.abs(middle.vertices).max() == pytest.approx(0.9)
    np.testing.assert_allclose(
        denormalize_mesh(middle, frame).vertices, lopsided.vertices, atol=1e-12
    )


def test_data_of_meshes_are_made_once(tmp_path, monkeypatch):
    for name in "abcefghijklm":
        write_obj(tmp_path / f"{name}.obj", box((0.2, 0.3, 0.4)))
    write_obj(tmp_path / "d.obj", box())
    (tmp_path / "b.obj").write_text("no mesh")
    ask = dict(split=(1.0, 0.0), shuffle=False)
    for how in (dict(), dict(samples=40)):
        with pytest.warns(UserWarning, match="skipped 1 unreadable meshes: .*b.obj"):
            first = read_meshes(grid(), str(tmp_path), **how, **ask)
        assert len(first.data) == 12
        with monkeypatch.context() as patch:
            patch.setattr("fieldloom.modalities.sources.meshdata.normalize_mesh", None)
            with pytest.warns(UserWarning, match="skipped 1 unreadable meshes: .*b.obj"):
                again = read_meshes(grid(), str(tmp_path), **how, **ask)
            assert again.facts() == first.facts()
            for key in ("seed", "samples") if how else ("extent",):
                other = {"extent": 0.5, "seed": 3, "samples": 41}[key]
                with pytest.raises(TypeError):
                    read_meshes(grid(), str(tmp_path), **{**how, key: other}, **ask)
    places = Placement(place="corner", low=-1.0, high=1.0)
    with pytest.warns(UserWarning, match="skipped"):
        found = [
            read_meshes(grid(coords=x), str(tmp_path), **ask).data.tensor
            for x in (Placement(), places)
        ]
    assert not torch.equal(*found)


def test_numbers_that_are_none(tmp_path):
    packed(tmp_path / "p.npz")
    for key, value in [
        ("extent", 0.0),
        ("extent", 1.5),
        ("samples", 0),
        ("near_surface", 1.1),
        ("spread", 0.0),
        ("truncation", -1.0),
        ("surface", 0),
        ("dilation", -0.1),
    ]:
        with pytest.raises(InputError, match=f"source.{key} = {value} is not right"):
            read_meshes(grid(), str(tmp_path / "p.npz"), **{key: value})
    with pytest.raises(InputError, match="low = -1 and high = 1"):
        read_meshes(grid(coords=Placement(low=0.0)), str(tmp_path / "p.npz"))


def test_the_meshes_of_the_shared_folder():
    path = str(shared("data", "meshes_cc0.npz"))
    source = read_meshes(grid(16), path, limit=8, split=(8, 0))
    filled = (source.data.tensor == 255).float().mean((1, 2, 3, 4))
    assert (filled > 0).sum() >= 6  # branches and a mirror may fall between the points
    kinds = np.load(path)["category"].tolist()
    car = list(choose(8, len(kinds), kinds)).index(6)
    assert filled[car] > 0.05  # its body is turned inside out
    assert (filled < 0.5).all()
    assert source.data.frame.shape == (8, 4)


def wrong_meshes(folder):
    """Nine files with 0.7^3 pi / 6 of the cube inside, and one without an inside."""
    one, half = ball(18), ball(18).faces[:200]
    hole = Mesh(one.vertices, one.faces[one.vertices[one.faces].mean(1).sum(1) < 1.12])
    parts = {
        "a closed": one,
        "b inside out": flip(one),
        "c double": join(one, flip(one)),
        "d doubled": join(one, one),
        "e loose": loosen(one),
        "f hole": hole,
        "g hole": join(hole, flip(hole)),
        "h turned": Mesh(one.vertices, np.concatenate([half, one.faces[200:, ::-1]])),
        "i over": join(one, flip(move(ball(18, 0.25), 0.35))),
        "j sheet": sheet(),
    }
    for name, mesh in parts.items():
        write_obj(folder / f"{name}.obj", mesh)


def test_the_inside_of_wrong_meshes_and_what_is_said_of_them(tmp_path):
    wrong_meshes(tmp_path)
    share = np.pi * 0.9**3 / 6
    asks = [dict(), dict(samples=800, near_surface=0.0, surface=8)]
    for ask in [*asks, asks[1] | {"target": "distance"}]:
        read = lambda ask=ask: read_meshes(
            grid(16), str(tmp_path), split=(10, 0), shuffle=False, **ask
        )
        source = read()
        values = source.data.as_float().tensor.flatten(1)
        inside = (values > 0.5).double().mean(1)
        torch.testing.assert_close(inside[:9], torch.full((9,), share).double(), atol=0.06, rtol=0)
        if not ask:  # the same points in all
            assert (inside[:8] - inside[0]).abs().max() < 0.006  # the holes
            assert 0 < inside[8] - inside[0] < 0.012  # a bump
        assert inside[9] == 0
        for line in (source.summary.describe(), read().summary.describe()):  # from the cache, too
            assert line.startswith("10 meshes, ")
            assert (
                "7 closed, 3 open (f hole.obj, g hole.obj and 1 more), 1 inside out (b inside "
                "out.obj), 3 turned in part (e loose.obj, h turned.obj and 1 more), 3 with "
                "doubled faces (c double.obj, d doubled.obj and 1 more), 1 with sheets (j "
                "sheet.obj), 1 without an inside (j sheet.obj)"
            ) in line
        assert source.summary.thing == "mesh"


def test_a_set_without_an_inside_is_said_to_have_none(tmp_path):
    write_obj(tmp_path / "a.obj", sheet())
    write_obj(tmp_path / "b.obj", join(sheet(), flip(sheet())))
    words = r"none of 2 meshes has an inside at 8 x 8 x 8 points \(a.obj, b.obj\): .*dilation"
    refused(words, read_meshes, grid(), str(tmp_path))
    refused("a.obj has no inside", read_meshes, grid(), str(tmp_path / "a.obj"), samples=20)
    grown = read_meshes(grid(), str(tmp_path), dilation=0.2, split=(2, 0))
    far = read_meshes(grid(), str(tmp_path), dilation=0.2, split=(2, 0), target="distance")
    assert torch.equal(grown.data.tensor == 255, far.data.tensor > 0.5)
    true = (grid().grid()[0].abs() - torch.tensor([0.9, 0.9, 0.0])).clamp(min=0).norm(dim=1) < 0.2
    assert torch.equal(grown.data.tensor[1].flatten() == 255, true)
    assert "without an inside" not in grown.summary.describe()


def test_the_line_of_plain_meshes_is_short(tmp_path):
    packed(tmp_path / "p.npz")
    source = read_meshes(grid(), str(tmp_path / "p.npz"), split=(3, 0))
    assert source.summary.describe() == "3 meshes, 8 x 8 x 8, closed"


# -- one mesh


def read_one(path, **more):
    pytest.importorskip("trimesh")
    given = dict(target="auto", samples=2000, on_surface=0.25, near_surface=0.5, truncation=0.2)
    return read_meshes(Points(16), str(path), **(given | more))


def test_distances_of_a_sphere_and_of_a_box_are_the_closed_forms(tmp_path):
    export.mesh(*ball(48, radius=5.0), tmp_path / "ball.ply")
    source = read_one(tmp_path / "ball.ply")
    points, values = source.data.coords[0].double(), source.data.tensor[0, :, 0].double()
    exact = (points.norm(dim=1) - 0.9).clamp(-0.2, 0.2)
    torch.testing.assert_close(0.4 * (0.5 - values), exact, atol=4e-3, rtol=0)  # its facets
    assert (values[:500] == 0.5).all()  # on the surface
    half = np.array([2.0, 1.0, 0.5])
    export.mesh(*Mesh(box().vertices * 2 * half, box().faces), tmp_path / "box.ply")
    source = read_one(tmp_path / "box.ply")
    points, values = source.data.coords[0].double(), source.data.tensor[0, :, 0].double()
    offset = points.abs() - torch.from_numpy(half * 0.45)
    exact = offset.clamp(min=0).norm(dim=1) + offset.amax(1).clamp(max=0)
    torch.testing.assert_close(0.4 * (0.5 - values), exact.clamp(-0.2, 0.2), atol=1e-6, rtol=0)
    assert (exact[500:1500].abs() < 0.2).all()
    assert exact[1500:].abs().max() > 0.5


def test_an_open_square_has_unsigned_distances_and_says_so(tmp_path):
    write_obj(tmp_path / "square.obj", sheet(3.0))
    source = read_one(tmp_path / "square.obj")
    points, values = source.data.coords[0].double(), source.data.tensor[0, :, 0].double()
    exact = (points.abs() - torch.tensor([0.9, 0.9, 0.0])).clamp(min=0).norm(dim=1)
    torch.testing.assert_close(values, (0.5 - (exact - 0.01) / 0.4).clamp(0, 1), atol=1e-6, rtol=0)
    words = source.summary.describe()
    assert "unsigned distances, since it is open at 4 of 5 edges" in words
    assert "its surface comes back on both sides, 0.0333 away" in words  # in the file's unit
    signed = read_one(tmp_path / "square.obj", target="distance")
    assert "unsigned" not in signed.summary.describe()
    assert (signed.data.tensor <= 0.5).all()  # nothing is inside
    asked = read_one(tmp_path / "square.obj", target="unsigned", dilation=0.05)
    assert float(asked.data.tensor.max()) == pytest.approx(0.5 + 0.05 / 0.4, abs=1e-3)


def test_the_original_is_where_its_data_are(tmp_path):
    far = move(Mesh(box().vertices * 1e-3, box().faces), [5e5, 4e6, 30.0])
    np.savez(tmp_path / "far.npz", verts=far.vertices, faces=far.faces)
    source = read_one(tmp_path / "far.npz")
    (read,) = source.originals
    np.testing.assert_allclose(np.abs(read().vertices), 0.9, atol=1e-6)
    back = denormalize_mesh(read(), source.data.frame[0])
    np.testing.assert_allclose(back.vertices, far.vertices, atol=1e-9)


@pytest.mark.parametrize(("suffix", "up"), [(".glb", 1), (".obj", 1), (".ply", 2), (".stl", 2)])
def test_the_upward_axis_is_that_of_the_format_or_as_the_modality_says(tmp_path, suffix, up):
    path = tmp_path / f"box{suffix}"
    export.mesh(*box(), path)
    source = read_one(path)
    assert source.suggests["modality"] == {"up": up, "truncation": 0.2}
    assert (f"{'xyz'[up]} taken as up" in source.summary.describe()) == (suffix != ".glb")
    given = read_meshes(Points(16, up=0), str(path), samples=100)
    assert "taken as up" not in given.summary.describe()
    assert given.suggests["modality"] == {"up": up}  # which the recipe's own overrides


def test_shares_of_samples_that_do_not_fit(tmp_path):
    write_obj(tmp_path / "box.obj", box())
    for wrong in (dict(on_surface=0.6), dict(on_surface=-0.1), dict(near_surface=-0.1)):
        with pytest.raises(InputError, match="surface = .* is not right: it is a fraction"):
            read_one(tmp_path / "box.obj", **wrong)
    with pytest.raises(InputError, match="points of the surface are on neither side"):
        read_one(tmp_path / "box.obj", target="occupancy")
