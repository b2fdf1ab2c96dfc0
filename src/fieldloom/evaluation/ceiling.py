"""What a codec loses, on the signal: the best that a prior on its tokens can do."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from fieldloom.errors import InputError
from fieldloom.evaluation import at
from fieldloom.evaluation.batches import in_batches
from fieldloom.evaluation.figures import Evaluation, Figure
from fieldloom.evaluation.reconstruction import pictured, shaped
from fieldloom.modalities import Views, Voxels
from fieldloom.system import System
from fieldloom.types import Code


@torch.no_grad()
def ceiling(system: System, data: torch.Tensor, codes: Code, **meta: Any) -> list[Figure]:
    """Data against what their codes decode to, as fitted (``fitted.``) and through the codec.

    data: as the modality has them, beside the codes that were found from them; meta: what they have
    beside, as for ``System.encode``. PSNR; of shapes also IoU and, of grids, the Chamfer distance.
    ``ceiling.weights`` is the squared error of the codes, of their variance over the codes. Raises
    InputError where there is no codec to measure, and for views.
    """
    if system.prior is None or isinstance(system.modality, Views):
        raise InputError("a ceiling is of a prior's codec, on data that are no views.")
    codec = system.prior.codec
    codes = codes.to(system.device)
    made = in_batches(lambda some: codec.decode(codec.encode(some)), codes, "coding").to(codes)
    lost = (made - codes).square().sum() / (codes - codes.mean(0)).square().sum()
    of = f"{len(data)} training data"
    figures = [Figure("ceiling.weights", lost.item(), of, "squared error, of the variance")]
    shapes = isinstance(system.modality, Voxels)
    how = Evaluation(metrics=("psnr", "iou", "chamfer") if shapes else ("psnr",))
    for name, some in (("fitted", codes), ("ceiling", made)):
        if "coords" in meta:
            raw = in_batches(partial(at, system), some.cpu(), "decoding", coords=meta["coords"])
        else:
            raw = in_batches(system.predict, some.cpu(), "decoding")
        found = pictured(how, data, raw, of, None, "none")
        found += shaped(how, system.modality, data, raw, of)
        figures += [figure._replace(name=f"{name}.{figure.name}") for figure in found]
    return figures
