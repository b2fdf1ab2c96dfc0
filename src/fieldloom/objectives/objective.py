"""The base class of objectives, and the objectives of priors and codecs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from fieldloom.codecs import Codec
from fieldloom.priors import Prior

Groups = Mapping[str, list[nn.Parameter]]
Logs = dict[str, Tensor]


@runtime_checkable
class AnyBatch(Protocol):
    """The batches that the loop accepts: a ``types.Batch`` of signals, or a ``CodeBatch``."""

    def __len__(self) -> int:
        """The number of its signals."""
        ...

    def part(self, signals: slice) -> AnyBatch:
        """A slice of its signals."""
        ...

    def joined(self, others: Sequence[Any]) -> AnyBatch:
        """These signals, and then those of other parts of the same batch."""
        ...

    def within(self, count: int) -> AnyBatch:
        """The same signals as a part of a batch of ``count``."""
        ...

    def describe(self) -> str:
        """The batch in words, for a message: ``the signals [3, 1, 2]``."""
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

    def joined(self, others: Sequence[CodeBatch]) -> CodeBatch:
        every = [self, *others]
        labels = [one.labels for one in every if one.labels is not None]
        return CodeBatch(
            torch.cat([one.codes for one in every]), torch.cat(labels) if labels else None
        )

    def within(self, count: int) -> CodeBatch:
        return self

    def describe(self) -> str:
        return f"{len(self)} codes"


class Objective(nn.Module):
    """A loss for each player, which the training loop minimises.

    players: player -> group -> parameters; there is one backward pass for each player, and one
        optimizer for each group.
    independent: whether the loss of a batch is the mean of its signals' losses, so that it may be
        cut into micro-batches.
    divisible: whether it may be cut all the same, where a stage is ``divided``: the parts of a
        batch know its size, but what they draw differs from what the whole batch would.
    joint: whether the parts of a batch that is cut all the same must be computed at the same time,
        since they compare signals (``portion``): each process joins its own.
    per_signal: names of the groups whose parameters belong to single signals (codes of a table).
        Their gradient is multiplied by the batch size, so that the step of a code does not depend
        on it.
    capturable: whether a step is a function of the batch's tensors, weights and torch's random
        numbers alone, so that it can be recorded once and repeated: it reads no numbers, draws from
        no generator of its own, changes no buffer, and nothing in it depends on how often it ran.
    """

    independent = True
    divisible = False
    joint = False
    capturable = False
    per_signal: frozenset[str] = frozenset()
    players: Mapping[str, Groups]

    def loss(self, player: str, batch: Any) -> tuple[Tensor, Logs]:
        """The mean loss of the batch, and detached numbers for the log."""
        raise NotImplementedError


class PriorLoss(Objective):
    """The training loss of a prior on codes; its codec is not trained.

    Biases are a separate group, since published runs decay weights only.
    """

    def __init__(self, prior: Prior) -> None:
        super().__init__()
        self.prior, self.capturable = prior, prior.capturable
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
    """The training loss of a codec on codes; classes are not used."""

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


def with_tables(name: str, parameters: list[nn.Parameter], tables: list[nn.Parameter]) -> Groups:
    """The group ``tables``, of those of a field's grids, and the group of all other parameters."""
    own = {id(p) for p in tables}
    groups = {
        name: [p for p in parameters if id(p) not in own],
        "tables": [p for p in parameters if id(p) in own],
    }
    return {group: held for group, held in groups.items() if held}
