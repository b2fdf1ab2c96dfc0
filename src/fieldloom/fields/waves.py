"""Perceptrons on the coordinates themselves, by activations that have a frequency or a width."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor

from fieldloom.errors import InputError
from fieldloom.fields.mlp import check_shape
from fieldloom.nn.layers import Draw, linear, uniform
from fieldloom.types import Coords, Slot, Values, Weights

Activation = Callable[[Tensor, float, float], Tensor]


class Wave(NamedTuple):
    """An activation of z = W x + b, its frequency w and its scale s, and how its layers start.

    call:  (z, w, s) -> activations. first: that of the first layer; None: the same.
    frequency, scale: w and s where a recipe gives none.
    start: ``siren`` (arXiv:2006.09661, section 3.2), or ``torch``, torch.nn.Linear's.
    """

    call: Activation
    frequency: float = 30.0
    scale: float = 1.0
    start: Literal["siren", "torch"] = "siren"
    first: Activation | None = None


def sine(z: Tensor, w: float, s: float) -> Tensor:
    return (w * z).sin()


def bell(z: Tensor) -> Tensor:
    """exp(-z^2), not below exp(-40), which is nothing beside 1: processors are slow with less."""
    return (-z.square().clamp(max=40)).exp()


WAVES = {
    "sine": Wave(sine),  # arXiv:2006.09661
    "h-sine": Wave(sine, first=lambda z, w, s: (w * (2 * z).sinh()).sin()),  # arXiv:2410.04716
    "finer": Wave(lambda z, w, s: (w * (z.abs() + 1) * z).sin()),  # arXiv:2312.02434
    "gaussian": Wave(lambda z, w, s: bell(s * z), 1.0, 30.0, "torch"),  # 2111.15135
    "gabor": Wave(  # arXiv:2301.05187, the real wavelet
        lambda z, w, s: (w * z).cos() * bell(s * z), 20.0, 30.0, "torch"
    ),
}
"""Activation -> what it is. The numbers of ``gaussian`` and ``gabor`` are those that WIRE's code
suggests for images; there a layer has a second linear map for the width."""


class WaveMlp:
    """A perceptron with one of the activations of ``WAVES`` after every layer but the last.

    activation: ``sine`` (SIREN), ``h-sine`` (H-SIREN: sin(w sinh(2 z)) in the first layer),
              ``finer`` (sin(w (abs(z) + 1) z)), ``gaussian`` (exp(-(s z)^2)) or ``gabor`` (WIRE's
              real wavelet: cos(w z) exp(-(s z)^2)).
    width, depth: units of a hidden layer; number of linear layers, first and last included.
    frequency, scale: w and s; None: the activation's own.
    noise:    (s0, s1): the first two layers' weights start with N(0, (s / w)^2) added, for higher
              frequencies (SIREN^2, arXiv:2509.09719). The paper finds both from the target's
              spectral centroid; here they are numbers.
    first_bias: bound of the first bias's uniform draw, which FINER widens (arXiv:2312.02434); None:
              1/sqrt(inputs), as of all other biases.
    offset:   added to the values.
    """

    def __init__(
        self,
        coord_dim: int,
        value_dim: int,
        direction_dim: int = 0,
        activation: Literal["sine", "h-sine", "finer", "gaussian", "gabor"] = "finer",
        width: int = 256,
        depth: int = 5,
        frequency: float | None = None,
        scale: float | None = None,
        noise: tuple[float, float] = (0.0, 0.0),
        first_bias: float | None = None,
        offset: float = 0.0,
    ) -> None:
        check_shape(width, depth)
        wave = WAVES[activation]
        self.frequency = wave.frequency if frequency is None else frequency
        self.scale = wave.scale if scale is None else scale
        above = all(0 < x < math.inf for x in (self.frequency, self.scale))
        least = all(0 <= x < math.inf for x in (*noise, first_bias or 0.0))
        if not (above and least and math.isfinite(offset)):
            raise InputError(
                f"field: frequency = {self.frequency:g}, scale = {self.scale:g}, noise = "
                f"{list(noise)}, first_bias = {first_bias}, offset = {offset:g}: all finite, the "
                "first two above 0, and none but the offset negative."
            )
        self.calls = [wave.first or wave.call] + [wave.call] * (depth - 2)
        self.offset = offset
        sizes = [coord_dim + direction_dim] + [width] * (depth - 1) + [value_dim]
        self.slots: dict[str, Slot] = {}
        for i, (a, b) in enumerate(pairwise(sizes)):
            bound = 1 / math.sqrt(a)
            if wave.start == "siren":
                bound = 1 / a if i == 0 else math.sqrt(6 / a) / self.frequency
            std = noise[i] / self.frequency if i < 2 else 0.0
            bias = first_bias if i == 0 and first_bias is not None else 1 / math.sqrt(a)
            self.slots[f"{i}.weight"] = Slot((a, b), _noisy((a, b), bound, std), "weight")
            self.slots[f"{i}.bias"] = Slot((b,), uniform((b,), bias), "bias")

    def __call__(self, coords: Coords, weights: Weights) -> Values:
        h, last = coords, len(self.calls)
        for i, call in enumerate(self.calls):
            z = linear(h, weights[f"{i}.weight"], weights[f"{i}.bias"])
            h = call(z, self.frequency, self.scale)
        values = linear(h, weights[f"{last}.weight"], weights[f"{last}.bias"])
        return values + self.offset if self.offset else values


def _noisy(shape: tuple[int, ...], bound: float, std: float) -> Draw:
    """A draw from U(-bound, bound), to which N(0, std^2) is added."""
    plain = uniform(shape, bound)

    def draw(generator: Generator | None) -> Tensor:
        tensor = plain(generator)
        return tensor + torch.empty(shape).normal_(0, std, generator=generator) if std else tensor

    return draw
