"""Images: sets of them are compared in the features of a detector, or by SSIM."""

from __future__ import annotations

from fieldloom.evaluation.evaluator import Evaluator

SAMPLES = 256
"""How many are drawn from the prior, where a recipe does not say."""


class ImageEvaluator(Evaluator):
    has_images = True

    @property
    def sample_count(self) -> int:
        return self.settings.samples or SAMPLES

    @property
    def measures(self) -> tuple[str, ...]:
        return ("ssim", "pixels")
