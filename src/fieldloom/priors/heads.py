"""Output heads: from a decoder's hidden states to the next token, a token id or numbers.

Tokens are token ids (batch, tokens), or numbers (batch, tokens, numbers). ``hidden`` are the hidden
states that predict the tokens, (batch, tokens, width); ``first`` is the position of the first one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from fieldloom.codecs.tokens import TokenPositions, Vocabulary
from fieldloom.constants import place
from fieldloom.errors import InputError, name_argument
from fieldloom.nn.initialisers import init_normal


@dataclass(frozen=True)
class SamplingConfig:
    """How a token is sampled.

    temperature: above 0; divides logits.
    top_k: sample only among the k likeliest entries.
    top_p: after top_k, sample only among the likeliest entries of this total probability.

    Raises InputError for values out of range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise InputError(
                f"{name_argument('temperature', self.temperature)} is not right: it is above 0 "
                f"({name_argument('top_k', 1)} draws the likeliest)."
            )
        if self.top_k is not None and self.top_k < 1:
            raise InputError(
                f"{name_argument('top_k', self.top_k)} is not right: it is at least 1."
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(
                f"{name_argument('top_p', self.top_p)} is not right: it is above 0, at most 1."
            )

    def probabilities(self, logits: Float[Tensor, "n entries"]) -> Float[Tensor, "n entries"]:
        """softmax(logits / temperature), truncated and renormalised.

        All logits that equal the k-th largest stay. top_p (arXiv:1904.09751, section 3.1) keeps the
        fewest entries whose total probability, after temperature and top_k, reaches it.
        """
        logits = logits / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            least = logits.topk(self.top_k).values[:, -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        probabilities = logits.softmax(-1)
        if self.top_p is not None:
            ordered, indices = probabilities.sort(stable=True, dim=-1, descending=True)
            before = ordered.cumsum(-1) - ordered
            ordered = ordered.masked_fill(before >= self.top_p, 0)
            probabilities = torch.zeros_like(probabilities).scatter(-1, indices, ordered)
            probabilities = probabilities / probabilities.sum(-1, keepdim=True)
        return probabilities


def sample_categorical(
    probabilities: Float[Tensor, "n entries"], uniform: Float[Tensor, " n"]
) -> Tensor:
    """Sample an index of each row, (n,), by inverse transform of ``uniform`` in [0, 1)."""
    cumulative = probabilities.double().cumsum(-1)
    threshold = uniform.double()[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, threshold, right=True)[:, 0]


@lru_cache(maxsize=64)
def split_by_codebook(codebook: bytes) -> tuple[list[int], list[Tensor], Tensor]:
    """The codebooks of a sequence (int64), each one's positions, and where these go when joined."""
    each = np.frombuffer(codebook, np.int64)
    own = np.unique(each)
    order = np.argsort(np.argsort(each, kind="stable"), kind="stable")
    positions = [torch.from_numpy(np.flatnonzero(each == number)) for number in own]
    return own.tolist(), positions, torch.from_numpy(order)


class CodebookHead(nn.Module):
    """A categorical distribution over the token ids of each codebook of a vocabulary.

    The start token has an embedding too, but is never sampled.
    tied: whether the embedding table is also the output layer (arXiv:1608.05859).
    """

    def __init__(self, vocabulary: Vocabulary, width: int, tied: bool = True) -> None:
        super().__init__()
        self.size, self.codebook = vocabulary.size, vocabulary.codebook.reshape(-1)
        rows = vocabulary.codebooks * self.size + 1  # the last one is the start
        self.table = nn.Embedding(rows, width)
        self.head = None if tied else nn.Linear(width, rows, bias=False)
        offsets = torch.from_numpy(self.codebook * self.size)
        self.register_buffer("offsets", offsets, persistent=False)
        init_normal(self)

    def start(self) -> Tensor:
        """The embedding of the start token: (width,)."""
        return self.table.weight[-1]

    def embed(self, tokens: Tensor, first: int = 0) -> Tensor:
        """Embeddings of tokens: (batch, tokens, width)."""
        return self.table(tokens + self.get_buffer("offsets")[first : first + tokens.shape[1]])

    def logits(self, hidden: Tensor, first: int = 0) -> Tensor:
        """Logits of the codebook's entries, and of the start last: (batch, tokens, size + 1)."""
        weight = (self.head or self.table).weight
        codebook = self.codebook[first : first + hidden.shape[1]]
        scores = []
        own, positions, order = split_by_codebook(codebook.tobytes())
        for number, at in zip(own, positions, strict=True):  # of its own codebook alone
            entries = torch.cat(
                [weight[number * self.size : (number + 1) * self.size], weight[-1:]]
            )
            seen = hidden if len(own) == 1 else hidden[:, place(at, hidden.device)]
            scores.append(seen @ entries.T)
        return scores[0] if len(own) == 1 else torch.cat(scores, 1)[:, place(order, hidden.device)]

    def loss(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Cross-entropy in nats, summed over each code's tokens: (batch,)."""
        scores = self.logits(hidden).transpose(1, 2)
        return nn.functional.cross_entropy(scores, tokens, reduction="none").sum(1)

    def draw_noise(self, count: int, generator: Generator | None) -> Tensor:
        """Noise for sampling ``count`` codes: (count, tokens) in [0, 1), on the CPU."""
        return torch.rand(count, len(self.codebook), generator=generator, dtype=torch.float64)

    def sample(self, hidden: Tensor, position: int, noise: Tensor, how: SamplingConfig) -> Tensor:
        """Sample token ids (batch,) at a position from its hidden states (batch, width).

        noise: (batch,), of this position.
        """
        logits = self.logits(hidden[:, None], position)[:, 0, :-1]  # without the start
        return sample_categorical(how.probabilities(logits.cpu()), noise).to(hidden.device)


class NumberHead(nn.Module):
    """A density of the numbers of each token, or a regression of them.

    kind: ``mixture``: a mixture of ``components`` normal distributions, each with its own mean and
          deviation for every number of a token. ``l1``: a regression, trained by the absolute
          error, as published. It is not a distribution: every sample would be the same, so that it
          can only complete given weights.
    """

    def __init__(
        self,
        positions: TokenPositions,
        width: int,
        kind: Literal["mixture", "l1"],
        components: int,
    ) -> None:
        super().__init__()
        if components < 1:
            raise InputError(f"autoregressive: components = {components}: at least 1.")
        self.kind, self.components = kind, components
        self.length, self.numbers = positions.index.shape
        mask = torch.from_numpy(positions.index >= 0)
        self.register_buffer("mask", mask, persistent=False)
        self.input = nn.Linear(self.numbers, width)
        self.first = nn.Parameter(torch.empty(width).normal_(std=0.02))
        each = self.numbers if kind == "l1" else components * (1 + 2 * self.numbers)
        self.output = nn.Linear(width, each)
        init_normal(self)
        if kind == "mixture":  # different means break the symmetry of components
            quantiles = torch.special.ndtri((torch.arange(components) + 0.5) / components)
            with torch.no_grad():
                means = self.output.bias.view(components, -1)[:, 1 : 1 + self.numbers]
                means.copy_(quantiles[:, None].expand_as(means))

    def start(self) -> Tensor:
        """The embedding of the start token: (width,)."""
        return self.first

    def embed(self, tokens: Tensor, first: int = 0) -> Tensor:
        """Embeddings of tokens: (batch, tokens, width)."""
        return self.input(tokens)

    def mixture(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (..., components), means and log deviations (..., components, numbers) each."""
        out = self.output(hidden).unflatten(-1, (self.components, -1))
        logits, mean, spread = out.split([1, self.numbers, self.numbers], -1)
        return logits[..., 0], mean, 7 * torch.tanh(spread / 7)

    def loss(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Absolute errors, or negative log likelihoods in nats, summed over each code: (batch,)."""
        mask = self.get_buffer("mask").to(tokens)
        if self.kind == "l1":
            return ((self.output(hidden).to(tokens) - tokens).abs() * mask).sum((1, 2))
        logits, mean, spread = (part.to(tokens) for part in self.mixture(hidden))
        residual = (tokens.unsqueeze(-2) - mean) * (-spread).exp()
        density = -0.5 * residual.square() - spread - 0.5 * math.log(2 * math.pi)
        joint = (density * mask.unsqueeze(-2)).sum(-1)
        return -(logits.log_softmax(-1) + joint).logsumexp(-1).sum(1)

    def draw_noise(self, count: int, generator: Generator | None) -> Tensor:
        """Noise for sampling ``count`` codes: (count, tokens, 1 + numbers), on the CPU.

        The first number is uniform in [0, 1), for the component; the others are standard normal.
        """
        uniform = torch.rand(count, self.length, 1, generator=generator, dtype=torch.float64)
        normal = torch.randn(
            count, self.length, self.numbers, generator=generator, dtype=torch.float64
        )
        return torch.cat([uniform, normal], -1)

    def sample(self, hidden: Tensor, position: int, noise: Tensor, how: SamplingConfig) -> Tensor:
        """Sample numbers (batch, numbers) at a position from its hidden states (batch, width).

        noise: (batch, 1 + numbers), of this position. Component logits are divided by the
        temperature, variances multiplied by it (arXiv:1704.03477, eq. 8). Raises InputError for
        options of token ids, and for a temperature of the regression.
        """
        if how.top_k is not None or how.top_p is not None:
            raise InputError(
                f"{name_argument('top_k')} and {name_argument('top_p')} are for tokens: this prior "
                "draws numbers."
            )
        mask = self.get_buffer("mask")[position].to(hidden)
        if self.kind == "l1":
            if how.temperature != 1:
                raise InputError(
                    f"{name_argument('temperature')}: head 'l1' has one answer, nothing is drawn."
                )
            return self.output(hidden) * mask
        logits, mean, spread = self.mixture(hidden)
        component = sample_categorical(how.probabilities(logits.cpu()), noise[:, 0])
        component = component.to(hidden.device)
        each = torch.arange(len(hidden), device=hidden.device)
        scale = math.sqrt(how.temperature) * spread[each, component].exp()
        return (mean[each, component] + scale * noise[:, 1:].to(hidden)) * mask
