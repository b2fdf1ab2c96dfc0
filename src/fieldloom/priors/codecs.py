"""Codecs stand inside a prior: raw codes are stored, and transformed when the prior needs them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from fieldloom.errors import InputError
from fieldloom.types import Code


class Codec(nn.Module):
    """decode(encode(code)) is the code, or near it."""

    def __init__(self, code_shape: tuple[int, int]) -> None:
        super().__init__()
        self.code_shape = code_shape

    def fit(self, codes: Code, labels: Tensor | None = None) -> None:
        """Find what has a closed form, from all training codes."""

    def encode(self, code: Code) -> Code:
        raise NotImplementedError

    def decode(self, inner: Code) -> Code:
        raise NotImplementedError


class Identity(Codec):
    def encode(self, code: Code) -> Code:
        return code

    def decode(self, inner: Code) -> Code:
        return inner


class Whiten(Codec):
    """(code - mean) / (std + 1e-8), the statistics those of the training codes (unbiased std).

    per: ``element`` of a code has its own (mNIF; LA-GINR's tokens), each ``channel`` shares its own
         over the tokens, or ``all`` share one.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        code_shape: tuple[int, int],
        per: Literal["element", "channel", "all"] = "element",
    ) -> None:
        super().__init__(code_shape)
        self.axes = {"element": (0,), "channel": (0, 1), "all": (0, 1, 2)}[per]
        shape = [1 if i + 1 in self.axes else n for i, n in enumerate(code_shape)]
        self.register_buffer("mean", torch.zeros(1, *shape))
        self.register_buffer("std", torch.ones(1, *shape))

    def fit(self, codes: Code, labels: Tensor | None = None) -> None:
        if len(codes) < 2:
            raise InputError(
                f"codec 'whiten' needs at least 2 training codes; there is {len(codes)}."
            )
        self.mean.copy_(codes.mean(self.axes, keepdim=True))
        self.std.copy_(codes.std(self.axes, keepdim=True))

    def encode(self, code: Code) -> Code:
        return (code - self.mean) / (self.std + 1e-8)

    def decode(self, inner: Code) -> Code:
        return inner * (self.std + 1e-8) + self.mean


CODECS = {"identity": Identity, "whiten": Whiten}
