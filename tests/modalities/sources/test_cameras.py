"""A scene is the same scene wherever it stands, and in any unit."""

import math
from unittest.mock import ANY

import pytest
import torch
from PIL import Image

from fieldloom.errors import InputError
from fieldloom.geometry.cameras import look_at, orbit, project_points
from fieldloom.modalities.sources.cameras import find_up, share_around, share_inside
from fieldloom.modalities.sources.srn import read_srn
from fieldloom.modalities.sources.transforms import read_transforms
from fieldloom.modalities.views import Views
from fieldloom.renderers import Volume
from posed_images import (
    BALL,
    FOCAL,
    HEIGHT,
    PLACES,
    POSES,
    RADIUS,
    WIDTH,
    blender,
    cars,
    centroid,
    stand,
)

FULL = Views(size=(HEIGHT, WIDTH))


def seen_by_the_field(source, size=(HEIGHT, WIDTH)):
    """All rays, near, far and the orbit's poses in the field's coordinates."""
    views = Views(size=size, **source.suggests["modality"])
    render = Volume(**source.suggests["renderer"], unit_length=views.unit_length)
    orbit = views.place(views.cameras(5)).c2w
    return views.observe(source.data).target.coords, torch.tensor([render.near, render.far]), orbit


@pytest.mark.parametrize("place", PLACES)
def test_a_scene_is_seen_alike_wherever_it_stands(tmp_path, place):
    """In every layout; its cameras stay where they were, to the last digit of the file."""
    move, scale = PLACES[place]
    home = seen_by_the_field(read_transforms(FULL, blender(tmp_path / "home")))
    poses = stand(place)
    near = {"near": 1.5 * scale, "far": 4.5 * scale}
    sources = [
        read_transforms(FULL, blender(tmp_path / "a", poses)),
        read_transforms(FULL, blender(tmp_path / "b", poses, table={"fl_x": FOCAL, **near})),
        read_srn(FULL, cars(tmp_path / "c", poses)),
    ]
    for source in sources:
        cameras = source.data.cameras
        assert cameras.c2w.dtype == torch.float64
        torch.testing.assert_close(cameras.c2w[0], poses, atol=0, rtol=1e-12)
        pixels, _ = project_points(BALL * scale + torch.tensor(move).double(),
                                   cameras.c2w[0], cameras.intrinsics[0].double())  # fmt: skip
        for view, pixel in zip(source.data.tensor[0], pixels, strict=True):
            assert (centroid(view) - pixel).abs().max() < 0.5
        for found, expected in zip(seen_by_the_field(source), home, strict=True):
            torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-6)
        orbit = Views(**source.suggests["modality"]).cameras()
        middle, depth = project_points(torch.tensor(move).double(), orbit.c2w, orbit.intrinsics)
        torch.testing.assert_close(middle, torch.full_like(middle, 32), atol=1e-3, rtol=0)
        torch.testing.assert_close(depth, torch.full_like(depth, RADIUS * scale))


def test_the_line_says_where_a_scene_stood(tmp_path):
    path = blender(tmp_path / "a", stand("on a map"))
    line = read_transforms(Views(size=(12, 16)), path).summary.describe()
    assert line == (
        "1 scene, 4 views of 12 x 16 (from 24 x 32), part train, near 37.5, far 112.5 (guessed "
        "from the cameras), centred at (500000, 4000000, 120) and scaled by 0.03333"
    )
    line = read_transforms(FULL, path, frame="file").summary.describe()
    assert line.endswith("part train, near 37.5, far 112.5 (guessed from the cameras)")
    own = Views(size=(HEIGHT, WIDTH), frame=(1.0, 2.0, 3.0, 4.0))
    assert read_transforms(own, path).summary.taken["frame"] == (
        "centred at (1, 2, 3) and scaled by 0.25"
    )
    of_a_run = read_transforms(FULL, path, suggest=False)
    assert "frame" not in of_a_run.suggests["modality"]
    assert of_a_run.summary.describe().endswith("part train")


def test_sets_and_published_rows_keep_their_own_coordinates(tmp_path):
    """An orbit goes around what all cameras look at, where that is far from the origin."""
    for name in ("a", "b"):
        blender(tmp_path / "moved" / name, stand("moved"))
        blender(tmp_path / "home" / name)
    many = read_transforms(FULL, str(tmp_path / "moved"), split=(2, 0))
    assert many.data.cameras.c2w.dtype == torch.float32
    one = read_transforms(FULL, str(tmp_path / "moved" / "a"), frame="file")
    for source in (many, one):
        assert source.suggests["modality"] == pytest.approx(
            {"radius": RADIUS, "focal": 1.25, "up": 2, "centre": ANY}
        )
        assert source.suggests["modality"]["centre"] == pytest.approx([10, 20, 5], abs=1e-5)
        assert source.suggests["renderer"] == pytest.approx({"near": 1.5, "far": 4.5}, abs=1e-4)
        orbit = Views(**source.suggests["modality"]).cameras().c2w
        eye = orbit[:, :3, 3] - torch.tensor([10.0, 20.0, 5.0])
        torch.testing.assert_close(eye.norm(dim=1).float(), torch.full((8,), RADIUS))
    home = read_transforms(FULL, str(tmp_path / "home"), split=(2, 0))
    assert home.suggests["modality"] == {"radius": RADIUS, "focal": 1.25, "up": 2}


AXIS = torch.tensor([0.0, 0.0, 1.0])
CIRCLE = orbit(4, RADIUS, 0.0)
ASIDE = CIRCLE[:1].repeat(4, 1, 1)
ASIDE[:, :3, 3] += torch.linspace(-0.5, 0.5, 4)[:, None] * ASIDE[:, :3, 0]
AWAY = ASIDE.clone()  # the origin is out of view
AWAY[:, 1, 3] += 9
AWAY[:, 0, 3] -= RADIUS
OUTWARDS = look_at(CIRCLE[:, :3, 3], 2 * CIRCLE[:, :3, 3], AXIS)
PANORAMA = OUTWARDS.clone()
PANORAMA[:, :3, 3] = torch.tensor([1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("poses", "bounds", "frame"),
    [
        (ASIDE[:1], None, [0, 0, 0, 1.2]),  # the origin, which it looks at
        (ASIDE[:1], (1.0, 6.0), [0, 0, 0, 1.2]),
        (ASIDE, None, [0, 0, 0, 1.2]),
        (AWAY, None, [0, 9, 0, 0.5]),
        (OUTWARDS, None, [0, 0, 0, 3]),
        (OUTWARDS, (1.0, 6.0), [0, 0, 0, 9]),
        (PANORAMA, None, [1, 2, 3, 1]),
        (PANORAMA, (1.0, 6.0), [1, 2, 3, 6]),
        (PANORAMA[:1].expand(4, 4, 4), None, [1, 2, 3, 1]),
    ],
)
def test_cameras_without_a_focus(tmp_path, poses, bounds, frame):
    """Parallel, outward, at one point: their middle and their extent, and depths are asked for."""
    more = {} if bounds is None else dict(zip(("near", "far"), bounds, strict=True))
    path = blender(tmp_path, poses, count=len(poses), table={"fl_x": FOCAL, **more})
    source = read_transforms(FULL, path)
    assert source.suggests["modality"]["frame"] == pytest.approx(frame, abs=1e-5)
    views = Views(size=(HEIGHT, WIDTH), **source.suggests["modality"])
    assert views.cameras().c2w.isfinite().all()
    known = bounds is not None or poses.data_ptr() == ASIDE.data_ptr()
    assert set(source.suggests["renderer"]) == ({"near", "far"} if known else set())
    assert ("near and far unknown" in source.summary.describe()) is not known


OUTWARD = look_at(
    torch.zeros(4, 3).double(),
    torch.tensor([[1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]]).double(),
    torch.tensor([0, 0, 1]).double(),
)
"""Cameras at one point that look around: they have no common point in front of them."""


def test_depths_of_the_recipe_bound_what_cameras_that_look_outwards_see(tmp_path):
    """The frame holds all up to the recipe's far, and the line tells what will be used."""
    path = blender(tmp_path / "a", OUTWARD)
    given = {"near": 0.5, "far": 40.0}
    source = read_transforms(FULL, path, depths=given)
    assert source.suggests["renderer"] == given
    assert source.suggests["modality"]["frame"] == (0.0, 0.0, 0.0, 40.0)
    assert "near 0.5, far 40 (of the recipe), centred" in source.summary.describe()
    line = read_transforms(FULL, path, depths={"far": 40.0}).summary.describe()
    assert "near unknown, since the cameras look at no common point (set renderer.near)" in line


def test_a_depth_of_the_recipe_and_one_that_is_guessed(tmp_path):
    path = blender(tmp_path / "a")
    alone = read_transforms(FULL, path).suggests
    source = read_transforms(FULL, path, depths={"far": 7.0})
    assert source.suggests["renderer"] == alone["renderer"] | {"far": 7.0}
    assert source.suggests["modality"] == alone["modality"]
    words = "near 1.5 (guessed from the cameras), far 7 (of the recipe)"
    assert words in source.summary.describe()


def test_half_of_a_files_depths_is_refused(tmp_path):
    path = blender(tmp_path / "a", table={"fl_x": FOCAL, "near": 1.0})
    with pytest.raises(InputError, match="has one of near and far: give both, or neither"):
        read_transforms(FULL, path)


@pytest.mark.parametrize(
    ("depths", "told"),
    [
        ({"near": 1.5, "far": 4.5, "scale": 1.0}, False),
        ({"near": 0.0, "far": 40.0, "scale": 1.0}, True),
        ({"near": 0.0, "far": 40.0, "scale": 20.0}, False),
        ({"near": 0.0, "far": 40.0}, False),  # no volume rendering
    ],
)
def test_samples_outside_the_fields_domain_are_said(tmp_path, depths, told):
    source = read_transforms(FULL, blender(tmp_path), depths=depths)
    line = source.summary.describe()
    assert ("% of the samples between near and far lie within the field's domain" in line) is told
    assert "scale" not in source.suggests["renderer"]


def test_the_share_of_samples_in_the_domain():
    """A camera at (0, 0, 4) of a narrow view: from depth 3 to 5 samples lie inside."""
    pose = look_at(torch.tensor([[0.0, 0, 4]]), torch.zeros(1, 3), torch.tensor([0.0, 1, 0]))
    narrow = torch.tensor([[4000.0, 4000, 8, 8]])
    found = share_inside(pose, narrow, (16, 16), (0.0, 10.0), each=101)
    assert found == pytest.approx(0.2, abs=0.01)
    wide = torch.tensor([[2.0, 2.0, 8, 8]])  # as far as 4 aside at the depth 1
    assert 0 < share_inside(pose, wide, (16, 16), (0.0, 10.0)) < 0.02


def rolled(turn: torch.Tensor) -> torch.Tensor:
    whole = torch.eye(4, dtype=torch.float64)
    whole[:3, :3] = turn
    return whole @ POSES.double()


def test_what_is_upwards():
    """By cameras that are level, however they look down; else by the mean of their upward axes."""
    assert find_up(POSES) == 2
    assert find_up(POSES[:2]) == 2  # whose upward axes lean aside
    assert find_up(orbit(4, RADIUS, 10.0, up=1)) == 1
    half = rolled(torch.diag(torch.tensor([1.0, -1, -1]).double()))
    assert find_up(half) == pytest.approx((0, 0, -1), abs=1e-5)
    turn = torch.linalg.qr(torch.tensor([[1.0, 2, 3], [0, 1, 4], [5, 6, 0]]).double())[0]
    turn = turn * torch.linalg.det(turn)
    assert find_up(rolled(turn)) == pytest.approx(tuple(turn[:, 2].tolist()), abs=2e-5)
    alone = find_up(orbit(1, RADIUS, 60.0))
    assert alone == pytest.approx((-math.sin(math.pi / 3), 0, 0.5), abs=1e-5)


# -- a background all around

OPEN = {"scale": 1.0, "contract": None}
"""What a renderer that can contract space knows of a recipe that leaves it open."""


def test_a_box_around_contracts_space(tmp_path):
    """With ``aabb_scale``, in the unit of the frame, wherever the scene stands."""
    table = {"fl_x": FOCAL, "aabb_scale": 4}
    path = blender(tmp_path / "a", stand("in centimetres"), table=table)
    source = read_transforms(FULL, path, depths=OPEN)
    unit = source.suggests["modality"]["frame"][3]
    renderer = source.suggests["renderer"]
    assert renderer == {"contract": "ball", "near": pytest.approx(0.1 * unit),
                        "far": pytest.approx(100 * unit)}  # fmt: skip
    line = source.summary.describe()
    assert f"space beyond {unit:.4g} of the centre contracted (aabb_scale = 4)" in line
    assert "not used" not in line
    own = read_transforms(FULL, path, depths=OPEN | {"near": 7.0, "contract": "cube"})
    assert own.suggests["renderer"]["near"] == 7
    assert own.suggests["renderer"]["contract"] == "cube"
    none = read_transforms(FULL, path, depths=OPEN | {"contract": "none"})
    assert none.suggests["renderer"]["near"] > 100
    assert "aabb_scale = 4 not used" in none.summary.describe()
    other = read_transforms(FULL, path)  # of a renderer that cannot
    assert "contract" not in other.suggests["renderer"]


def test_a_box_smaller_than_the_unit_is_said_not_to_be_used(tmp_path):
    path = blender(
        tmp_path / "a", stand("in centimetres"), table={"fl_x": FOCAL, "aabb_scale": 0.5}
    )
    source = read_transforms(FULL, path, depths=OPEN)
    assert "aabb_scale = 0.5 not used, since it is below 1" in source.summary.describe()
    assert source.suggests["renderer"]["contract"] == "none"


def test_objects_on_white_are_not_contracted(tmp_path):
    source = read_transforms(FULL, blender(tmp_path / "a"), depths=OPEN)
    assert source.suggests["renderer"]["contract"] == "none"
    assert "contracted" not in source.summary.describe()


def test_images_without_a_background_contract_space(tmp_path):
    path = blender(tmp_path / "a")
    for file in (tmp_path / "a").rglob("*.png"):
        Image.new("RGB", (WIDTH, HEIGHT), (90, 140, 60)).save(file)
    line = read_transforms(FULL, path, depths=OPEN).summary.describe()
    assert "contracted (a background lies all around)" in line
    images = torch.full((1, 3, 4, 4), 255, dtype=torch.uint8)
    assert share_around(images) == 0
    images[:, :, 0] = 100
    assert share_around(images) == pytest.approx(6 / 16)  # corners count twice


def test_cameras_that_look_outward_contract_space(tmp_path):
    eye = orbit(4, 1.0, 5.0)[:, :3, 3]
    poses = look_at(eye, 2 * eye, torch.tensor([0.0, 0, 1]))
    source = read_transforms(FULL, blender(tmp_path / "a", poses), depths=OPEN)
    assert "contracted (the cameras look outward)" in source.summary.describe()
    assert source.suggests["renderer"]["far"] > source.suggests["renderer"]["near"] > 0


def test_images_keep_their_proportions(tmp_path):
    path = blender(tmp_path / "a")
    source = read_transforms(Views(longest=16), path)
    assert source.suggests["modality"]["size"] == (12, 16)
    assert source.data.shape[-2:] == (12, 16)
    assert source.data.cameras.intrinsics[0, 0].tolist() == [FOCAL / 2, FOCAL / 2, 8, 6]
    whole = read_transforms(Views(longest=400), path)
    assert whole.suggests["modality"]["size"] == (HEIGHT, WIDTH)
    done = read_transforms(Views((6, 8), longest=16), path, suggest=False)  # of a run
    assert done.data.shape[-2:] == (6, 8)
    with pytest.raises(InputError, match="longest = 0"):
        Views(longest=0)
