"""Two players: a critic that tells data from samples, and a family that deceives it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from fieldloom.errors import InputError
from fieldloom.family import Family
from fieldloom.objectives.objective import Logs, Objective, trainable
from fieldloom.priors import Prior
from fieldloom.renderers import Renderer
from fieldloom.types import Batch, Coords, Signal, Values


class Adversarial(Objective):
    """A critic's step, then a generator's, with fresh codes each (arXiv:2102.04776, section 3.4).

    critic:    -log D(data) - log(1 - D(samples)) + r1 / 2 * mean_b sum |d D(data) / d values|^2
    generator: -log D(samples) (arXiv:1406.2661, section 3, not saturating)

    Samples are the fields of codes drawn from the prior, seen at the data's own coordinates.

    r1:     weight of the penalty (arXiv:1801.04406, eq. 9), on values only.
    r1_of:  what is differentiated: the critic's ``probability`` (GASP released) or its ``logit``.
    points: so many of the points of the batch, the same of every signal, since critics look at
            neighbourhoods; None: all.

    A critic sees observations where they stand; of pictures that were rendered from rays (a grid of
    two axes), where they stand in the picture.
    """

    separable = False

    def __init__(
        self,
        family: Family,
        render: Renderer,
        prior: Prior | None,
        critic: nn.Module,
        link: Callable[[Tensor], Tensor] | None = None,
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
        if not family.code_shape[1]:
            raise InputError("objective 'adversarial' needs a conditioner with a code: 'hyper'.")
        self.family, self.prior, self.critic = family, prior, critic
        self.link = link or (lambda values: values)
        self.render, self.r1, self.r1_of, self.points = render, r1, r1_of, points
        self.players = {
            "critic": {"critic": trainable([critic])},
            "generator": {"generator": trainable([family])},
        }

    def loss(self, player: str, batch: Batch) -> tuple[Tensor, Logs]:
        coords, values = self._points(batch.target)
        judge = partial(self.critic, places(batch.target, coords))
        if player == "generator":
            judged = judge(self._draw(coords))
            loss = F.softplus(-judged).mean()  # -log sigmoid
            return loss, {"loss": loss.detach()}
        with torch.no_grad():
            false = self._draw(coords)
        values = values.detach().requires_grad_(self.r1 > 0)
        true, fake = judge(values), judge(false)
        loss = F.softplus(-true).mean() + F.softplus(fake).mean()
        logs = {
            "loss": loss.detach(),
            "data": true.detach().sigmoid().mean(),
            "samples": fake.detach().sigmoid().mean(),
        }
        if self.r1:
            judged = true.sigmoid() if self.r1_of == "probability" else true
            (slope,) = torch.autograd.grad(judged.sum(), values, create_graph=True)
            steep = slope.square().flatten(1).sum(1).mean()
            loss = loss + self.r1 / 2 * steep
            logs["slope"] = steep.detach()
        return loss, logs

    def _draw(self, coords: Coords) -> Values:
        code = self.prior.sample(len(coords)).to(coords)
        chance = None  # jitter for both players, though only one of them keeps a gradient
        if getattr(self.render, "jitter", False):
            chance = Generator().manual_seed(int(torch.randint(1 << 62, ())))
        return self.link(self.render(self.family.bind(code), coords, chance))

    def _points(self, signal: Signal) -> tuple[Coords, Values]:
        count = signal.coords.shape[1]
        if self.points is None or self.points >= count:
            return signal.coords, signal.values
        some = torch.randperm(count)[: self.points].to(signal.coords.device)
        return signal.coords[:, some], signal.values[:, some]


def places(signal: Signal, coords: Tensor) -> Tensor:
    """Where a critic sees the observations: of a picture's rays, their pixels in [-1, 1]^2."""
    if coords.shape[-1] != 6:
        return coords
    if signal.grid is None or len(signal.grid) != 2:
        raise InputError("objective 'adversarial' judges pictures of views: set modality.patch.")
    if coords.shape[1] != signal.coords.shape[1]:
        raise InputError("objective.points: a picture's pixels are judged together; leave it out.")
    rows, columns = (torch.linspace(-1, 1, n, device=coords.device) for n in signal.grid)
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).flatten(0, 1)
    return grid.to(coords).expand(len(coords), -1, -1)
