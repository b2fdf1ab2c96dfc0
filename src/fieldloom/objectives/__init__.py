"""Objectives: what the one loop minimises."""

from fieldloom.objectives.objective import Likelihood, Objective
from fieldloom.objectives.penalties import L2, PENALTIES
from fieldloom.objectives.reconstruction import Reconstruction

OBJECTIVES = {"reconstruction": Reconstruction}

__all__ = ["L2", "OBJECTIVES", "PENALTIES", "Likelihood", "Objective", "Reconstruction"]
