"""Lens distortion against closed forms, and the pinhole cameras that see what a lens shows."""

import math

import pytest
import torch

from fieldloom.errors import InputError
from fieldloom.geometry.distortion import (
    WIDEST,
    Lens,
    distort,
    find_in_lens,
    fit_pinhole,
    sample_lens,
)

SIZE = (240.0, 320.0)
OWN = torch.tensor([300.0, 310.0, 150.0, 125.0], dtype=torch.float64)
LENSES = {
    "barrel": Lens((-0.2, 0.05, 0.003), (0.004, -0.003)),
    "pincushion": Lens((0.15, 0.02)),
    "rational": Lens((0.3, 0.1, 0.01, 0.2, 0.05, 0.02), (0.001, 0.002)),
    "fisheye": Lens((0.05, -0.01, 0.002, 0.0005), fisheye=True),
}


def points(reach: float = 0.6) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = torch.rand(2, 200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (2 * x - 1) * reach, (2 * y - 1) * reach


def in_words(x: float, y: float, lens: Lens) -> tuple[float, float]:
    """OpenCV's equations, number by number."""
    k = [*lens.radial, *[0.0] * (6 - len(lens.radial))]
    r = math.hypot(x, y)
    if lens.fisheye:
        a = math.atan(r)
        bent = a + k[0] * a**3 + k[1] * a**5 + k[2] * a**7 + k[3] * a**9
        return x * bent / r, y * bent / r
    factor = (1 + k[0] * r**2 + k[1] * r**4 + k[2] * r**6) / (
        1 + k[3] * r**2 + k[4] * r**4 + k[5] * r**6
    )
    p1, p2 = lens.tangential
    return (
        x * factor + 2 * p1 * x * y + p2 * (r**2 + 2 * x**2),
        y * factor + p1 * (r**2 + 2 * y**2) + 2 * p2 * x * y,
    )


@pytest.mark.parametrize("name", LENSES)
def test_distortion_is_opencvs(name):
    x, y = points()
    found = torch.stack(distort(x, y, LENSES[name]), 1)
    pairs = zip(x.tolist(), y.tolist(), strict=True)
    expected = torch.tensor([in_words(a, b, LENSES[name]) for a, b in pairs]).double()
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=0)


def test_the_middle_and_pinholes_stay():
    zero = torch.zeros((), dtype=torch.float64)
    for lens in LENSES.values():
        assert [float(x) for x in distort(zero, zero, lens)] == [0, 0]
    x, y = points()
    assert Lens().straight
    assert not Lens(fisheye=True).straight
    assert torch.equal(distort(x, y, Lens())[0], x)


def test_round_trips_of_one_coefficient():
    """r' = r + k r^3 is undone by Cardano's formula, an equidistant fisheye by tan."""
    x, y = points()
    r = torch.hypot(x, y)
    bent = torch.hypot(*distort(x, y, Lens((0.3,))))
    half = bent / 0.6
    root = (half**2 + 1 / (27 * 0.3**3)).sqrt()
    cube = lambda a: a.sign() * a.abs() ** (1 / 3)
    torch.testing.assert_close(cube(half + root) + cube(half - root), r, atol=1e-12, rtol=0)
    bent = torch.hypot(*distort(x, y, Lens(fisheye=True)))
    torch.testing.assert_close(bent.tan(), r, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", LENSES)
def test_the_widest_pinhole_of_a_lens(name):
    """All its pixels are shown, and with a focal length a thousandth shorter they are not."""
    lens = LENSES[name]
    pinhole, share = fit_pinhole(OWN, lens, SIZE, "a.png")
    assert pinhole[2:].tolist() == OWN[2:].tolist()
    assert pinhole[0] / OWN[0] == pytest.approx(float(pinhole[1] / OWN[1]))
    u = torch.cartesian_prod(torch.linspace(0, SIZE[1], 161), torch.linspace(0, SIZE[0], 121))

    def beyond(camera):
        x, y = find_in_lens(*u.double().unbind(1), camera, OWN, lens)
        return float(torch.stack([-x, -y, x - SIZE[1], y - SIZE[0]]).max())

    shorter = pinhole * pinhole.new_tensor([0.999, 0.999, 1, 1])
    assert beyond(pinhole) < 0.02
    assert beyond(shorter) > 0.02
    assert 0.6 < share <= 1


def test_a_wide_fisheye_keeps_what_a_pinhole_can_see():
    pinhole, share = fit_pinhole(OWN / 3, Lens(fisheye=True), SIZE, "a.png")
    corners = torch.tensor([[0, 0], [SIZE[1], 0], [0, SIZE[0]], list(SIZE[::-1])]).double()
    widest = (((corners - pinhole[2:]) / pinhole[:2]).norm(dim=1)).max()
    assert float(widest.atan()) == pytest.approx(WIDEST, abs=1e-4)
    assert share < 1


@pytest.mark.parametrize(
    ("lens", "own"),
    [
        (Lens((-9.0,)), OWN),
        (Lens((float("nan"),)), OWN),
        (Lens((0.1,)), torch.tensor([300.0, 300, -50, 100])),
    ],
)
def test_lenses_that_cannot_be_undone(lens, own):
    own = own * own.new_tensor([0.05, 0.05, 1, 1]) if lens.radial[0] < 0 else own
    with pytest.raises(InputError, match="the lens of a.png cannot be undone"):
        fit_pinhole(own, lens, SIZE, "a.png")


def test_images_are_resampled_once_by_areas():
    """A straight lens of the same camera leaves the means of whole blocks."""
    image = torch.rand(3, 24, 36, generator=torch.Generator().manual_seed(0))
    own = torch.tensor([30.0, 30, 18, 12])
    full = (24.0, 36.0)
    same = sample_lens(image, (24, 36), full, own, own, Lens())
    torch.testing.assert_close(same, image, atol=1e-5, rtol=0)
    blocks = image.unflatten(2, (12, 3)).unflatten(1, (8, 3)).mean((2, 4))
    small = sample_lens(image, (8, 12), full, own, own, Lens(), most=50)
    torch.testing.assert_close(small, blocks, atol=1e-5, rtol=0)
