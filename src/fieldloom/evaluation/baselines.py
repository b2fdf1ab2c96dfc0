"""Codes of trivial generators, with which samples are compared."""

from __future__ import annotations

import math

import torch
from torch import Generator

from fieldloom.errors import InputError
from fieldloom.evaluation.memorisation import CodeSet


def baseline_codes(
    known: CodeSet,
    origin: CodeSet,
    count: int,
    noise: float = 0.1,
    generator: Generator | None = None,
) -> dict[str, CodeSet]:
    """``count`` codes of each of four trivial generators.

    start:    the origin (1, tokens, width), from which fields were fitted, again and again
    noise:    training codes plus Gaussian noise: each number's deviation is the fraction ``noise``
              of its own over the training codes. At a tenth fields are still themselves: such
              samples are copies, though not number by number (arXiv:2506.07998).
    gaussian: N(mean, covariance) of the training codes, drawn as mean + Z (codes - mean) /
              sqrt(n - 1) with Z of n columns: exact without a matrix of all weights by all weights,
              and of rank n - 1 where there are more numbers than codes
    fields:   training codes themselves, as perfect memorisation gives

    ``noise`` and ``fields`` draw training codes independently, each without replacement. Raises
    InputError for fewer than 2 training codes or than ``count``, and a negative fraction.
    """
    if len(known) < max(2, count) or noise < 0:
        raise InputError(
            f"{len(known)} training codes for {count} of each baseline, noise = {noise}: at least "
            "2 and as many, and a fraction of at least 0."
        )
    some, others = (torch.randperm(len(known), generator=generator)[:count] for _ in range(2))
    shaken = torch.randn(count, *known.shape[1:], generator=generator).to(known)
    mixed = torch.randn(count, len(known), generator=generator).to(known)
    mean = known.mean(0)
    spread = mixed @ (known - mean).flatten(1) / math.sqrt(len(known) - 1)
    return {
        "start": origin.expand(count, -1, -1),
        "noise": known[some] + noise * known.std(0) * shaken,
        "gaussian": mean + spread.view_as(shaken),
        "fields": known[others],
    }
