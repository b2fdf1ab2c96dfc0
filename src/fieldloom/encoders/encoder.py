"""From a signal to its code: the contract of every encoder, and the encoder of no code."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fieldloom.errors import InputError
from fieldloom.family import Family
from fieldloom.renderers import Renderer
from fieldloom.types import Code, LossFn, Signal

RENAMED = {
    "separable": "independent",
    "whole": "reads_grid",
    "stacks": "splits_batches",
    "stored": "stored_codes",
}
"""What encoders state and answer, by its old name: it would be ignored without a word."""


class Encoder(nn.Module):
    """The contract of encoders, all of it. Only ``forward`` has to be written.

    What an encoder answers:

    * ``forward``: the codes of a batch of signals, (batch, tokens, width).
    * ``in_training``: the codes that the training loss differentiates; usually the same.
    * ``stored_codes``: the codes that it keeps of training signals; None where it keeps none.
    * ``code_parameters``: those of its parameters that are codes of single training signals.
    * ``batch_size``: how many signals the caller hands over at a time.
    * ``point_evaluations``: what one code costs.

    What an encoder states about itself:

    * ``independent``: whether a signal's code depends on that signal alone. Where it is False, the
      codes of a batch depend on one another, so that a batch is never cut into micro-batches.
    * ``reads_grid``: whether a code is found from whole grids, not from any points of them.
    * ``splits_batches``: whether it takes a batch of any size and cuts it into stacks by itself.
    """

    independent = True
    reads_grid = False
    splits_batches = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for old, new in RENAMED.items():
            if old in vars(cls) and new not in vars(cls):
                raise InputError(f"encoder {cls.__name__}: '{old}' is called '{new}' now.")

    def forward(self, signal: Signal, family: Family, render: Renderer, loss_fn: LossFn) -> Code:
        raise NotImplementedError

    def in_training(
        self, signal: Signal, family: Family, render: Renderer, loss_fn: LossFn
    ) -> Code:
        """The codes that training differentiates: (batch, tokens, width)."""
        return self(signal, family, render, loss_fn)

    def stored_codes(self, index: Tensor, family: Family) -> Code | None:
        """The codes of the training signals of these indices (batch,), where they are kept."""
        return None

    def code_parameters(self) -> list[nn.Parameter]:
        """Parameters (signals, tokens, width) whose rows are codes of single training signals."""
        return []

    def batch_size(
        self,
        signals: int,
        points: int,
        batch: int,
        micro: int | None = None,
        trained_points: int | None = None,
    ) -> int:
        """How many of so many signals, of so many points each, are encoded at a time: at least 1.

        batch, micro: signals of a training batch, and of its micro-batches (None: as many).
        trained_points: points of a signal that training sees; None: all. A micro-batch of encoding
        holds no more points than one of training. Where codes of a batch depend on one another it
        is the training batch; where the encoder splits batches itself, all signals.
        """
        if not self.independent:
            return batch
        if self.splits_batches:
            return max(1, signals)
        size = batch if micro is None else micro
        if trained_points is None:
            return size
        return max(1, size * trained_points // max(points, trained_points))

    def point_evaluations(self, points: int) -> int:
        """How many points the code of one signal of so many points is found from, steps counted.

        One pass over all of them, for encoders that do not descend for long.
        """
        return points


class Nothing(Encoder):
    """Every signal gets the conditioner's origin: for families without a code, or as a start."""

    def forward(self, signal: Signal, family: Family, render: Renderer, loss_fn: LossFn) -> Code:
        return family.conditioner.origin(len(signal))


def error(code: Code, signal: Signal, family: Family, render: Renderer, loss_fn: LossFn) -> Tensor:
    """The loss of each code on the known points of its signal: (batch,)."""
    predicted = render(family.bind(code), signal.coords)
    if signal.mask is None:
        return loss_fn(predicted, signal.values)
    return torch.stack(
        [
            loss_fn(one[known][None], true[known][None])[0]
            for one, true, known in zip(predicted, signal.values, signal.mask, strict=True)
        ]
    )
