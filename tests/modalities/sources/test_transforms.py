"""Scenes described by transforms.json."""

import numpy as np
import pytest
import torch

from fieldloom.errors import InputError
from fieldloom.geometry.cameras import look_at, orbit, project_points
from fieldloom.modalities.sources.transforms import read_transforms
from fieldloom.modalities.sources.views import read_multiview
from fieldloom.modalities.views import Views
from posed_images import FOCAL, HEIGHT, PICTURES, RADIUS, WIDTH, blender, centroid
from shared import shared

FULL = Views(size=(HEIGHT, WIDTH))


def test_intrinsics_of_each_frame_and_of_smaller_copies(tmp_path):
    table = {"fl_x": 2 * FOCAL, "fl_y": FOCAL, "cx": 30, "cy": 20, "w": 2 * WIDTH, "h": 2 * HEIGHT}
    path = blender(tmp_path, table=table | {"near": 1, "far": 7.5}, frame={"fl_x": 100.0})
    source = read_transforms(Views(size=(12, 32)), path)
    rows = source.data.cameras.intrinsics[0].tolist()
    assert rows[0] == [FOCAL, FOCAL / 4, 15, 5]
    assert rows[1] == [50, FOCAL / 4, 15, 5]
    assert source.suggests["renderer"] == {"near": 1.0, "far": 7.5}


def test_the_orbit_of_a_scene_that_is_upright_along_y(tmp_path):
    """And nothing is said of depth where cameras look outwards."""
    poses = orbit(4, RADIUS, 10.0, up=1)
    outwards = look_at(poses[:, :3, 3], 2 * poses[:, :3, 3], torch.tensor([0.0, 1.0, 0.0]))
    inside = read_transforms(FULL, blender(tmp_path / "in", poses))
    outside = read_transforms(FULL, blender(tmp_path / "out", outwards))
    assert inside.suggests["modality"]["up"] == outside.suggests["modality"]["up"] == 1
    assert set(inside.suggests["renderer"]) == {"near", "far"}
    assert outside.suggests["renderer"] == {}


@pytest.mark.parametrize(
    ("table", "frame", "message"),
    [
        ({}, {}, r"r_0.png' has no focal length: fl_x or camera_angle_x"),
        ({"fl_x": 1.25}, {}, "r_0.png' has the focal lengths 1.25 and 1.25: .* in pixels"),
        ({"fl_x": -40}, {}, "r_0.png' has the focal lengths -40"),
        ({"fl_x": 40000.0}, {}, "focal lengths 40000 .* full image, 24 x 32"),
        ({"camera_angle_x": 0.0}, {}, "focal lengths nan"),
        ({"fl_x": 40.0}, {"fl_y": 0.01}, "r_1.png' has the focal lengths 40 and 0.01"),
        ({"fl_x": 40.0, "cx": float("nan")}, {}, "cx = nan, which is no finite number"),
        ({"fl_x": "wide"}, {}, "fl_x = 'wide', which is no finite number"),
        (
            {"fl_x": 40.0, "k1": 0.0},
            {"k2": 0.1},
            "r_1.png' has lens distortion k2 = 0.1: undistort",
        ),
        ({"fl_x": 40.0, "camera_model": "OPENCV_FISHEYE"}, {}, "camera_model = OPENCV_FISHEYE"),
        ({"fl_x": 40.0, "is_fisheye": True}, {}, "is_fisheye = True: undistort"),
        ({"fl_x": 40.0, "w": 32, "h": 32}, {}, "h = 32, w = 32: the proportions must agree"),
        ({"fl_x": 40.0, "near": 3, "far": 2}, {}, "near = 3, far = 2"),
        (
            {"fl_x": 40.0},
            {"file_path": "gone"},
            "lacks 1 of the files of its 4 frames; the first is .*gone",
        ),
        ({"fl_x": 40.0}, {"file_path": 3}, "frame 1 of .* has no 'file_path'"),
        (
            {"fl_x": 40.0},
            {"transform_matrix": [[1, 2], [3]]},
            "frame 1 of .* has no 'transform_matrix' of 4 x 4",
        ),
        ({"fl_x": 40.0}, {"transform_matrix": (2 * np.eye(4)).tolist()}, "pose of .*r_1.png"),
    ],
)
def test_frames_that_are_wrong(tmp_path, table, frame, message):
    with pytest.raises(InputError, match=message):
        read_transforms(FULL, blender(tmp_path, table=table, frame=frame))


def test_files_that_are_wrong(tmp_path):
    read = lambda: read_transforms(FULL, str(tmp_path))
    with pytest.raises(InputError, match="holds no transforms.json"):
        read()
    file = tmp_path / "transforms_train.json"
    blender(tmp_path)
    whole = file.read_text()
    for text, message in (
        (whole[:-9], "transforms_train.json' is no JSON that can be read"),
        ("[1, 2]", "has no list 'frames'"),
        ('{"fl_x": 40.0, "frames": []}', "has no frames"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=message):
            read()
    file.write_text(whole)
    with pytest.raises(InputError, match="channels = 1: posed images have 3"):
        read_transforms(Views(size=(HEIGHT, WIDTH), channels=1), str(tmp_path))
    picture = tmp_path / "train" / "r_2.png"
    good = picture.read_bytes()
    for change, message in (
        (lambda: PICTURES[2].resize((WIDTH, 8)).save(picture), "r_2.png' is 8 x 32 pixels, where"),
        (
            lambda: picture.write_bytes(good[: len(good) // 2]),
            "r_2.png' is no image that can be read",
        ),
        (lambda: picture.write_bytes(b"nothing"), "r_2.png' is no image that can be read"),
        (picture.unlink, "lacks 1 of the files of its 4 frames; .* is .*r_2"),
    ):
        change()
        with pytest.raises(InputError, match=message):
            read()


def test_the_scene_of_the_shared_folder():
    source = read_multiview(Views(size=50), str(shared("data", "nerf_lego400.npz")), views=4)
    assert source.data.shape == (1, 4, 3, 50, 50)
    assert source.suggests["renderer"] == {"near": 2.0, "far": 6.0}
    assert source.suggests["modality"]["up"] == 2
    assert source.suggests["modality"]["radius"] == pytest.approx(4.0311, abs=1e-3)
    torch.testing.assert_close(
        source.data.cameras.intrinsics[0, 0], torch.tensor([69.4444, 69.4444, 25.0, 25.0])
    )
    pixels, _ = project_points(
        torch.zeros(3), source.data.cameras.c2w[0], source.data.cameras.intrinsics[0]
    )
    for view, pixel in zip(source.data.tensor[0], pixels, strict=True):
        assert (centroid(view) - pixel).abs().max() < 8
