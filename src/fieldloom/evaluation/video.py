"""Video: measured as other grids are, and by the SSIM of its frames."""

from __future__ import annotations

from torch import Tensor

from fieldloom.evaluation.evaluator import Evaluator
from fieldloom.evaluation.reconstruction import frame_scores
from fieldloom.evaluation.results import Score


class VideoEvaluator(Evaluator):
    def image_scores(self, true: Tensor, raw: Tensor) -> list[Score]:
        frames = frame_scores(self.settings.metrics, true, raw)
        return super().image_scores(true, raw) + frames
