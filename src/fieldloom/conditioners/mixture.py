"""Mixtures of neural implicit functions: weights are averages of learned bases (mNIF)."""

from __future__ import annotations

import math
from collections import ChainMap
from functools import partial
from typing import Literal

import torch
from torch import Generator, Tensor

from fieldloom import memory
from fieldloom.conditioners.conditioner import Conditioner, Slots, Tensors, match_layer_slots
from fieldloom.errors import InputError
from fieldloom.nn.initialisers import torch_linear
from fieldloom.threads import run_pieces, share_out
from fieldloom.types import Code, Weights, layer_of

APART = 1 << 20
"""Numbers in all bases from which mixing without gradients is shared out to threads."""

LARGEST = 1e6
"""The largest gain: weights must still be float32s."""


class Mixture(Conditioner):
    """W_i = sum_m alpha[m, i] W_{m, i}, and the same for biases (arXiv:2310.19464, eq. 3).

    experts: number of bases (M); each is an independent draw of the field.
    width:   length of a latent code (H); unused where the code is the coefficients themselves.
    coefficients:
        ``latent``         alpha = P z + c, one coefficient per layer and base; code (1, H)
        ``latent-shared``  the same, one coefficient per base for all layers; code (1, H)
        ``layer``          the code is alpha, one token per layer; code (layers, M)
        ``shared``         the code is alpha, for all layers; code (1, M)

    gain: factor of the bases' initial draws. 1 is as released: the mean of M draws is sqrt(M) times
        smaller than a draw. ``sqrt`` is sqrt(M): the mean has the spread of the field's own draw.

    c starts at 1/M, so that z = 0 is the mean of the bases; P starts as in torch.nn.Linear. Raises
    InputError for sizes below 1, and a gain that is not above 0.
    """

    def __init__(
        self,
        slots: Slots,
        experts: int = 64,
        width: int = 64,
        coefficients: Literal["latent", "latent-shared", "layer", "shared"] = "latent",
        only: str = "*",
        gain: float | Literal["sqrt"] = 1.0,
        generator: Generator | None = None,
    ) -> None:
        if experts < 1 or width < 1:
            raise InputError(f"mixture: experts = {experts}, width = {width}: at least 1 each.")
        factor = math.sqrt(experts) if gain == "sqrt" else gain
        if not 0 < factor <= LARGEST:
            raise InputError(f"mixture: gain = {gain}: above 0, at most {LARGEST:g}, or sqrt.")
        chosen = match_layer_slots(slots, only)
        super().__init__(slots, skip=frozenset(chosen), generator=generator)
        memory.require(experts * memory.bytes_of(slots[name].shape for name in chosen))
        self.experts, self.coefficients, self.chosen = experts, coefficients, chosen
        self.basis = Tensors(
            {
                n: torch.stack([slots[n].init(generator) for _ in range(experts)]).mul_(factor)
                for n in chosen
            }
        )
        layers = list(dict.fromkeys(layer_of(name) for name in chosen))
        one = coefficients in ("shared", "latent-shared")
        self.layer_index = {name: 0 if one else layers.index(layer_of(name)) for name in chosen}
        self.count = 1 if one else len(layers)
        if coefficients in ("latent", "latent-shared"):
            self.code_shape = (1, width)
            self.project = torch_linear(width, experts * self.count, generator, bias=1 / experts)
        else:
            self.code_shape = (self.count, experts)

    def origin(self, batch: int) -> Code:
        if self.coefficients in ("latent", "latent-shared"):
            return super().origin(batch)
        return self._blank().new_full((batch, *self.code_shape), 1 / self.experts)

    def alpha(self, code: Code) -> Tensor:
        """The coefficients: (batch, layers | 1, M)."""
        if self.coefficients in ("latent", "latent-shared"):
            # base index major, layer index minor, as the released code orders the rows of P
            return self.project(code[:, 0]).unflatten(-1, (self.experts, self.count)).mT
        return code

    def forward(self, code: Code) -> Weights:
        alpha = self.alpha(code).unbind(1)  # one (batch, M) a layer

        def mix(name: str) -> Tensor:
            # a matrix product over the bases: (batch, M, ...) never exists
            mixed = alpha[self.layer_index[name]] @ self.basis[name].flatten(1)
            return mixed.unflatten(1, self.slots[name].shape)

        if torch.is_grad_enabled() or not code.is_cpu:
            return self.base.mapping() | {name: mix(name) for name in self.chosen}
        sizes = {name: self.basis[name].numel() for name in self.chosen}
        groups = share_out(sizes, torch.get_num_threads())
        mix_all = lambda names: {name: mix(name) for name in names}
        pieces = [partial(mix_all, names) for names in groups]
        mixed = dict(ChainMap(*run_pieces(pieces, sum(sizes.values()) >= APART)))
        return self.base.mapping() | mixed
