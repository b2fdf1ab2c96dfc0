"""Posed images: one scene written in every layout comes back the same, where it stood."""

import io
import json
from pathlib import Path
from unittest.mock import ANY

import numpy as np
import pytest
import torch

from fieldloom.errors import InputError
from fieldloom.geometry.cameras import (
    opencv_from_opengl,
    project_points,
    resize_intrinsics,
)
from fieldloom.modalities.sources import SOURCES
from fieldloom.modalities.sources.files import resolve_inside
from fieldloom.modalities.sources.multiview import read_multiview
from fieldloom.modalities.sources.srn import read_srn
from fieldloom.modalities.sources.transforms import read_transforms
from fieldloom.modalities.views import Views
from fieldloom.preparation import add_suggestions
from fuzz import good
from posed_images import (
    BALL,
    FOCAL,
    HEIGHT,
    INTRINSICS,
    PICTURES,
    POSES,
    RADIUS,
    WIDTH,
    blender,
    cars,
    centroid,
    colmap,
    nsvf,
)
from refusals import READERS, draw, refused, tree, write
from shared import shared

# -- scenes


def scene(root: Path, **changes) -> str:
    """A good scene, whose ``transforms.json`` is changed; ``frame`` in its first frame."""
    found = good.scene(draw())
    told = json.loads(found["transforms.json"])
    told["frames"][0] |= changes.pop("frame", {})
    text = json.dumps(told | changes).replace('"<huge>"', "1" + "0" * 400)
    return str(tree(root, found | {"transforms.json": text.encode()}))


EYE = np.eye(4).tolist()
SCENES = [
    (
        {"frame": {"fl_x": "<huge>"}},
        "frame 0 of .*transforms.json' has fl_x = 10+.*no finite number",
    ),
    ({"w": "<huge>"}, "transforms.json' has w = 10+.* no finite number"),
    ({"fl_x": float("nan")}, "has fl_x = nan, which is no finite number"),
    ({"fl_x": float("inf")}, "has fl_x = inf, which is no finite number"),
    ({"fl_x": True}, "has fl_x = True, which is no finite number"),
    ({"fl_x": [40.0]}, r"has fl_x = \[40.0\], which is no finite number"),
    ({"k1": "none"}, "has k1 = 'none', which is no finite number"),
    ({"near": {"a": 1}}, "has near = .* no finite number"),
    ({"camera_model": 3}, "has camera_model = 3, which is no name"),
    ({"camera_model": "[/nope]" * 99}, "camera_model = .* undistort"),
    ({"is_fisheye": "no"}, "has is_fisheye = 'no', which is no true or false"),
    ({"frames": {}}, "has no list 'frames'"),
    ({"frames": None}, "has no list 'frames'"),
    ({"frames": [3]}, "frame 0 of .* has no 'file_path'"),
    ({"frames": [None]}, "frame 0 of .* has no 'file_path'"),
    ({"frame": {"file_path": None}}, "frame 0 of .* has no 'file_path'"),
    ({"frame": {"transform_matrix": [EYE]}}, "frame 0 of .* no 'transform_matrix' of 4 x 4"),
    ({"frame": {"transform_matrix": {"a": EYE}}}, "no 'transform_matrix'"),
    ({"frame": {"transform_matrix": [[*row[:3], "<huge>"] for row in EYE]}}, "no 'transform_mat"),
    ({"frame": {"transform_matrix": [[*row[:3], "0"] for row in EYE]}}, "no 'transform_matrix'"),
    ({"frame": {"transform_matrix": [[float("nan")] * 4] * 4}}, "no 'transform_matrix'"),
    ({"frame": {"file_path": "../v0.png"}}, "names '../v0.png', which lies outside its folder"),
    ({"frame": {"file_path": "a/../../v0"}}, "which lies outside its folder"),
    ({"frame": {"file_path": ""}}, "frame 0 of .* has an empty 'file_path'"),
    ({"frame": {"file_path": "/etc/passwd"}}, "names '/etc/passwd', which lies outside"),
]


@pytest.mark.parametrize(("changes", "words"), SCENES)
def test_scenes_that_are_wrong(changes, words, tmp_path):
    write(tmp_path / "v0.png", good.picture(draw(), "png", 8))  # where the names lead
    refused(words, READERS["transforms"], scene(tmp_path / "scene", **changes))


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "\x1b[31m"])
def test_names_that_no_image_can_have(name, tmp_path):
    path = scene(tmp_path, frame={"file_path": name})
    with pytest.warns(UserWarning, match="skipped 1 of 3 views, whose images are missing") as found:
        source = READERS["transforms"](path)
    assert str(found[0].message).isprintable()
    assert source.summary.describe().isprintable()
    assert source.data.shape[1] == 2


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"null", b"{}", b"3"])
def test_files_that_are_no_scene(text, tmp_path):
    path = scene(tmp_path)
    write(tmp_path / "transforms.json", text)
    refused("no JSON that can be read|has no list 'frames'", READERS["transforms"], path)


def test_names_are_followed_within_their_folder(tmp_path):
    """Also where a picture is a link to one elsewhere: that the user made, not the file."""
    for name in ("v0.png", "./v0.png", "a/../v0", str(tmp_path / "scene" / "v0.png")):
        path = scene(tmp_path / "scene", frame={"file_path": name})
        assert READERS["transforms"](path).data.shape[1] == 3
    (tmp_path / "scene" / "v0.png").rename(tmp_path / "moved.png")
    (tmp_path / "scene" / "v0.png").symlink_to(tmp_path / "moved.png")
    assert resolve_inside(Path("a/b.json"), "c/../d.png") == Path("a/d.png")
    refused("outside", resolve_inside, Path("b.json"), "..")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("pose/0.txt", "1e400 " * 16, "no file of numbers .*finite"),
        ("pose/0.txt", "nan " * 16, "no file of numbers .*finite"),
        ("pose/0.txt", "", "has 0 numbers"),
        ("pose/0.txt", "\xff", "no file of numbers"),
        ("intrinsics.txt", "", "must begin with"),
        ("intrinsics.txt", "1e999 4 4 0\n8 8", "no file of numbers"),
        ("intrinsics.txt", "10 4 4 0\n0 8", "must begin with"),
        ("intrinsics.txt", "8 8", "must begin with"),
    ],
)
def test_objects_that_are_wrong(name, text, words, tmp_path):
    path = tree(tmp_path / "car", good.srn(draw()) | {name: text.encode("latin1")})
    refused(words, READERS["srn"], str(path))


FULL = Views(size=(HEIGHT, WIDTH))


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
            "c2w": torch.float64, "intrinsics": torch.float32,
        }  # fmt: skip
        found = source.data.cameras.c2w[0].float()
        torch.testing.assert_close(found, POSES, atol=2e-6, rtol=0)
        torch.testing.assert_close(source.data.cameras.intrinsics[0], INTRINSICS.expand(4, 4))
        pixels, _ = project_points(
            BALL, source.data.cameras.c2w[0], source.data.cameras.intrinsics[0]
        )
        for view, pixel in zip(source.data.tensor[0], pixels, strict=True):
            assert (centroid(view) - pixel).abs().max() < 0.5
        assert (source.train.tolist(), source.test.tolist()) == ([0], [])
        orbit = source.suggests["modality"]
        assert orbit == pytest.approx({"radius": RADIUS, "focal": 1.25, "up": 2, "frame": ANY})
        scale = RADIUS * WIDTH / 2 / FOCAL  # half the width of what is seen at that distance
        assert orbit["frame"] == pytest.approx([0, 0, 0, scale], abs=1e-6)
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


def test_scenes_of_different_numbers_of_views(tmp_path):
    for read, layout in ((read_transforms, blender), (read_srn, cars)):
        root = tmp_path / layout.__name__
        for count in (3, 4):
            layout(root / str(count), count=count)
        with pytest.raises(InputError, match="3' has 3 views: others have 4.*views to 3 or less"):
            read(FULL, str(root))
        with pytest.raises(InputError, match="3' has 3 views: source.views = 4"):
            read(FULL, str(root), views=4)
        assert read(FULL, str(root), views=3, split=(1, 1)).data.shape[:2] == (2, 3)


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
    white = read_multiview(size, str(path), limit=2, split=(1, 1))
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


# -- views that are held out


@pytest.mark.parametrize(
    ("every", "order"),
    [(2, [1, 3, 0, 2]), (3, [1, 2, 0, 3]), (8, [1, 2, 3, 0])],
)
def test_every_other_view_is_held_out_in_all_layouts(tmp_path, every, order):
    sources = [
        read_multiview(FULL, packed(tmp_path / "v.npz"), hold_out=every),
        read_transforms(FULL, blender(tmp_path / "a"), hold_out=every),
        read_srn(FULL, cars(tmp_path / "b"), hold_out=every),
        SOURCES["colmap"](FULL, colmap(tmp_path / "c"), hold_out=every),
    ]
    held = -(-4 // every)
    for source in sources:
        found = source.data.cameras.c2w[0].float()
        torch.testing.assert_close(found, POSES[order], atol=2e-6, rtol=0)
        assert (source.data.tensor[0].numpy() == expected((HEIGHT, WIDTH))[order]).all()
        assert source.suggests["modality"]["held"] == held
        assert f"{held} held out, one in {every}, " in source.summary.describe()


def test_the_test_part_of_a_file_is_held_out(tmp_path):
    for part, count in (("train", 4), ("test", 2)):
        blender(tmp_path / "a", part=part, count=count)
    lists = {"train_filenames": ["train/r_3", "train/r_1"], "val_filenames": ["train/r_0"]}
    blender(tmp_path / "b", table={"fl_x": FOCAL, **lists})
    (tmp_path / "b" / "transforms_train.json").rename(tmp_path / "b" / "transforms.json")
    for name, order, words in (
        ("a", [0, 1, 2, 3, 0, 1], "2 views of the test part held out"),
        ("b", [1, 3, 0], "1 view of the test part held out"),
    ):
        source = read_transforms(FULL, str(tmp_path / name), hold_out=8)
        torch.testing.assert_close(source.data.cameras.c2w[0].float(), POSES[order])
        assert words in source.summary.describe()
    few = read_transforms(FULL, str(tmp_path / "a"), hold_out=8, views=1)
    assert few.data.shape[1] == 3
    assert list(source.summary.passed_over["in no part"]) == ["./train/r_2"]


def test_images_that_are_held_out_and_trained_on_are_said(tmp_path):
    lists = {"train_filenames": ["train/r_0", "train/r_1"], "test_filenames": ["train/r_1"]}
    path = blender(tmp_path, table={"fl_x": FOCAL, **lists})
    (tmp_path / "transforms_train.json").rename(tmp_path / "transforms.json")
    line = read_transforms(FULL, path, hold_out=8).summary.describe()
    assert "1 view of the test part held out, 1 of them also trained on, " in line


def test_what_the_recipe_holds_out_and_what_its_source_does_must_agree(tmp_path):
    path = blender(tmp_path)
    held = lambda count, **more: read_transforms(
        Views(size=(HEIGHT, WIDTH), held=count), path, hold_out=2, **more
    )
    assert held(2).data.shape[1] == held(1, suggest=False).data.shape[1] == 4
    with pytest.raises(InputError, match="held = 1, and source.hold_out = 2 holds out 2 of 4"):
        held(1)
    for off in (0, None):
        source = read_transforms(Views(size=(HEIGHT, WIDTH), held=1), path, hold_out=off)
        assert "held" not in source.suggests["modality"]
        assert "held" not in source.summary.taken
    with pytest.raises(InputError, match="hold_out = 1 leaves nothing to train on"):
        read_transforms(Views(size=(HEIGHT, WIDTH)), path, hold_out=1)
    asked = add_suggestions({"modality": {"name": "views", "held": 0}}, held(0))
    assert asked["modality"]["held"] == 2
    none = add_suggestions({"modality": {"name": "views", "held": 0}}, read_transforms(FULL, path))
    assert none["modality"]["held"] == 0
    one = read_transforms(FULL, path, hold_out=2, views=1)
    assert one.summary.taken["held"] == "too few views to hold any out"
    assert "held" not in one.suggests["modality"]


# -- a known point


def pixel_by_hand(point, pose, size) -> list[float]:
    """Where the pinhole camera of ``INTRINSICS`` shows a point, number by number."""
    x, y, z = (
        sum(float(pose[i, j]) * (float(point[i]) - float(pose[i, 3])) for i in range(3))
        for j in range(3)
    )
    u, v = WIDTH / 2 - FOCAL * x / z, HEIGHT / 2 + FOCAL * y / z
    return [u * size[1] / WIDTH, v * size[0] / HEIGHT]


MATRIX = f"{FOCAL} 0 {WIDTH / 2}\n0 {FOCAL} {HEIGHT / 2}\n0 0 1\n"
LAYOUTS = {
    "multiview": lambda f: read_multiview(SQUEEZED, packed(f / "v.npz", poses=FINE)),
    "transforms": lambda f: read_transforms(SQUEEZED, blender(f / "a", FINE)),
    "transforms, opencv": lambda f: read_transforms(
        SQUEEZED, blender(f / "a", opencv_from_opengl(FINE)), convention="opencv"
    ),
    "srn": lambda f: read_srn(SQUEEZED, cars(f / "a", FINE)),
    "srn, inverse": lambda f: read_srn(
        SQUEEZED, cars(f / "a", opencv_from_opengl(torch.linalg.inv(opencv_from_opengl(FINE))),
                       end="1\n"),
    ),
    "nsvf": lambda f: SOURCES["nsvf"](SQUEEZED, nsvf(f / "a", FINE), part="all"),
    "nsvf, 3 x 3": lambda f: SOURCES["nsvf"](SQUEEZED, nsvf(f / "a", FINE, table=MATRIX),
                                             part="all"),
    "colmap": lambda f: SOURCES["colmap"](SQUEEZED, colmap(f / "a", FINE)),
    "colmap, text": lambda f: SOURCES["colmap"](SQUEEZED, colmap(f / "a", FINE, text=True)),
}  # fmt: skip
FINE = POSES.double()
_turned, _signs = torch.linalg.qr(FINE[:, :3, :3])
FINE[:, :3, :3] = _turned * _signs.diagonal(dim1=1, dim2=2).sign().unsqueeze(1)
SQUEEZED = Views(size=(12, 40))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_known_points_land_on_their_known_pixels(tmp_path, layout):
    """To 1e-4, in images of other proportions than the file's."""
    cameras = LAYOUTS[layout](tmp_path).data.cameras
    for point in (BALL.tolist(), (-0.4, 0.5, 0.1), (0.0, 0.0, 0.0)):
        at = torch.tensor(point, dtype=torch.float64)
        pixels, _ = project_points(at, cameras.c2w[0], cameras.intrinsics[0].double())
        for pixel, pose in zip(pixels, FINE, strict=True):
            known = pixel_by_hand(point, pose, SQUEEZED.size)
            assert pixel.tolist() == pytest.approx(known, abs=1e-4)
