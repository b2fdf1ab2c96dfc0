"""Critics: from a signal's observations to logits of the signal being data, not a sample.

A critic is a module ``forward(coords, values, grid) -> (batch, n)``: one logit for each signal, or
one for each of its parts. ``grid`` are the axes of the points' grid, None for scattered points.

``divisible`` says that several processes may share a batch: that a logit depends on its own signal
alone, or on others through ``nn.norms.batch_norm`` only. Without it one process computes the whole.
"""

from typing import Any

from fieldloom.objectives.critics.patches import PatchCritic
from fieldloom.objectives.critics.points import PointCritic

CRITICS: dict[str, Any] = {"points": PointCritic, "patches": PatchCritic}

__all__ = ["CRITICS", "PatchCritic", "PointCritic"]
