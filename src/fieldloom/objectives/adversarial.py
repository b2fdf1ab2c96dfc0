"""Two players: a critic that tells data from samples, and a family that deceives it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import ParametrizationList

from fieldloom.errors import InputError
from fieldloom.family import Family
from fieldloom.objectives.objective import Logs, Objective, trainable
from fieldloom.priors import Prior
from fieldloom.renderers import Renderer
from fieldloom.types import RAY, Batch, Coords, Signal, Values


class Game(NamedTuple):
    """What each player minimises, from logits of any shape.

    critic:    (logits of data, logits of samples) -> a number.
    generator: logits of samples -> a number.
    opinion:   logits as the log tells them.
    """

    critic: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]
    opinion: Callable[[Tensor], Tensor]


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
    """A critic's step, then a generator's, with fresh codes each (arXiv:2102.04776, section 3.4).

    Samples are the fields of codes drawn from the prior, seen at the data's own coordinates.

    critic: a module (coords, values, grid) -> logits (batch, n), one a signal or one a part of it;
            its answer is their mean. Its spectral norms move in its own step alone.
    game:   ``logistic`` (GASP) or ``hinge`` (LoE): what the players minimise.
    r1:     weight of the penalty r1 / 2 * mean_b sum |d D(data) / d values|^2 on the critic
            (arXiv:1801.04406, eq. 9), on values only; 0 switches it off.
    r1_of:  what is differentiated: the critic's ``probability`` (GASP released) or its ``logit``.
    points: so many of the points of the batch, the same of every signal, since critics look at
            neighbourhoods; None: all.

    A critic sees observations where they stand; of pictures that were rendered from rays (a grid of
    two axes), where they stand in the picture. Points that were drawn have no grid.

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
        self.r1, self.r1_of = r1, r1_of
        self.players = {
            "critic": {"critic": trainable([critic])},
            "generator": {"generator": trainable([family])},
        }

    def loss(self, player: str, batch: Batch) -> tuple[Tensor, Logs]:
        coords, values, grid = self._points(batch.target)
        where = places(batch.target, coords)
        judge = lambda values: self.critic(where, values, grid)
        if player == "generator":
            with steady(self.critic):
                loss = self.game.generator(judge(self._draw(coords)))
            return loss, {"loss": loss.detach()}
        with torch.no_grad():
            false = self._draw(coords)
        values = values.detach().requires_grad_(self.r1 > 0)
        true, fake = judge(values), judge(false)
        loss = self.game.critic(true, fake)
        logs = {
            "loss": loss.detach(),
            "data": self.game.opinion(true.detach()).mean(),
            "samples": self.game.opinion(fake.detach()).mean(),
        }
        if self.r1:
            judged = true.sigmoid() if self.r1_of == "probability" else true
            (grad,) = torch.autograd.grad(judged.mean(1).sum(), values, create_graph=True)
            steep = grad.square().flatten(1).sum(1).mean()
            loss = loss + self.r1 / 2 * steep
            logs["gradient"] = steep.detach()
        return loss, logs

    def _draw(self, coords: Coords) -> Values:
        code = self.prior.sample(len(coords)).to(coords)
        chance = None  # jitter for both players, though only one of them keeps a gradient
        if self.render.stochastic:
            chance = Generator().manual_seed(int(torch.randint(1 << 62, ())))
        return self.link(self.render(self.family.bind(code), coords, chance))

    def _points(self, signal: Signal) -> tuple[Coords, Values, tuple[int, ...] | None]:
        count = signal.coords.shape[1]
        if self.points is None or self.points >= count:
            return signal.coords, signal.values, signal.grid
        some = torch.randperm(count)[: self.points].to(signal.coords.device)
        return signal.coords[:, some], signal.values[:, some], None


@contextmanager
def steady(critic: nn.Module) -> Iterator[None]:
    """Within it power iterations of spectral norms stand still; all else of the critic trains.

    Every look at a normalised weight in training moves its singular vectors, and they belong to the
    player whose weights they are of. Batch norms keep seeing samples as they do in training.
    """
    held = (m for m in critic.modules() if isinstance(m, ParametrizationList))
    moving = [norm for parametrizations in held for norm in parametrizations if norm.training]
    for norm in moving:
        norm.eval()
    try:
        yield
    finally:
        for norm in moving:
            norm.train()


def places(signal: Signal, coords: Tensor) -> Tensor:
    """Where a critic sees the observations: of a picture's rays, their pixels in [-1, 1]^2."""
    if coords.shape[-1] != RAY:
        return coords
    if signal.grid is None or len(signal.grid) != 2:
        raise InputError("objective 'adversarial' judges pictures of views: set modality.patch.")
    if coords.shape[1] != signal.coords.shape[1]:
        raise InputError("objective.points: a picture's pixels are judged together; leave it out.")
    rows, columns = (torch.linspace(-1, 1, n, device=coords.device) for n in signal.grid)
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).flatten(0, 1)
    return grid.to(coords).expand(len(coords), -1, -1)
