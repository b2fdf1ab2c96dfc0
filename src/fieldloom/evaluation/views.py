"""Posed views: those that were seen, those that were held out, and views of samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from fieldloom.errors import InputError
from fieldloom.evaluation.batches import in_batches
from fieldloom.evaluation.evaluator import Evaluator
from fieldloom.evaluation.reconstruction import image_metrics
from fieldloom.evaluation.results import Metric, Result
from fieldloom.metrics.paired import psnr
from fieldloom.modalities import Views
from fieldloom.modalities.views import select_views
from fieldloom.progress import track
from fieldloom.system import System
from fieldloom.types import Code, Data


class ViewEvaluator(Evaluator):
    has_images, upper_bound_by = True, None

    @property
    def views(self) -> Views:
        return cast(Views, self.modality)

    def reconstruct(self, of: str) -> Result:
        """Metrics of the seen views, and as ``novel.`` of those that were held out."""
        originals = self.source.read(self.held_out)
        codes = in_batches(self.system.encode, "encoding", originals)
        data = self.views.select_seen(originals)
        raw = self.render(codes, data)
        pair = data.tensor.flatten(0, 1), raw.flatten(0, 1)
        asked, filter = self.settings.metrics, self.source.filter
        seen = f"{of}, {data.shape[1]} views each" if self.views.held else of
        metrics = image_metrics(asked, *pair, seen, None, filter, unit="view")
        if self.views.held:
            data = self.views.select_held_out(originals)
            raw = self.render(codes, data)
            pair = data.tensor.flatten(0, 1), raw.flatten(0, 1)
            of = f"{of}, {data.shape[1]} held-out views each"
            metrics += self.image_metrics(*pair, of, "novel.", "view")
        return Result(metrics, data.tensor, raw.clamp(0, 1), codes)

    def render(self, codes: Code, data: Data) -> Tensor:
        """Each code rendered at the cameras of its datum, not clamped; a single one by views."""
        if len(codes) == 1:
            each = (select_views(data, slice(i, i + 1)) for i in range(data.shape[1]))
            views = track(each, "rendering", data.shape[1], "views")
            return torch.cat([self.system.predict_at(codes, one).tensor for one in views], 1)
        return in_batches(self.system.predict_at, "rendering", codes, data, size=4)

    def decode_samples(self, codes: Code) -> Tensor:
        """Samples rendered at the cameras of held-out objects, in turn."""
        objects = self.held_out[torch.arange(len(codes)) % len(self.held_out)]
        cameras = self.source.data.part(objects).cameras
        assert cameras is not None
        seen = Data(torch.empty(len(codes), cameras.count, 0), cameras)
        look = lambda some, own: self.system.decode(some, cameras=own.cameras)
        return in_batches(look, "sampling", codes, seen, size=8)

    def sample_metrics(self, codes: Code, samples: Tensor) -> list[Metric]:
        if self.detector is None:
            return []
        real = self.source.read(self.held_out).tensor.flatten(0, 1)
        made = samples.flatten(0, 1)
        of = f"{len(made)} images of {len(codes)} samples, {len(real)} views of held-out objects"
        return self.image_set_metrics([real], made, of)

    def has_shape_of_data(self, samples: Tensor) -> bool:
        return False


def held_out_modality(system: System) -> Views:
    """The modality of views. Raises InputError where data are none, or no view is held out."""
    if not system.modality.held:
        raise InputError("support: this run has no views that are held out (modality.held).")
    return cast(Views, system.modality)


def psnr_of_held_out(system: System, code: Code, data: Data) -> Tensor:
    """PSNR of codes on the views held out of their data, mean per view: (batch,) dB.

    Raises InputError where data are no views, or no view is held out.
    """
    novel = held_out_modality(system).select_held_out(data)
    made, true = system.predict_at(code, novel).tensor, novel.tensor
    return psnr(made.flatten(0, 1), true.flatten(0, 1)).view(len(data), -1).mean(1)


def psnr_by_support(system: System, data: Data, counts: Sequence[int]) -> list[float]:
    """PSNR in dB of the held-out views, mean per view, of codes found from each number of support
    views (arXiv:2310.05624, section 4.2 and Fig. 4).

    Raises InputError where data are no views, where none is held out, and where fewer than the
    largest number are not.
    """
    modality = held_out_modality(system)
    kept = modality.count_seen(data)
    if max(counts) > kept:
        raise InputError(f"support: {max(counts)} views, and only {kept} are not held out.")

    def psnr_of(count: int) -> float:
        encode = lambda part: system.encode_signal(modality.support(part, count))
        work = lambda part: psnr_of_held_out(system, encode(part), part)
        return in_batches(work, f"{count} views", data, size=4).mean().item()

    return [psnr_of(count) for count in counts]
