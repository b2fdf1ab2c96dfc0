"""Codecs: maps from codes to what a prior models, and back."""

from fieldloom.codecs.codec import Codec, Identity, Whiten
from fieldloom.codecs.graph import Graph
from fieldloom.codecs.quantize import Quantize

CODECS = {"identity": Identity, "whiten": Whiten, "quantize": Quantize, "graph": Graph}

__all__ = ["CODECS", "Codec", "Graph", "Identity", "Quantize", "Whiten"]
