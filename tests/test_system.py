"""What a system does: saved, loaded, encoded, decoded in strips and windows."""

import math

import pytest
import torch

import fieldloom
from fieldloom.errors import InputError
from large_fits import SIZES, fit, joined, origin


def test_save_and_load_without_the_source(tmp_path):
    """A saved system is loaded elsewhere and answers the same; no file holds a pickle."""
    system = fieldloom.build("mnif", "tiny", source={"name": "folder", "path": "gone"})
    images = torch.rand(3, 1, 8, 8)
    codes = system.encode(images)
    fieldloom.save(system, tmp_path / "saved")
    twin = fieldloom.load(tmp_path / "saved", device="cpu")
    assert torch.equal(twin.encode(images), codes)
    here, there = (each.decode(codes, resolution=12).tensor for each in (system, twin))
    assert torch.equal(there, here)
    for path in (tmp_path / "saved").iterdir():
        assert not path.read_bytes().startswith((b"\x80", b"PK")), path.name


def test_the_python_interface(tiny_run):
    system = fieldloom.load(tiny_run, device="cpu")
    images = torch.rand(5, 1, 8, 8)
    codes = system.encode(images)
    assert codes.shape == (5, 1, 8)
    assert system.decode(codes, resolution=(9, 13)).shape == (5, 1, 9, 13)
    rebuilt = system.reconstruct(images).tensor
    assert rebuilt.shape == images.shape
    assert 0 <= rebuilt.min() <= rebuilt.max() <= 1
    draw = lambda seed: system.sample(6, 16, label=3, guidance=2.0, seed=seed, steps=10).tensor
    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    way = system.interpolate(images[0], images[1], steps=4).tensor
    torch.testing.assert_close(way[[0, -1]], rebuilt[:2])
    one_by_one = torch.cat([system.decode(code[None]).tensor for code in codes])
    torch.testing.assert_close(one_by_one, rebuilt)


pytestmark = pytest.mark.usefixtures("cached")


@pytest.mark.parametrize("modality", SIZES)
@pytest.mark.parametrize("values", [1, 100, 1 << 22])
def test_strips_make_up_the_whole(modality, values):
    system = fit(modality)
    strips = list(system.strips(origin(system), values=values))
    row = math.prod(SIZES[modality][1:]) * system.modality.channels
    assert all(strip.numel() <= max(values, row) for _, strip in strips)
    whole = system.predict(origin(system)).tensor[0]
    torch.testing.assert_close(joined(strips), whole, atol=1e-6, rtol=0)


def test_a_window_is_what_the_field_says_there():
    """Against the formula of pixel centres, point by point; beyond the edges, too."""
    system = fit()
    rows, columns, (y0, y1), (x0, x1) = 4, 6, (-0.25, 0.5), (0.3, 1.1)
    found = joined(system.strips(origin(system), (rows, columns), ((y0, y1), (x0, x1)), 20))
    function = system.family.bind(origin(system))
    for i in range(rows):
        for j in range(columns):
            y = y0 + (y1 - y0) * (i + 0.5) / rows
            x = x0 + (x1 - x0) * (j + 0.5) / columns
            at = torch.tensor([[[2 * y - 1, 2 * x - 1]]])
            values = system.modality.denormalize(function(at))[0, 0]
            torch.testing.assert_close(found[:, i, j], values, atol=1e-5, rtol=0)


def test_a_frame_is_a_picture_at_its_time():
    system = fit("video")
    whole = system.predict(origin(system)).tensor[0]
    for i in range(5):
        still = joined(system.strips(origin(system), values=30, frame=(i + 0.5) / 5))
        torch.testing.assert_close(still, whole[:, i], atol=1e-6, rtol=0)
    part = joined(system.strips(origin(system), (3, 7), ((0.5, 1.0), (0.0, 1.0)), frame=0.1))
    torch.testing.assert_close(part, whole[:, 0, 3:], atol=1e-6, rtol=0)
    with pytest.raises(InputError, match="no video"):
        list(fit("sphere").strips(origin(system), frame=0.5))


def test_pieces_are_large_enough_for_their_tiles(monkeypatch):
    """A piece holds so many points that a tile's matrix serves several."""
    tiling, encoding = {"tiles": [2, 4, 1]}, {"count": 3}
    field = {"name": "experts", "width": 8, "depth": 3, "tiling": tiling, "encoding": encoding}
    system = fit(field=field)
    seen = []
    plain = type(system.render).__call__
    monkeypatch.setattr("fieldloom.decoding.CACHED", 8)
    monkeypatch.setattr("fieldloom.decoding.PER_TILE", 5)
    monkeypatch.setattr(
        type(system.render), "__call__",
        lambda self, function, coords, generator=None: (
            seen.append(coords.shape[1]), plain(self, function, coords, generator)
        )[1],
    )  # fmt: skip
    made = system.predict(origin(system)).tensor
    assert max(seen) == 5 * 16
    monkeypatch.undo()
    torch.testing.assert_close(made, system.predict(origin(system)).tensor, atol=1e-6, rtol=0)
