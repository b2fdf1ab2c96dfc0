"""Grids in parts: windows, rows, some of the points; what an encoder sees of them."""

import math
from functools import partial
from itertools import product

import pytest
import torch

from fieldloom.errors import InputError
from fieldloom.modalities import MODALITIES, Grid, Voxels, grid
from fieldloom.modalities.grid import Context, Placement
from fieldloom.types import Signal
from given import data_of, seeded

image = partial(MODALITIES["image"], range="unit")


def test_few_points_are_predicted_from_a_whole_grid():
    modality, data = image(size=6), torch.rand(2, 3, 6, 6)
    batch = modality.observe(data, points=5, generator=seeded(), keep_grid=True)
    assert batch.context.grid == (6, 6)
    torch.testing.assert_close(modality.assemble(batch.context.values).tensor, data)
    assert batch.target.grid is None
    assert batch.target.coords.shape == (2, 5, 2)
    plain = modality.observe(data, points=5, generator=seeded())
    assert plain.context is plain.target
    torch.testing.assert_close(plain.target.values, batch.target.values)
    labelled = modality.observe(data_of(data, label=torch.tensor([1, 0])), points=5, keep_grid=True)
    assert labelled.context.label.tolist() == labelled.target.label.tolist() == [1, 0]


def test_hidden_points_are_drawn_for_each_signal():
    modality = image(size=20, context=Context(hide=(0.2, 0.6)))
    data = torch.rand(50, 3, 20, 20)
    batch = modality.observe(data, generator=seeded())
    hidden = 1 - batch.context.mask.float().mean(1)
    assert 0.1 < hidden.min() < 0.3 < 0.5 < hidden.max() < 0.7
    assert batch.target.mask is None  # all is predicted
    torch.testing.assert_close(batch.target.values, batch.context.values)
    other = modality.observe(data, generator=seeded(1)).context.mask
    assert not torch.equal(batch.context.mask, other)
    # outside training: the mean share, the same points of every signal and every time
    found = modality.encoding(data)
    assert abs(1 - found.mask.float().mean() - 0.4) < 0.05
    assert torch.equal(found.mask, modality.encoding(data[:1]).mask.expand(50, -1))


def test_an_encoder_of_points_gets_known_ones():
    modality = image(size=8, context=Context(hide=0.5))
    batch = modality.observe(torch.rand(4, 3, 8, 8), points=10, generator=seeded())
    assert batch.context.coords.shape == (4, 10, 2)
    assert batch.context.mask.all()
    few = Signal(torch.rand(1, 4, 2), torch.rand(1, 4, 1), torch.arange(1),
                 mask=torch.tensor([[True, False, False, True]]))  # fmt: skip
    assert few.sample_known(3, seeded()).mask.sum() == 2  # both known ones, and one more


@pytest.mark.parametrize(("name", "axes"), [("image", 2), ("audio", 1), ("video", 3)])
def test_a_smaller_grid_is_the_mean_of_cells(name, axes):
    modality = MODALITIES[name](size=6, range="unit", context=Context(size=2))
    data = torch.rand(2, modality.channels, *(6,) * axes)
    context = modality.observe(data, points=3, keep_grid=True).context
    assert modality.axes == context.grid == (2,) * axes
    cells = data
    for axis in range(2, 2 + axes):
        cells = cells.unflatten(axis, (2, 3)).mean(axis + 1)
    torch.testing.assert_close(modality.assemble(context.values, 2).tensor, cells)
    torch.testing.assert_close(context.coords, modality.grid(2).expand(2, -1, -1))
    torch.testing.assert_close(modality.encoding(data).values, context.values)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [(dict(hide=1.0), "hide"), (dict(hide=(0.5, 0.2)), "hide"), (dict(size=9), "more than")],
)
def test_contexts_that_cannot_be_are_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        image(size=6, context=Context(**wrong))


PLACES = ["centre", "corner", "left", "right"]
GRIDS = {
    "audio": Grid(axes=1, size=13, channels=1),
    "image": Grid(axes=2, size=(6, 9)),
    "video": Grid(axes=3, size=(4, 5, 6)),
    "sphere": Grid(axes=2, size=(8, 12), sphere=True, channels=1),
    "poles": Grid(axes=2, size=(7, 12), sphere=True, channels=1, coords=Placement("corner")),
}


# -- parts of a grid


@pytest.mark.parametrize("name", GRIDS)
def test_rows_are_those_of_the_whole_grid(name):
    one = GRIDS[name]
    window = tuple((0.125, 0.875) for _ in one.size)
    for resolution, part in [(None, None), (11, None), (11, window)]:
        shape = one.shape(resolution)
        whole = one.grid(resolution, window=part).unflatten(1, shape)
        for rows in (slice(0, 3), slice(2, 3), slice(3, None), slice(None)):
            some = one.grid(resolution, window=part, rows=rows)
            assert torch.equal(some, whole[:, rows].flatten(1, -2)), (resolution, rows)


@pytest.mark.parametrize("place", PLACES)
def test_windows_are_where_the_whole_grid_has_them(place):
    """Windows that begin and end between samples of the whole grid, to the bit."""
    corner = place == "corner"  # steps of 1/8 and 1/4; otherwise of 1/16 and 1/8
    counts, first, part = ((9, 5), (2, 2), (5, 2)) if corner else ((16, 8), (4, 4), (4, 2))
    one = Grid(size=counts, coords=Placement(place, -3.0, 2.0))
    found = one.grid(part, window=((0.25, 0.75 if corner else 0.5), (0.5, 0.75)))
    whole = one.grid().unflatten(1, counts)
    expected = whole[:, first[0] : first[0] + part[0], first[1] : first[1] + part[1]]
    assert torch.equal(found, expected.flatten(1, 2))


def test_a_window_against_its_formula():
    one = Grid(axes=3, size=4, coords=Placement("centre", 0.0, 2.0))
    window = ((-0.5, 1.5), (0.3, 0.4), (0, 1))
    shape = (2, 3, 5)
    found = one.grid(shape, window=window)[0]
    slow = [
        [2 * (a + (b - a) * (k + 0.5) / n) for k, n, (a, b) in zip(at, shape, window, strict=True)]
        for at in product(*map(range, shape))
    ]
    torch.testing.assert_close(found, torch.tensor(slow))
    assert found[:, 0].unique().tolist() == [0.0, 2.0]  # -0.5 + 2 * 0.25, -0.5 + 2 * 0.75, twice


def test_windows_of_the_sphere():
    one = MODALITIES["sphere"](size=(8, 16))
    whole = one.grid().unflatten(1, (8, 16))
    north = one.grid((4, 16), window=((0.0, 0.5), (0.0, 1.0))).unflatten(1, (4, 16))
    torch.testing.assert_close(north, whole[:, :4], rtol=0, atol=1e-7)
    around = one.grid(window=((0, 1), (0.5, 1.5))).unflatten(1, (8, 16))  # over the far meridian
    torch.testing.assert_close(around, whole.roll(8, 2), rtol=0, atol=1e-6)
    with pytest.raises(InputError, match="latitude ends at the poles"):
        one.grid(window=((-0.1, 0.5), (0, 1)))


@pytest.mark.parametrize("window", [((0, 1),), ((0, 1), (0.5, 0.5)), ((0, 1), (math.nan, 1.0))])
def test_windows_that_are_none(window):
    with pytest.raises(InputError, match=r"window .*\(first, last\) for each of 2 axes"):
        Grid(size=4).grid(window=window)


def test_a_size_that_the_source_says():
    assert Grid().native
    assert Grid().size == (64, 64)
    assert not Grid(size=64).native
    assert MODALITIES["video"]().native
    assert not Voxels().native
    with pytest.raises(InputError, match=r"modality\.rate = 0"):
        Grid(rate=0.0)


# -- some of the points


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("kind", ["float", "bytes", "channel last"])
def test_points_are_drawn_as_a_subset_of_the_signal(name, together, kind):
    """The same points as of old: those of ``Signal.subset`` from the same generator."""
    one = GRIDS[name]
    data = torch.rand(3, one.channels, *one.size)
    if kind == "bytes":
        data = (data * 255).byte()
    if kind == "channel last":
        data = data.movedim(1, -1).contiguous().movedim(-1, 1)
    whole = one.observe(data).target
    slow = whole.subset(7, seeded(), together)
    fast = one.observe(data, points=7, generator=seeded(), together=together).target
    assert torch.equal(fast.coords, slow.coords)
    assert torch.equal(fast.values, slow.values)
    assert fast.grid is None
    everything = one.observe(data, points=math.prod(one.size)).target
    assert torch.equal(everything.values, whole.values)


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("together", [False, True])
def test_points_of_a_large_grid_are_points_of_it(name, together, monkeypatch):
    monkeypatch.setattr(grid, "FEW", 5)
    one = GRIDS[name]
    count = math.prod(one.size)
    data = torch.arange(2 * one.channels * count).view(2, one.channels, *one.size) / 1e4
    whole = one.observe(data).target
    part = one.observe(data, points=count - 1, generator=seeded(), together=together).target
    for i in (0, 1):
        all_values, values = whole.values[i, :, 0].contiguous(), part.values[i, :, 0].contiguous()
        place = torch.searchsorted(all_values, values)
        assert torch.equal(whole.values[i, place], part.values[i])
        assert torch.equal(whole.coords[i, place], part.coords[i])
        assert len(place.unique()) < count - 1  # with replacement
    assert torch.equal(part.coords[0], part.coords[1]) == together


def test_labels_and_places_go_with_the_points():
    given = dict(index=torch.tensor([5, 2]), label=torch.tensor([1, 0]))
    signal = Grid(size=4).observe(data_of(torch.rand(2, 3, 4, 4), **given), points=3).target
    assert isinstance(signal, Signal)
    assert signal.index.tolist() == [5, 2]
    assert signal.label.tolist() == [1, 0]
