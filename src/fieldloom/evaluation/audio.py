"""Sound: measured as other grids are, and by its signal-to-noise ratio."""

from __future__ import annotations

from torch import Tensor

from fieldloom.evaluation.evaluator import Evaluator
from fieldloom.evaluation.reconstruction import sound_scores
from fieldloom.evaluation.results import Score


class AudioEvaluator(Evaluator):
    upper_bound_by = ("snr",)

    def paired_scores(self, true: Tensor, raw: Tensor) -> list[Score]:
        scores = sound_scores(self.settings.metrics, true, raw)
        return scores + super().paired_scores(true, raw)
