"""Reconstruction losses of values: one number per signal, the mean over its values."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from fieldloom.errors import InputError
from fieldloom.types import Values

PerSignal = Float[Tensor, " batch"]


def mse(predicted: Values, true: Values) -> PerSignal:
    """Squared error."""
    _check_shapes(predicted, true)
    return (predicted - true).square().flatten(1).mean(1)


def l1(predicted: Values, true: Values) -> PerSignal:
    """Absolute error."""
    _check_shapes(predicted, true)
    return (predicted - true).abs().flatten(1).mean(1)


def bce(predicted: Values, true: Values) -> PerSignal:
    """Binary cross-entropy of logits against probabilities in [0, 1]."""
    _check_shapes(predicted, true)
    entropy = F.binary_cross_entropy_with_logits(predicted, true, reduction="none")
    return entropy.flatten(1).mean(1)


def _check_shapes(predicted: Tensor, true: Tensor) -> None:
    """Raise InputError for values of two shapes, which torch would broadcast without a word."""
    if predicted.shape != true.shape:
        raise InputError(
            f"the field and its renderer gave values of the shape {tuple(predicted.shape)}, where "
            f"(batch, points, value) of the data is {tuple(true.shape)}."
        )


LINKS = {"bce": torch.sigmoid}
"""Loss -> the map from a field's values to data, for losses of logits."""

LOSSES = {"mse": mse, "l1": l1, "bce": bce}
