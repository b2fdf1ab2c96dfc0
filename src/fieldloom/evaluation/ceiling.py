"""What a codec loses, on the signal: the best that a prior on its tokens can do."""

from __future__ import annotations

import torch

from fieldloom.errors import InputError
from fieldloom.evaluation.batches import in_batches
from fieldloom.evaluation.evaluator import Evaluator
from fieldloom.evaluation.figures import Figure
from fieldloom.settings import Evaluation
from fieldloom.types import Code, Data


@torch.no_grad()
def codec_upper_bound(own: Evaluator, data: Data, codes: Code) -> list[Figure]:
    """Data against what their codes decode to, as fitted (``fitted.``) and through the codec.

    data: beside the codes that were found from them. PSNR; of shapes also IoU and, of grids, the
    Chamfer distance. ``ceiling.weights`` is the squared error of the codes, of their variance over
    the codes. Raises InputError where there is no codec to measure, and for views.
    """
    system = own.system
    if system.prior is None or own.ceiling is None:
        raise InputError("a ceiling is of a prior's codec, on data that are no views.")
    codec = system.prior.codec
    codes = codes.to(system.device)
    made = in_batches(lambda some: codec.decode(codec.encode(some)), "coding", codes).to(codes)
    lost = (made - codes).square().sum() / (codes - codes.mean(0)).square().sum()
    of = f"{len(data)} training data"
    figures = [Figure("ceiling.weights", lost.item(), of, "squared error, of the variance")]
    own = type(own)(system, own.source, Evaluation(metrics=own.ceiling))
    for name, some in (("fitted", codes), ("ceiling", made)):
        raw = in_batches(system.predict_at, "decoding", some.cpu(), data)
        found = own.paired(data.tensor, raw, of, None)
        figures += [figure._replace(name=f"{name}.{figure.name}") for figure in found]
    return figures
