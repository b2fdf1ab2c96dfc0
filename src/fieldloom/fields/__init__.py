"""Fields: slots, and how to evaluate them at coordinates."""

from fieldloom.fields.field import Field
from fieldloom.fields.mlp import FourierMlp, Siren

FIELDS = {"siren": Siren, "fourier-mlp": FourierMlp}

__all__ = ["FIELDS", "Field", "FourierMlp", "Siren"]
