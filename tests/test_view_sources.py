"""Posed pictures: one scene written in every layout comes back the same, where it stood."""

import io
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from fieldloom.errors import InputError
from fieldloom.geometry.cameras import (
    look_at,
    opencv_from_opengl,
    orbit,
    project_points,
    rays,
    resize_intrinsics,
)
from fieldloom.modalities.sources.srn import read_srn
from fieldloom.modalities.sources.transforms import read_transforms
from fieldloom.modalities.sources.views import read_multiview
from fieldloom.modalities.views import Views
from shared import shared

HEIGHT, WIDTH, FOCAL, RADIUS = 24, 32, 40.0, 3.0
INTRINSICS = torch.tensor([FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2])
BALL = torch.tensor([0.3, -0.2, 0.25])
FULL = Views(size=(HEIGHT, WIDTH))


def ball(c2w: torch.Tensor, intrinsics: torch.Tensor = INTRINSICS) -> Image.Image:
    """A red ball of radius 0.3 at ``BALL``, clear around: blue where nobody sees it."""
    ray = rays(c2w, intrinsics, HEIGHT, WIDTH)
    direction = ray[:, 3:] / ray[:, 3:].norm(dim=1, keepdim=True)
    offset = BALL - ray[:, :3]
    along = (offset * direction).sum(1, keepdim=True)
    met = (offset - along * direction).norm(dim=1) < 0.3
    pixels = torch.tensor([[0, 0, 255, 0], [255, 0, 0, 255]], dtype=torch.uint8)[met.long()]
    return Image.fromarray(pixels.reshape(HEIGHT, WIDTH, 4).numpy())


POSES = orbit(4, RADIUS, 25.0)
PICTURES = [ball(pose) for pose in POSES]


def expected(size: tuple[int, int], background: int = 255) -> np.ndarray:
    """(views, 3, height, width): composited by hand, then means of whole blocks."""
    made = []
    for image in PICTURES:
        array = np.asarray(image).astype(float)
        alpha = array[..., 3:] / 255
        seen = alpha * array[..., :3] + (1 - alpha) * background
        blocks = seen.reshape(size[0], HEIGHT // size[0], size[1], WIDTH // size[1], 3)
        made.append(blocks.mean((1, 3)).transpose(2, 0, 1))
    return np.stack(made)


def centroid(white: torch.Tensor) -> torch.Tensor:
    """(u, v) of what is no background, (3, height, width) uint8 on white."""
    weight = 255 - white.float().amin(0)
    v, u = torch.meshgrid(*(torch.arange(n) + 0.5 for n in weight.shape), indexing="ij")
    return torch.stack([(weight * u).sum(), (weight * v).sum()]) / weight.sum()


def packed(path, poses=POSES, objects=1, **more):
    blobs = []
    for image in PICTURES * objects:
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", lossless=True)
        blobs.append(buffer.getvalue())
    arrays = dict(
        data=np.frombuffer(b"".join(blobs), np.uint8),
        offsets=np.cumsum([0] + [len(b) for b in blobs]),
        c2w=poses.numpy() if objects == 1 else np.stack([poses.numpy()] * objects),
        focal=np.float32(FOCAL), height=np.int64(HEIGHT), width=np.int64(WIDTH),
    )  # fmt: skip
    np.savez(path, **(arrays | more))
    return str(path)


def blender(folder, poses=POSES, part="train", count=4, table=None, frame=None, suffix=".png"):
    """A scene of Blender's layout, or with other keys in the whole file and in frame 1."""
    (folder / part).mkdir(parents=True)
    frames = []
    for i, (pose, image) in enumerate(zip(poses[:count], PICTURES, strict=False)):
        image.save(folder / part / f"r_{i}{suffix}", lossless=True)
        frames.append({"file_path": f"./{part}/r_{i}", "transform_matrix": pose.tolist()})
    frames[1] |= frame or {}
    angle = {"camera_angle_x": 2 * math.atan(WIDTH / 2 / FOCAL)}
    file = folder / f"transforms_{part}.json"
    file.write_text(json.dumps((angle if table is None else table) | {"frames": frames}))
    return str(folder)


def cars(folder, poses=POSES, count=4, end=""):
    """An object in SRN's layout."""
    (folder / "rgb").mkdir(parents=True)
    (folder / "pose").mkdir()
    for i, (pose, image) in enumerate(zip(poses[:count], PICTURES, strict=False)):
        image.save(folder / "rgb" / f"{i:06d}.png")
        numbers = " ".join(f"{x:.9g}" for x in opencv_from_opengl(pose).flatten().tolist())
        (folder / "pose" / f"{i:06d}.txt").write_text(numbers + "\n")
    head = f"{FOCAL} {WIDTH / 2} {HEIGHT / 2} 0.\n0. 0. 0.\n1.\n{HEIGHT} {WIDTH}\n"
    (folder / "intrinsics.txt").write_text(head + end)
    return str(folder)


def test_one_scene_in_every_layout(tmp_path):
    """The same pictures and cameras, whatever the layout, and the ball where it stands."""
    inverse = torch.linalg.inv(opencv_from_opengl(POSES))
    ngp = {"fl_x": FOCAL, "fl_y": FOCAL, "cx": WIDTH / 2, "cy": HEIGHT / 2, "w": WIDTH, "h": HEIGHT}
    flat = {"camera_model": "OPENCV", "k1": 0.0, "k2": 0, "p1": 0.0, "p2": 0.0}
    sources = [
        read_multiview(FULL, packed(tmp_path / "v.npz")),
        read_transforms(FULL, blender(tmp_path / "a")),
        read_transforms(FULL, blender(tmp_path / "b", table=ngp | flat, suffix=".webp")
                   + "/transforms_train.json"),
        read_transforms(
            FULL, blender(tmp_path / "c", opencv_from_opengl(POSES)), convention="opencv"
        ),
        read_srn(FULL, cars(tmp_path / "d")),
        read_srn(FULL, cars(tmp_path / "e", opencv_from_opengl(inverse), end="1\n")),
    ]  # fmt: skip
    for source in sources:
        assert source.data.shape == (1, 4, 3, HEIGHT, WIDTH)
        assert source.data.tensor.dtype == torch.uint8
        assert (source.data.tensor[0].numpy() == expected((HEIGHT, WIDTH))).all()
        assert {key: x.dtype for key, x in source.data.extras().items()} == {
            "c2w": torch.float32, "intrinsics": torch.float32,
        }  # fmt: skip
        torch.testing.assert_close(source.data.cameras.c2w[0], POSES, atol=2e-6, rtol=0)
        torch.testing.assert_close(source.data.cameras.intrinsics[0], INTRINSICS.expand(4, 4))
        pixels, _ = project_points(
            BALL, source.data.cameras.c2w[0], source.data.cameras.intrinsics[0]
        )
        for view, pixel in zip(source.data.tensor[0], pixels, strict=True):
            assert (centroid(view) - pixel).abs().max() < 0.5
        assert (source.train.tolist(), source.test.tolist()) == ([0], [])
        assert source.suggests["modality"] == {"radius": RADIUS, "focal": 1.25, "up": 2}
        assert source.suggests["renderer"] == pytest.approx({"near": 1.5, "far": 4.5}, abs=1e-4)


@pytest.mark.parametrize(("background", "level"), [("white", 255), ("black", 0)])
def test_pictures_are_composited_and_then_averaged(tmp_path, background, level):
    """Hidden blue leaves no rim, and other proportions keep every ray on the scene."""
    path = packed(tmp_path / "v.npz")
    for size in [(12, 16), (8, 16), (24, 8)]:
        source = read_multiview(Views(size=size), path, background=background)
        close = source.data.tensor[0].numpy() - expected(size, level)
        assert np.abs(close).max() <= 1  # Pillow rounds the rows and then the columns
        wanted = resize_intrinsics(INTRINSICS, (HEIGHT, WIDTH), size)
        torch.testing.assert_close(source.data.cameras.intrinsics[0, 0], wanted)
        if background == "white":
            pixels, _ = project_points(
                BALL, source.data.cameras.c2w[0], source.data.cameras.intrinsics[0]
            )
            for view, pixel in zip(source.data.tensor[0], pixels, strict=True):
                assert (centroid(view) - pixel).abs().max() < 0.5
    assert source.filter == "box"


def test_packed_objects(tmp_path):
    kinds = np.array(["car", "cow", "car"])
    path = packed(tmp_path / "v.npz", objects=3, category=kinds, camera_radius=np.float32(RADIUS))
    source = read_multiview(FULL, path, label="category", views=3, split=(2, 1), shuffle=False)
    assert source.data.shape == (3, 3, 3, HEIGHT, WIDTH)
    assert source.data.cameras.c2w.shape == (3, 3, 4, 4)
    assert source.names == ("car", "cow")
    assert source.labels.tolist() == [0, 1, 0]
    assert (source.train.tolist(), source.test.tolist()) == ([0, 1], [2])
    assert (source.data.tensor[2].numpy() == expected((HEIGHT, WIDTH))[:3]).all()
    assert source.suggests["renderer"] == {"near": 2.5, "far": 3.5}
    assert len(read_multiview(FULL, path, label="category", limit=2, split=(1, 1)).data) == 2
    near = packed(tmp_path / "n.npz", near=np.float32(1), far=np.float32(9))
    assert read_multiview(FULL, near).suggests["renderer"] == {"near": 1.0, "far": 9.0}


def test_folders_of_scenes(tmp_path):
    for name in ("b", "a"):
        blender(tmp_path / "nerf" / name, POSES if name == "a" else POSES.flip(0))
        cars(tmp_path / "cars" / name, POSES if name == "a" else POSES.flip(0))
    (tmp_path / "nerf" / "notes").mkdir()
    for source in (
        read_transforms(FULL, str(tmp_path / "nerf"), views=2, split=(1, 1), shuffle=False),
        read_srn(FULL, str(tmp_path / "cars"), views=2, split=(1, 1), shuffle=False),
    ):
        assert source.data.shape == (2, 2, 3, HEIGHT, WIDTH)
        torch.testing.assert_close(source.data.cameras.c2w[0], POSES[:2], atol=2e-6, rtol=0)
        torch.testing.assert_close(source.data.cameras.c2w[1], POSES.flip(0)[:2], atol=2e-6, rtol=0)
    assert len(read_transforms(FULL, str(tmp_path / "nerf"), limit=1).data) == 1


def test_parts_of_a_scene(tmp_path):
    for part, count in (("train", 4), ("test", 2)):
        blender(tmp_path, part=part, count=count)
    count = lambda part: read_transforms(FULL, str(tmp_path), part=part).data.shape[1]
    assert (count("train"), count("test"), count("all")) == (4, 2, 6)
    with pytest.raises(InputError, match="has only transforms_test.json, transforms_train.json"):
        count("val")
    (tmp_path / "transforms_train.json").rename(tmp_path / "transforms.json")
    (tmp_path / "transforms_test.json").unlink()
    assert (count("train"), count("all")) == (4, 4)
    with pytest.raises(InputError, match="has only transforms.json"):
        count("test")


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
        (lambda: Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint16)).save(picture), "8 bits"),
        (picture.unlink, "lacks 1 of the files of its 4 frames; .* is .*r_2"),
    ):
        change()
        with pytest.raises(InputError, match=message):
            read()


def test_scenes_of_different_numbers_of_views(tmp_path):
    for read, write in ((read_transforms, blender), (read_srn, cars)):
        root = tmp_path / write.__name__
        for count in (3, 4):
            write(root / str(count), count=count)
        with pytest.raises(InputError, match="3' has 3 views: others have 4.*views to 3 or less"):
            read(FULL, str(root))
        with pytest.raises(InputError, match="3' has 3 views: source.views = 4"):
            read(FULL, str(root), views=4)
        assert read(FULL, str(root), views=3, split=(1, 1)).data.shape[:2] == (2, 3)


def test_objects_of_srn_that_are_wrong(tmp_path):
    with pytest.raises(InputError, match="holds no object"):
        read_srn(FULL, str(tmp_path))
    path = tmp_path / "car"
    read = lambda: read_srn(FULL, cars_path)
    cars_path = cars(path)
    table, pose = path / "intrinsics.txt", path / "pose" / "000001.txt"
    lines, numbers = table.read_text(), pose.read_text()
    for file, text, message in (
        (table, "40 16", "must begin with 'f cx cy 0' and end with 'height width'"),
        (table, "forty", "is no file of numbers"),
        (table, lines.replace("40.0", "1.25"), "000000.png' has the focal lengths 1.25"),
        (pose, "1 2 3", "000001.txt' has 3 numbers"),
        (pose, "9 " + numbers.split(" ", 1)[1], "pose of .*000001.png"),
    ):
        before = file.read_text()
        file.write_text(text)
        with pytest.raises(InputError, match=message):
            read()
        file.write_text(before)
    assert len(read().data) == 1
    (path / "pose" / "000003.txt").unlink()
    (path / "rgb" / "000002.png").unlink()
    with pytest.raises(InputError, match="lacks 2 of the files of its 4 frames.*000002.png"):
        read()
    for file in [*path.glob("rgb/*"), *path.glob("pose/*")]:
        file.unlink()
    with pytest.raises(InputError, match="has no frames"):
        read()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"c2w": np.eye(4)[None]}, r"has 4 images and poses of the shape \(1, 1, 4, 4\)"),
        ({"c2w": np.zeros((0, 4, 4)), "offsets": np.zeros(1, int)}, "has 0 images"),
        ({"focal": np.ones(3)}, "the array 'focal' of .* must be one number"),
        ({"focal": np.float32(1.25)}, "view 0 of object 0 of .* focal lengths 1.25"),
        ({"width": np.int64(64)}, "view . of object 0 of .* is 24 x 32 pixels, where .* 24 x 64"),
        ({"c2w": POSES.numpy() * 1.1}, "pose of view 0 of object 0"),
        ({"data": np.zeros(99999, np.uint8)}, "view . of object 0 .* is no image"),
        ({"near": np.float32(5), "far": np.float32(1)}, "near = 5, far = 1"),
    ],
)
def test_packed_files_that_are_wrong(tmp_path, more, message):
    with pytest.raises(InputError, match=message):
        read_multiview(FULL, packed(tmp_path / "v.npz", **more))


def test_labels_that_are_wrong(tmp_path):
    path = packed(tmp_path / "v.npz", objects=2, category=np.array(["a", "b", "c"]))
    with pytest.raises(InputError, match="has 3 'category' for 2 objects"):
        read_multiview(FULL, path, label="category")
    with pytest.raises(InputError, match="has no array 'kind'"):
        read_multiview(FULL, path, label="kind")


def test_the_objects_of_the_shared_folder_stand_where_their_meshes_do():
    """Silhouettes of all views against the projected vertices of the same shapes."""
    path = shared("data", "multiview128.npz")
    meshes = np.load(shared("data", "meshes_cc0.npz"))
    file = np.load(path)
    size = Views(size=128)
    white = read_multiview(size, str(path), label="category", limit=2, split=(1, 1))
    black = read_multiview(size, str(path), limit=2, split=(1, 1), background="black")
    assert white.data.shape == (2, 24, 3, 128, 128)
    assert white.suggests == {
        "renderer": {"near": 1.1, "far": 2.1},
        "modality": {"radius": 1.6, "focal": 1.25, "up": 2},
    }
    clear = white.data.tensor.int() - black.data.tensor.int()  # 255 where nothing is
    silhouettes = clear[:, :, 0] < 128
    keys = list(zip(*(meshes[key].tolist() for key in ("category", "name", "pack")), strict=True))
    for j in range(2):
        at = keys.index(tuple(str(file[key][j]) for key in ("category", "name", "pack")))
        ends = meshes["vert_offsets"][at : at + 2]
        vertices = torch.from_numpy(meshes["verts"][ends[0] : ends[1]])
        c2w, intrinsics = white.data.cameras.c2w[j].unsqueeze(1), white.data.cameras.intrinsics[j]
        pixels, depth = project_points(vertices, c2w, intrinsics.unsqueeze(1))
        assert depth.min() > 1.1
        assert depth.max() < 2.1
        for silhouette, corners in zip(silhouettes[j], pixels, strict=True):
            place = silhouette.nonzero().flip(1)  # (u, v)
            box = torch.stack([place.amin(0), place.amax(0) + 1]).float()
            outer = torch.stack([corners.amin(0), corners.amax(0)])
            assert (box - outer).abs().max() < 1.5


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
