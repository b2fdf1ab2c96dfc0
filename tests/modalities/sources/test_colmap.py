"""Scenes of COLMAP: binary and text, lenses, depths and the box of the points, broken files."""

import math
import shutil
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from fieldloom.errors import InputError
from fieldloom.geometry.cameras import opencv_from_opengl, orbit, project_points
from fieldloom.geometry.distortion import Lens, find_in_lens
from fieldloom.modalities.sources import spec_of
from fieldloom.modalities.sources.colmap import read_colmap
from fieldloom.modalities.sources.colmap_files import MODELS
from fieldloom.modalities.sources.transforms import read_transforms
from fieldloom.modalities.views import Views
from posed_images import BALL, HEIGHT, PICTURES, POSES, WIDTH, blender, centroid, colmap
from refusals import refused

FULL = Views(size=(HEIGHT, WIDTH))
CLOUD = BALL + 0.3 * (torch.rand(400, 3, generator=torch.Generator().manual_seed(0)) - 0.5)

LARGE = (96, 128)
PLACE = (160.0, 150.0, 60.0, 50.0)  # fx, fy, cx, cy
LENSES = {
    "SIMPLE_RADIAL": (2, (160.0, 60.0, 50.0, -0.15)),
    "RADIAL": (3, (160.0, 60.0, 50.0, 0.1, 0.02)),
    "OPENCV": (4, (*PLACE, -0.2, 0.04, 0.01, -0.005)),
    "OPENCV_FISHEYE": (5, (*PLACE, 0.05, -0.01, 0.002, 0.0)),
    "FULL_OPENCV": (6, (*PLACE, -0.2, 0.04, 0.01, -0.005, 0.01, 0.02, 0.01, 0.005)),
    "RADIAL_FISHEYE": (9, (160.0, 60.0, 50.0, 0.05, -0.01)),
}


def lens_of(name):
    """fx, fy, cx, cy and the lens of a model."""
    own = dict(zip(MODELS[name][1].split(), LENSES[name][1], strict=True))
    both = own.get("f")
    numbers = [own.get("fx", both), own.get("fy", both), own["cx"], own["cy"]]
    radial = [own.get(f"k{i}", 0.0) for i in range(1, 7)]
    tangential = own.get("p1", 0.0), own.get("p2", 0.0)
    return numbers, radial, tangential, name.endswith("FISHEYE")


def shown_at(point, pose, name) -> tuple[float, float]:
    """The pixel where a model shows a point, number by number."""
    (fx, fy, cx, cy), k, (p1, p2), fisheye = lens_of(name)
    x, y, z = (torch.linalg.inv(opencv_from_opengl(pose.double()))[:3] @ torch.tensor([*point, 1.0])
               .double()).tolist()  # fmt: skip
    x, y = x / z, y / z
    r = math.hypot(x, y)
    if fisheye:
        a = math.atan(r)
        f = a * (1 + k[0] * a**2 + k[1] * a**4 + k[2] * a**6 + k[3] * a**8) / r
    else:
        f = (1 + k[0] * r**2 + k[1] * r**4 + k[2] * r**6) / (
            1 + k[3] * r**2 + k[4] * r**4 + k[5] * r**6
        )
    across = x * f + 2 * p1 * x * y + p2 * (r**2 + 2 * x**2)
    down = y * f + p1 * (r**2 + 2 * y**2) + 2 * p2 * x * y
    return fx * across + cx, fy * down + cy


def spot(u: float, v: float) -> Image.Image:
    """A dark spot on white around a pixel."""
    rows, columns = np.mgrid[: LARGE[0], : LARGE[1]] + 0.5
    dark = np.exp(-((columns - u) ** 2 + (rows - v) ** 2) / 18)
    return Image.fromarray(np.rint(255 * (1 - np.repeat(dark[..., None], 3, 2))).astype(np.uint8))


@pytest.mark.parametrize("text", [False, True])
def test_a_pinhole_scene_is_that_of_other_layouts(tmp_path, text):
    source = read_colmap(FULL, colmap(tmp_path / "a", text=text, points=CLOUD.tolist()))
    other = read_transforms(FULL, blender(tmp_path / "b"))
    assert torch.equal(source.data.tensor, other.data.tensor)
    torch.testing.assert_close(source.data.cameras.c2w, other.data.cameras.c2w, atol=2e-6, rtol=0)
    torch.testing.assert_close(source.data.cameras.intrinsics, other.data.cameras.intrinsics)
    pixels, depth = project_points(
        BALL.double(), source.data.cameras.c2w[0], source.data.cameras.intrinsics[0].double()
    )
    for view, pixel in zip(source.data.tensor[0], pixels, strict=True):
        assert (centroid(view) - pixel).abs().max() < 0.5
    near, far = source.suggests["renderer"].values()
    assert 0.8 * float(depth.min()) < near < float(depth.min())
    assert float(depth.max()) < far < 1.2 * float(depth.max())
    x, y, z, scale = source.suggests["modality"]["frame"]
    assert [x, y, z] == pytest.approx(BALL.tolist(), abs=0.01)
    assert scale == pytest.approx(0.15, rel=0.12)
    line = source.summary.describe()
    assert "box of 400 points, near" in line
    assert "(from the points), centred" in line


@pytest.mark.parametrize("name", LENSES)
def test_a_known_point_lands_on_its_known_pixel(tmp_path, name):
    """In numbers through the lens, to 1e-4, and in the undistorted images."""
    at = [shown_at(BALL.tolist(), pose, name) for pose in POSES]
    number, parameters = LENSES[name]
    path = colmap(
        tmp_path,
        model=(name, number, parameters),
        size=LARGE,
        pictures=[spot(*pixel) for pixel in at],
    )
    source = read_colmap(Views(size=LARGE), path)
    cameras = source.data.cameras
    pixels, _ = project_points(BALL.double(), cameras.c2w[0], cameras.intrinsics[0].double())
    own, radial, tangential, fisheye = lens_of(name)
    lens = Lens(tuple(radial[: 4 if fisheye else 6]), tangential, fisheye)
    intrinsics = torch.tensor(own).double()
    for view, pixel, pinhole, (u, v) in zip(
        source.data.tensor[0], pixels, cameras.intrinsics[0].double(), at, strict=True
    ):
        back = find_in_lens(pixel[0], pixel[1], pinhole, intrinsics, lens)
        assert [float(x) for x in back] == pytest.approx([u, v], abs=1e-4)
        assert (centroid(view) - pixel).abs().max() < 0.1
    assert "lens distortion undone, with" in source.summary.describe()
    half = read_colmap(Views(size=(48, 64)), path).data
    torch.testing.assert_close(half.cameras.intrinsics, cameras.intrinsics / 2)
    for view, pixel in zip(half.tensor[0], pixels / 2, strict=True):
        assert (centroid(view) - pixel).abs().max() < 0.1


@pytest.mark.parametrize("name", ["PINHOLE", "OPENCV", "FULL_OPENCV"])
def test_binary_and_text_are_equal(tmp_path, name):
    numbers = LENSES.get(name, (1, PLACE))
    own = {"model": (name, *numbers), "size": LARGE, "points": CLOUD.tolist()}
    large = [picture.resize(LARGE[::-1]) for picture in PICTURES]
    read = lambda text: read_colmap(
        FULL, colmap(tmp_path / str(text), text=text, pictures=large, **own)
    )
    one, other = read(False), read(True)
    assert torch.equal(one.data.tensor, other.data.tensor)
    assert torch.equal(one.data.cameras.c2w, other.data.cameras.c2w)
    assert torch.equal(one.data.cameras.intrinsics, other.data.cameras.intrinsics)
    assert one.suggests == other.suggests
    assert one.summary == other.summary


@pytest.mark.parametrize("place", ["sparse/0", "sparse", "colmap/sparse/0", "."])
def test_layouts(tmp_path, place):
    path = colmap(tmp_path / "s", place=place, images="images_4", points=CLOUD.tolist())
    assert spec_of(path)["name"] == "colmap"
    source = read_colmap(FULL, path)
    assert source.summary.taken["images"] == "images of images_4"
    (tmp_path / "s" / "images_4").rename(tmp_path / "s" / "photos")
    with pytest.raises(InputError, match="has no folder 'images' .*: set source.images"):
        read_colmap(FULL, path)
    assert torch.equal(read_colmap(FULL, path, images="photos").data.tensor, source.data.tensor)


def test_one_of_several_models(tmp_path):
    path = colmap(tmp_path)
    shutil.copytree(tmp_path / "sparse" / "0", tmp_path / "sparse" / "1")
    assert read_colmap(FULL, path).summary.taken["model"] == "model 0 of 2"
    own = read_colmap(FULL, str(tmp_path / "sparse" / "1"))
    assert own.summary.taken["model"] == "model 1 of 2"
    assert len(own.data.tensor[0]) == 4


def test_smaller_copies_keep_the_rays(tmp_path):
    small = [
        picture.resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.BOX) for picture in PICTURES
    ]
    source = read_colmap(FULL, colmap(tmp_path, pictures=small, images="images_2"))
    cameras = source.data.cameras
    pixels, _ = project_points(BALL.double(), cameras.c2w[0], cameras.intrinsics[0].double())
    for view, pixel in zip(source.data.tensor[0], pixels, strict=True):
        assert (centroid(view) - pixel).abs().max() < 0.7


@pytest.mark.filterwarnings("ignore:skipped 1 of")
def test_missing_images_and_cameras_that_are_not_upright(tmp_path):
    """COLMAP's scenes stand at any angle: the orbit stands upright in them."""
    turn = torch.eye(4, dtype=torch.float64)
    turn[:3, :3] = torch.linalg.qr(torch.tensor([[1.0, 2, 3], [0, 1, 4], [5, 6, 0]]).double())[0]
    turn[:3, :3] *= torch.linalg.det(turn[:3, :3])
    path = colmap(tmp_path, turn @ POSES.double())
    (tmp_path / "images" / "v2.png").unlink()
    source = read_colmap(FULL, path)
    torch.testing.assert_close(
        source.data.cameras.c2w[0], turn @ POSES[[0, 1, 3]].double(), atol=2e-6, rtol=0
    )
    assert list(source.summary.passed_over["missing"]) == ["v2.png"]
    up = torch.tensor(source.suggests["modality"]["up"]).double()
    torch.testing.assert_close(up, turn[:3, 2], atol=1e-4, rtol=0)
    around = Views(**source.suggests["modality"], elevation=30.0, size=8).cameras(5).c2w
    torch.testing.assert_close(
        (around[:, :3, 1].double() @ up), torch.full((5,), math.cos(math.pi / 6)).double(),
        atol=1e-5, rtol=0,
    )  # fmt: skip


def test_an_orbit_around_any_direction():
    for up in ((0.0, 0.0, 2.0), (0.0, -1.0, 0.0), (0.3, 0.5, -0.2)):
        eye = orbit(6, 2.0, 30.0, up)[:, :3, 3]
        unit = torch.tensor(up) / torch.tensor(up).norm()
        torch.testing.assert_close(eye.norm(dim=1), torch.full((6,), 2.0))
        torch.testing.assert_close(eye @ unit, torch.full((6,), 1.0))
        turns = torch.linalg.cross(eye, eye.roll(-1, 0)) @ unit
        assert (turns > 0).all()  # right-handed
    with pytest.raises(InputError, match="up is 0, 1 or 2, or a direction"):
        orbit(6, 2.0, 30.0, (0.0, 0.0, 0.0))


def cut(content: bytes, *, at: int, by: bytes) -> bytes:
    return content[:at] + by + content[at + len(by) :]


HUGE = (2**60).to_bytes(8, "little")


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("cameras.bin", lambda x: x[:20], "cameras.bin' is no file of COLMAP .* does not hold"),
        ("cameras.bin", lambda x: x[:-1], "ends after 63 bytes, before what it tells of"),
        ("cameras.bin", lambda x: HUGE + x[8:], "tells of 1,152,921,504,606,846,976 entries"),
        ("cameras.bin", lambda x: cut(x, at=12, by=b"\7"), "model number 7; right are SIMPLE_PIN"),
        ("cameras.bin", lambda x: cut(x, at=16, by=HUGE), "camera 3 is of 24 x 1.15292e"),
        ("cameras.bin", lambda x: cut(x, at=8, by=b"\4"), "images.bin' has the camera 3, which"),
        ("images.bin", lambda x: x[:-1], "images.bin' is no file of COLMAP .* does not hold"),
        ("images.bin", lambda x: x[: len(x) // 2], "images.bin' is no file of COLMAP"),
        ("images.bin", lambda x: x.replace(b".png\0", b"....."), "name has no end|does not hold"),
        ("images.bin", lambda x: x.replace(b"v0.png", b"../0.p"), "outside its folder"),
        ("images.bin", lambda x: HUGE + x[8:], "entries, which its size does not hold"),
        ("images.bin", lambda x: cut(x, at=12, by=b"\xff" * 8), "pose of .* holds NaN"),
        ("images.bin", lambda x: bytes(8), "has no images"),
        ("cameras.bin", lambda x: x + b"more", "goes on for 4 bytes after what it tells of"),
        ("images.bin", lambda x: x + x, "goes on for .* bytes after"),
        ("points3D.bin", lambda x: x + b"\0", "goes on for 1 bytes after"),
        ("cameras.bin", lambda x: b"\2" + x[1:] + x[8:], "two cameras of the number 3"),
        ("images.bin", lambda x: b"\2" + x[1:8] + 2 * x[8 : 8 + (len(x) - 8) // 4],
         "two images of the number 1, 'v3.png' and 'v3.png'"),
        ("images.bin", lambda x: cut(x, at=12, by=bytes(32)), "pose of .* holds NaN"),
        ("images.bin", lambda x: x.replace(b"v0.png", b"/tmp/x"), "outside its folder"),
        ("images.bin", lambda x: x.replace(b"v0.png", b"..\\a.p"), "outside its folder"),
        ("points3D.bin", lambda x: x[:-9], "points3D.bin' is no file of COLMAP"),
        ("points3D.bin", lambda x: HUGE + x[8:], "size does not hold"),
    ],
)  # fmt: skip
def test_binary_files_that_are_wrong(tmp_path, name, change, words):
    path = colmap(tmp_path, points=CLOUD[:5].tolist())
    file = tmp_path / "sparse" / "0" / name
    file.write_bytes(change(file.read_bytes()))
    refused(words, read_colmap, FULL, path)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("cameras.txt", "3 PINHOLE 32 24 40 40 16", "has 3 parameters, where PINHOLE has"),
        ("cameras.txt", "3 FOV 32 24 40 40 16 12 1", "model FOV; right are"),
        ("cameras.txt", "3 PINHOLE 32", "a number, model, width, height"),
        ("cameras.txt", "3 PINHOLE 32 24 40 forty 16 12", "could not convert string"),
        ("cameras.txt", "3 PINHOLE 32 24 nan 40 16 12", "focal lengths nan"),
        ("cameras.txt", "3 SIMPLE_RADIAL 32 24 40 16 12 nan", "cannot be undone"),
        ("cameras.txt", "3 PINHOLE 0 24 40 40 16 12", "is of 24 x 0 pixels"),
        ("images.txt", "1 1 0 0 0 0 0 0 3", "where ten entries are right"),
        ("images.txt", "1 0 0 0 0 0 0 0 3 v0.png\n", "holds NaN"),
        ("images.txt", "1 1 0 0 0 0 0 0 3 gone.png\n", "lacks 1 of the files of its 1 frames"),
        ("images.txt", "1 1 0 0 0 0 0 0 3 v0.png\n2 1 0 0 0 0 0 0 3 v1.png\n",
         "the line below 'v0.png' must tell where points are seen"),
        ("cameras.txt", "3 PINHOLE 32 24 0 40 16 12", "focal lengths 0 and 40"),
        ("cameras.txt", "3 PINHOLE 32 24 40 40 inf 12", "principal point that is not finite"),
        ("cameras.txt", "3 PINHOLE 32 24 40 40 16 12\n" * 2, "two cameras of the number 3"),
        ("images.txt", "1 1 0 0 0 0 0 0 3 v0.png\n\n" * 2, "two images of the number 1"),
        ("points3D.txt", "1 2 3", "a point of '1 2 3'"),
        ("points3D.txt", "1 2 3 \xff", "no file of COLMAP"),
    ],
)  # fmt: skip
def test_texts_that_are_wrong(tmp_path, name, text, words):
    path = colmap(tmp_path, text=True)
    (tmp_path / "sparse" / "0" / name).write_bytes(text.encode("latin1"))
    refused(words, read_colmap, FULL, path)


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin"])
def test_files_that_end_early_or_are_damaged(tmp_path, name):
    """A file that ends early is refused; a byte that is wrong gives a scene, or one sentence."""
    path = colmap(tmp_path, points=CLOUD[:5].tolist())
    file = tmp_path / "sparse" / "0" / name
    whole = file.read_bytes()
    for length in range(0, len(whole), 1 + len(whole) // 25):
        file.write_bytes(whole[:length])
        refused(f"{name}' is no file of COLMAP", read_colmap, FULL, path)
    draws = np.random.default_rng(0)
    for _ in range(25):
        at, byte = draws.integers(len(whole)), draws.integers(256)
        file.write_bytes(cut(whole, at=at, by=bytes([byte])))
        try:
            with warnings.catch_warnings(action="ignore"):
                source = read_colmap(FULL, path)
        except InputError:
            continue
        assert all(torch.isfinite(x).all() for x in source.data.extras().values())


def test_no_model(tmp_path):
    refused("holds no model of COLMAP", read_colmap, FULL, str(tmp_path))


def test_points_that_no_view_shows_tell_nothing(tmp_path):
    source = read_colmap(FULL, colmap(tmp_path, points=[[90.0, 90, 90]]))
    assert "guessed from the cameras" in source.summary.describe()


@pytest.mark.parametrize("bare", [b"", b"\xef\xbb\xbf"])
def test_texts_as_programs_write_them(tmp_path, bare):
    """With and without a mark of UTF-8, ends of lines and names of Windows, comments anywhere."""
    path = colmap(tmp_path, text=True, points=CLOUD.tolist())
    expected = read_colmap(FULL, path)
    (tmp_path / "images" / "sub").mkdir()
    (tmp_path / "images" / "v0.png").rename(tmp_path / "images" / "sub" / "v0.png")
    for file in (tmp_path / "sparse" / "0").iterdir():
        content = b"# Number of them: 4\n\n" + file.read_bytes() + b"  # the end\n"
        content = content.replace(b"v0.png", b"sub\\v0.png")
        file.write_bytes(bare + content.replace(b"\n", b"\r\n"))
    source = read_colmap(FULL, path)
    assert sorted(map(str, source.data.tensor[0].flatten(1).sum(1).tolist())) == sorted(
        map(str, expected.data.tensor[0].flatten(1).sum(1).tolist())
    )
    assert source.suggests["renderer"] == expected.suggests["renderer"]


def test_a_file_larger_than_memory_is_not_read(tmp_path, monkeypatch):
    path = colmap(tmp_path, points=CLOUD.tolist())
    monkeypatch.setattr("fieldloom.memory.total_memory", lambda: 2000)
    refused("points3D.bin' would take .* and this machine has 2 kB", read_colmap, FULL, path)
