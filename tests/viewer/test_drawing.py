"""Pictures that the server draws: sounds, shapes and scenes from a camera, frames of videos."""

import math

import numpy as np
import pytest
import torch

import fieldloom
from fieldloom import export
from fieldloom.viewer.drawing import Look, describe_camera, draw_code, find_inside, place_camera
from fieldloom.viewer.functions import pack_function, show_field
from fieldloom.viewer.refusals import Refused

FIELD = {"name": "siren", "width": 12, "depth": 3, "frequency": 10.0}
SYSTEMS = {
    "video": {"modality": {"name": "video", "size": [4, 8, 10], "channels": 3}},
    "audio": {"modality": {"name": "audio", "size": 400, "channels": 2}},
    "shapes": {"modality": {"name": "voxel", "size": 12, "up": 1}},
    "views": {
        "modality": {"name": "views", "size": [12, 16], "frame": [0.5, 0.2, -1.0, 2.0]},
        "renderer": {"name": "volume", "samples": 8, "near": 0.1, "far": 3.0},
    },
    "grids": {"modality": {"name": "image", "size": 8, "channels": 4}},
}


def make(name):
    system = fieldloom.build("mnif", "tiny", prior="none", field=FIELD, seed=3, **SYSTEMS[name])
    code = torch.randn(1, *system.family.code_shape, generator=torch.Generator().manual_seed(0))
    return system, code


def test_a_frame_of_a_video():
    system, code = make("video")
    made = draw_code(system, code, (8, 10), Look(time=0.625))  # the middle of the third
    right = system.decode(code).tensor[0, :, 2]
    assert np.abs(made.astype(int) - export.pixels(right)).max() <= 1


def test_a_part_of_a_sound():
    system, code = make("audio")
    whole = draw_code(system, code, (32, 50), Look())
    assert whole.shape == (32, 50, 3)
    part = draw_code(system, code, (32, 50), Look(x0=0.5, x1=0.75))
    assert not np.array_equal(whole, part)
    assert (draw_code(system, code, (4, 5), Look(x0=1.5, x1=2.0)) == 128).all()


def test_a_scene_is_seen_as_the_page_sees_it():
    system, code = make("views")
    orbit = system.modality.cameras(8)
    turned = Look(yaw=2 * math.pi * 3 / 8)
    camera = place_camera(system.modality, (24, 32), turned)
    assert torch.allclose(camera.c2w[0], orbit.c2w[3].double(), atol=1e-5)
    assert torch.allclose(camera.intrinsics[0], orbit.intrinsics[3].double())
    eye = describe_camera(system)
    assert eye["radius"] == pytest.approx(system.modality.radius / 2)  # of the field's coordinates
    right = system.decode(code, (24, 32), camera).tensor[0, 0]
    made = draw_code(system, code, (24, 32), turned)
    assert np.abs(made.astype(int) - export.pixels(right)).max() <= 1
    wide = place_camera(system.modality, (24, 96), turned).intrinsics[0]
    assert float(wide[0] * 96 / 16) == pytest.approx(float(wide[1] * 24 / 12))  # square pixels


def test_a_shape_is_seen_from_a_side(monkeypatch):
    system, code = make("shapes")
    one = draw_code(system, code, (20, 30), Look())
    other = draw_code(system, code, (20, 30), Look(yaw=1.5, pitch=0.9, distance=4.0))
    assert one.shape == other.shape == (20, 30, 3)
    assert not np.array_equal(one, other)
    monkeypatch.setattr("fieldloom.viewer.drawing.LARGEST", 16)
    assert draw_code(system, code, (2, 40), Look()).shape == (2, 40, 3)


def test_what_no_one_can_see():
    system, code = make("grids")
    with pytest.raises(Refused, match="cannot be shown"):
        draw_code(system, code, (4, 4), Look())


@pytest.mark.parametrize("name", ["video", "audio", "shapes", "views"])
def test_the_numbers_are_as_many_as_the_shader_has(name):
    system, code = make(name)
    assert len(pack_function(system, code)) == 4 * show_field(system).numbers


def test_large_fields_are_the_servers(monkeypatch):
    system, _ = make("video")
    monkeypatch.setattr("fieldloom.viewer.functions.MOST", 20)
    with pytest.raises(fieldloom.errors.InputError, match="more than 20 numbers"):
        show_field(system)


def test_samples_inside():
    assert find_inside(0, 1, 4) == (slice(0, 4), (0, 1))
    assert find_inside(-1, 1, 4) == (slice(2, 4), (0, 1))
    assert find_inside(0.25, 0.5, 2) == (slice(0, 2), (0.25, 0.5))
    rows, _ = find_inside(2, 3, 4)
    assert rows.start >= rows.stop
