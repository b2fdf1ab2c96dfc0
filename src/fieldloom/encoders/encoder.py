"""From a signal to its code: what every encoder answers, and the one that knows nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fieldloom.family import Family
from fieldloom.renderers import Renderer
from fieldloom.types import Code, LossFn, Signal


class Encoder(nn.Module):
    """``independent`` is False where the codes of a batch depend on one another: no micro-batches.

    ``reads_grid`` is True where a code is found from whole grids, not from any points of them.
    ``splits_batches`` is True where a batch may have any size: the encoder cuts it as it sees fit.
    """

    independent = True
    reads_grid = False
    splits_batches = False

    def forward(self, signal: Signal, family: Family, render: Renderer, loss_fn: LossFn) -> Code:
        raise NotImplementedError

    def in_training(
        self, signal: Signal, family: Family, render: Renderer, loss_fn: LossFn
    ) -> Code:
        """The codes that training differentiates."""
        return self(signal, family, render, loss_fn)

    def stored_codes(self, index: Tensor, family: Family) -> Code | None:
        """The codes of training signals, where the encoder keeps them."""
        return None


class Nothing(Encoder):
    """Every signal gets the origin: families without a code, and where descent starts."""

    def forward(self, signal: Signal, family: Family, render: Renderer, loss_fn: LossFn) -> Code:
        return family.conditioner.origin(len(signal))


def error(code: Code, signal: Signal, family: Family, render: Renderer, loss_fn: LossFn) -> Tensor:
    """How badly a code explains the known points of each signal: (batch,)."""
    predicted = render(family.bind(code), signal.coords)
    if signal.mask is None:
        return loss_fn(predicted, signal.values)
    return torch.stack(
        [
            loss_fn(one[known][None], true[known][None])[0]
            for one, true, known in zip(predicted, signal.values, signal.mask, strict=True)
        ]
    )
