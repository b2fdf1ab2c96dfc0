"""Whitening, by tensor, and of codes that are read in pieces."""

from __future__ import annotations

import pytest
import torch

from fieldloom.codecs import Identity, Whiten
from fieldloom.codecs import codec as codec_module
from fieldloom.errors import InputError
from fieldloom.priors import Gaussian
from fieldloom.types import Slot
from vectors import same
from weights import codes


def test_whitening_by_tensor() -> None:
    """One mean and deviation a tensor, over its numbers and all codes; padding stays as it is."""
    conditioner = codes()
    scales = {name: 10.0**-i for i, name in enumerate(conditioner.layout or ())}
    weights = {
        name: 3 * scales[name] + scales[name] * torch.randn(40, *slot.shape)
        for name, slot in (conditioner.layout or {}).items()
    }
    code = conditioner.pack(weights)
    codec = Whiten(conditioner.code_shape, "tensor", conditioner.layout)
    codec.fit(code)
    inner = conditioner.unpack(codec.encode(code))
    for name, w in weights.items():
        expected = (w - w.double().mean().float()) / w.double().std().float()
        same(inner[name], expected, rtol=1e-3, atol=1e-3)
    same(codec.decode(codec.encode(code)), code, rtol=1e-4, atol=1e-6)
    assert not codec.encode(code).flatten(1)[:, sum(conditioner.sizes) :].any()


class Pieces:
    """Codes that are read in pieces, as ``types.Lazy``."""

    dtype = torch.float32

    def __init__(self, codes: torch.Tensor) -> None:
        self.codes, self.shape = codes, tuple(codes.shape)

    def read(self, which):
        return self.codes[which]


@pytest.mark.parametrize("per", ["element", "channel", "tensor", "all"])
def test_statistics_in_one_pass_are_those_of_all_codes(per, monkeypatch):
    """Of a mean that is a thousand deviations, in float64; float32 alone loses four digits."""
    monkeypatch.setattr(codec_module, "PIECE", 60)
    codes = 1000 + torch.randn(97, 3, 4, generator=torch.Generator().manual_seed(0))
    slots = {"a": Slot((2, 3), torch.zeros, "weight"), "b": Slot((5,), torch.zeros, "bias")}
    layout = slots if per == "tensor" else None
    whole, pieces = Whiten((3, 4), per, layout).double(), Whiten((3, 4), per, layout).double()
    whole.fit(codes.double())
    pieces.fit_in_pieces(Pieces(codes))
    assert torch.allclose(pieces.mean, whole.mean, rtol=1e-12)
    assert torch.allclose(pieces.std, whole.std, rtol=1e-9)


def test_a_codec_without_a_way_in_pieces_reads_all():
    codes = torch.randn(300, 1, 6, generator=torch.Generator().manual_seed(0))
    whole, pieces = Gaussian((1, 6)), Gaussian((1, 6))
    whole.fit(codes)
    pieces.fit_in_pieces(Pieces(codes))
    assert torch.equal(pieces.mean, whole.mean)
    Identity((1, 6)).fit_in_pieces(Pieces(codes))
    with pytest.raises(InputError, match="at least 2"):
        Whiten((1, 6)).fit_in_pieces(Pieces(codes[:1]))
