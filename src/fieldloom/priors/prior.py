"""The base class of priors: distributions on codes, each with a codec."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, get_type_hints

import torch
from torch import Generator, Tensor, nn

from fieldloom.codecs import Codec, Identity
from fieldloom.errors import InputError, name_argument, quote, unknown
from fieldloom.registry import check_value
from fieldloom.types import Code, Lazy

BATCH = 1024
"""Codes that are drawn at a time."""


class Prior(nn.Module):
    """A distribution on codes. Subclasses write ``draw``; its keyword arguments are the options.

    trained: whether ``loss`` has to be minimised; other priors have a closed form (``fit``).
    learns: whether it depends on training codes; a fixed prior is the input of a generator (a GAN's
        N(0, I)).
    reads_tokens: whether the codec may return token ids.
    capturable: whether a step of training can be recorded and repeated, as ``Objective`` means it.
    """

    trained = False
    learns = True
    reads_tokens = False
    capturable = False

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
        """Compute all statistics in closed form from all training codes, the codec's first.

        codes (n, tokens, width), labels (n,) their classes.
        start: (tokens, width), the code that all of them were fitted from.
        """
        self.codec.fit(codes, labels, start)

    def fit_in_pieces(
        self, codes: Lazy, labels: Tensor | None = None, start: Tensor | None = None
    ) -> None:
        """As ``fit``, of codes that are not in memory; all are read where there is no other way."""
        if type(self).fit is Prior.fit:
            self.codec.fit_in_pieces(codes, labels, start)
        else:
            self.fit(codes.read(slice(0, codes.shape[0])), labels, start)

    def loss(self, code: Code, label: Tensor | None = None) -> Tensor:
        """The training loss of each code: (batch,)."""
        raise NotImplementedError

    @torch.no_grad()
    def sample(
        self,
        count: int,
        label: int | Sequence[int] | Tensor | None = None,
        *,
        generator: Generator | None = None,
        part: tuple[int, int] | None = None,
        **options: Any,
    ) -> Code:
        """Sample ``count`` codes: (count, tokens, width).

        label: one class for all, or one for each code; None: any class. part: the first and the
        end of the codes that are returned, at multiples of ``BATCH``, without computing others.
        Raises InputError for an unknown class, and for an option that this prior does not have.
        """
        hints = get_type_hints(self.draw)
        own = set(inspect.signature(self.draw).parameters) - {"count", "label", "generator"}
        for name, value in options.items():
            if name not in own:
                kind = f"sampling option of the prior '{type(self).__name__.lower()}'"
                raise unknown(kind, name_argument(name), map(name_argument, own))
            options[name] = check_value(name, value, hints[name])
        if label is not None:
            if self.classes == 0:
                raise InputError("label: this prior was made without classes.")
            label = self._check_labels(label, count)
        parts = []  # in batches, so that the memory of a large denoiser stays bounded
        begin, end = (0, count) if part is None else part
        for first in range(0, end, BATCH):
            some = min(BATCH, count - first)
            classes = None if label is None else label[first : first + some]
            if first < begin:
                self.skip(some, classes, generator, **options)
                continue
            parts.append(self.codec.decode(self.draw(some, classes, generator, **options)))
        return torch.cat(parts)

    def _check_labels(self, label: Any, count: int) -> Tensor:
        """The class of each of ``count`` codes: (count,). Raises InputError for unknown classes."""
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

    def skip(
        self, count: int, label: Tensor | None, generator: Generator | None, **options: Any
    ) -> None:
        """Draw the random numbers of ``draw`` without its codes, where these take long."""
        self.draw(count, label, generator, **options)

    def draw(self, count: int, label: Tensor | None, generator: Generator | None) -> Tensor:
        """Draw ``count`` encoded codes, of the classes ``label`` (count,), or of any class."""
        raise NotImplementedError
