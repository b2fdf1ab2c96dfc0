"""Fields: slots, and how to evaluate them at coordinates."""

from fieldloom.fields.arrangements import ARRANGEMENTS
from fieldloom.fields.encodings import Embedding, Fourier
from fieldloom.fields.experts import Experts, Head, Tiling
from fieldloom.fields.field import Field, HasKernels
from fieldloom.fields.grids import GRIDS, GridMlp
from fieldloom.fields.local import Local
from fieldloom.fields.mlp import FourierMlp, Siren
from fieldloom.fields.waves import WAVES, WaveMlp

FIELDS = {
    "siren": Siren,
    "fourier-mlp": FourierMlp,
    "experts": Experts,
    "local": Local,
    "grid-mlp": GridMlp,
    "wave-mlp": WaveMlp,
}

__all__ = [
    "ARRANGEMENTS",
    "FIELDS",
    "GRIDS",
    "WAVES",
    "Embedding",
    "Experts",
    "Field",
    "Fourier",
    "FourierMlp",
    "GridMlp",
    "HasKernels",
    "Head",
    "Local",
    "Siren",
    "Tiling",
    "WaveMlp",
]
