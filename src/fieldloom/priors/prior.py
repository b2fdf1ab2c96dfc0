"""Distributions on codes, with a codec inside: the base class, Gaussian, Neighbours."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, get_type_hints

import torch
from torch import Generator, Tensor, nn

from fieldloom.errors import InputError, quote, unknown
from fieldloom.priors.codecs import Codec, Identity
from fieldloom.registry import check
from fieldloom.types import Code

AT_A_TIME = 1024
"""Codes that are drawn at a time."""


class Prior(nn.Module):
    """Subclasses implement ``draw``, whose keyword arguments are the sampling options.

    ``trained`` is True where ``loss`` is to be minimised; other priors are fitted in closed form.
    ``learns`` is False where a prior is what it is, and codes are made to follow it (a GAN's).
    ``reads_tokens`` is True where a codec may answer integers.
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
        known = set(inspect.signature(self.draw).parameters) - {"count", "label", "generator"}
        for name, value in options.items():
            if name not in known:
                raise unknown(
                    f"sampling option of the prior '{type(self).__name__.lower()}'", name, known
                )
            options[name] = check(name, value, hints[name])
        if label is not None:
            if self.classes == 0:
                raise InputError("label: this prior was made without classes.")
            label = self._labels(label, count)
        parts = []  # so many at a time that a large denoiser's memory stays bounded
        for first in range(0, count, AT_A_TIME):
            some = min(AT_A_TIME, count - first)
            own = None if label is None else label[first : first + some]
            parts.append(self.codec.decode(self.draw(some, own, generator, **options)))
        return torch.cat(parts)

    def _labels(self, label: Any, count: int) -> Tensor:
        """One class for each of ``count`` codes. Raises InputError for what are none."""
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
        """``count`` codes as the codec encodes them."""
        raise NotImplementedError


class Gaussian(Prior):
    """N(mean, covariance) of the training codes; with ``standard`` N(0, I), as a GAN draws."""

    mean: Tensor
    factor: Tensor
    share: Tensor

    def __init__(
        self,
        code_shape: tuple[int, int],
        classes: int = 0,
        codec: Codec | None = None,
        standard: bool = False,
    ) -> None:
        super().__init__(code_shape, 0 if standard else classes, codec)
        self.learns = not standard
        classes = self.classes
        size = code_shape[0] * code_shape[1]
        self.register_buffer("mean", torch.zeros(max(classes, 1), size))
        self.register_buffer("factor", torch.eye(size).repeat(max(classes, 1), 1, 1))
        self.register_buffer("share", torch.ones(max(classes, 1)))

    def fit(self, codes: Code, labels: Tensor | None = None, start: Tensor | None = None) -> None:
        """One Gaussian a class where there are labels; factor is a root of the covariance."""
        if not self.learns:
            return
        super().fit(codes, labels, start)
        flat = self.codec.encode_all(codes).flatten(1).cpu()
        labels = None if labels is None else labels.cpu()
        for i in range(len(self.mean)):
            own = flat[labels == i] if self.classes and labels is not None else flat
            if len(own) < 2:
                raise InputError(
                    f"gaussian: class {i} has {len(own)} codes; at least 2 are needed."
                )
            values, vectors = torch.linalg.eigh(own.double().T.cov())
            self.mean[i], self.share[i] = own.mean(0), len(own)
            self.factor[i] = (vectors * values.clamp(min=0).sqrt()).to(self.factor.dtype)

    def draw(self, count: int, label: Tensor | None, generator: Generator | None) -> Code:
        classes = self.share.cpu().multinomial(count, replacement=True, generator=generator)
        classes = (classes if label is None else label).to(self.mean.device)
        noise = torch.randn(count, self.mean.shape[1], 1, generator=generator).to(self.mean)
        factor = self.factor if len(self.factor) == 1 else self.factor[classes]
        drawn = self.mean[classes] + (factor @ noise).squeeze(-1)
        return drawn.unflatten(1, self.code_shape)


class Neighbours(Prior):
    """Convex combinations of neighbouring training codes (GEM, arXiv:2111.06387, section 3.4).

    signals: the number of training signals. All codes that were found of them are kept, so that a
        state holds any number.
    neighbours: how many of a code's nearest (itself among them) are mixed, with Dirichlet(1)
        weights.
    """

    codes: Tensor
    labels: Tensor

    def __init__(
        self,
        code_shape: tuple[int, int],
        signals: int,
        classes: int = 0,
        codec: Codec | None = None,
        neighbours: int = 4,
    ) -> None:
        super().__init__(code_shape, classes, codec)
        if not 1 <= neighbours <= max(signals, 1):
            raise InputError(f"prior.neighbours = {neighbours}: from 1 to {signals} (the signals).")
        self.neighbours = neighbours
        self.register_buffer("codes", torch.zeros(signals, *code_shape))
        self.register_buffer("labels", torch.full((signals,), -1))

    def fit(self, codes: Code, labels: Tensor | None = None, start: Tensor | None = None) -> None:
        if len(codes) < self.neighbours:
            most = f"{len(codes)} (the training codes)"
            raise InputError(f"prior.neighbours = {self.neighbours}: from 1 to {most}.")
        super().fit(codes, labels, start)
        self.codes = self.codec.encode_all(codes).to(self.codes)
        known = torch.full((len(codes),), -1) if labels is None else labels
        self.labels = known.to(self.labels)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name in ("codes", "labels"):  # torch copies into a tensor of the same shape alone
            own, held = getattr(self, name), state.get(prefix + name)
            if held is not None:
                setattr(self, name, own.new_empty(len(held), *own.shape[1:]))
        super()._load_from_state_dict(state, prefix, *rest)

    def draw(
        self,
        count: int,
        label: Tensor | None,
        generator: Generator | None,
        neighbours: int | None = None,
    ) -> Code:
        k = self.neighbours if neighbours is None else neighbours
        if not 1 <= k <= len(self.codes):
            raise InputError(f"neighbours = {k}: from 1 to {len(self.codes)} (the training codes).")
        flat = self.codes.flatten(1)
        allowed = torch.ones(count, len(flat), dtype=torch.bool, device=flat.device)
        if label is not None:
            allowed = label.to(flat.device)[:, None] == self.labels
            if int(allowed.sum(1).min()) < k:
                raise InputError(f"label: a class has fewer than {k} training codes to mix.")
        chances = torch.rand(allowed.shape, generator=generator).to(flat.device)
        start = chances.masked_fill(~allowed, -1).argmax(1)
        # not by a matrix product, which puts equal codes apart: a code is its own nearest
        far = torch.cdist(flat[start], flat, compute_mode="donot_use_mm_for_euclid_dist")
        near = far.masked_fill(~allowed, torch.inf).topk(k, largest=False).indices  # (count, k)
        weights = -torch.rand(count, k, generator=generator).clamp(min=1e-12).log()
        weights = (weights / weights.sum(1, keepdim=True)).to(flat)  # Dirichlet(1, ..., 1)
        return torch.einsum("nk,nktw->ntw", weights, self.codes[near])
