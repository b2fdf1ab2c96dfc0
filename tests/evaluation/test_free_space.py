"""Density in space that is known to be empty: a black ball before a white background."""

import pytest
import torch

import fieldloom
from fieldloom.evaluation.free_space import density_at, empty_points, free_space_scores
from fieldloom.modalities.views import Views
from fieldloom.renderers import Volume
from fieldloom.types import Cameras, Data

RADIUS = 0.5
RENDER = Volume(0.5, 3.5, samples=200, density="relu", range="unit")


def ball(coords):
    """Black and dense within the radius, nothing outside."""
    inside = coords.norm(dim=-1, keepdim=True) < RADIUS
    return torch.cat([torch.zeros_like(coords), 1e3 * inside], -1)


def scene(box=None):
    modality = Views(size=24, range="unit", radius=2.0, focal=0.8, elevation=20.0, box=box)
    cameras = modality.cameras(count=12)
    values = RENDER(ball, modality.grid(cameras=cameras))
    own = Cameras(cameras.c2w[None], cameras.intrinsics[None])
    images = values.view(1, 12, 24, 24, 3).movedim(-1, 2)
    return modality, Data((images * 255).round().byte(), own)


def test_space_is_empty_where_a_view_shows_the_background():
    modality, data = scene()
    points = empty_points(modality, data, 1.0)
    assert points.norm(dim=1).min() > RADIUS
    away = torch.rand(32768, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    far = (away.norm(dim=1) > RADIUS + 0.25) & (away[:, 2].abs() < RADIUS)
    assert len(points) > 0.9 * far.sum()  # of what the cameras see from the side
    assert len(empty_points(modality, data, 0.5)) == 0  # no pixel is grey


def test_space_that_no_ray_reaches_is_not_known_to_be_empty():
    modality, data = scene()
    assert data.cameras is not None
    points = empty_points(modality, data, 1.0, (1.5, 2.5))
    outside = empty_points(modality, data, 1.0)
    assert 0 < len(points) < len(outside)
    c2w = data.cameras.c2w[0]
    depth = -((points[:, None] - c2w[:, :3, 3]) * c2w[:, :3, 2]).sum(-1)  # of each view
    assert ((depth >= 1.5) & (depth <= 2.5)).any(1).all()


def test_the_density_there():
    modality, data = scene(box=(0.0, -1.0, -0.25, 1.0, 1.0, 0.25))
    points = empty_points(modality, data, 1.0)
    assert points[:, 0].min() > 0
    assert points[:, 2].abs().max() < 0.25
    assert density_at(RENDER, ball, points).max() == 0
    fog = lambda coords: torch.cat([coords, 2 + coords[..., :1]], -1)
    torch.testing.assert_close(density_at(RENDER, fog, points), 2 + points[:, 0])
    double = Volume(0.5, 3.5, density="relu", range="unit", scale=2.0)
    torch.testing.assert_close(density_at(double, fog, points), 2 + points[:, 0] / 2)


def test_scores_of_a_system():
    modality, data = scene()
    keys = dict(
        modality={"size": 24, "range": "unit"}, renderer={"range": "unit", "near": 0.5, "far": 3.5}
    )
    small = {"width": 8, "depth": 4, "tiling": {"tiles": 2}, "head": {"width": 8}}
    system = fieldloom.build("loe", "nerf", **keys | {"field": small})
    code = system.family.conditioner.origin(1)
    density, opacity = free_space_scores(system, modality, code, data)
    points = empty_points(modality, data, 1.0, (0.5, 3.5))
    right = density_at(system.render, system.family.bind(code), points)
    assert density.values.item() == pytest.approx(right.mean().item())
    step = 3.0 / (system.render.samples - 1)
    assert opacity.values.item() == pytest.approx((1 - (-right * step).exp()).mean().item())
    with pytest.warns(UserWarning, match="needs renderer 'volume' with a background"):
        assert free_space_scores(fieldloom.build("functa", "tiny"), modality, code, data) == []
