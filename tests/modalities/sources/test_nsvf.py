"""Scenes in NSVF's layout: their parts by name, their intrinsics and their box."""

import pytest
import torch
from PIL import Image

from fieldloom.geometry.cameras import project_points
from fieldloom.modalities.sources import spec_of
from fieldloom.modalities.sources.nsvf import divide_names, read_nsvf
from fieldloom.modalities.sources.srn import read_srn
from fieldloom.modalities.views import Views
from posed_images import BALL, FOCAL, HEIGHT, POSES, RADIUS, WIDTH, cars, centroid, nsvf
from refusals import refused

FULL = Views(size=(HEIGHT, WIDTH))
BOX = (-0.5, -1.0, 0.0, 1.0, 0.5, 1.0)


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (["0_b", "2_c", "1_d", "0_a"], (["0_a", "0_b"], ["1_d"], ["2_c"])),
        (["0_b", "1_d", "0_a", "10_x"], (["0_a", "0_b"], [], ["1_d"])),
        (["1_d", "x"], ([], [], ["1_d"])),
    ],
)
def test_names_tell_the_parts(names, parts):
    assert tuple(divide_names(names).values()) == parts


def test_a_scene_and_its_parts(tmp_path):
    path = nsvf(tmp_path, box=BOX)
    assert spec_of(path)["name"] == "nsvf"
    for part, chosen in (("train", [0, 1]), ("test", [2, 3]), ("all", [0, 1, 2, 3])):
        source = read_nsvf(FULL, path, part=part)
        cameras = source.data.cameras
        torch.testing.assert_close(cameras.c2w[0].float(), POSES[chosen], atol=2e-6, rtol=0)
        pixels, _ = project_points(BALL.double(), cameras.c2w[0], cameras.intrinsics[0].double())
        for view, pixel in zip(source.data.tensor[0], pixels, strict=True):
            assert (centroid(view) - pixel).abs().max() < 0.5
    refused("part = 'val': .* has only views of train, test", read_nsvf, FULL, path, part="val")


def test_the_box_tells_depths_and_the_frame(tmp_path):
    source = read_nsvf(FULL, nsvf(tmp_path, box=BOX), part="all")
    assert source.suggests["modality"]["frame"] == (0.25, -0.25, 0.5, 0.75)
    corners = torch.cartesian_prod(*torch.tensor(BOX).view(2, 3).T)
    depth = torch.stack([project_points(corners, pose, torch.ones(4))[1] for pose in POSES])
    assert source.suggests["renderer"] == pytest.approx(
        {"near": float(depth.min()), "far": float(depth.max())}, rel=1e-6
    )
    assert "(from bbox.txt), centred at (0.25, -0.25, 0.5)" in source.summary.describe()
    third = pytest.approx((-1, -1, -2 / 3, 1, 1, 2 / 3))
    assert source.suggests["modality"]["box"] == third
    of_file = read_nsvf(FULL, nsvf(tmp_path / "b", box=BOX), frame="file")
    assert "frame" not in of_file.suggests["modality"]
    assert of_file.suggests["modality"]["box"] == BOX


def test_a_camera_inside_the_box_sees_from_near_on(tmp_path):
    source = read_nsvf(FULL, nsvf(tmp_path, box=(-9, -9, -9, 9, 9, 9)))
    near, far = source.suggests["renderer"].values()
    assert near == pytest.approx(0.01 * far)
    assert far > 9 + RADIUS


@pytest.mark.parametrize(
    "table",
    [
        f"{FOCAL} 0 {WIDTH / 2}\n0 {FOCAL} {HEIGHT / 2}\n0 0 1\n",
        f"{FOCAL} 0 {WIDTH / 2} 0 0 {FOCAL} {HEIGHT / 2} 0 0 0 1 0 0 0 0 1",
        f"{FOCAL} {WIDTH / 2} {HEIGHT / 2} 0.\n0. 0. 0.\n1.\n{HEIGHT} {WIDTH}\n",
    ],
)
def test_intrinsics_in_all_their_forms(tmp_path, table):
    source = read_nsvf(FULL, nsvf(tmp_path / "a", table=table), part="all")
    other = read_srn(FULL, cars(tmp_path / "b"))
    torch.testing.assert_close(source.data.cameras.intrinsics, other.data.cameras.intrinsics)


def test_the_test_part_is_held_out_where_that_is_asked_for(tmp_path):
    path = nsvf(tmp_path, names=("0_a", "1_b", "0_c", "2_d"))
    source = read_nsvf(FULL, path, hold_out=8)
    torch.testing.assert_close(
        source.data.cameras.c2w[0].float(), POSES[[0, 2, 3]], atol=2e-6, rtol=0
    )
    assert source.suggests["modality"]["held"] == 1
    assert "part train, 1 view of the test part held out" in source.summary.describe()


@pytest.mark.filterwarnings("ignore:skipped 1 of")
def test_what_is_missing_and_what_is_in_no_part(tmp_path):
    path = nsvf(tmp_path, names=("0_a", "0_b", "x", "1_d"))
    (tmp_path / "rgb" / "0_a.png").unlink()
    source = read_nsvf(FULL, path)
    assert dict(source.summary.passed_over) == {"in no part": ["x"], "missing": ["0_a"]}
    assert source.data.shape[1] == 1


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("bbox.txt", "0 0 0 1 1", "must begin with the lowest and the highest corner"),
        ("bbox.txt", "0 0 0 1 1 0", "must begin with the lowest and the highest corner"),
        ("bbox.txt", "0 0 0 1 1 1e300", "the box, x, y, z each, to 1e.12 at the most"),
        ("bbox.txt", "a box", "no file of numbers"),
        ("intrinsics.txt", "40 1 16\n0 40 12\n0 0 1", "has a skew of 1 pixels"),
        ("intrinsics.txt", "40 16 12 0\n24 32\n1", "says that poses are world-to-camera"),
        ("intrinsics.txt", "40 16", "must begin with 'f cx cy 0'"),
        ("intrinsics.txt", "1.25 0 16\n0 1.25 12\n0 0 1", "focal lengths 1.25"),
        ("pose/0_a.txt", "1 2 3", "has 3 numbers: a pose is 4 x 4"),
        ("pose/0_a.txt", "nan " * 16, "no file of numbers"),
        ("pose/0_a.txt", None, "lacks 1 of the files of its 2 frames; the first is .*pose/0_a"),
    ],
)
def test_scenes_that_are_wrong(tmp_path, name, text, words):
    path = nsvf(tmp_path, box=BOX)
    if text is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(text)
    refused(words, read_nsvf, FULL, path)


def test_a_matrix_is_of_images_of_one_size(tmp_path):
    path = nsvf(tmp_path)
    Image.new("RGB", (WIDTH // 2, HEIGHT // 2)).save(tmp_path / "rgb" / "0_b.png")
    refused("tells no size, and .*0_b.png' is 12 x 16 where .*0_a.png' is 24 x 32", read_nsvf, FULL,
            path)  # fmt: skip
    size = f"{FOCAL} {WIDTH / 2} {HEIGHT / 2} 0.\n{HEIGHT} {WIDTH}\n"
    (tmp_path / "intrinsics.txt").write_text(size)
    source = read_nsvf(FULL, path)
    assert source.data.cameras.intrinsics[0].tolist() == [[FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2]] * 2


def test_no_scene(tmp_path):
    refused("holds no scene of NSVF", read_nsvf, FULL, str(tmp_path))
    path = nsvf(tmp_path, names=("a", "b"))
    refused("has no views: names in pose and rgb begin with", read_nsvf, FULL, path)
