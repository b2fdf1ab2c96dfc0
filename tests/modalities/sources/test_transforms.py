"""Scenes described by transforms.json."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from fieldloom.errors import InputError
from fieldloom.geometry.cameras import look_at, orbit, project_points
from fieldloom.geometry.distortion import Lens, find_in_lens
from fieldloom.modalities.sources.multiview import read_multiview
from fieldloom.modalities.sources.transforms import read_transforms
from fieldloom.modalities.views import Views
from fieldloom.permit import Permit
from posed_images import (
    BALL,
    FOCAL,
    HEIGHT,
    PICTURES,
    POSES,
    RADIUS,
    WIDTH,
    blender,
    centroid,
)
from refusals import refused
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
            {"k4": 0.1},
            "r_1.png' has k4 = 0.1, which a camera that is no",
        ),
        ({"fl_x": 40.0, "k1": -999.0}, {}, "the lens of .*r_0.png' cannot be undone"),
        ({"fl_x": 40.0, "is_fisheye": True}, {"p1": 0.1}, "has p1 = 0.1, which a fisheye does not"),
        ({"fl_x": 40.0, "camera_model": "EQUIRECTANGULAR"}, {}, "camera_model = EQUIRECTANGULAR: "),
        ({"fl_x": 40.0, "ftheta_p0": 0.0}, {}, "has ftheta_p0 = 0.0: undistort"),
        ({"fl_x": 40.0, "latlong": True}, {}, "has latlong = True: undistort"),
        (
            {"fl_x": 40.0, "w": 32, "h": 32},
            {},
            "is 24 x 32 pixels, where its camera is of 32 x 32 .* the proportions must agree",
        ),
        ({"fl_x": 40.0, "near": 3, "far": 2}, {}, "near = 3, far = 2"),
        ({"fl_x": 40.0, "k1": 0.1, "k5": 0.1}, {}, "has k5 = 0.1, which a camera that is no fish"),
        ({"fl_x": 40.0, "sk_x": 0.0}, {"sk_y": 0.5}, "r_1.png' has sk_y = 0.5"),
        ({"fl_x": 40.0, "w": 0, "h": 24}, {}, "has h = 24, w = 0: both are at least 1"),
        ({"fl_x": 40.0}, {"transform_matrix": np.zeros((4, 4)).tolist()}, "another last row"),
        ({"fl_x": 40.0}, {"transform_matrix": np.diag([0, 1, 1, 1]).tolist()}, "not orthonormal"),
        ({"fl_x": 40.0}, {"transform_matrix": np.diag([-1, 1, 1, 1]).tolist()}, "mirrors"),
        ({"fl_x": 40.0}, {"transform_matrix": np.eye(4)[:2].tolist()}, "no 'transform_matrix'"),
        ({"fl_x": 40.0, "camera_model": "FISHEYE624"}, {}, "camera_model = FISHEYE624: undistort"),
        ({"fl_x": 40.0, "is_fisheye": True, "k1": -99.0}, {}, "cannot be undone"),
        ({"fl_x": 40.0}, {"file_path": 3}, "frame 1 of .* has no 'file_path'"),
        (
            {"fl_x": 40.0},
            {"transform_matrix": [[1, 2], [3]]},
            "frame 1 of .* has no 'transform_matrix' of 4 x 4",
        ),
        ({"fl_x": 40.0}, {"transform_matrix": (2 * np.eye(4)).tolist()}, "pose of .*r_1.png"),
        (
            {"fl_x": 40.0},
            {"transform_matrix": (np.eye(4) + 1e200 * np.eye(4, k=3)).tolist()},
            r"camera of .*r_1.png' stands at \[1e\+200, 0.0, 0.0\]: .* at most 1e\+12",
        ),
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
        (
            lambda: picture.write_bytes(good[: len(good) // 2]),
            "r_2.png' is no image that can be read",
        ),
        (lambda: picture.write_bytes(b"nothing"), "r_2.png' is no image that can be read"),
        (
            lambda: [f.unlink() for f in (tmp_path / "train").iterdir()],
            "lacks 4 of the files of its 4 frames; .* is .*r_0",
        ),
    ):
        change()
        with pytest.raises(InputError, match=message):
            read()


LISTS = {
    "train_filenames": ["train/r_2", "./train/r_0"],
    "val_filenames": ["train/r_3"],
    "test_filenames": ["train/r_3", "train/r_0"],
}


def nerfstudio(folder, **lists):
    """One transforms.json with nerfstudio's lists of names."""
    blender(folder, table={"fl_x": FOCAL, **lists})
    (folder / "transforms_train.json").rename(folder / "transforms.json")
    return str(folder)


@pytest.mark.parametrize(
    ("part", "chosen"), [("train", [0, 2]), ("val", [3]), ("test", [0, 3]), ("all", [0, 2, 3])]
)
def test_parts_by_lists_of_names(tmp_path, part, chosen):
    """In the file's order; of all parts in the order train, val, test, each frame once."""
    path = nerfstudio(tmp_path, **LISTS)
    for one in (path, f"{path}/transforms.json"):
        source = read_transforms(FULL, one, part=part)
        torch.testing.assert_close(source.data.cameras.c2w[0].float(), POSES[chosen])
        told = source.summary
        assert told.taken["part"] == f"part {part}"
        assert list(told.passed_over["in no part"]) == ["./train/r_1"]
        assert told.describe().endswith("1 file passed over: 1 in no part (./train/r_1)")


def test_test_views_come_last_of_all(tmp_path):
    """So that the views that are held out, the last ones, are those of the test part."""
    lists = {"test_filenames": ["train/r_0"], "train_filenames": [f"train/r_{i}" for i in (3, 1)]}
    source = read_transforms(FULL, nerfstudio(tmp_path, **lists), part="all")
    torch.testing.assert_close(source.data.cameras.c2w[0].float(), POSES[[1, 3, 0]])


@pytest.mark.parametrize(
    ("lists", "part", "message"),
    [
        ({}, "test", "part = 'test': .* has only transforms.json, which has no test_filenames"),
        ({"train_filenames": ["train/r_0"]}, "val", "lists frames in train_filenames only"),
        ({"val_filenames": [], "test_filenames": []}, "val", "lists frames in no part only"),
        ({"test_filenames": ["r_0"]}, "test", "lists 'r_0' in test_filenames, which is the 'file"),
        ({"test_filenames": ["../r_0"]}, "test", "which lies outside its folder"),
        ({"test_filenames": "train/r_0"}, "test", "has test_filenames that are no list of file"),
        ({"test_filenames": [3]}, "test", "has test_filenames that are no list of file names"),
    ],
)
def test_lists_of_names_that_are_wrong(tmp_path, lists, part, message):
    path = nerfstudio(tmp_path, **lists)
    for one in (path, f"{path}/transforms.json"):
        with pytest.raises(InputError, match=message):
            read_transforms(FULL, one, part=part)


def test_images_of_several_sizes(tmp_path):
    """Each with its own intrinsics: the ball is found where its cameras see it."""
    size = {"w": WIDTH, "h": HEIGHT, "fl_x": FOCAL}
    small = PICTURES[1].resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.BOX)
    crop = PICTURES[2].crop((4, 0, WIDTH, HEIGHT))  # of which the centre moves
    square = {"fl_x": FOCAL, "w": WIDTH - 4, "h": HEIGHT, "cx": WIDTH / 2 - 4}
    for name, table, frames, pictures in (
        ("a smaller copy", size, {}, {1: small}),
        ("a camera of its own", {}, {i: size if i != 2 else square for i in range(4)}, {2: crop}),
        ("an angle", {"camera_angle_x": 2 * math.atan(WIDTH / 2 / FOCAL)}, {}, {1: small}),
        ("sizes as stored", {}, {1: {"fl_x": FOCAL / 2}, 2: {"fl_x": FOCAL, "cx": WIDTH / 2 - 4},
                                 0: {"fl_x": FOCAL}, 3: {"fl_x": FOCAL}}, {1: small, 2: crop}),
    ):  # fmt: skip
        path = blender(tmp_path / name, table=table)
        file = tmp_path / name / "transforms_train.json"
        told = json.loads(file.read_text())
        for i, keys in frames.items():
            told["frames"][i] |= keys
        file.write_text(json.dumps(told))
        for i, picture in pictures.items():
            picture.save(tmp_path / name / "train" / f"r_{i}.png")
        source = read_transforms(FULL, path)
        cameras = source.data.cameras
        pixels, _ = project_points(BALL.double(), cameras.c2w[0], cameras.intrinsics[0].double())
        for view, pixel in zip(source.data.tensor[0], pixels, strict=True):
            assert (centroid(view) - pixel).abs().max() < 0.7
        low = "12 x 16" if 1 in pictures else "24 x 28"
        assert source.summary.taken["size"] == f"4 views of 24 x 32 (from {low} to 24 x 32)"
    path = blender(tmp_path / "ambiguous", table={"fl_x": FOCAL})
    small.save(tmp_path / "ambiguous" / "train" / "r_1.png")
    with pytest.raises(InputError, match="one fl_x for images of several sizes, .*r_1.png' is 12"):
        read_transforms(FULL, path)


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


def test_missing_images_are_skipped_with_one_warning(tmp_path):
    path = blender(tmp_path, frame={"file_path": "gone"})
    (tmp_path / "train" / "r_3.png").unlink()
    with pytest.warns(UserWarning, match="skipped 2 of 4 views, .* missing: gone, r_3") as found:
        source = read_transforms(FULL, path)
    assert len(found) == 1
    torch.testing.assert_close(source.data.cameras.c2w[0].float(), POSES[[0, 2]])
    assert source.summary.describe().endswith("2 files passed over: 2 missing (gone, r_3)")


def test_images_beside_their_file_are_found_by_their_names(tmp_path):
    """As in learnit's ShapeNet, whose names have the folder of another machine's disk."""
    expected = read_transforms(FULL, blender(tmp_path / "a"))
    path = blender(tmp_path / "b")
    for file in (tmp_path / "b" / "train").iterdir():
        file.rename(tmp_path / "b" / file.name)
    source = read_transforms(FULL, path)
    assert torch.equal(source.data.tensor, expected.data.tensor)
    assert source.summary.taken["place"] == "4 images found by name alone"
    path = blender(tmp_path / "c", frame={"file_path": "other/r_0"})
    for file in (tmp_path / "c" / "train").iterdir():
        file.rename(tmp_path / "c" / file.name)
    with pytest.raises(InputError, match="several of which have the name of one beside it, .*r_0"):
        read_transforms(FULL, path)


BENT = {"fl_x": FOCAL, "k1": -0.2, "k2": 0.02, "p1": 0.01, "p2": -0.02}


@pytest.mark.parametrize(
    ("table", "frame"),
    [
        (BENT, {}),
        (BENT | {"k3": 0.01}, {"k1": 0.1, "fl_x": 1.1 * FOCAL, "cx": 15.0}),
        ({"fl_x": FOCAL, "is_fisheye": True, "k1": 0.1, "k4": 0.01}, {"fl_y": 42.0}),
        ({"fl_x": FOCAL, "camera_model": "OPENCV_FISHEYE"}, {"k2": 0.1}),
    ],
)
def test_a_known_point_lands_on_its_known_pixel_through_any_lens(tmp_path, table, frame):
    """The pinhole cameras that are returned, and the lens's equations, lead to the same pixel."""
    source = read_transforms(FULL, blender(tmp_path, table=table, frame=frame))
    cameras = source.data.cameras
    pixels, _ = project_points(BALL.double(), cameras.c2w[0], cameras.intrinsics[0].double())
    for i, (pose, pixel, pinhole) in enumerate(
        zip(cameras.c2w[0], pixels, cameras.intrinsics[0].double(), strict=True)
    ):
        own = table | (frame if i == 1 else {})
        fisheye = own.get("is_fisheye") or own.get("camera_model") == "OPENCV_FISHEYE"
        k1, k2, k3, k4, p1, p2 = (own.get(k, 0.0) for k in ("k1", "k2", "k3", "k4", "p1", "p2"))
        fx = own["fl_x"]
        place = [fx, own.get("fl_y", fx), own.get("cx", WIDTH / 2), own.get("cy", HEIGHT / 2)]
        x, y, z = (pose[:3, :3].T @ (BALL - pose[:3, 3])).tolist()
        x, y = x / -z, y / z
        r = math.hypot(x, y)
        a = math.atan(r) if fisheye else r
        f = 1 + k1 * a**2 + k2 * a**4 + k3 * a**6 + k4 * a**8
        f = f * a / r
        across = x * f + 2 * p1 * x * y + p2 * (r**2 + 2 * x**2)
        down = y * f + p1 * (r**2 + 2 * y**2) + 2 * p2 * x * y
        seen = [place[0] * across + place[2], place[1] * down + place[3]]
        lens = Lens((k1, k2, k3, k4), fisheye=True) if fisheye else Lens((k1, k2, k3), (p1, p2))
        back = find_in_lens(pixel[0], pixel[1], pinhole, torch.tensor(place).double(), lens)
        assert [float(x) for x in back] == pytest.approx(seen, abs=1e-4)
    assert "lens distortion undone, with" in source.summary.describe()


def test_what_a_lens_has_and_what_is_not_read_is_said(tmp_path):
    table = {"fl_x": FOCAL, "aabb_scale": 4}
    path = blender(tmp_path, table=table, frame={"mask_path": "m.png"})
    line = read_transforms(FULL, path).summary.describe()
    assert "part train, aabb_scale = 4 not used, masks not read, near" in line
    assert "lens" not in line


def test_a_key_that_a_frame_leaves_open_is_that_of_its_file(tmp_path):
    table = {"fl_x": FOCAL, "k1": -0.1}
    whole = read_transforms(FULL, blender(tmp_path / "a", table=table))
    frame = {"k1": None, "fl_x": None}
    open_ = read_transforms(FULL, blender(tmp_path / "b", table=table, frame=frame))
    torch.testing.assert_close(open_.data.cameras.intrinsics, whole.data.cameras.intrinsics)
    assert torch.equal(open_.data.tensor, whole.data.tensor)
    assert not torch.equal(whole.data.cameras.intrinsics[0, 1, 0], torch.tensor(FOCAL))


def turned(folder, orientation, transpose):
    """A scene whose pictures are stored turned, with the EXIF orientation that undoes it."""
    size = {"w": WIDTH, "h": HEIGHT, "fl_x": FOCAL}
    path = blender(folder, table=size)
    for i, picture in enumerate(PICTURES):
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture.transpose(transpose).save(folder / "train" / f"r_{i}.png", exif=exif)
    return path


def test_exif_turns_are_made_where_the_camera_is_of_the_upright_image(tmp_path):
    plain = read_transforms(FULL, blender(tmp_path / "plain"))
    quarter = turned(tmp_path / "a", 6, Image.Transpose.ROTATE_90)
    source = read_transforms(FULL, quarter)
    assert torch.equal(source.data.tensor, plain.data.tensor)
    assert source.summary.taken["turned"] == "4 turned by EXIF, as their cameras are"
    half = turned(tmp_path / "b", 3, Image.Transpose.ROTATE_180)
    source = read_transforms(FULL, half)
    assert torch.equal(source.data.tensor, plain.data.tensor.flip((3, 4)))
    assert source.summary.taken["turned"].startswith("4 not turned by EXIF, since cameras are of")


def rewrite(folder, change, encode=lambda text: text.encode()):
    """A scene whose file's frames are changed, or the bytes of the file."""
    path = blender(folder)
    file = folder / "transforms_train.json"
    told = json.loads(file.read_text())
    for i, frame in enumerate(told["frames"]):
        frame |= change(i, frame)
    file.write_bytes(encode(json.dumps(told, indent=1)))
    return path


UNDER = "D:\\capture\\scene\\train\\"


@pytest.mark.parametrize(
    ("change", "encode"),
    [
        (lambda i, frame: {"file_path": frame["file_path"].replace("/", "\\")}, None),
        (lambda i, frame: {"file_path": f"{UNDER}r_{i}.png"}, None),
        (lambda i, frame: {"file_path": f"/home/me/capture/train/r_{i}.png"}, None),
        (lambda i, frame: {"transform_matrix": frame["transform_matrix"][:3]}, None),
        (lambda i, frame: {"sharpness": 31.75, "colmap_im_id": i, "rotation": 0.1}, None),
        (lambda i, frame: {"transform_matrix": list(map(list, POSES[i].tolist()))}, None),
        (lambda i, frame: {}, lambda text: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()),
    ],
    ids=["backslashes", "Windows", "absolute", "3 x 4", "more keys", "lists", "BOM and CRLF"],
)
def test_files_as_programs_write_them(tmp_path, change, encode):
    expected = read_transforms(FULL, blender(tmp_path / "a"))
    source = read_transforms(
        FULL, rewrite(tmp_path / "b", change, encode or (lambda text: text.encode()))
    )
    assert torch.equal(source.data.tensor, expected.data.tensor)
    torch.testing.assert_close(source.data.cameras.c2w, expected.data.cameras.c2w)
    by_name = source.summary.taken.get("place")
    assert by_name in (None, "4 images found by name alone")


def test_missing_images_of_another_disk_are_skipped_like_others(tmp_path):
    path = rewrite(tmp_path, lambda i, frame: {"file_path": f"{UNDER}r_{i}.png"})
    (tmp_path / "train" / "r_2.png").unlink()
    with pytest.warns(UserWarning, match="skipped 1 of 4 views, .* missing: r_2"):
        source = read_transforms(FULL, path)
    assert source.data.shape[1] == 3
    assert source.summary.taken["place"] == "3 images found by name alone"


def test_names_of_another_disk_that_nothing_in_the_folder_has(tmp_path):
    for i, name in enumerate(("/", "C:", "C:\\", "/etc/passwd", "C:\\a\\b.png", "/a/../../r.png")):
        path = rewrite(tmp_path / f"{i}", lambda i, frame, name=name: {"file_path": name})
        refused("which lies outside its folder", read_transforms, FULL, path)


def test_a_file_larger_than_memory_is_not_read(tmp_path, monkeypatch):
    path = blender(tmp_path)
    monkeypatch.setattr("fieldloom.memory.total_memory", lambda: 1000)
    refused("transforms_train.json' would take", read_transforms, FULL, path)
    monkeypatch.setattr("fieldloom.memory.total_memory", lambda: 1 << 16)
    large = Views(size=(100, 200))
    refused("4 views of 100 x 200 would take 240 kB", read_transforms, large, path)
    assert read_transforms(large, path, permit=Permit(large=True)).data.shape[1] == 4


NERFSTUDIO = {
    "camera_model": "OPENCV", "orientation_override": "none", "applied_scale": 1.0,
    "applied_transform": [[1.0, 0, 0, 0], [0, 0, 1.0, 0], [-0.0, -1.0, 0, 0]],
    "ply_file_path": "sparse_pc.ply", "auto_scale_poses_override": False,
}  # fmt: skip
NGP = {
    "camera_angle_y": 0.5, "aabb_scale": 16, "scale": 0.33, "offset": [0.5, 0.5, 0.5],
    "is_fisheye": False, "sk_x": 0.0, "from_na": True, "n2w": np.eye(4).tolist(),
    "enable_depth_loading": False, "integer_depth_scale": 0.001, "poses_from": "colmap",
}  # fmt: skip


@pytest.mark.parametrize("more", [NERFSTUDIO, NGP])
def test_a_known_point_lands_on_its_known_pixel_in_files_of_other_programs(tmp_path, more):
    """Each frame has a camera of its own, of pictures of several sizes, and keys that say no more
    about rays."""
    own = {"w": WIDTH, "h": HEIGHT, "fl_x": FOCAL, "fl_y": FOCAL, "cx": WIDTH / 2, "cy": HEIGHT / 2}
    flat = dict.fromkeys(("k1", "k2", "k3", "k4", "p1", "p2"), 0)
    path = blender(tmp_path, table=more)
    file = tmp_path / "transforms_train.json"
    told = json.loads(file.read_text())
    for i, frame in enumerate(told["frames"]):
        twice = {key: value * (1 + i % 2) for key, value in own.items()}
        frame |= twice | flat | {"depth_file_path": f"depth/{i}.png", "fovx": 43.6}
        image = tmp_path / "train" / f"r_{i}.png"
        PICTURES[i].resize((int(twice["w"]), int(twice["h"]))).save(image)
    file.write_text(json.dumps(told))
    source = read_transforms(FULL, path)
    cameras = source.data.cameras
    assert "lens" not in source.summary.taken
    pixels, _ = project_points(BALL.double(), cameras.c2w[0], cameras.intrinsics[0].double())
    for pose, pixel in zip(POSES.double(), pixels, strict=True):
        x, y, z = (pose[:3, :3].T @ (BALL - pose[:3, 3])).tolist()
        known = [WIDTH / 2 - FOCAL * x / z, HEIGHT / 2 + FOCAL * y / z]
        assert pixel.tolist() == pytest.approx(known, abs=1e-4)
    for view, pixel in zip(source.data.tensor[0], pixels, strict=True):
        assert (centroid(view) - pixel).abs().max() < 0.7
