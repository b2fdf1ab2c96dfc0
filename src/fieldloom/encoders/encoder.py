"""The contract of every encoder, the trivial encoder, and the reconstruction loss of codes."""

from __future__ import annotations

from typing import Any, Protocol

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


class Rows(Protocol):
    """The rows of a table of codes that several processes hold together (``engine.rows``).

    count: rows of the whole table. held: (n, tokens, width), those that a step reads.
    """

    @property
    def count(self) -> int: ...

    @property
    def held(self) -> Tensor: ...

    def place(self, index: Tensor) -> Tensor:
        """Where rows of the table are among those that are held."""
        ...

    def read(self, index: Tensor) -> Tensor:
        """Rows of the table: (batch, tokens, width)."""
        ...

    def nearest(self, index: Tensor) -> Tensor:
        """The nearest other rows of each of these: (batch, neighbours)."""
        ...


class Encoder(nn.Module):
    """The complete contract of encoders. A subclass must write ``forward`` alone.

    What an encoder computes:

    * ``forward``: the codes of a batch of signals, (batch, tokens, width).
    * ``training_codes``: the codes that the training loss differentiates; usually the same.
    * ``stored_codes``: the codes of training signals that it stores; None where it stores none.
    * ``code_parameters``: its parameters that are codes of single training signals.
    * ``batch_size``: how many signals the caller should pass at a time.
    * ``point_evaluations``: the cost of one code, in evaluated points.

    What an encoder states about itself:

    * ``independent``: whether a signal's code depends on that signal alone. Where it is False, the
      codes of a batch depend on one another, so that a batch is never cut into micro-batches.
    * ``divisible``: whether training may cut a batch all the same, since a part of it knows of how
      many signals it is a part (``Signal.whole``). Always where it is independent.
    * ``reads_grid``: whether it needs whole grids; other encoders take any points of a signal.
    * ``capturable``: whether a step of training can be recorded and repeated, as ``Objective``
      means it.
    * ``splits_batches``: whether it takes a batch of any size and splits it into stacks itself.
    * ``rows``: where the rows of its table are while several processes own them; else None.
    """

    independent = True
    divisible = False
    reads_grid = False
    splits_batches = False
    capturable = False
    rows: Rows | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for old, new in RENAMED.items():
            if old in vars(cls) and new not in vars(cls):
                raise InputError(f"encoder {cls.__name__}: '{old}' is called '{new}' now.")

    def forward(self, signal: Signal, family: Family, render: Renderer, loss_fn: LossFn) -> Code:
        raise NotImplementedError

    def training_codes(
        self, signal: Signal, family: Family, render: Renderer, loss_fn: LossFn
    ) -> Code:
        """The codes that training differentiates: (batch, tokens, width)."""
        return self(signal, family, render, loss_fn)

    def stored_codes(self, index: Tensor, family: Family) -> Code | None:
        """The stored codes of the training signals of these indices (batch,), or None."""
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
        """How many signals, of ``points`` points each, are encoded at a time: at least 1.

        signals: number of all signals that are to be encoded.
        batch, micro: signals of a training batch, and of its micro-batches (None: the whole batch).
        trained_points: points of a signal that training sees; None: all. An encoded batch holds no
            more points than a micro-batch of training.

        Where codes of a batch depend on one another it is ``batch``; where the encoder
        splits batches itself, it is ``signals``.
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
        """How many points are evaluated for the code of one signal of ``points`` points.

        Here it is one pass over all points; encoders that take many steps count each step.
        """
        return points


def check_codes(encoder: nn.Module, code: Tensor, signal: Signal, family: Family) -> Code:
    """``code``, the encoder's answer to a signal. Raises InputError for another shape."""
    expected = (len(signal), *family.code_shape)
    if not isinstance(code, Tensor) or tuple(code.shape) != expected:
        found = tuple(code.shape) if isinstance(code, Tensor) else type(code).__name__
        raise InputError(
            f"encoder {type(encoder).__name__} gave codes of the shape {found}, where (batch, "
            f"tokens, width) is {expected}."
        )
    return code


class Nothing(Encoder):
    """The code of every signal is the conditioner's origin; for families without a code, too."""

    capturable = True

    def forward(self, signal: Signal, family: Family, render: Renderer, loss_fn: LossFn) -> Code:
        return family.conditioner.origin(len(signal))


def reconstruction_loss(
    code: Code, signal: Signal, family: Family, render: Renderer, loss_fn: LossFn
) -> Tensor:
    """The reconstruction loss of each code on the known points of its signal: (batch,)."""
    predicted = render(family.bind(code), signal.coords)
    if signal.mask is None:
        return loss_fn(predicted, signal.values)
    return torch.stack(
        [
            loss_fn(one[known][None], true[known][None])[0]
            for one, true, known in zip(predicted, signal.values, signal.mask, strict=True)
        ]
    )
