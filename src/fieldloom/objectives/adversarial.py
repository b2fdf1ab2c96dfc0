"""Two players: a critic that tells data from samples, and a family that deceives it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import ParametrizationList

from fieldloom.constants import place
from fieldloom.errors import InputError
from fieldloom.family import Family
from fieldloom.objectives.objective import Logs, Objective, trainable, with_tables
from fieldloom.portion import batch_size, own_rows
from fieldloom.priors import Prior
from fieldloom.renderers import Renderer
from fieldloom.types import Batch, Coords, Signal, Values


class Game(NamedTuple):
    """The losses of both players, from logits of any shape.

    critic:    loss of (logits of data, logits of samples).
    generator: loss of the logits of samples.
    score:     logits as they are logged: probabilities, or the logits themselves.
    """

    critic: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]
    score: Callable[[Tensor], Tensor]


def logistic_critic(true: Tensor, fake: Tensor) -> Tensor:
    """-log D(data) - log(1 - D(samples)), D the sigmoid of a logit (arXiv:1406.2661, eq. 1)."""
    return F.softplus(-true).mean() + F.softplus(fake).mean()


def logistic_generator(fake: Tensor) -> Tensor:
    """-log D(samples), which does not saturate (arXiv:1406.2661, section 3)."""
    return F.softplus(-fake).mean()


def hinge_critic(true: Tensor, fake: Tensor) -> Tensor:
    """max(0, 1 - D(data)) + max(0, 1 + D(samples)), D the logit (arXiv:1705.02894)."""
    return F.relu(1 - true).mean() + F.relu(1 + fake).mean()


def hinge_generator(fake: Tensor) -> Tensor:
    """-D(samples), D the logit (arXiv:1705.02894)."""
    return -fake.mean()


GAMES: Mapping[str, Game] = {
    "logistic": Game(logistic_critic, logistic_generator, torch.sigmoid),
    "hinge": Game(hinge_critic, hinge_generator, lambda logits: logits),
}


class Adversarial(Objective):
    """A critic's step, then a generator's, with new codes each (arXiv:2102.04776, section 3.4).

    Samples are the fields of codes drawn from the prior, evaluated at the data's coordinates.

    critic: a module (coords, values, grid) -> logits (batch, n), one for each signal or for each
            part of it, which are averaged. Its spectral norms are updated only in its own step.
    game:   ``logistic`` (GASP) or ``hinge`` (LoE): what the players minimise.
    r1:     weight of the penalty r1 / 2 * mean_b sum |d D(data) / d values|^2 on the critic
            (arXiv:1801.04406, eq. 9), on values only; 0 switches it off.
    r1_of:  D of the penalty: the critic's ``probability`` (GASP released) or its ``logit``.
    points: number of points that are used, the same ones of every signal, since critics compare
            neighbourhoods; None: all.
    grid_dim: dimension of the grid that observations fill, as the modality states it.

    A critic sees the coordinates of observations; those of rays are the coordinates of their
    pixels. Points that were sampled have no grid.

    Raises InputError for a prior that learns, a conditioner without a code, arguments out of range,
    and for the penalty of a probability where the game is ``hinge``, which has none.
    """

    independent = False

    def __init__(
        self,
        family: Family,
        render: Renderer,
        prior: Prior | None,
        critic: nn.Module,
        link: Callable[[Tensor], Tensor] | None = None,
        game: Literal["logistic", "hinge"] = "logistic",
        r1: float = 10.0,
        r1_of: Literal["probability", "logit"] = "probability",
        points: int | None = None,
        grid_dim: int | None = None,
    ) -> None:
        super().__init__()
        if prior is None or prior.learns:
            raise InputError(
                "objective 'adversarial' draws codes from a prior that is not learned: "
                'set prior = { name = "gaussian", standard = true }.'
            )
        if r1 < 0 or (points is not None and points < 1):
            raise InputError(f"objective: r1 = {r1}, points = {points}: not negative.")
        if game == "hinge" and r1 > 0 and r1_of == "probability":
            raise InputError(
                "objective: the game 'hinge' has no probabilities: set r1_of = 'logit', or r1 = 0."
            )
        if not family.has_code:
            raise InputError("objective 'adversarial' needs a conditioner with a code: 'hyper'.")
        self.family, self.prior, self.critic = family, prior, critic
        self.link = link or (lambda values: values)
        self.render, self.game, self.points = render, GAMES[game], points
        self.r1, self.r1_of, self.grid_dim = r1, r1_of, grid_dim
        self.divisible = self.joint = getattr(critic, "divisible", False)
        self.players = {
            "critic": {"critic": trainable([critic])},
            "generator": with_tables("generator", trainable([family]), family.conditioner.tables()),
        }

    def loss(self, player: str, batch: Batch) -> tuple[Tensor, Logs]:
        coords, values, grid = self._points(batch.target)
        rays = self.grid_dim not in (None, coords.shape[-1])
        where = pixel_coords(batch.target, coords) if rays else coords
        logits_of = lambda values: self.critic(where, values, grid)
        if player == "generator":
            with freeze_spectral_norms(self.critic):
                loss = self.game.generator(logits_of(self._sample(coords)))
            return loss, {"loss": loss.detach()}
        with torch.no_grad():
            samples = self._sample(coords)
        values = values.detach().requires_grad_(self.r1 > 0)
        true, fake = logits_of(values), logits_of(samples)
        loss = self.game.critic(true, fake)
        logs = {
            "loss": loss.detach(),
            "data": self.game.score(true.detach()).mean(),
            "samples": self.game.score(fake.detach()).mean(),
        }
        if self.r1:
            output = true.sigmoid() if self.r1_of == "probability" else true
            (grad,) = torch.autograd.grad(output.mean(1).sum(), values, create_graph=True)
            squared_norm = grad.square().flatten(1).sum(1).mean()
            loss = loss + self.r1 / 2 * squared_norm
            logs["gradient"] = squared_norm.detach()
        return loss, logs

    def _sample(self, coords: Coords) -> Values:
        """Values of the fields of new codes, one field for each signal of the batch."""
        code = own_rows(self.prior.sample(batch_size(len(coords)))).to(coords)
        generator = None  # jitter for both players, though only one of them records gradients
        if self.render.stochastic:
            generator = generator_on(coords.device).manual_seed(int(torch.randint(1 << 62, ())))
        return self.link(self.render(self.family.bind(code), coords, generator))

    def _points(self, signal: Signal) -> tuple[Coords, Values, tuple[int, ...] | None]:
        count = signal.coords.shape[1]
        if self.points is None or self.points >= count:
            return signal.coords, signal.values, signal.grid
        some = torch.randperm(count, device=signal.coords.device)[: self.points]
        coords = signal.coords
        if coords.stride(0) == 0:  # what all signals share stays shared
            coords = coords[:1].index_select(1, some).expand(len(coords), -1, -1)
        else:
            coords = coords.index_select(1, some)
        return coords, signal.values.index_select(1, some), None


@contextmanager
def freeze_spectral_norms(critic: nn.Module) -> Iterator[None]:
    """A context in which power iterations do not run; the rest of the critic stays in training.

    In training each use of a spectrally normalized weight updates its singular vectors, which only
    the critic's own step may do. Batch norms still use the statistics of the samples.
    """
    lists = (m for m in critic.modules() if isinstance(m, ParametrizationList))
    norms = [norm for parametrizations in lists for norm in parametrizations if norm.training]
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()


def pixel_coords(signal: Signal, coords: Tensor) -> Tensor:
    """Coordinates in [-1, 1]^2 of the pixels of an image's rays: (batch, points, 2).

    Raises InputError where the rays are not those of one whole image.
    """
    if signal.grid is None or len(signal.grid) != 2:
        raise InputError("objective 'adversarial' judges images of views: set modality.patch.")
    if coords.shape[1] != signal.coords.shape[1]:
        raise InputError("objective.points: an image's pixels are judged together; leave it out.")
    grid = place(_pixels(*signal.grid), coords.device, coords.dtype)
    return grid.expand(len(coords), -1, -1)


@lru_cache(maxsize=16)
def _pixels(rows: int, columns: int) -> Tensor:
    """The coordinates of an image's pixels: (1, points, 2)."""
    axes = [torch.linspace(-1, 1, count, device="cpu") for count in (rows, columns)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).view(1, -1, 2)


def generator_on(device: torch.device) -> Generator:
    """A new generator on a device; on the CPU, where the device has none of its own."""
    try:
        return Generator(device)
    except RuntimeError:
        return Generator()
