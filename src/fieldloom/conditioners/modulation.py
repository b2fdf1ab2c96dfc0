"""Modulations: the code shifts (Functa), or scales and shifts (FiLM), hidden pre-activations."""

from __future__ import annotations

from typing import Literal

from torch import Generator, Tensor

from fieldloom.conditioners.conditioner import Conditioner, Slots, match_slots
from fieldloom.errors import InputError
from fieldloom.nn.initialisers import lecun_linear, torch_linear
from fieldloom.types import Code, Weights, layer_of


class Shift(Conditioner):
    """A shift of every hidden pre-activation: an instance's own biases (arXiv:2201.12204, eq. 3).

    width: length of the code.
    init:  of the map from code to shifts, ``lecun`` (released Functa) or ``torch`` (mNIF's port of
        it).

    The last of the chosen layers is the output layer, which is not modulated.
    """

    modulations = 1

    def __init__(
        self,
        slots: Slots,
        width: int = 64,
        init: Literal["lecun", "torch"] = "lecun",
        only: str = "*",
        generator: Generator | None = None,
    ) -> None:
        if width < 1:
            raise InputError(f"conditioner.width = {width}: at least 1.")
        super().__init__(slots, generator=generator)
        biases = [name for name in match_slots(slots, only) if slots[name].role == "bias"]
        self.hidden = biases[:-1]
        if not self.hidden:
            raise InputError(f"conditioner.only = '{only}' leaves no hidden bias to shift.")
        self.sizes = [slots[name].shape[0] for name in self.hidden]
        self.code_shape = (1, width)
        linear = lecun_linear if init == "lecun" else torch_linear
        self.project = linear(width, self.modulations * sum(self.sizes), generator)

    def forward(self, code: Code) -> Weights:
        weights = self.base.mapping()
        for name, shift in self._modulations(code):
            weights[name] = weights[name] + shift
        return weights

    def _modulations(self, code: Code) -> list[tuple[str, Tensor]]:
        parts = self.project(code[:, 0]).split([self.modulations * n for n in self.sizes], -1)
        return list(zip(self.hidden, parts, strict=True))


class Film(Shift):
    """A scale and a shift of every hidden pre-activation: (1 + s) (W x + b) + t (arXiv:1709.07871).

    Scaling a pre-activation scales a column of the weight, so that modulations are weights too.
    """

    modulations = 2

    def forward(self, code: Code) -> Weights:
        weights = self.base.mapping()
        for name, both in self._modulations(code):
            scale, shift = both.chunk(2, -1)
            matrix = f"{layer_of(name)}.weight"
            rows = (1,) * (weights[matrix].ndim - 2)  # the axes of tiles, where a layer has them
            weights[matrix] = weights[matrix] * (1 + scale).view(len(scale), *rows, -1)
            weights[name] = weights[name] * (1 + scale) + shift
        return weights
