"""Reptile: the start moves towards where descent ended."""

from __future__ import annotations

import torch
from torch import Tensor

from fieldloom.conditioners import FlatWeights
from fieldloom.encoders import AutoDecode, Encoder, Nothing
from fieldloom.errors import InputError
from fieldloom.family import Family
from fieldloom.objectives.objective import Logs, Objective, trainable
from fieldloom.renderers import Renderer
from fieldloom.types import Batch, LossFn


class Reptile(Objective):
    """1/2 |origin - descended|^2, descended held fixed: its gradient is the way back from there.

    Only the origin is trained: conditioner ``flat-weights``, whose origin is all the weights. An
    inner rate of 1 here is one of the optimiser. Source: arXiv:1803.02999, algorithm 1.
    """

    def __init__(self, family: Family, encoder: Encoder, render: Renderer, loss_fn: LossFn) -> None:
        super().__init__()
        if isinstance(encoder, Nothing | AutoDecode) or encoder.reads_grid:
            raise InputError("objective 'reptile' needs an encoder that descends: cavia or fit.")
        if not isinstance(family.conditioner, FlatWeights):
            raise InputError(
                "objective 'reptile' moves an origin that is all the weights: conditioner "
                "'flat-weights'."
            )
        self.family, self.encoder, self.render, self.loss_fn = family, encoder, render, loss_fn
        self.independent = encoder.independent
        self.players = {"field": {"shared": trainable([family])}}

    def loss(self, player: str, batch: Batch) -> tuple[Tensor, Logs]:
        with torch.no_grad():  # no graph of the descent is kept
            code = self.encoder(batch.context, self.family, self.render, self.loss_fn)
        origin = self.family.conditioner.origin(len(batch))
        losses = (origin - code).square().sum((1, 2)) / 2
        return losses.mean(), {"loss": losses.detach().mean()}
