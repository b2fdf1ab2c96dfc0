"""Images: sets of them are compared in the features of a detector, or by SSIM."""

from __future__ import annotations

import warnings
from dataclasses import replace

from fieldloom.evaluation.enlargement import describe_lack, measure_enlargement
from fieldloom.evaluation.evaluator import Evaluator
from fieldloom.evaluation.results import Result

SAMPLES = 256
"""How many are drawn from the prior, where a recipe does not say."""


class ImageEvaluator(Evaluator):
    has_images = True

    def reconstruct(self, of: str) -> Result:
        result = super().reconstruct(of)
        if "enlarge" not in self.settings.metrics:
            return result
        if (lack := describe_lack(self.source)) is not None:
            warnings.warn(lack, stacklevel=2)
            return result
        metrics, images = measure_enlargement(
            self.system.decode, self.source, self.held_out, result.codes, of
        )
        return replace(result, metrics=result.metrics + metrics, images=[*result.images, *images])

    @property
    def sample_count(self) -> int:
        return self.settings.samples or SAMPLES

    @property
    def measures(self) -> tuple[str, ...]:
        return ("ssim", "pixels")
