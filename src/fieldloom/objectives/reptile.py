"""Reptile: the origin moves towards the codes that descent found."""

from __future__ import annotations

import torch
from torch import Tensor

from fieldloom.encoders import AutoDecode, Encoder, Nothing
from fieldloom.errors import InputError
from fieldloom.family import Family
from fieldloom.objectives.objective import Logs, Objective, trainable
from fieldloom.renderers import Renderer
from fieldloom.types import Batch, LossFn


class Reptile(Objective):
    """1/2 |origin - code|^2, where descent found the code: the gradient is origin - code.

    No gradient flows through the descent. Only the origin is trained, which is all the weights
    (conditioner ``flat-weights``). The step size of Reptile is the optimizer's rate.
    Source: arXiv:1803.02999, algorithm 1.
    """

    def __init__(self, family: Family, encoder: Encoder, render: Renderer, loss_fn: LossFn) -> None:
        super().__init__()
        if isinstance(encoder, Nothing | AutoDecode) or encoder.reads_grid:
            raise InputError("objective 'reptile' needs an encoder that descends: cavia or fit.")
        if family.conditioner.layout is None:
            raise InputError(
                "objective 'reptile' moves an origin that is all the weights: conditioner "
                "'flat-weights'."
            )
        self.family, self.encoder, self.render, self.loss_fn = family, encoder, render, loss_fn
        self.independent, self.divisible = encoder.independent, encoder.divisible
        self.players = {"field": {"shared": trainable([family])}}

    def loss(self, player: str, batch: Batch) -> tuple[Tensor, Logs]:
        with torch.no_grad():  # keep no graph of the descent
            code = self.encoder(batch.context, self.family, self.render, self.loss_fn)
        origin = self.family.conditioner.origin(len(batch))
        losses = (origin - code).square().sum((1, 2)) / 2
        return losses.mean(), {"loss": losses.detach().mean()}
