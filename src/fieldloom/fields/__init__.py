"""Fields: slots, and how to evaluate them at coordinates."""

from fieldloom.fields.arrangements import ARRANGEMENTS
from fieldloom.fields.encodings import Embedding, Fourier
from fieldloom.fields.experts import Experts, Head, Tiling
from fieldloom.fields.field import Field
from fieldloom.fields.grids import GRIDS, GridMlp
from fieldloom.fields.local import Local
from fieldloom.fields.mlp import FourierMlp, Siren

FIELDS = {
    "siren": Siren,
    "fourier-mlp": FourierMlp,
    "experts": Experts,
    "local": Local,
    "grid-mlp": GridMlp,
}

__all__ = [
    "ARRANGEMENTS",
    "FIELDS",
    "GRIDS",
    "Embedding",
    "Experts",
    "Field",
    "Fourier",
    "FourierMlp",
    "GridMlp",
    "Head",
    "Local",
    "Siren",
    "Tiling",
]
