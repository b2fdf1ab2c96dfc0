"""PSNR of held-out views by the number of support views."""

import pytest
import torch

import fieldloom
from fieldloom.errors import InputError
from fieldloom.evaluation.views import psnr_by_support
from fieldloom.metrics.paired import psnr
from fieldloom.types import Data


def test_support_is_measured_on_held_out_views(scenes):
    system, data = scenes
    found = psnr_by_support(system, data, [1, 3])
    for count, said in zip((1, 3), found, strict=True):
        values = []
        for i in range(2):
            datum = data.part([i])
            code = system.encode_signal(system.modality.support(datum, count))
            made = system.predict(code, cameras=datum.cameras.views([4])).tensor[0, 0]
            values.append(psnr(made[None], data.tensor[i, 4][None]).item())
        assert said == pytest.approx(sum(values) / 2, rel=1e-5)
    assert found[0] != pytest.approx(found[1], abs=1e-6)
    with pytest.raises(InputError, match="5 views, and only 4"):
        psnr_by_support(system, data, [5])
    with pytest.raises(InputError, match="has no views that are held out"):
        psnr_by_support(fieldloom.build("functa", "tiny"), Data(torch.rand(2, 1, 8, 8)), [1])
