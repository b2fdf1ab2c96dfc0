"""Hypernetworks: a perceptron maps the code to all weights (GASP), or to gates of them (GEM)."""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Generator, Tensor, nn

from fieldloom.conditioners.conditioner import Conditioner, Slots, match_layer_slots
from fieldloom.errors import InputError
from fieldloom.nn.initialisers import kaiming_linear, torch_linear
from fieldloom.nn.layers import ACTIVATIONS
from fieldloom.types import Code, Weights


class Hyper(Conditioner):
    """A perceptron from the code to the chosen weights.

    width:  of the code.
    hidden: units of each hidden layer.
    activation: after each hidden layer.
    rank:   None: one linear output layer gives all weights and biases directly, all weights before
            all biases (GASP, arXiv:2102.04776, section 3.2; layers start as torch.nn.Linear's).
            A number r: the trunk ends with a linear layer of the last hidden width, and each weight
            and bias has an output head of two layers with a ReLU between. A bias is its head's
            output; a weight is W = base * sigmoid(A B), with A (in, r) and B (r, out) the head's
            output and base shared (GEM, arXiv:2111.06387, section 3.1). Matrices start by
            Kaiming's normal draw, biases as 0.01 N(0, 1).
    only:   glob pattern of the slots that depend on the code; the others stay shared.
    """

    def __init__(
        self,
        slots: Slots,
        width: int = 64,
        hidden: tuple[int, ...] = (256, 512),
        rank: int | None = None,
        activation: str = "leaky-relu-0.1",
        only: str = "*",
        generator: Generator | None = None,
    ) -> None:
        if min(width, *hidden, 1 if rank is None else rank) < 1 or not hidden:
            raise InputError(
                f"conditioner: width = {width}, hidden = {list(hidden)}, rank = {rank}: at least 1 "
                "each, and one hidden layer."
            )
        if activation not in ACTIVATIONS:
            raise InputError(f"activation '{activation}' is none of {', '.join(ACTIVATIONS)}.")
        chosen = match_layer_slots(slots, only)
        roles = ("weight", "bias")
        ordered = [n for role in roles for n in chosen if slots[n].role == role]
        gated = {n for n in ordered if rank is not None and slots[n].role == "weight"}
        super().__init__(slots, skip=frozenset(ordered) - gated, generator=generator)
        self.chosen, self.gated, self.rank = ordered, gated, rank
        self.code_shape = (1, width)
        self.activation = ACTIVATIONS[activation]
        sizes = [width, *hidden]
        if rank is None:
            outputs = [sum(math.prod(slots[n].shape) for n in ordered)]
            self.trunk = nn.ModuleList(torch_linear(a, b, generator) for a, b in pairwise(sizes))
            self.heads = nn.ModuleList([torch_linear(sizes[-1], outputs[0], generator)])
        else:
            last = sizes[-1]
            self.trunk = nn.ModuleList(
                kaiming_linear(a, b, generator) for a, b in pairwise([*sizes, last])
            )
            self.heads = nn.ModuleList(
                nn.Sequential(
                    kaiming_linear(last, last, generator),
                    nn.ReLU(),
                    kaiming_linear(last, self._outputs(n), generator),
                )
                for n in ordered
            )

    def _outputs(self, name: str) -> int:
        """How many numbers the head of a slot outputs: a bias, or the two factors of a gate."""
        shape = self.slots[name].shape
        if name not in self.gated:
            return math.prod(shape)
        assert self.rank is not None
        return math.prod(shape[:-2]) * self.rank * (shape[-2] + shape[-1])

    def forward(self, code: Code) -> Weights:
        return self._weights(code[:, 0]) if self.rank is None else self._gated_weights(code[:, 0])

    def _weights(self, h: Tensor) -> Weights:
        """All chosen weights as one layer's output, from codes (batch, width)."""
        for layer in self.trunk:
            h = self.activation(layer(h))
        sizes = [math.prod(self.slots[n].shape) for n in self.chosen]
        parts = self.heads[0](h).split(sizes, -1)
        own = {
            name: part.unflatten(-1, self.slots[name].shape)
            for name, part in zip(self.chosen, parts, strict=True)
        }
        return self.base.mapping() | own

    def _gated_weights(self, h: Tensor) -> Weights:
        """Biases, and shared weights times low-rank gates, from codes (batch, width)."""
        for layer in self.trunk[:-1]:
            h = self.activation(layer(h))
        h = self.trunk[-1](h)
        weights = self.base.mapping()
        for name, head in zip(self.chosen, self.heads, strict=True):
            output = head(h)
            shape = self.slots[name].shape
            if name in self.gated:
                weights[name] = weights[name] * self._gate(output, shape)
            else:
                weights[name] = output.unflatten(-1, shape)
        return weights

    def _gate(self, output: Tensor, shape: tuple[int, ...]) -> Tensor:
        """sigmoid(A B): (batch, *shape) in (0, 1)."""
        assert self.rank is not None
        fan_in, fan_out = shape[-2:]
        both = output.unflatten(-1, (*shape[:-2], -1))
        first, second = both.split([fan_in * self.rank, self.rank * fan_out], -1)
        product = first.unflatten(-1, (fan_in, self.rank)) @ second.unflatten(
            -1, (self.rank, fan_out)
        )
        return product.sigmoid()

    def macs(self) -> int:
        """Multiply-accumulates from a code to its weights, with the low-rank products."""
        products = sum(math.prod(self.slots[n].shape) * (self.rank or 0) for n in self.gated)
        return super().macs() + products
