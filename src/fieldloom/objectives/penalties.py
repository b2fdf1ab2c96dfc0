"""What is added to an objective to shape its codes: one number a signal."""

from __future__ import annotations

from torch import Tensor, nn

from fieldloom.encoders import Encoder
from fieldloom.family import Family
from fieldloom.types import Batch, Code


class L2(nn.Module):
    """weight / 2 * sum z^2 of each code: auto-decoding's prior (arXiv:1901.05103, eq. 9)."""

    def __init__(self, weight: float = 1e-4) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, code: Code, batch: Batch, family: Family, encoder: Encoder) -> Tensor:
        return self.weight / 2 * code.square().flatten(1).sum(1)


PENALTIES = {"l2": L2}
