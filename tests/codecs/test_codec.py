"""Whitening, by tensor."""

from __future__ import annotations

import torch

from fieldloom.codecs import Whiten
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
