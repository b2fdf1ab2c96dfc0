"""Fields: slots, and how to evaluate them at coordinates.

Arguments that mean the same in all of them:

activation: of the hidden layers: a name of ``nn.layers.ACTIVATIONS``.
output: of the values: a name of ``nn.layers.ACTIVATIONS``, ``identity`` among them.
offset: added to the values (0.5, for data in [0, 1]).
bias: how biases start: ``uniform`` in +-1/sqrt(fan_in), or ``zero``.
"""

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
