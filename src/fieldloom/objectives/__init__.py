"""Objectives: what the one loop minimises."""

from fieldloom.objectives.adversarial import Adversarial
from fieldloom.objectives.critics import CRITICS
from fieldloom.objectives.objective import AnyBatch, CodeBatch, CodecLoss, Objective, PriorLoss
from fieldloom.objectives.penalties import L2, PENALTIES
from fieldloom.objectives.reconstruction import Reconstruction
from fieldloom.objectives.reptile import Reptile

OBJECTIVES = {"reconstruction": Reconstruction, "adversarial": Adversarial, "reptile": Reptile}

__all__ = [
    "CRITICS",
    "L2",
    "OBJECTIVES",
    "PENALTIES",
    "Adversarial",
    "AnyBatch",
    "CodeBatch",
    "CodecLoss",
    "Objective",
    "PriorLoss",
    "Reconstruction",
    "Reptile",
]
