"""Multi-layer perceptrons over coordinates: SIREN, and ReLU networks on Fourier features."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from fieldloom import memory
from fieldloom.errors import InputError
from fieldloom.fields.encodings import Encoding, Fourier
from fieldloom.nn.kernels import KernelsOf, plain
from fieldloom.nn.layers import Init, activation_of, bias_slot, bound, linear, uniform
from fieldloom.types import Coords, Slot, Values, Weights


def check_shape(width: int, depth: int) -> None:
    """Raise InputError for sizes out of range, TooMuch where the weights pass the memory limit."""
    if width < 1 or depth < 2:
        raise InputError(
            f"width = {width}, depth = {depth}: width is at least 1, depth at least 2."
        )
    memory.require((depth - 2) * memory.bytes_of([(width, width), (width,)]))


class Siren:
    """sin(w0 (W x + b)) in every layer but, where ``output = "linear"``, the last.

    width, depth: units of a hidden layer; number of linear layers, first and last included.
    frequency:    w0 of every layer, or one value for each layer.
    bias:         ``uniform`` in +-1/sqrt(fan_in) (mNIF's released code), or ``zero`` (Functa).
    output:       ``sine`` bounds the values to [-1, 1] (mNIF's images and voxels).
    offset:       added to the values (Functa: 0.5, for data in [0, 1]).

    Weights start in +-1/in (first layer) and +-sqrt(6/fan_in)/w0 (arXiv:2006.09661, section 3.2).
    Source of the layer: arXiv:2006.09661, eq. 1; arXiv:2310.19464, eq. 3.
    """

    kernels: KernelsOf = staticmethod(plain)

    def __init__(
        self,
        coord_dim: int,
        value_dim: int,
        direction_dim: int = 0,
        width: int = 256,
        depth: int = 5,
        frequency: float | tuple[float, ...] = 30.0,
        bias: Literal["uniform", "zero"] = "uniform",
        output: Literal["linear", "sine"] = "linear",
        offset: float = 0.0,
    ) -> None:
        check_shape(width, depth)
        self.output, self.offset, self.depth = output, offset, depth
        self.frequencies = frequency if isinstance(frequency, tuple) else (frequency,) * depth
        if len(self.frequencies) != depth or min(self.frequencies) <= 0:
            raise InputError(
                f"field.frequency = {frequency}: one positive number, or {depth} of them."
            )
        sizes = [coord_dim + direction_dim] + [width] * (depth - 1) + [value_dim]
        self.slots: dict[str, Slot] = {}
        for i, (a, b) in enumerate(pairwise(sizes)):
            bound = 1 / a if i == 0 else math.sqrt(6 / a) / self.frequencies[i]
            self.slots[f"{i}.weight"] = Slot((a, b), uniform((a, b), bound), "weight")
            self.slots[f"{i}.bias"] = bias_slot(a, b, bias)

    def __call__(self, coords: Coords, weights: Weights) -> Values:
        kernels = self.kernels(coords.device)
        layers = [(weights[f"{i}.weight"], weights[f"{i}.bias"]) for i in range(self.depth)]
        bounded = self.output == "sine"
        h = None
        if not torch.is_grad_enabled():
            h = kernels.siren(coords, layers, self.frequencies, bounded)
        if h is None:
            h = coords
            for i, (w0, (weight, bias)) in enumerate(zip(self.frequencies, layers, strict=True)):
                if i < self.depth - 1 or bounded:
                    # w0 (W h + b), folded into the small tensors rather than the large one
                    h = kernels.sine_layer(h, w0 * weight, w0 * bias)
                else:
                    h = linear(h, weight, bias)
        return h + self.offset if self.offset else h


class FourierMlp:
    """A perceptron on Fourier features; one class for all the encodings in use.

    width, depth: units of a hidden layer; number of linear layers, first and last included.
    encoding: the input of the first layer; ``learned`` features are the first layer itself.
    normalize: whether every weight is scaled to unit L2 norm over its inputs, after conditioning
              (IPC).
    init:     ``torch`` +-1/sqrt(fan_in), ``outputs`` +-1/sqrt(fan_out) (as IPC's transposed weights
              are drawn), ``kaiming`` +-sqrt(6/fan_in), ``xavier``.
    output_bias: whether the last layer has a bias (NeF-GPT's fields have none).
    scale:    factor of the coordinates: 0.5 for a paper's shapes in [-0.5, 0.5].
    """

    def __init__(
        self,
        coord_dim: int,
        value_dim: int,
        direction_dim: int = 0,
        width: int = 256,
        depth: int = 5,
        encoding: Fourier = Fourier("log", 64),  # noqa: B008 (frozen)
        activation: str = "relu",
        output: str = "identity",
        offset: float = 0.0,
        normalize: bool = False,
        bias: Literal["uniform", "zero"] = "uniform",
        init: Init = "torch",
        output_bias: bool = True,
        scale: float = 1.0,
    ) -> None:
        check_shape(width, depth)
        if scale <= 0:
            raise InputError(f"field.scale = {scale:g}: above 0.")
        self.scale = scale
        self.activation, self.output = activation_of(activation), activation_of(output)
        if encoding.features == "constant":
            raise InputError(
                "field.encoding.features = 'constant': the field 'experts' alone, whose tiles tell "
                "places apart, does without coordinates."
            )
        self.offset, self.normalize = offset, normalize
        self.bandwidth, self.include_input = encoding.bandwidth, encoding.include_input
        self.learned = encoding.features == "learned"
        inputs = coord_dim + direction_dim
        plain = replace(encoding, features="none") if self.learned else encoding
        self.encoding = Encoding(inputs, plain)
        self.slots: dict[str, Slot] = dict(self.encoding.slots)
        first, encoded = 0, self.encoding.width
        if self.learned:
            count = encoding.count
            shape = (inputs, count)
            self.slots["0.weight"] = Slot(shape, uniform(shape, 1 / inputs), "weight")
            self.slots["0.bias"] = bias_slot(inputs, count, bias)
            encoded, first = 2 * count + (inputs if self.include_input else 0), 1
        self.layers = range(first, depth)
        sizes = [encoded] + [width] * (depth - first - 1) + [value_dim]
        for i, (a, b) in zip(self.layers, pairwise(sizes), strict=True):
            self.slots[f"{i}.weight"] = Slot((a, b), uniform((a, b), bound(a, b, init)), "weight")
            if output_bias or i < self.layers[-1]:
                self.slots[f"{i}.bias"] = bias_slot(a, b, bias)

    def encode(self, coords: Tensor, weights: Weights) -> Tensor:
        """Encode coordinates: (batch, points, coord) -> (batch, points, features)."""
        if self.scale != 1:
            coords = self.scale * coords
        if not self.learned:
            return self.encoding(coords, weights)
        angles = self.bandwidth * self._linear(0, coords, weights)
        encoded = torch.cat([angles.sin(), angles.cos()], -1)
        return torch.cat([coords, encoded], -1) if self.include_input else encoded

    def __call__(self, coords: Coords, weights: Weights) -> Values:
        h = self.encode(coords, weights)
        for i in self.layers:
            h = self._linear(i, h, weights)
            h = self.activation(h) if i < self.layers[-1] else self.output(h)
        return h + self.offset if self.offset else h

    def _linear(self, i: int, h: Tensor, weights: Weights) -> Tensor:
        weight = weights[f"{i}.weight"]
        if self.normalize:
            weight = torch.nn.functional.normalize(weight, dim=-2, eps=1e-12)
        return linear(h, weight, weights.get(f"{i}.bias"))
