"""Sound: measured as other grids are, and by its signal-to-noise ratio."""

from __future__ import annotations

from torch import Tensor

from fieldloom.evaluation.evaluator import Evaluator
from fieldloom.evaluation.reconstruction import sound_metrics
from fieldloom.evaluation.results import Metric


class AudioEvaluator(Evaluator):
    upper_bound_by = ("snr",)

    def paired_metrics(self, true: Tensor, raw: Tensor, of: str) -> list[Metric]:
        metrics = sound_metrics(self.settings.metrics, true, raw, of)
        return metrics + super().paired_metrics(true, raw, of)
