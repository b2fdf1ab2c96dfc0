"""What the one loop minimises."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from fieldloom.codecs import Codec
from fieldloom.priors import Prior

Groups = Mapping[str, list[nn.Parameter]]
Logs = dict[str, Tensor]


@runtime_checkable
class AnyBatch(Protocol):
    """What the loop has to know of a batch: ``types.Batch`` of signals, or a ``CodeBatch``."""

    def __len__(self) -> int:
        """How many signals it is of."""
        ...

    def part(self, signals: slice) -> AnyBatch:
        """Some of its signals."""
        ...

    def describe(self) -> str:
        """Which data these are, for a message: ``the signals [3, 1, 2]``."""
        ...


@dataclass(frozen=True)
class CodeBatch:
    """Codes (batch, tokens, width), or as a prior takes them, and their classes (batch,)."""

    codes: Tensor
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.codes)

    def part(self, signals: slice) -> CodeBatch:
        return CodeBatch(self.codes[signals], None if self.labels is None else self.labels[signals])

    def describe(self) -> str:
        return f"{len(self)} codes"


class Objective(nn.Module):
    """players: player -> group -> parameters; one backward pass a player, one optimizer a group.

    independent: whether the loss of a batch is the mean of its signals' losses, so that it may be
    cut into micro-batches.
    per_signal: names of the groups whose parameters belong to single signals (codes of a table).
    Their gradient is multiplied by the size of the batch, so that the step of a code does not
    depend on how many other signals were in the batch.
    """

    independent = True
    per_signal: frozenset[str] = frozenset()
    players: Mapping[str, Groups]

    def loss(self, player: str, batch: Any) -> tuple[Tensor, Logs]:
        """The mean over the batch, and detached numbers for the log."""
        raise NotImplementedError


class PriorLoss(Objective):
    """A prior's own loss on codes; its codec is not trained.

    Biases are a group of their own, since published runs decay weights only.
    """

    def __init__(self, prior: Prior) -> None:
        super().__init__()
        self.prior = prior
        own = [
            (name, parameter)
            for name, parameter in prior.named_parameters()
            if parameter.requires_grad and not name.startswith("codec.")
        ]
        self.players = {
            "prior": {
                "weights": [p for n, p in own if not n.endswith("bias")],
                "biases": [p for n, p in own if n.endswith("bias")],
            }
        }

    def loss(self, player: str, batch: CodeBatch) -> tuple[Tensor, Logs]:
        loss = self.prior.loss(batch.codes, batch.labels).mean()
        return loss, {"loss": loss.detach()}


class CodecLoss(Objective):
    """A codec's own loss on codes; classes are not used."""

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        self.codec = codec
        self.players = {"codec": {"weights": trainable([codec])}}

    def loss(self, player: str, batch: CodeBatch) -> tuple[Tensor, Logs]:
        loss = self.codec.loss(batch.codes).mean()
        return loss, {"loss": loss.detach()}


def trainable(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    """The parameters of modules that are not frozen."""
    return [p for module in modules for p in module.parameters() if p.requires_grad]
