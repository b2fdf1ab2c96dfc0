"""Denoisers: the networks of diffusion models.

A denoiser is a module ``(code, time, label) -> prediction``: a noisy code (batch, tokens, width),
its time (batch,), integers from 0 to T - 1, and its class (batch,), integers. The prediction has
the shape of the code; the prior decides whether it is the clean code, the noise, or v.

Labels mean the same everywhere. A denoiser that is made with ``classes`` has an embedding of
``classes + 1`` rows; the last row is "any class", which classifier-free guidance needs
(arXiv:2207.12598). ``label=None`` is "any class" for the whole batch. A denoiser that is made
without classes has no embedding, and ignores labels.

depth: number of blocks.
width: of a token within them.
"""

from fieldloom.denoisers.dit import Dit
from fieldloom.denoisers.resmlp import ResMlp
from fieldloom.denoisers.weight_transformer import WeightTransformer

DENOISERS = {"resmlp": ResMlp, "dit": Dit, "weight-transformer": WeightTransformer}

__all__ = ["DENOISERS", "Dit", "ResMlp", "WeightTransformer"]
