"""Critics: functions from a signal's observations to logits of its being data.

A critic is a module ``forward(coords, values, grid) -> (batch, n)``: one logit of each signal, or
one of each of its parts. ``grid`` are the axes that the points fill, None where they are scattered.
"""

from typing import Any

from fieldloom.objectives.critics.patches import PatchCritic
from fieldloom.objectives.critics.points import PointCritic

CRITICS: dict[str, Any] = {"points": PointCritic, "patches": PatchCritic}

__all__ = ["CRITICS", "PatchCritic", "PointCritic"]
