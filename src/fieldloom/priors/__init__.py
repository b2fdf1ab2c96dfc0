"""Priors: distributions on codes.

codec: a map of the codes that the prior learns in, saved with it; None: the codes as they are.
"""

from fieldloom.priors.autoregressive import Autoregressive
from fieldloom.priors.closed_form import Gaussian, Neighbours
from fieldloom.priors.diffusion import Diffusion
from fieldloom.priors.prior import Prior

PRIORS = {
    "gaussian": Gaussian,
    "neighbours": Neighbours,
    "diffusion": Diffusion,
    "autoregressive": Autoregressive,
}

__all__ = ["PRIORS", "Autoregressive", "Diffusion", "Gaussian", "Neighbours", "Prior"]
