"""What the one loop minimises."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from fieldloom.priors import Codec, Prior

Groups = Mapping[str, list[nn.Parameter]]
Logs = dict[str, Tensor]


class Objective(nn.Module):
    """players: player -> group -> parameters; one backward a player, one optimiser a group.

    independent: whether the loss of a batch is the mean of its signals' losses, so that it may be
    cut into micro-batches.
    """

    independent = True
    players: Mapping[str, Groups]

    def loss(self, player: str, batch: Any) -> tuple[Tensor, Logs]:
        """The mean over the batch, and detached numbers for the log."""
        raise NotImplementedError


class Likelihood(Objective):
    """A prior's own loss on codes, its codec held fixed. Batches are (codes, labels | None).

    Biases are a group of their own, since published runs decay weights only.
    """

    def __init__(self, prior: Prior) -> None:
        super().__init__()
        self.prior = prior
        named = [
            (name, parameter)
            for name, parameter in prior.named_parameters()
            if parameter.requires_grad and not name.startswith("codec.")
        ]
        self.players = {
            "prior": {
                "weights": [p for n, p in named if not n.endswith("bias")],
                "biases": [p for n, p in named if n.endswith("bias")],
            }
        }

    def loss(self, player: str, batch: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Logs]:
        loss = self.prior.loss(*batch).mean()
        return loss, {"loss": loss.detach()}


class Coding(Objective):
    """A codec's own loss on codes. Batches are (codes, labels | None); labels are not looked at."""

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        self.codec = codec
        self.players = {"codec": {"weights": trainable([codec])}}

    def loss(self, player: str, batch: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Logs]:
        loss = self.codec.loss(batch[0]).mean()
        return loss, {"loss": loss.detach()}


def trainable(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    return [p for module in modules for p in module.parameters() if p.requires_grad]
