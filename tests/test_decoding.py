"""A decoding in pieces is the whole."""

import pytest
import torch

import fieldloom
from fieldloom.errors import InputError
from fieldloom.process import multiplies_bfloat16

BFLOAT16 = torch.bfloat16


def test_pieces_of_a_decoding_make_the_whole(tiny_run, monkeypatch):
    system = fieldloom.load(tiny_run, device="cpu")
    codes = torch.randn(2, *system.family.code_shape)
    whole = system.decode(codes, resolution=20).tensor
    monkeypatch.setattr("fieldloom.decoding.CACHED", 56)
    torch.testing.assert_close(system.decode(codes, resolution=20).tensor, whole)


def test_bfloat16_rounds_products_alone(tiny_run):
    """Where the processor multiplies bfloat16; elsewhere one sentence refuses it."""
    system = fieldloom.load(tiny_run, device="cpu")
    codes = 0.1 * torch.randn(2, *system.family.code_shape)
    coords = system.modality.grid()
    if not multiplies_bfloat16():
        with pytest.raises(InputError, match="no matrix instructions"):
            next(system.evaluate(codes, coords, torch.bfloat16))
        return
    whole, rounded = (torch.cat(list(system.evaluate(codes, coords, d))) for d in (None, BFLOAT16))
    assert rounded.dtype == torch.float32
    error = (whole - rounded).square().mean().sqrt()
    assert 0 < error < 0.05
    a = torch.randn(64, 64)
    assert torch.equal(a @ a, torch.mm(a, a))  # the mode is over


def test_bfloat16_is_refused_without_instructions(tiny_run, monkeypatch):
    monkeypatch.setattr("fieldloom.process.multiplies_bfloat16", lambda: False)
    system = fieldloom.load(tiny_run, device="cpu")
    with pytest.raises(InputError, match="bfloat16: this processor has no matrix instructions"):
        next(system.evaluate(system.family.conditioner.origin(1), system.modality.grid(), BFLOAT16))
