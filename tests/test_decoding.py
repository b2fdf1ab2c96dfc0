"""A decoding in pieces is the whole."""

import torch

import fieldloom


def test_pieces_of_a_decoding_make_the_whole(tiny_run, monkeypatch):
    system = fieldloom.load(tiny_run, device="cpu")
    codes = torch.randn(2, *system.family.code_shape)
    whole = system.decode(codes, resolution=20).tensor
    monkeypatch.setattr("fieldloom.decoding.CACHED", 56)
    torch.testing.assert_close(system.decode(codes, resolution=20).tensor, whole)
