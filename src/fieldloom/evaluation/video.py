"""Video: as other grids, and the SSIM of its frames."""

from __future__ import annotations

from torch import Tensor

from fieldloom.evaluation.evaluator import Evaluator
from fieldloom.evaluation.figures import Figure
from fieldloom.evaluation.reconstruction import image_metrics, value_metrics, video_metrics
from fieldloom.metrics.features import Detector


class Video(Evaluator):
    def paired(self, true: Tensor, raw: Tensor, of: str, detector: Detector | None) -> list[Figure]:
        found = image_metrics(self.how, true, raw, of, detector, self.source.filter)
        found += video_metrics(self.how, true, raw, of)
        return found + value_metrics(self.how, true, raw, of)
