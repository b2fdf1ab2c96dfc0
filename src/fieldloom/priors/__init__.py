"""Priors: distributions on codes."""

from fieldloom.priors.codecs import CODECS, Codec, Identity, Whiten
from fieldloom.priors.denoisers import DENOISERS, ResMlp
from fieldloom.priors.diffusion import Diffusion
from fieldloom.priors.prior import Gaussian, Neighbours, Prior

PRIORS = {"gaussian": Gaussian, "neighbours": Neighbours, "diffusion": Diffusion}

__all__ = [
    "CODECS",
    "DENOISERS",
    "PRIORS",
    "Codec",
    "Diffusion",
    "Gaussian",
    "Identity",
    "Neighbours",
    "Prior",
    "ResMlp",
    "Whiten",
]
