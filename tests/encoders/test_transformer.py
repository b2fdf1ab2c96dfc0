"""The encoder of patches and rays against a slow, spelled-out twin."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fieldloom.conditioners import Substitute
from fieldloom.encoders import Transformer
from fieldloom.encoders.transformer import unfold
from fieldloom.errors import InputError
from fieldloom.family import Family
from fieldloom.fields import Local
from fieldloom.geometry.cameras import orbit, rays
from fieldloom.metrics.losses import mse
from fieldloom.modalities import MODALITIES
from fieldloom.renderers import Plucker, plucker
from fieldloom.types import Signal
from transformers_by_hand import CODE, OWN, SMALL, close, draw, encode, painter, picture, slow_norm

# -- patches


@pytest.mark.parametrize(
    ("size", "patch", "pad"), [((6, 8), (3, 2), 0), ((7, 9), (3, 3), 1), ((5, 4), (2, 3), 2)]
)
def test_unfold_is_torchs(size: tuple[int, int], patch: tuple[int, int], pad: int) -> None:
    x = draw(2, 3, *size)
    close(unfold(x, patch, pad), F.unfold(x, patch, padding=pad, stride=patch).mT)


@pytest.mark.parametrize(
    ("size", "patch", "pad"),
    [((11,), (3,), 0), ((11,), (4,), 1), ((4, 5, 6), (2, 2, 3), 0), ((3, 4, 5), (2, 3, 2), 1)],
)
def test_unfold_axis_by_axis(size: tuple[int, ...], patch: tuple[int, ...], pad: int) -> None:
    """The first patch's channels, row-major within; what fills no patch is left out."""
    x = draw(2, 3, *size)
    padded = torch.zeros(2, 3, *(n + 2 * pad for n in size), dtype=x.dtype)
    padded[:, :, *(slice(pad, pad + n) for n in size)] = x
    places = [(n + 2 * pad) // p for n, p in zip(size, patch, strict=True)]
    rows = []
    for place in product(*map(range, places)):
        row = []
        for channel, within in product(range(3), product(*map(range, patch))):
            at = [a * p + b for a, p, b in zip(place, patch, within, strict=True)]
            row.append(padded[:, channel, *at])
        rows.append(torch.stack(row, -1))
    close(unfold(x, patch, pad), torch.stack(rows, 1))


# -- the encoder


def seen(count: int, size: int = 6) -> Signal:
    """So many views of each of two objects, from an orbit."""
    c2w = orbit(4, 1.5, 20.0)[:count].expand(2, -1, -1, -1)
    intrinsics = torch.tensor([7.0, 7.0, size / 2, size / 2]).expand(2, count, 4)
    coords = rays(c2w, intrinsics, size, size).flatten(1, 2)
    values = torch.rand(2, count * size * size, 3)
    return Signal(coords, values, torch.arange(2), grid=(count, size, size))


def reordered(signal: Signal, order: list[int]) -> Signal:
    """The views of each signal in another order."""
    assert signal.grid is not None
    turn = lambda x: x.unflatten(1, (signal.grid[0], -1))[:, order].flatten(1, 2)
    return replace(signal, coords=turn(signal.coords), values=turn(signal.values))


def viewer(**own: Any) -> Transformer:
    return Transformer(CODE, (3, 6, 6), 3, 6, patch=3, grid_dim=2, **SMALL | own).eval()


def slow_encoder(encoder: Transformer, patches: Tensor) -> Tensor:
    """The same layers, one signal at a time, asked tokens last."""
    codes = []
    for own in patches:
        x = own @ encoder.tokeniser.weight.mT + encoder.tokeniser.bias
        if encoder.positions is not None:
            x = torch.stack([row + encoder.positions[i] for i, row in enumerate(x)])
        x = torch.cat([x, encoder.asked])[None]
        for block in encoder.blocks:
            x = block(x)
        asked = x[0, len(own) :]
        if len(encoder.head):
            norm, linear = encoder.head
            asked = slow_norm(asked) * norm.weight + norm.bias
            asked = asked @ linear.weight.mT + linear.bias
        codes.append(asked)
    return torch.stack(codes)


@pytest.mark.parametrize("positions", ["learned", "none"])
@pytest.mark.parametrize("head", [True, False])
def test_encoder_of_pictures(positions: str, head: bool) -> None:
    """Patches are torch.nn.Unfold's; with a pad and a rest that fills no patch."""
    width = 8 if head else CODE[1]
    encoder = painter(positions=positions, head=head, width=width, heads=1, pad=1)
    signal = picture()
    pixels = signal.values.mT.unflatten(2, (6, 7))
    patches = F.unfold(pixels, 3, padding=1, stride=3).mT
    close(encoder.patches(signal), patches)
    code = encode(encoder, signal)
    assert code.shape == (2, *CODE)
    close(code, slow_encoder(encoder, patches))


@pytest.mark.parametrize("form", ["plucker", "origin"])
def test_encoder_of_views(form: str) -> None:
    """Colour and ray of each pixel, one view after another."""
    encoder, signal = viewer(rays=form), seen(3)
    joined = plucker(signal.coords) if form == "plucker" else signal.coords
    pixels = torch.cat([signal.values, joined], -1).unflatten(1, (3, 6, 6)).movedim(-1, 2)
    each = [F.unfold(pixels[:, view], 3, stride=3).mT for view in range(3)]
    close(encoder.patches(signal), torch.cat(each, 1))
    close(encode(encoder, signal), slow_encoder(encoder, torch.cat(each, 1)))


def test_views_are_a_set_without_positions() -> None:
    signal = seen(3)
    for positions, alike in (("none", True), ("learned", False)):
        encoder = viewer(positions=positions)
        code = encode(encoder, signal)
        for order in ([1, 0, 2], [2, 0, 1]):
            turned = encode(encoder, reordered(signal, order))
            assert torch.allclose(turned, code, atol=1e-5) == alike


@pytest.mark.parametrize("positions", ["learned", "none"])
def test_fewer_views_than_the_most(positions: str) -> None:
    """One encoder reads one, two and three views; the first positions are those of the first."""
    encoder, signal = viewer(positions=positions), seen(3)
    codes = []
    for count in (1, 2, 3):
        some = slice(0, 36 * count)
        part = replace(
            signal,
            coords=signal.coords[:, some],
            values=signal.values[:, some],
            grid=(count, 6, 6),
        )
        patches = encoder.patches(part)
        close(patches, encoder.patches(signal)[:, : 4 * count])
        codes.append(encode(encoder, part))
        close(codes[-1], slow_encoder(encoder, patches))
    assert not torch.allclose(codes[0], codes[1])
    assert not torch.allclose(codes[1], codes[2])


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("hidden", [7.0, math.nan])
def test_hidden_values_do_not_matter(known: bool, hidden: float) -> None:
    encoder, signal = painter(mask_channel=known), picture()
    mask = torch.rand(signal.coords.shape[:2]) < 0.5
    other = replace(signal, values=torch.where(mask[..., None], signal.values, hidden))
    close(encode(encoder, other.hide(mask)), encode(encoder, signal.hide(mask)))


def test_a_channel_says_what_is_known() -> None:
    """Hidden and black look alike without it."""
    signal = picture()
    mask = torch.rand(signal.coords.shape[:2]) < 0.5
    black = replace(signal, values=signal.values * mask[..., None])
    for known in (True, False):
        encoder = painter(mask_channel=known)
        alike = torch.allclose(encode(encoder, black), encode(encoder, signal.hide(mask)))
        assert alike != known
    encoder = painter(mask_channel=True)
    last = encoder.patches(signal.hide(mask)).unflatten(2, (4, 9))[:, :, -1]
    close(last, F.unfold(mask.float().view(2, 1, 6, 7), 3, stride=3).mT)
    all_known = signal.hide(torch.ones_like(mask))
    close(encode(encoder, all_known), encode(encoder, signal))


@pytest.mark.parametrize(
    ("name", "size", "patch"),
    [("audio", (13,), 4), ("voxel", (4, 5, 6), 2), ("voxel", (4, 5, 6), (2, 1, 3))],
)
def test_encoder_of_any_grid(name: str, size: tuple[int, ...], patch: Any) -> None:
    modality = MODALITIES[name](size=size)
    signal = modality.observe(torch.rand(2, 1, *size)).context
    encoder = Transformer(CODE, size, 1, modality.coord_dim, patch=patch, **SMALL).eval()
    patches = encoder.patches(signal)
    own = (patch,) * len(size) if isinstance(patch, int) else patch
    count = math.prod(n // p for n, p in zip(size, own, strict=True))
    assert patches.shape == (2, count, math.prod(own))
    block = signal.values[..., 0].unflatten(1, size)[:, *(slice(0, p) for p in own)]
    close(patches[:, 0], block.flatten(1))
    code = encode(encoder, signal)
    close(code, slow_encoder(encoder, patches))
    # and every signal by itself
    for i in (0, 1):
        close(encode(encoder, signal.part(slice(i, i + 1)))[0], code[i])


def test_gradients_reach_every_parameter_of_an_encoder() -> None:
    for encoder, signal in ((viewer(), seen(3)), (painter(mask_channel=True), picture())):
        encode(encoder, signal).square().sum().backward()
        for name, parameter in encoder.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_dropout_of_an_encoder() -> None:
    encoder, signal = painter(dropout=0.3), picture()
    close(encode(encoder, signal), encode(encoder, signal), rtol=0, atol=0)
    encoder.train()
    assert not torch.allclose(encode(encoder, signal), encode(encoder, signal))


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (dict(axes=()), "whole grids"),
        (dict(code_shape=(0, 0)), "a conditioner with a code"),
        (dict(patch=7), r"patch = 7 is larger than the data, \(6, 7\)"),
        (dict(patch=(3, 3, 3)), "a positive patch, or 2"),
        (dict(patch=0), "patch = 0"),
        (dict(pad=-1), "pad = -1"),
        (dict(depth=0), "depth = 0"),
        (dict(heads=3), "heads = 3: a divisor of the width, 8"),
        (dict(head=False), "width = 8: without a head it is the code's, 5"),
        (dict(dropout=1.0), "dropout = 1.0"),
        (dict(ratio=-1.0), "ratio = -1.0"),
    ],
)
def test_what_an_encoder_is_not_made_of(own: dict[str, Any], message: str) -> None:
    given = dict(code_shape=CODE, axes=(6, 7), value_dim=3, coord_dim=2, patch=3, **SMALL) | own
    with pytest.raises(InputError, match=message) as raised:
        Transformer(**given)
    assert one_sentence(str(raised.value))


def one_sentence(message: str) -> bool:
    return message.endswith(".") and ". " not in message and "\n" not in message


@pytest.mark.parametrize(
    ("encoder", "signal", "message"),
    [
        (painter, lambda: picture().subset(5), r"whole grids of \(6, 7\); these are scattered"),
        (painter, lambda: picture((7, 6)), r"\(6, 7\); these are \(7, 6\)"),
        (viewer, lambda: seen(4), r"\(3, 6, 6\) or fewer views; these are \(4, 6, 6\)"),
        (viewer, lambda: seen(2, 9), r"these are \(2, 9, 9\)"),
        (viewer, lambda: seen(3).subset(5), "or fewer views; these are scattered"),
    ],
)
def test_what_an_encoder_does_not_read(encoder: Any, signal: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        encode(encoder(), signal())
    assert one_sentence(str(raised.value))


# -- descent through attention, and from an encoder's answer


def test_a_light_field_from_views() -> None:
    """Rays go in as the encoder's tokens and as the decoder's points: no volume is rendered."""
    field = Local(6, 3, **OWN | dict(features=24, width=5, heads=1, tokens=3))
    own = Family(field, Substitute(field.slots, "tokens"))
    signal, render = seen(2), Plucker()
    code = viewer()(signal, own, render, mse)
    out = render(own.bind(code), seen(1).coords)
    assert out.shape == (2, 36, 3)
    # a ray is the same wherever its origin lies on it
    origin, direction = signal.coords.split(3, -1)
    moved = torch.cat([origin + 0.7 * direction, 2 * direction], -1)
    close(viewer().patches(replace(signal, coords=moved)), viewer().patches(signal), atol=1e-5,
          rtol=1e-5)  # fmt: skip
