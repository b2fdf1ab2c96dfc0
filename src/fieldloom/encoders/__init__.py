"""Encoders: from a signal to its code."""

from fieldloom.encoders.descent import AutoDecode, Cavia
from fieldloom.encoders.encoder import Encoder, Nothing, reconstruction_loss
from fieldloom.encoders.fit import Fit, OnStep, Step, reconstruction_loss_in_stacks
from fieldloom.encoders.refinement import Refinement, refine
from fieldloom.encoders.stacks import Plateau
from fieldloom.encoders.transformer import Transformer

ENCODERS = {
    "nothing": Nothing,
    "cavia": Cavia,
    "autodecode": AutoDecode,
    "fit": Fit,
    "transformer": Transformer,
}

__all__ = [
    "ENCODERS",
    "AutoDecode",
    "Cavia",
    "Encoder",
    "Fit",
    "Nothing",
    "OnStep",
    "Plateau",
    "Refinement",
    "Step",
    "Transformer",
    "reconstruction_loss",
    "reconstruction_loss_in_stacks",
    "refine",
]
