"""Priors: distributions on codes."""

from fieldloom.priors.codecs import CODECS, Codec, Identity, Whiten
from fieldloom.priors.denoisers import ResMlp
from fieldloom.priors.diffusion import Diffusion
from fieldloom.priors.dit import Dit
from fieldloom.priors.prior import Gaussian, Neighbours, Prior

PRIORS = {"gaussian": Gaussian, "neighbours": Neighbours, "diffusion": Diffusion}
DENOISERS = {"resmlp": ResMlp, "dit": Dit}

__all__ = [
    "CODECS",
    "DENOISERS",
    "PRIORS",
    "Codec",
    "Diffusion",
    "Dit",
    "Gaussian",
    "Identity",
    "Neighbours",
    "Prior",
    "ResMlp",
    "Whiten",
]
