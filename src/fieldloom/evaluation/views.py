"""Posed views: those that were seen, those that were held out, and views of samples."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from fieldloom.errors import InputError
from fieldloom.evaluation.batches import in_batches
from fieldloom.evaluation.evaluator import Evaluator
from fieldloom.evaluation.figures import Figure, Result
from fieldloom.evaluation.pictures import compare_sets
from fieldloom.evaluation.reconstruction import image_metrics
from fieldloom.metrics.features import Detector
from fieldloom.metrics.paired import psnr
from fieldloom.modalities import Views as Modality
from fieldloom.system import System
from fieldloom.types import Code, Data


class Views(Evaluator):
    seen, ceiling = True, None

    @property
    def views(self) -> Modality:
        return cast(Modality, self.modality)

    def reconstruct(self, of: str, detector: Detector | None) -> Result:
        originals = self.source.read(self.held)
        codes = in_batches(self.system.encode, "encoding", originals)
        data = self.views.seen(originals)
        raw = self.render(codes, data)
        metrics = self.by_view(data.tensor, raw, of, None, "")
        if self.views.held:
            data = self.views.held_out(originals)
            raw = self.render(codes, data)
            of = f"{of}, {data.shape[1]} held-out views each"
            metrics += self.by_view(data.tensor, raw, of, detector, "novel.")
        return Result(metrics, data.tensor, raw.clamp(0, 1), codes)

    def render(self, codes: Code, data: Data) -> Tensor:
        """Each code seen by the cameras of its datum, not clamped."""
        return in_batches(self.system.predict_at, "rendering", codes, data, size=4)

    def by_view(
        self, true: Tensor, raw: Tensor, of: str, detector: Detector | None, prefix: str
    ) -> list[Figure]:
        """Metrics of single views. prefix: ``novel.`` of those held out."""
        pair = true.flatten(0, 1), raw.flatten(0, 1)
        return image_metrics(
            self.how, *pair, of, detector, self.source.filter, prefix=prefix, unit="view"
        )

    def decode(self, codes: Code) -> Data:
        """Each sample is seen as one held-out object is, again from the start."""
        turn = torch.arange(len(codes)) % len(self.held)
        cameras = self.source.data.part(self.held[turn]).cameras
        assert cameras is not None
        seen = Data(torch.empty(len(codes), cameras.count, 0), cameras)
        look = lambda some, own: self.system.decode(some, cameras=own.cameras)
        return Data(in_batches(look, "sampling", codes, seen, size=8), cameras)

    def compare(self, codes: Code, samples: Tensor, detector: Detector | None) -> list[Figure]:
        if detector is None:
            return []
        real, made = self.source.read(self.held).tensor.flatten(0, 1), samples.flatten(0, 1)
        of = f"{len(made)} pictures of {len(codes)} samples, {len(real)} views of held-out objects"
        return compare_sets(self.how, detector, real, made, of, self.source.filter)

    def comparable(self, samples: Tensor) -> bool:
        return False


def check_held_out(system: System) -> None:
    """Raise InputError where data are no views, or none are held out."""
    if not system.modality.held:
        raise InputError("support: this run has no views that are held out (modality.held).")


def psnr_of_held_out(system: System, code: Code, data: Data) -> Tensor:
    """PSNR of codes on the views held out of their data, mean per view: (batch,) dB."""
    check_held_out(system)
    novel = cast(Modality, system.modality).held_out(data)
    made, true = system.predict_at(code, novel).tensor, novel.tensor
    return psnr(made.flatten(0, 1), true.flatten(0, 1)).view(len(data), -1).mean(1)
