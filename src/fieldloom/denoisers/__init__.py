"""Denoisers: networks that diffusion models are made of.

A denoiser is a module ``(code, time, label) -> answer``: a noisy code (batch, tokens, width), its
time (batch,), integers from 0 to T - 1, and its class (batch,), integers; the answer is like the
code, and what it stands for (the clean code, the noise, v) is the prior's to say.

Labels mean the same everywhere. A denoiser that is made with ``classes`` has an embedding of
``classes + 1`` rows; the last row is "any class", which classifier-free guidance trains and asks
for (arXiv:2207.12598). ``label=None`` is "any class" for the whole batch. A denoiser that is made
without classes has no embedding, and does not look at labels.
"""

from fieldloom.denoisers.dit import Dit
from fieldloom.denoisers.resmlp import ResMlp
from fieldloom.denoisers.weight_transformer import WeightTransformer

DENOISERS = {"resmlp": ResMlp, "dit": Dit, "weight-transformer": WeightTransformer}

__all__ = ["DENOISERS", "Dit", "ResMlp", "WeightTransformer"]
