"""How weights are split into tokens: scalars, rows of matrices, or neurons."""

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
class TokenPositions:
    """The positions of a code's tokens.

    index:  (length, width), indices into the flat code; -1 pads shorter tokens.
    layer, row, column: (length,), counted from 0. A row of a weight is the incoming weights of one
            neuron; biases are the column after them, or the row where tokens are rows.
    """

    index: Integers
    layer: Integers
    row: Integers
    column: Integers


@dataclass(frozen=True)
class Vocabulary:
    """The token ids that a codec returns: (batch, length, levels), each from 0 to ``size - 1``.

    A token id is the index of an entry in its codebook.
    size: number of entries of each codebook. codebooks: their number.
    codebook: (length, levels), the index of each token's codebook. positions: of the tokens.
    """

    size: int
    codebooks: int
    codebook: Integers
    positions: TokenPositions


def cut_tokens(
    code_shape: tuple[int, int], layout: Mapping[str, Slot] | None, token: Token
) -> TokenPositions:
    """The tokens of a code that is the concatenation of the slots of ``layout``.

    The order is layer by layer, and neuron by neuron within a layer (PyTorch's order), with biases
    after weights; where tokens are neurons, each neuron's bias is its last number. Further axes in
    front (tiles) are flattened to more neurons, and slots that are not weights are matrices of
    their last axis. Without a layout the code's own tokens are the rows, and ``neuron`` raises
    InputError.
    """
    if layout is None:
        if token == "neuron":
            raise InputError(
                "token = 'neuron' needs codes that are weights: conditioner 'flat-weights'."
            )
        whole = np.arange(math.prod(code_shape), dtype=np.int64).reshape(code_shape)
        return _concatenate([_tokens_of(whole, 0, 0, token)])
    layers = _layers_of(layout)
    found: list[TokenPositions] = []
    for number, own in enumerate(layers):
        weight, bias = own.pop("weight", None), own.pop("bias", None)
        if token == "neuron" and bias is not None:
            column = bias.reshape(-1, 1)
            neurons = column if weight is None else np.concatenate([weight, column], 1)
            found.append(_tokens_of(neurons, number, 0, token))
            weight = bias = None
        if weight is not None:
            found.append(_tokens_of(weight, number, 0, token))
        if bias is not None:
            rows, columns = (0, 0) if weight is None else weight.shape
            scalar = token == "scalar"
            matrix = bias.reshape(-1, 1) if scalar else bias
            found.append(_tokens_of(matrix, number, columns if scalar else rows, token))
        found += [_tokens_of(rows, number, 0, token) for rows in own.values()]
    return _concatenate(found)


def _layers_of(layout: Mapping[str, Slot]) -> list[dict[str, Integers]]:
    """For each layer, by role, the indices of its numbers in the flat code: (rows, columns)."""
    layers: dict[str, dict[str, Integers]] = {}
    first = 0
    for name, slot in layout.items():
        index = np.arange(first, first + math.prod(slot.shape), dtype=np.int64).reshape(slot.shape)
        first += index.size
        matrix = index.swapaxes(-1, -2) if slot.role == "weight" else index
        rows = matrix.reshape(-1, matrix.shape[-1])
        layer = layer_of(name) or name
        key = name if slot.role in layers.get(layer, {}) else layer
        layers.setdefault(key, {})[slot.role] = rows
    return list(layers.values())


def _tokens_of(matrix: Integers, layer: int, offset: int, token: Token) -> TokenPositions:
    """The tokens of one matrix. offset: its first column (for scalars), or its first row."""
    rows, columns = matrix.shape
    if token == "scalar":
        row, column = np.repeat(np.arange(rows), columns), np.tile(np.arange(columns), rows)
        layers = np.full(matrix.size, layer)
        return TokenPositions(matrix.reshape(-1, 1), layers, row, column + offset)
    row, column = np.arange(rows) + offset, np.zeros_like(matrix[:, 0])
    return TokenPositions(matrix, np.full(rows, layer), row, column)


def _concatenate(parts: list[TokenPositions]) -> TokenPositions:
    width = max(part.index.shape[1] for part in parts)
    pad = lambda x: np.pad(x, ((0, 0), (0, width - x.shape[1])), constant_values=-1)
    index = np.concatenate([pad(part.index) for part in parts])
    where = [(part.layer, part.row, part.column) for part in parts]
    return TokenPositions(index, *(np.concatenate(x) for x in zip(*where, strict=True)))


def gather_tokens(code: Code, index: Tensor) -> Tensor:
    """The numbers of each token: (batch, length, width), zero where a token is padded."""
    flat = torch.cat([code.flatten(1), code.new_zeros(len(code), 1)], 1)
    return flat[:, index]  # -1 is the zero at the end


def scatter_tokens(tokens: Tensor, index: Tensor, code_shape: tuple[int, int]) -> Code:
    """The code of tokens (batch, length, width); numbers of no token are zero."""
    flat = tokens.new_zeros(len(tokens), math.prod(code_shape) + 1)
    flat[:, index] = tokens  # padding goes to the last number, which is cut off
    return flat[:, :-1].unflatten(1, code_shape)
