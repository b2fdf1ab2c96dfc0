"""Priors: distributions on codes."""

from fieldloom.priors.autoregressive import Autoregressive
from fieldloom.priors.codecs import Codec, Identity, Whiten
from fieldloom.priors.denoisers import ResMlp
from fieldloom.priors.diffusion import Diffusion
from fieldloom.priors.dit import Dit
from fieldloom.priors.graph import Graph
from fieldloom.priors.prior import Gaussian, Neighbours, Prior
from fieldloom.priors.quantize import Quantize
from fieldloom.priors.tensors import Tensors

PRIORS = {
    "gaussian": Gaussian,
    "neighbours": Neighbours,
    "diffusion": Diffusion,
    "autoregressive": Autoregressive,
}
CODECS = {"identity": Identity, "whiten": Whiten, "quantize": Quantize, "graph": Graph}
DENOISERS = {"resmlp": ResMlp, "dit": Dit, "tensors": Tensors}

__all__ = [
    "CODECS",
    "DENOISERS",
    "PRIORS",
    "Autoregressive",
    "Codec",
    "Diffusion",
    "Dit",
    "Gaussian",
    "Graph",
    "Identity",
    "Neighbours",
    "Prior",
    "Quantize",
    "ResMlp",
    "Tensors",
    "Whiten",
]
