"""How weights are cut into tokens: a number, a row of a matrix, or a neuron at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fieldloom.errors import InputError
from fieldloom.types import Code, Slot, layer_of

Token = Literal["scalar", "row", "neuron"]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Places:
    """Where the tokens of a code stand.

    index:  (length, width) places in the flat code; -1 fills up tokens that are shorter.
    layer, row, column: (length,), counted from 0. Of a weight a row is what one neuron receives;
            a bias stands in the column, or where tokens are rows in the row, behind the weights.
    """

    index: Integers
    layer: Integers
    row: Integers
    column: Integers


@dataclass(frozen=True)
class Vocabulary:
    """The integers that a codec answers: (batch, length, levels), each from 0 to ``codes - 1``.

    which: (length, levels), the vocabulary of each; there are ``count`` of them.
    """

    codes: int
    count: int
    which: Integers
    places: Places


def cut(code_shape: tuple[int, int], layout: Mapping[str, Slot] | None, token: Token) -> Places:
    """The tokens of a code that is the concatenation of the slots of ``layout``.

    Layer by layer; of a layer neuron by neuron (PyTorch's order), its biases after its weights
    unless tokens are neurons: then each neuron's bias is its last number. Slots with further axes
    in front (tiles) count as so many more neurons, and slots that are no weights as matrices of
    their last axis. Without a layout the code's own tokens are the rows, and there are no neurons.
    """
    if layout is None:
        if token == "neuron":
            raise InputError(
                "token = 'neuron' needs codes that are weights: conditioner 'flat-weights'."
            )
        whole = np.arange(math.prod(code_shape), dtype=np.int64).reshape(code_shape)
        return _joined([_tokens(whole, 0, 0, token)])
    parts: dict[str, dict[str, Integers]] = {}
    first = 0
    for name, slot in layout.items():
        index = np.arange(first, first + math.prod(slot.shape), dtype=np.int64).reshape(slot.shape)
        first += index.size
        matrix = index.swapaxes(-1, -2) if slot.role == "weight" else index
        rows = matrix.reshape(-1, matrix.shape[-1])
        layer = layer_of(name) or name
        parts.setdefault(name if slot.role in parts.get(layer, {}) else layer, {})[slot.role] = rows
    found: list[Places] = []
    for place, own in enumerate(parts.values()):
        weight, bias = own.pop("weight", None), own.pop("bias", None)
        others = list(own.values())
        if token == "neuron" and bias is not None:
            column = bias.reshape(-1, 1)
            joined = column if weight is None else np.concatenate([weight, column], 1)
            found.append(_tokens(joined, place, 0, token))
        else:
            if weight is not None:
                found.append(_tokens(weight, place, 0, token))
            if bias is not None:
                neurons, inputs = (0, 0) if weight is None else weight.shape
                if token == "scalar":
                    found.append(_tokens(bias.reshape(-1, 1), place, inputs, token))
                else:
                    found.append(_tokens(bias, place, neurons, token))
        found += [_tokens(rows, place, 0, token) for rows in others]
    return _joined(found)


def _tokens(matrix: Integers, layer: int, behind: int, token: Token) -> Places:
    """Those of one matrix. behind: the first column (of scalars), or the first row."""
    rows, columns = matrix.shape
    if token == "scalar":
        row, column = np.repeat(np.arange(rows), columns), np.tile(np.arange(columns), rows)
        whole = np.full(matrix.size, layer)
        return Places(matrix.reshape(-1, 1), whole, row, column + behind)
    return Places(
        matrix, np.full(rows, layer), np.arange(rows) + behind, np.zeros_like(matrix[:, 0])
    )


def _joined(parts: list[Places]) -> Places:
    width = max(part.index.shape[1] for part in parts)
    fill = lambda x: np.pad(x, ((0, 0), (0, width - x.shape[1])), constant_values=-1)
    index = np.concatenate([fill(part.index) for part in parts])
    where = [(part.layer, part.row, part.column) for part in parts]
    return Places(index, *(np.concatenate(x) for x in zip(*where, strict=True)))


def gather(code: Code, index: Tensor) -> Tensor:
    """The numbers of each token: (batch, length, width), zero where a token is shorter."""
    flat = torch.cat([code.flatten(1), code.new_zeros(len(code), 1)], 1)
    return flat[:, index]  # -1 is the zero at the end


def scatter(tokens: Tensor, index: Tensor, code_shape: tuple[int, int]) -> Code:
    """The code of tokens (batch, length, width): what no token holds is zero."""
    flat = tokens.new_zeros(len(tokens), math.prod(code_shape) + 1)
    flat[:, index] = tokens  # what fills up shorter tokens goes to the end, which is cut off
    return flat[:, :-1].unflatten(1, code_shape)
