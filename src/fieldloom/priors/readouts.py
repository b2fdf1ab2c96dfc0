"""From what a decoder knows to the next token: a word of a vocabulary, or numbers.

Tokens are (batch, tokens) integers, or (batch, tokens, numbers); ``first`` is the place of the
first of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from fieldloom.errors import InputError
from fieldloom.priors.decoder_only import initialise_as_gpt2
from fieldloom.priors.tokens import Places, Vocabulary


@dataclass(frozen=True)
class Picking:
    """How a token is drawn: temperature above 0; of the top_k likeliest words, or of mass top_p."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise InputError(
                f"temperature = {self.temperature:g}: above 0 (top_k = 1 draws the likeliest)."
            )
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k = {self.top_k}: at least 1.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f"top_p = {self.top_p:g}: above 0, at most 1.")

    def chances(self, logits: Float[Tensor, "n words"]) -> Float[Tensor, "n words"]:
        """The distribution that a word is drawn from: softmax(logits / temperature), cut off.

        Of equal logits at the end of the top k all stay. top_p (arXiv:1904.09751, section 3.1)
        keeps the fewest of these words whose mass, after temperature and top k, reaches it.
        """
        logits = logits / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            least = logits.topk(self.top_k).values[:, -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        chances = logits.softmax(-1)
        if self.top_p is not None:
            ordered, places = chances.sort(stable=True, dim=-1, descending=True)
            before = ordered.cumsum(-1) - ordered
            ordered = ordered.masked_fill(before >= self.top_p, 0)
            chances = torch.zeros_like(chances).scatter(-1, places, ordered)
            chances = chances / chances.sum(-1, keepdim=True)
        return chances


def drawn(chances: Float[Tensor, "n words"], noise: Float[Tensor, " n"]) -> Tensor:
    """The word of each row at which the running sum of chances passes noise in [0, 1): (n,)."""
    passed = chances.double().cumsum(-1)
    return torch.searchsorted(passed, noise.double()[:, None] * passed[:, -1:], right=True)[:, 0]


class Words(nn.Module):
    """Words of vocabularies, and the start, which can never be drawn.

    tied: the tables that embed words score them, too (arXiv:1608.05859).
    """

    def __init__(self, vocabulary: Vocabulary, width: int, tied: bool = True) -> None:
        super().__init__()
        self.codes, self.which = vocabulary.codes, vocabulary.which.reshape(-1)
        rows = vocabulary.count * self.codes + 1  # the last one is the start
        self.table = nn.Embedding(rows, width)
        self.head = None if tied else nn.Linear(width, rows, bias=False)
        offsets = torch.from_numpy(self.which * self.codes)
        self.register_buffer("offsets", offsets, persistent=False)
        initialise_as_gpt2(self)

    def start(self) -> Tensor:
        """(width,): what stands before the first token."""
        return self.table.weight[-1]

    def embed(self, tokens: Tensor, first: int = 0) -> Tensor:
        """(batch, tokens, width)."""
        return self.table(tokens + self.get_buffer("offsets")[first : first + tokens.shape[1]])

    def logits(self, known: Tensor, first: int = 0) -> Tensor:
        """Of each place its own words, and at the end the start: (batch, tokens, codes + 1)."""
        weight = (self.head or self.table).weight
        which = self.which[first : first + known.shape[1]]
        scores = []
        for own in np.unique(which):  # each place is scored against its own vocabulary alone
            words = torch.cat([weight[own * self.codes : (own + 1) * self.codes], weight[-1:]])
            at = torch.from_numpy(np.flatnonzero(which == own)).to(known.device)
            scores.append((known if len(at) == len(which) else known[:, at]) @ words.T)
        if len(scores) == 1:
            return scores[0]
        order = np.argsort(np.argsort(which, kind="stable"), kind="stable")
        return torch.cat(scores, 1)[:, torch.from_numpy(order).to(known.device)]

    def loss(self, known: Tensor, tokens: Tensor) -> Tensor:
        """Cross-entropy in nats, the sum over each code's tokens: (batch,)."""
        scores = self.logits(known).transpose(1, 2)
        return nn.functional.cross_entropy(scores, tokens, reduction="none").sum(1)

    def noise(self, count: int, generator: Generator | None) -> Tensor:
        """What ``count`` codes are drawn with: (count, places), on the CPU."""
        return torch.rand(count, len(self.which), generator=generator, dtype=torch.float64)

    def pick(self, known: Tensor, place: int, noise: Tensor, how: Picking) -> Tensor:
        """What is known (batch, width) before a place -> its tokens, (batch,); never the start."""
        logits = self.logits(known[:, None], place)[:, 0, :-1]  # without the start
        return drawn(how.chances(logits.cpu()), noise).to(known.device)


class Values(nn.Module):
    """Numbers of each token: their density as a mixture, or one answer.

    kind: ``mixture`` of ``components`` normal distributions, each with a mean and a deviation of
          its own for every number of a token (one: a Gaussian). ``l1`` answers one value and is
          trained by its absolute error, as published. It is no distribution: what follows a start
          is always the same, so that it can go on from weights that are given, and not generate.
    """

    def __init__(
        self, places: Places, width: int, kind: Literal["mixture", "l1"], components: int
    ) -> None:
        super().__init__()
        if components < 1:
            raise InputError(f"autoregressive: components = {components}: at least 1.")
        self.kind, self.components = kind, components
        self.length, self.numbers = places.index.shape
        mask = torch.from_numpy(places.index >= 0)
        self.register_buffer("mask", mask, persistent=False)
        self.input = nn.Linear(self.numbers, width)
        self.first = nn.Parameter(torch.empty(width).normal_(std=0.02))
        each = self.numbers if kind == "l1" else components * (1 + 2 * self.numbers)
        self.output = nn.Linear(width, each)
        initialise_as_gpt2(self)
        if kind == "mixture":  # components that start alike would stay alike for long
            shares = (torch.arange(components) + 0.5) / components
            apart = torch.special.ndtri(shares)[:, None].expand(-1, self.numbers)
            with torch.no_grad():
                self.output.bias.view(components, -1)[:, 1 : 1 + self.numbers] = apart

    def start(self) -> Tensor:
        return self.first

    def embed(self, tokens: Tensor, first: int = 0) -> Tensor:
        return self.input(tokens)

    def parts(self, known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (..., components), means and log deviations (..., components, numbers)."""
        out = self.output(known).unflatten(-1, (self.components, -1))
        logits, mean, spread = out.split([1, self.numbers, self.numbers], -1)
        return logits[..., 0], mean, 7 * torch.tanh(spread / 7)

    def loss(self, known: Tensor, tokens: Tensor) -> Tensor:
        """Absolute errors, or nats (minus log densities), the sum over each code's: (batch,)."""
        mask = self.get_buffer("mask").to(tokens)
        if self.kind == "l1":
            return ((self.output(known).to(tokens) - tokens).abs() * mask).sum((1, 2))
        logits, mean, spread = (part.to(tokens) for part in self.parts(known))
        away = (tokens.unsqueeze(-2) - mean) * (-spread).exp()
        density = -0.5 * away.square() - spread - 0.5 * math.log(2 * math.pi)
        whole = (density * mask.unsqueeze(-2)).sum(-1)
        return -(logits.log_softmax(-1) + whole).logsumexp(-1).sum(1)

    def noise(self, count: int, generator: Generator | None) -> Tensor:
        """What ``count`` codes are drawn with: (count, places, 1 + numbers), on the CPU."""
        chance = torch.rand(count, self.length, 1, generator=generator, dtype=torch.float64)
        normal = torch.randn(
            count, self.length, self.numbers, generator=generator, dtype=torch.float64
        )
        return torch.cat([chance, normal], -1)

    def pick(self, known: Tensor, place: int, noise: Tensor, how: Picking) -> Tensor:
        """What is known (batch, width) before a place -> its numbers, (batch, numbers).

        Component logits are divided by the temperature, variances multiplied by it
        (arXiv:1704.03477, eq. 8). Raises InputError for options that ask for words.
        """
        if how.top_k is not None or how.top_p is not None:
            raise InputError("top_k, top_p: these are of words, and this prior draws numbers.")
        mask = self.get_buffer("mask")[place].to(known)
        if self.kind == "l1":
            if how.temperature != 1:
                raise InputError("temperature: head 'l1' has one answer, nothing is drawn.")
            return self.output(known) * mask
        logits, mean, spread = self.parts(known)
        chosen = drawn(how.chances(logits.cpu()), noise[:, 0]).to(known.device)
        each = torch.arange(len(known), device=known.device)
        scale = math.sqrt(how.temperature) * spread[each, chosen].exp()
        return (mean[each, chosen] + scale * noise[:, 1:].to(known)) * mask
