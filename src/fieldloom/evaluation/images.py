"""Images: metrics of reconstructions, and of sets in the features of a detector."""

from __future__ import annotations

from fieldloom.evaluation.evaluator import Evaluator

SAMPLES = 256
"""Of images, where a recipe asks for no other number."""


class Images(Evaluator):
    seen = True

    @property
    def samples(self) -> int:
        return self.how.samples or SAMPLES

    @property
    def measures(self) -> tuple[str, ...]:
        return ("ssim", "pixels") if len(self.source.data.shape) == 4 else ()
