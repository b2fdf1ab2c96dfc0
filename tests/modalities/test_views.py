"""Posed images as rays and back; which views are support, query or held out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from scipy.spatial import ConvexHull
from torch import Tensor

from fieldloom.assembly import build
from fieldloom.encoders import Transformer
from fieldloom.errors import InputError
from fieldloom.geometry.cameras import look_at, orbit, pixel_rays, project_points
from fieldloom.modalities import Modality, Views
from fieldloom.renderers import Plucker, Volume, plucker
from fieldloom.types import Cameras, Data, Signal
from given import data_of, seeded


def orbited(views=7, objects=3, size=4):
    generator = seeded(3)
    from fieldloom.geometry.cameras import orbit

    c2w = torch.stack([orbit(views, 1.5, 20.0 + i, 2) for i in range(objects)]).float()
    intrinsics = torch.tensor([5.0, 5.0, 2.0, 2.0]).expand(objects, views, 4)
    data = torch.rand(objects, views, 3, size, size, generator=generator)
    return data, {"c2w": c2w, "intrinsics": intrinsics}


def select_views(signal, data, size=4):
    """Which views of each object a signal of whole views holds."""
    pictures = signal.values.unflatten(1, (-1, size * size)).mT.unflatten(-1, (size, size))
    return [
        [next(j for j, view in enumerate(own) if torch.equal(view, one)) for one in some]
        for own, some in zip(data, pictures, strict=True)
    ]


def test_support_and_query_are_different_views():
    modality = Views(size=4, range="unit", support=(1, 3), query=2, held=1)
    data, cameras = orbited()
    counts = set()
    for seed in range(20):
        batch = modality.observe(data_of(data, **cameras), generator=seeded(seed), keep_grid=True)
        support, query = select_views(batch.context, data), select_views(batch.target, data)
        counts.add(len(support[0]))
        for seen, asked in zip(support, query, strict=True):
            assert not set(seen) & set(asked)
            assert len(asked) == 2
            assert 6 not in seen + asked  # held out
        assert any(support[0] != other for other in support[1:]) or len(support[0]) == 1
    assert counts == {1, 2, 3}
    few = modality.observe(data_of(data, **cameras), points=5, generator=seeded(), keep_grid=True)
    assert few.target.coords.shape == (3, 5, 6)
    assert few.context.grid[1:] == (4, 4)
    scattered = modality.observe(data_of(data, **cameras), points=5, generator=seeded())
    assert scattered.context.coords.shape == (3, 5, 6)


def test_codes_are_found_from_views_at_even_distances():
    modality = Views(size=4, range="unit", support=(1, 3), held=1)
    data, cameras = orbited()
    assert select_views(modality.encoding(data_of(data, **cameras)), data) == [[0, 2, 4]] * 3
    two = modality.support(data_of(data, **cameras), count=2)
    assert select_views(two, data) == [[0, 3]] * 3
    with pytest.raises(ValueError, match="from 1 to 6"):
        modality.support(data_of(data, **cameras), count=7)
    with pytest.raises(ValueError, match="more than the 6 views"):
        Views(size=4, support=6, query=1, held=1).observe(data_of(data, **cameras))
    with pytest.raises(ValueError, match="support"):
        Views(size=4, support=(3, 1))


def test_rays_are_joined_to_pixels():
    modality = Views(size=4, range="unit", support=2)
    data, cameras = orbited()
    signal = modality.encoding(data_of(data, **cameras))
    for rays, expected in (("plucker", plucker(signal.coords)), ("origin", signal.coords)):
        encoder = Transformer((2, 8), modality.axes, 3, 6, grid_dim=2, width=8, depth=1,
                              heads=2, patch=1, rays=rays)  # fmt: skip
        torch.testing.assert_close(encoder.patches(signal)[..., 3:], expected)
        torch.testing.assert_close(encoder.patches(signal)[..., :3], signal.values)


def test_light_fields_are_rendered_from_the_code_of_a_few_views():
    small = {"field": {"width": 12, "features": 12, "tokens": 3},
             "encoder": {"width": 12, "depth": 1, "heads": 2, "patch": 4},
             "modality": {"size": 8, "held": 1}}  # fmt: skip
    system = build("laginr:multiview128", source={"name": "multiview", "path": "none"}, **small)
    data, cameras = orbited(size=8)
    code = system.encode(data_of(data, **cameras))
    assert code.shape == (3, 3, 12)
    assert isinstance(system.render, Plucker)
    novel = {key: value[:, -1:] for key, value in cameras.items()}
    assert system.predict(code, cameras=Cameras(**novel)).shape == (3, 1, 3, 8, 8)


SIZE = (6, 9)
HEIGHT, WIDTH = SIZE
BATCH, VIEWS = 3, 4


def posed(size: tuple[int, int] = SIZE, views: int = VIEWS) -> tuple[Tensor, dict[str, Tensor]]:
    """Pictures whose every number is its own, with cameras that are all different."""
    count = BATCH * views * 3 * size[0] * size[1]
    data = (torch.randperm(count, generator=seeded()) / count).view(BATCH, views, 3, *size)
    eye = torch.randn(BATCH, views, 3, generator=seeded(1))
    eye = 2 * eye / eye.norm(dim=-1, keepdim=True)
    c2w = look_at(eye, torch.zeros(3), torch.tensor([0.1, 0.2, 1.0]))
    intrinsics = torch.tensor([8.0, 7.0, 4.0, 3.5]) + torch.rand(
        BATCH, views, 4, generator=seeded()
    )
    return data, {"c2w": c2w, "intrinsics": intrinsics}


def part(cameras: dict[str, Tensor], signals: slice) -> dict[str, Tensor]:
    return {name: value[signals] for name, value in cameras.items()}


def found(signal: Signal, data: Tensor, cameras: dict[str, Tensor], low: float) -> Tensor:
    """Where each observation comes from: (batch, points, 3), view, row, column.

    By its colour, which no other pixel has; its ray must then be that pixel's own.
    """
    places = []
    for i in range(len(signal)):
        pixels = data[i].movedim(1, -1).flatten(0, 2)
        unit = (signal.values[i] - low) / (1 - low)
        far = (unit[:, None] - pixels).abs().amax(-1)
        assert far.amin(1).max() < 1e-6
        best = far.argmin(1)
        height, width = data.shape[-2:]
        view, pixel = best // (height * width), best % (height * width)
        v, u = pixel // width, pixel % width
        expected = pixel_rays(
            cameras["c2w"][i, view], cameras["intrinsics"][i, view], u + 0.5, v + 0.5
        )
        torch.testing.assert_close(signal.coords[i], expected)
        places.append(torch.stack([view, v, u], -1))
    return torch.stack(places)


# -- views


@pytest.mark.parametrize("range", ["signed", "unit"])
def test_there_and_back(range: str) -> None:
    """All rays of all views are the grid of the cameras, and assemble to the data."""
    data, cameras = posed()
    views = Views(SIZE, range=range)
    assert isinstance(views, Modality)
    batch = views.observe(data_of(data, label=torch.arange(BATCH), **cameras))
    signal = batch.target
    assert batch.context is signal
    assert signal.grid == (VIEWS, HEIGHT, WIDTH)
    assert signal.index.tolist() == signal.label.tolist() == [0, 1, 2]
    assert signal.values.min() < views.low + 0.1
    torch.testing.assert_close(views.assemble(signal.values).tensor, data, rtol=0, atol=1e-6)
    torch.testing.assert_close(signal.coords, views.grid(cameras=Cameras(**cameras)))
    torch.testing.assert_close(views.encoding(data_of(data, **cameras)).values, signal.values)
    places = found(signal, data, cameras, views.low)
    counted = torch.cartesian_prod(*(torch.arange(n) for n in (VIEWS, HEIGHT, WIDTH)))
    assert (places == counted).all()


def test_bytes_are_the_same_pictures() -> None:
    data, cameras = posed()
    whole = (data * 255).round().byte()
    for points in (None, 5):
        once, again = (
            Views(SIZE).observe(data_of(x, **cameras), points=points, generator=seeded()).target
            for x in (whole, whole.float() / 255)
        )
        torch.testing.assert_close(once.values, again.values)
        assert torch.equal(once.coords, again.coords)


def test_points_are_pixels_with_their_own_rays() -> None:
    """Scattered rays: of every signal others, from all views and pixels alike."""
    data, cameras = posed()
    index = torch.tensor([7, 3, 11])
    draw = lambda seed: Views(SIZE).observe(
        data_of(data, index=index, **cameras), points=200, generator=seeded(seed)
    )
    signal = draw(0).target
    assert signal.coords.shape == (BATCH, 200, 6)
    assert signal.grid is None
    assert torch.equal(signal.index, index)
    places = found(signal, data, cameras, -1.0)
    assert not torch.equal(places[0], places[1])
    for axis, count in enumerate((VIEWS, HEIGHT, WIDTH)):
        drawn = torch.bincount(places[..., axis].flatten(), minlength=count) / 600
        assert (drawn - 1 / count).abs().max() < 0.07
    assert torch.equal(draw(0).target.coords, signal.coords)
    assert not torch.equal(draw(1).target.coords, signal.coords)


def test_held_views_are_not_seen() -> None:
    """Neither their colours nor their cameras: NaN there reaches nothing."""
    data, cameras = posed()
    held = 2
    full = Views(SIZE).observe(data_of(data, **cameras)).target
    broken = data.clone()
    broken[:, -held:] = torch.nan
    lost = {
        k: v.clone().index_fill_(1, torch.tensor([2, 3]), torch.nan) for k, v in cameras.items()
    }
    for options in ({}, dict(rays=70), dict(patch=4)):
        views = Views(SIZE, held=held, **options)
        for points in (None, 300, 10**6):
            signal = views.observe(
                data_of(broken, **lost), points=points, generator=seeded()
            ).target
            assert signal.coords.isfinite().all()
            assert signal.values.isfinite().all()
        signal = views.encoding(data_of(broken, **lost))
        assert signal.coords.isfinite().all()
        assert signal.values.isfinite().all()
    first = Views(SIZE, held=held).observe(data_of(data, **cameras)).target
    assert first.grid == (VIEWS - held, HEIGHT, WIDTH)
    seen = (VIEWS - held) * HEIGHT * WIDTH
    assert torch.equal(first.coords, full.coords[:, :seen])
    with pytest.raises(InputError, match="held = 4"):
        Views(SIZE, held=VIEWS).observe(data_of(data, **cameras))


@pytest.mark.parametrize("held", [0, 1])
@pytest.mark.parametrize("rays", [None, 50])
def test_encoding_does_not_depend_on_the_batch(held: int, rays: int | None) -> None:
    data, cameras = posed()
    views = Views(SIZE, held=held, rays=rays, patch=3)
    whole = views.encoding(data_of(data, **cameras))
    count = rays or (VIEWS - held) * HEIGHT * WIDTH
    assert whole.coords.shape == (BATCH, count, 6)
    torch.manual_seed(5)
    for i in range(BATCH):
        own = slice(i, i + 1)
        alone = views.encoding(data_of(data[own], **part(cameras, own)))
        assert torch.equal(alone.coords, whole.coords[own])
        assert torch.equal(alone.values, whole.values[own])
    places = found(whole, data, cameras, -1.0)
    assert (places == places[:1]).all()
    assert len(places[0, :, 0].unique()) == VIEWS - held


@pytest.mark.parametrize("patch", [2, 3, 6])
def test_patches(patch: int) -> None:
    """A grid of pixels of one view: rows by columns, a step that is even to a pixel, inside."""
    size = (23, 31)
    data, cameras = posed(size)
    generator, steps, seen, corners = seeded(), set(), set(), []
    for _ in range(30):
        views = Views(size, patch=patch)
        signal = views.observe(data_of(data, **cameras), generator=generator, points=7).target
        assert signal.grid == (patch, patch)
        assert signal.coords.shape == (BATCH, patch**2, 6)
        places = found(signal, data, cameras, -1.0).view(BATCH, patch, patch, 3)
        assert (places[..., 0] == places[:, :1, :1, 0]).all()
        rows, columns = places[..., 1], places[..., 2]
        assert (rows == rows[:, :, :1]).all()
        assert (columns == columns[:, :1]).all()
        across = torch.cat([rows[:, :, 0].diff(dim=1), columns[:, 0].diff(dim=1)])
        assert across.min() >= 1
        assert across.max() - across.min() <= 1
        largest = 22 / (patch - 1)
        assert across.min() >= int(largest / 2)
        assert across.max() <= largest + 1
        steps.add(across.float().mean().item())
        seen.update(places[:, 0, 0, 0].tolist())
        corners.append(places[:, 0, 0, 1:])
    assert seen == set(range(VIEWS))
    assert len(steps) > 5
    assert torch.stack(corners).flatten(0, 1).amin(0).tolist() <= [1, 1]
    assert not torch.equal(corners[0][0], corners[0][1])


@pytest.mark.parametrize("patch", [6, 9])
def test_large_patches_repeat_no_pixel(patch: int) -> None:
    """Patches of more than half the view: still pixels at even distances, none of them twice."""
    data, cameras = posed((9, 9))
    for seed in range(20):
        signal = (
            Views(9, patch=patch).observe(data_of(data, **cameras), generator=seeded(seed)).target
        )
        for rays in signal.coords:
            assert len(rays.unique(dim=0)) == patch**2


def test_resolutions_keep_the_world() -> None:
    """Twice as many pixels: the picture's corners stay, and pixels halve around their centres."""
    views = Views((4, 6))
    cameras = views.cameras(2)
    small = views.grid(cameras=cameras).view(2, 4, 6, 6)
    large = views.grid((8, 12), cameras).view(2, 8, 12, 6)
    blocks = large.view(2, 4, 2, 6, 2, 6).mean((2, 4))
    torch.testing.assert_close(blocks, small, rtol=0, atol=1e-6)

    # a corner of the picture lies half a pixel beyond its corner pixel, at every resolution
    def corner(rays: Tensor) -> Tensor:
        return rays[:, 0, 0] - (rays[:, 1, 1] - rays[:, 0, 0]) / 2

    for size in ((8, 12), (3, 3), (40, 7)):
        given = views.grid(size, cameras).view(2, *size, 6)
        torch.testing.assert_close(corner(given), corner(small), rtol=0, atol=1e-6)
        opposite = corner(given.flip(1, 2))
        torch.testing.assert_close(opposite, corner(small.flip(1, 2)), rtol=0, atol=1e-6)
    assert views.shape(5) == (5, 5)
    for wrong in (0, (4,), (4, 4, 4), (-1, 3)):
        with pytest.raises(InputError, match="resolution"):
            views.shape(wrong)


def test_grids_of_cameras() -> None:
    """One set of cameras for all signals, or one each; without any, an orbit."""
    views = Views(SIZE, orbit=5)
    _, cameras = posed()
    each = views.grid(cameras=Cameras(**cameras))
    assert each.shape == (BATCH, VIEWS * HEIGHT * WIDTH, 6)
    for i in range(BATCH):
        shared = views.grid(cameras=Cameras(**{k: v[i] for k, v in cameras.items()}))
        assert torch.equal(shared, each[i : i + 1])
    assert views.grid().shape == (1, 5 * HEIGHT * WIDTH, 6)
    assert torch.equal(views.grid(), views.grid(cameras=views.cameras()))


@pytest.mark.parametrize("up", [0, 1, 2])
def test_orbit(up: int) -> None:
    """Around the upright axis at even steps; the origin in the middle of every picture."""
    views = Views((10, 20), radius=1.7, focal=1.1, elevation=30.0, up=up, orbit=6)
    cameras = views.cameras()
    eye = cameras.c2w[:, :3, 3]
    torch.testing.assert_close(eye.norm(dim=1), torch.full((6,), 1.7))
    torch.testing.assert_close(eye[:, up], torch.full((6,), 1.7 * 0.5))
    assert torch.equal(cameras.c2w, orbit(6, 1.7, 30.0, up))
    cosine = torch.nn.functional.cosine_similarity(
        *(e.index_fill(1, torch.tensor([up]), 0.0) for e in (eye, eye.roll(1, 0)))
    )
    torch.testing.assert_close(cosine, torch.full((6,), 0.5))
    pixels, depth = project_points(torch.zeros(3), cameras.c2w, cameras.intrinsics)
    torch.testing.assert_close(pixels, torch.tensor([10.0, 5.0]).expand(6, 2))
    torch.testing.assert_close(depth, torch.full((6,), 1.7))
    # what is higher in the world is higher in the picture; focal is in widths
    above = project_points(0.1 * torch.eye(3)[up], cameras.c2w, cameras.intrinsics)[0]
    assert (above[:, 1] < 5).all()
    assert cameras.intrinsics[0, :2].tolist() == pytest.approx([22, 22])
    assert views.cameras(3).count == 3


def test_a_rendered_cube_lands_on_its_corners() -> None:
    """A cube of density through Volume and assemble: dark in the hull of its projected corners."""
    views = Views((36, 44), radius=2.0, elevation=20.0, orbit=3)
    cameras = views.cameras()
    half = 0.4

    def cube(points: Tensor) -> Tensor:
        inside = (points.abs() < half).all(-1, keepdim=True)
        return torch.cat([-torch.ones_like(points), inside * 1e4], -1)

    with torch.no_grad():
        seen = Volume(1.0, 3.0, samples=500, density="relu")(cube, views.grid())
    pictures = views.assemble(seen).tensor[0]
    assert pictures.shape == (3, 3, 36, 44)
    corners = half * (2 * torch.cartesian_prod(*[torch.arange(2)] * 3) - 1).float()
    for i, picture in enumerate(pictures):
        pixels, _ = project_points(corners, cameras.c2w[i], cameras.intrinsics[i])
        # pixel centres, and how far outside the hull each is: its edges are lines a u + b v + c
        v, u = torch.meshgrid(torch.arange(36) + 0.5, torch.arange(44) + 0.5, indexing="ij")
        edges = torch.from_numpy(ConvexHull(pixels.numpy()).equations).float()
        outside = (torch.stack([u, v], -1) @ edges[:, :2].T + edges[:, 2]).amax(-1)
        assert picture[:, outside < -0.1].max() < 0.01
        assert picture[:, outside > 0.01].min() > 0.99
        assert picture[:, 18, 22].max() < 0.01
        assert picture[:, 0, 0].min() > 0.99


def test_bad_views() -> None:
    data, cameras = posed()
    for wrong in (dict(size=0), dict(held=-1), dict(patch=1), dict(patch=7), dict(radius=0.0)):
        with pytest.raises(InputError, match="modality"):
            Views(**{**dict(size=SIZE), **wrong})
    views = Views(SIZE)
    with pytest.raises(InputError, match="camera"):
        views.observe(data)
    for bad in (data[:, :, :1], data[0], data[:, :2]):
        with pytest.raises(InputError, match="shape"):
            views.observe(data_of(bad, **cameras))


def test_encoding_without_cameras() -> None:
    with pytest.raises(InputError, match="camera"):
        Views(SIZE).encoding(posed()[0])


def test_picture_of_one_channel() -> None:
    assert Views(SIZE, channels=1).to_image(torch.rand(2, 1, *SIZE)).shape == (3, *SIZE)


def test_views_as_files(tmp_path: Path) -> None:
    """A sheet, or one view after another; a picture is the first view."""
    data, _ = posed((12, 16))
    views = Views((12, 16))
    sheet = views.save(Data(data[:1]), tmp_path / "sheet")
    assert sheet == tmp_path / "sheet.png"
    assert Image.open(sheet).size == (VIEWS * 18 + 2, 16)
    animated = Image.open(views.save(Data(data[:1]), tmp_path / "turn.gif"))
    assert animated.n_frames == VIEWS
    assert animated.size == (16, 12)
    assert torch.equal(views.to_image(data[0]), data[0, 0])
