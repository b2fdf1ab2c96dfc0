"""Priors that are fitted in closed form: a Gaussian, and mixtures of neighbouring codes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from fieldloom.codecs import Codec
from fieldloom.errors import InputError
from fieldloom.priors.prior import Prior
from fieldloom.types import Code, draw_normal


class Gaussian(Prior):
    """A Gaussian of the training codes of each class.

    standard: whether it is a fixed N(0, I) instead.
    """

    mean: Tensor
    factor: Tensor
    share: Tensor  # training codes of each class; saved states have this name

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
        """Fit one Gaussian per class where there are labels, else one.

        Raises InputError for a class of fewer than 2 codes.
        """
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
            # factor is a root of the covariance: covariance = factor factor'
            values, vectors = torch.linalg.eigh(own.double().T.cov())
            self.mean[i], self.share[i] = own.mean(0), len(own)
            self.factor[i] = (vectors * values.clamp(min=0).sqrt()).to(self.factor.dtype)

    def draw(self, count: int, label: Tensor | None, generator: Generator | None) -> Code:
        # one class has the same share whatever its codes: a GAN's loop need not ask the device
        share = torch.ones(1) if len(self.share) == 1 else self.share.cpu()
        classes = share.multinomial(count, replacement=True, generator=generator)
        device = self.mean.device
        noise = draw_normal((count, self.mean.shape[1], 1), generator, device).to(self.mean)
        if len(self.mean) == 1:
            return (self.mean + (self.factor @ noise).squeeze(-1)).unflatten(1, self.code_shape)
        classes = (classes if label is None else label).to(device)
        codes = self.mean[classes] + (self.factor[classes] @ noise).squeeze(-1)
        return codes.unflatten(1, self.code_shape)


class Neighbours(Prior):
    """Convex combinations of neighbouring training codes (GEM, arXiv:2111.06387, section 3.4).

    signals: the number of training signals. The prior stores the codes of those that were encoded,
        so that saved states differ in their number.
    neighbours: number of a code's nearest neighbours (itself among them) that are mixed, with
        Dirichlet(1) weights.
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
        labels = torch.full((len(codes),), -1) if labels is None else labels
        self.labels = labels.to(self.labels)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name in ("codes", "labels"):  # torch only copies into tensors of the same shape
            buffer, saved = getattr(self, name), state.get(prefix + name)
            if saved is not None:
                setattr(self, name, buffer.new_empty(len(saved), *buffer.shape[1:]))
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
        scores = torch.rand(allowed.shape, generator=generator).to(flat.device)
        start = scores.masked_fill(~allowed, -1).argmax(1)  # uniform among the allowed
        # not by a matrix product, whose rounding separates equal codes: a code is its own nearest
        distance = torch.cdist(flat[start], flat, compute_mode="donot_use_mm_for_euclid_dist")
        near = distance.masked_fill(~allowed, torch.inf).topk(k, largest=False).indices
        weights = -torch.rand(count, k, generator=generator).clamp(min=1e-12).log()
        weights = (weights / weights.sum(1, keepdim=True)).to(flat)  # Dirichlet(1, ..., 1)
        return torch.einsum("nk,nktw->ntw", weights, self.codes[near])
