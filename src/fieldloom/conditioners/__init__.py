"""Conditioners: from a code to the weights of a field.

only: a pattern of slots' names (``*.bias``): all others are shared by all signals.
"""

from fieldloom.conditioners.conditioner import Conditioner, FlatWeights, Shared, Substitute
from fieldloom.conditioners.hyper import Hyper
from fieldloom.conditioners.mixture import Mixture
from fieldloom.conditioners.modulation import Film, Shift
from fieldloom.conditioners.tokens import Columns, Factor

CONDITIONERS = {
    "shared": Shared,
    "substitute": Substitute,
    "flat-weights": FlatWeights,
    "mixture": Mixture,
    "shift": Shift,
    "film": Film,
    "hyper": Hyper,
    "columns": Columns,
    "factor": Factor,
}

__all__ = [
    "CONDITIONERS",
    "Columns",
    "Conditioner",
    "Factor",
    "Film",
    "FlatWeights",
    "Hyper",
    "Mixture",
    "Shared",
    "Shift",
    "Substitute",
]
