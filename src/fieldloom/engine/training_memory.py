"""Whether this machine has the memory for the training of a recipe; checked before it begins."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from fieldloom import memory
from fieldloom.engine import device as devices
from fieldloom.engine.ranks import current_team
from fieldloom.modalities.sources import Source
from fieldloom.settings import Stage
from fieldloom.system import System
from fieldloom.types import Data

MOMENTS = {"adamw": 2, "adam": 2, "sgd": 1, "muon": 2, "soap": 6}
"""Tensors that an optimiser keeps for each parameter, at most; SOAP's for square matrices."""

CODES = 4
"""Tensors of the size of a batch of codes: codes, noise, their mixture, and the prediction."""


def check_training_memory(
    system: System, source: Source, stages: Mapping[str, Stage], todo: Sequence[str]
) -> None:
    """Raise InputError for a stage that would need more memory than its device has.

    Counted are weights, gradients, the optimiser's moments, averaged weights, and the coordinates
    and values, or codes, of a batch; activations are not.
    """
    has = devices.memory(system.device)
    for name in todo:
        stage, field = stages[name], name == "field"
        modules = [system.family, system.encoder] if field else [system.prior]
        weights = [p for module in modules if module is not None for p in module.parameters()]
        copies = 2 + MOMENTS.get(str(stage.optimizer.get("name")), 2) + bool(stage.ema)
        codes = {id(p) for p in system.encoder.code_parameters()}  # whose rows processes share out
        share = current_team().count
        held = sum(copies * p.nbytes // (share if id(p) in codes else 1) for p in weights)
        batch = CODES * memory.FLOAT * stage.batch * math.prod(system.family.code_shape)
        batch = batch_bytes(system, source.data, stage) if field else batch
        points = "" if stage.points is None else f", points = {stage.points}"
        given = f"batch = {stage.batch}{points}, {sum(p.numel() for p in weights)} weights"
        memory.check(f"train.{name}", held + batch, system.permit, has, given)


def batch_bytes(system: System, data: Data, stage: Stage) -> int:
    """Bytes of the coordinates and values of the signals of a step."""
    space = system.modality
    there = math.prod(data.shape[1:]) // space.value_dim
    whole = stage.points is None or system.encoder.reads_grid
    points = there if whole else min(stage.points or there, there)
    return memory.FLOAT * stage.batch * points * (space.coord_dim + space.value_dim)
