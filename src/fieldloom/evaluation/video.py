"""Video: measured as other grids are, and by the SSIM of its frames."""

from __future__ import annotations

from torch import Tensor

from fieldloom.evaluation.evaluator import Evaluator
from fieldloom.evaluation.reconstruction import frame_metrics
from fieldloom.evaluation.results import Metric


class VideoEvaluator(Evaluator):
    def image_metrics(
        self, true: Tensor, raw: Tensor, of: str, prefix: str = "", unit: str = "datum"
    ) -> list[Metric]:
        metrics = super().image_metrics(true, raw, of, prefix, unit)
        return metrics + frame_metrics(self.settings.metrics, true, raw, of)
