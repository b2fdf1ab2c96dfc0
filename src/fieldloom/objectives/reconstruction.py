"""Encode the context, predict the target."""

from __future__ import annotations

from torch import Tensor, nn

from fieldloom.encoders import AutoDecode, Encoder, error
from fieldloom.family import Family
from fieldloom.objectives.objective import Logs, Objective, trainable
from fieldloom.renderers import Renderer
from fieldloom.types import Batch, Mismatch


class Reconstruction(Objective):
    """mean over signals of mismatch(render(family(encoder(context))), target) + penalty(code).

    The outer loss of CAVIA (only the last inner step counts), the loss of auto-decoding, of
    amortised encoders and of fitting a single signal, depending on the encoder.
    """

    def __init__(
        self,
        family: Family,
        encoder: Encoder,
        render: Renderer,
        mismatch: Mismatch,
        penalty: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.family, self.encoder, self.penalty = family, encoder, penalty
        self.render, self.mismatch = render, mismatch
        self.separable = encoder.separable
        codes = [encoder.table] if isinstance(encoder, AutoDecode) else []
        held = {id(p) for p in codes}
        shared = [p for p in trainable([family, encoder]) if id(p) not in held]
        self.players = {"field": {"shared": shared} | ({"codes": codes} if codes else {})}

    def loss(self, player: str, batch: Batch) -> tuple[Tensor, Logs]:
        code = self.encoder(batch.context, self.family, self.render, self.mismatch)
        losses = error(code, batch.target, self.family, self.render, self.mismatch)
        logs = {"loss": losses.detach().mean()}
        if self.penalty is not None:
            losses = losses + self.penalty(code, batch, self.family, self.encoder)
        return losses.mean(), logs
