"""Posed views: those that were seen, those that were held out, and views of samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor

from fieldloom.errors import InputError
from fieldloom.evaluation.batches import in_batches, part_size, read_parts
from fieldloom.evaluation.evaluator import Evaluator
from fieldloom.evaluation.free_space import free_space_scores
from fieldloom.evaluation.reconstruction import image_scores
from fieldloom.evaluation.results import Metric, Reconstruction
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

    def reconstruct_part(self, data: Data) -> Reconstruction:
        """The seen views of some objects and, as ``novel.``, those that were held out."""
        codes = in_batches(self.system.encode, "encoding", data)
        seen = self.views.select_seen(data)
        raw = self.render(codes, seen)
        true, asked, held = seen.tensor, self.settings.metrics, bool(self.views.held)
        of = f", {seen.shape[1]} views each" if held else ""
        pair = true.flatten(0, 1), raw.flatten(0, 1)
        scores = [x._replace(of=of) for x in image_scores(asked, *pair, unit="view")]
        if "free-space" in asked:
            scores += free_space_scores(self.system, self.views, codes, data)
        if not held:
            return Reconstruction(codes, true, raw, scores)
        novel = self.views.select_held_out(data)
        raw = self.render(codes, novel)
        true, of = novel.tensor, f", {novel.shape[1]} held-out views each"
        pair = true.flatten(0, 1), raw.flatten(0, 1)
        scores += [x._replace(of=of) for x in image_scores(asked, *pair, "novel.", "view")]
        features = self.paired_features(*pair, "novel.", of)
        return Reconstruction(codes, true, raw, scores, features)

    def render(self, codes: Code, data: Data) -> Tensor:
        """Each code rendered at the cameras of its datum, not clamped; a single one by views."""
        if len(codes) == 1:
            each = (select_views(data, slice(i, i + 1)) for i in range(data.shape[1]))
            views = track(each, "rendering", data.shape[1], "views")
            return torch.cat([self.system.predict_at(codes, one).tensor for one in views], 1)
        return in_batches(self.system.predict_at, "rendering", codes, data, size=4)

    def decode_part(self, codes: Code, first: int = 0) -> Tensor:
        """Samples rendered at the cameras of held-out objects, in turn. first: their number."""
        places = torch.arange(first, first + len(codes)) % len(self.held_out)
        cameras = self.source.data.part(self.held_out[places]).cameras
        assert cameras is not None
        seen = Data(torch.empty(len(codes), cameras.count, 0), cameras)
        look = lambda some, own: self.system.decode(some, cameras=own.cameras)
        return in_batches(look, "sampling", codes, seen, size=8)

    @property
    def samples_at_a_time(self) -> int:
        return part_size(self.source.data.shape[1:])

    def sample_metrics(
        self, codes: Code, samples: Tensor, training: Iterable[Tensor]
    ) -> list[Metric]:
        if self.detector is None:
            return []
        views = lambda parts: (x.flatten(0, 1) for x in parts)
        each = self.source.data.shape[1]
        drawn, held_out = each * len(codes), each * len(self.held_out)
        of = f"{drawn} images of {len(codes)} samples, {held_out} views of held-out objects"
        real = views(read_parts(self.source, self.held_out))
        return self.image_set_metrics(real, self.describe_parts(codes, samples), of)

    def describe_part(self, samples: Tensor) -> Tensor | None:
        return super().describe_part(samples.flatten(0, 1))

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
        work = lambda part: psnr_of_held_out(system, encode(part), part.as_float())
        return in_batches(work, f"{count} views", data, size=4).mean().item()

    return [psnr_of(count) for count in counts]
