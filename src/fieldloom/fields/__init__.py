"""Fields: slots, and how to evaluate them at coordinates."""

from fieldloom.fields.arrangements import ARRANGEMENTS
from fieldloom.fields.encodings import Embedding, Fourier
from fieldloom.fields.experts import Experts, Head, Tiling
from fieldloom.fields.field import Field, HasKernels
from fieldloom.fields.local import Local
from fieldloom.fields.mlp import FourierMlp, Siren

FIELDS = {"siren": Siren, "fourier-mlp": FourierMlp, "experts": Experts, "local": Local}

__all__ = [
    "ARRANGEMENTS",
    "FIELDS",
    "Embedding",
    "Experts",
    "Field",
    "Fourier",
    "FourierMlp",
    "HasKernels",
    "Head",
    "Local",
    "Siren",
    "Tiling",
]
