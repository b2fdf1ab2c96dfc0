"""Small diffusion priors and a denoiser that is a smooth function."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fieldloom.priors import Diffusion

SHAPE, CLASSES = (5, 3), 4


def stage2(denoiser: nn.Module, shape: tuple[int, int] = (4, 3), **own: object) -> Diffusion:
    return Diffusion(shape, denoiser, CLASSES, schedule="linear", predict="x0", **own)


class Smooth(nn.Module):
    """Some function of code and time, in place of a trained network."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, code: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        return 0.7 * code.tanh() + 0.2 * torch.sin(0.01 * time)[:, None, None]


def diffusion(**own: Any) -> Diffusion:
    return Diffusion((2, 5), Smooth(), **own)
