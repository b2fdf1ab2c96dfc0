"""Detectors: the features of images that set metrics compare."""

from __future__ import annotations

from fieldloom.metrics.detectors.detector import Detector
from fieldloom.metrics.detectors.efficientnet import EfficientNetLite0
from fieldloom.metrics.detectors.gabor import Gabor
from fieldloom.metrics.detectors.inception import Inception

DETECTORS = {"efficientnet-lite0": EfficientNetLite0, "gabor": Gabor, "inception": Inception}

__all__ = ["DETECTORS", "Detector", "EfficientNetLite0", "Gabor", "Inception"]
