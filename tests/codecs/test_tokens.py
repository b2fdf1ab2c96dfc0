"""Weights as tokens: which weight stands where."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from fieldloom.codecs.tokens import cut_tokens, gather_tokens, scatter_tokens
from fieldloom.errors import InputError
from fieldloom.types import Slot
from vectors import same
from weights import some, weights

CUTS = ("scalar", "row", "neuron")


@pytest.mark.parametrize("token", CUTS)
@pytest.mark.parametrize("width", [None, 7])
def test_every_weight_is_in_one_token(token: str, width: int | None) -> None:
    conditioner = weights(width)
    codes = some(conditioner, 3)
    positions = cut_tokens(conditioner.code_shape, conditioner.layout, token)
    index = torch.from_numpy(positions.index)
    held = index[index >= 0].sort().values
    assert held.tolist() == list(range(sum(conditioner.sizes)))
    same(
        scatter_tokens(gather_tokens(codes, index), index, conditioner.code_shape),
        codes,
        rtol=0,
        atol=0,
    )
    # a token is one layer's, and no two stand at one place
    where = list(zip(positions.layer, positions.row, positions.column, strict=True))
    assert len(set(where)) == len(index)
    assert positions.layer.tolist() == sorted(positions.layer)


def test_tokens_are_neurons_in_the_order_of_pytorch() -> None:
    """Linear(in, out) by linear: weight (out, in) row by row, then the bias."""
    conditioner = weights()
    codes = some(conditioner, 2)
    matrices = conditioner.unpack(codes)
    pytorch = [
        x for i in range(3) for x in (matrices[f"{i}.weight"].mT, matrices[f"{i}.bias"][:, None])
    ]
    positions = {
        token: cut_tokens(conditioner.code_shape, conditioner.layout, token) for token in CUTS
    }
    read = {token: gather_tokens(codes, torch.from_numpy(positions[token].index)) for token in CUTS}
    same(read["scalar"][..., 0], torch.cat([x.flatten(1) for x in pytorch], 1), rtol=0, atol=0)
    rows = [row for matrix in pytorch for row in matrix.unbind(1)]
    assert read["row"].shape == (2, len(rows), 4)
    for row, true in zip(read["row"].unbind(1), rows, strict=True):
        same(row, F.pad(true, (0, 4 - true.shape[1])), rtol=0, atol=0)
    neurons = [torch.cat([w, b.mT], 2) for w, b in zip(pytorch[::2], pytorch[1::2], strict=True)]
    for got, true in zip(
        read["neuron"].unbind(1), [n for layer in neurons for n in layer.unbind(1)], strict=True
    ):
        same(got, F.pad(true, (0, 5 - true.shape[1])), rtol=0, atol=0)
    scalar = positions[
        "scalar"
    ]  # of the second layer: 4 inputs, the bias in the column behind them
    second = scalar.layer == 1
    assert scalar.row[second].tolist() == [r for r in range(4) for _ in range(4)] + [0, 1, 2, 3]
    assert scalar.column[second].tolist() == [0, 1, 2, 3] * 4 + [4] * 4
    assert positions["row"].row[positions["row"].layer == 1].tolist() == [0, 1, 2, 3, 4]


def test_tiles_inputs_and_missing_biases_have_tokens_too() -> None:
    draw = lambda generator: torch.zeros(1)
    layout = {
        "tokens": Slot((3, 2), draw, "input"),
        "grid": Slot((2, 5), draw, "input"),
        "0.weight": Slot((2, 3, 4), draw, "weight"),
        "0.bias": Slot((2, 4), draw, "bias"),
        "1.weight": Slot((4, 1), draw, "weight"),
    }
    size = 6 + 10 + 24 + 8 + 4
    lengths = {"scalar": size, "row": 3 + 2 + 8 + 2 + 1, "neuron": 3 + 2 + 8 + 1}
    for token, length in lengths.items():
        index = cut_tokens((1, size), layout, token).index
        assert len(index) == length
        assert sorted(index[index >= 0].tolist()) == list(range(size))
    assert cut_tokens((1, size), layout, "neuron").index[5].tolist() == [16, 20, 24, 40, -1]


def test_codes_that_are_no_weights_are_cut_as_they_are() -> None:
    assert cut_tokens((3, 4), None, "row").index.tolist() == [
        list(range(i, i + 4)) for i in (0, 4, 8)
    ]
    assert cut_tokens((3, 4), None, "scalar").index.shape == (12, 1)
    with pytest.raises(InputError, match="conditioner 'flat-weights'"):
        cut_tokens((3, 4), None, "neuron")
