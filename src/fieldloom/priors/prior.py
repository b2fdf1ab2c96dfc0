"""What a prior is: a distribution on codes, with a codec inside."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, get_type_hints

import torch
from torch import Generator, Tensor, nn

from fieldloom.codecs import Codec, Identity
from fieldloom.errors import InputError, quote, unknown
from fieldloom.registry import check_value
from fieldloom.types import Code

BATCH = 1024
"""Codes that are drawn at a time."""


class Prior(nn.Module):
    """Subclasses implement ``draw``, whose keyword arguments are the sampling options.

    trained: whether ``loss`` is to be minimised; other priors are fitted in closed form by ``fit``.
    learns: False for a fixed prior: nothing of it depends on codes, and a generator is trained to
        make data of what it draws (a GAN's N(0, I)).
    reads_tokens: whether the codec may answer token ids.
    """

    trained = False
    learns = True
    reads_tokens = False

    def __init__(
        self, code_shape: tuple[int, int], classes: int = 0, codec: Codec | None = None
    ) -> None:
        super().__init__()
        self.code_shape, self.classes = code_shape, classes
        self.codec = codec or Identity(code_shape)
        if self.codec.vocabulary is not None and not self.reads_tokens:
            raise InputError(
                f"prior '{type(self).__name__.lower()}' is of numbers, and its codec answers "
                "tokens: take prior 'autoregressive', or another codec."
            )
        if self.codec.inner_shape != code_shape and not self.reads_tokens:
            raise InputError(
                f"prior '{type(self).__name__.lower()}' is of codes as they are, and its codec "
                f"gives them another shape, {self.codec.inner_shape}: take codec 'whiten' or "
                "'identity'."
            )

    def fit(self, codes: Code, labels: Tensor | None = None, start: Tensor | None = None) -> None:
        """Find what has a closed form, from all training codes: the codec first.

        start: (tokens, width), the code that all of them were fitted from.
        """
        self.codec.fit(codes, labels, start)

    def loss(self, code: Code, label: Tensor | None = None) -> Tensor:
        """(batch,) of what training minimises."""
        raise NotImplementedError

    @torch.no_grad()
    def sample(
        self,
        count: int,
        label: int | Sequence[int] | Tensor | None = None,
        *,
        generator: Generator | None = None,
        **options: Any,
    ) -> Code:
        """``count`` codes, of one class or of one class each: (count, tokens, width).

        Raises InputError for a label that there is not, or an option that this prior does not have.
        """
        hints = get_type_hints(self.draw)
        own = set(inspect.signature(self.draw).parameters) - {"count", "label", "generator"}
        for name, value in options.items():
            if name not in own:
                raise unknown(
                    f"sampling option of the prior '{type(self).__name__.lower()}'", name, own
                )
            options[name] = check_value(name, value, hints[name])
        if label is not None:
            if self.classes == 0:
                raise InputError("label: this prior was made without classes.")
            label = self._check_labels(label, count)
        parts = []  # so many at a time that a large denoiser's memory stays bounded
        for first in range(0, count, BATCH):
            some = min(BATCH, count - first)
            classes = None if label is None else label[first : first + some]
            parts.append(self.codec.decode(self.draw(some, classes, generator, **options)))
        return torch.cat(parts)

    def _check_labels(self, label: Any, count: int) -> Tensor:
        """The class of each of ``count`` codes: (count,). Raises InputError for what is none."""
        try:
            given = torch.as_tensor(label)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            raise InputError(f"label = {quote(label)}: a class's number, or {count}.") from None
        whole = not given.is_floating_point() and not given.is_complex()
        if not whole or given.dtype == torch.bool or tuple(given.shape) not in ((), (1,), (count,)):
            raise InputError(f"label = {quote(label)}: a class's number, or {count}.")
        for number in given.unique().tolist():
            if not 0 <= number < self.classes:
                raise InputError(f"label {number} is not one of 0 .. {self.classes - 1}.")
        return given.long().expand(count)

    def draw(self, count: int, label: Tensor | None, generator: Generator | None) -> Tensor:
        """``count`` codes as the codec encodes them, of the classes ``label`` (count,) or any."""
        raise NotImplementedError
