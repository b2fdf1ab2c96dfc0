"""What a codec costs, measured on the signal."""

from __future__ import annotations

import torch

from fieldloom import recipe as recipes
from fieldloom.evaluation import evaluator_of
from fieldloom.evaluation.upper_bound import codec_upper_bound
from fieldloom.modalities.sources import Source
from fieldloom.types import Data
from weights import some


def test_the_ceiling_of_shapes() -> None:
    """IoU and Chamfer of grids, IoU of scattered points."""
    from fieldloom.assembly import build as assemble

    recipe = recipes.load("weights:tiny")
    changed = recipe | {
        "modality": {"name": "voxel", "size": 8, "range": "unit"},
        "objective": "reconstruction",
        "encoder": "nothing",
        "prior": {"name": "autoregressive", "codec": "quantize", "width": 16},
    }
    for modality in ("voxel", "points"):
        changed["modality"] = changed["modality"] | {"name": modality}
        system = assemble(changed)
        codes = some(system.family.conditioner, 5)
        system.prior.fit(codes, start=system.family.conditioner.origin(1)[0].detach())
        grid = modality == "voxel"
        coords = torch.rand(5, 30, 3) * 2 - 1
        data = system.predict(codes) if grid else Data(torch.rand(5, 30, 1), coords=coords)
        own = evaluator_of(system, Source(data, (), torch.arange(5), torch.arange(0)))
        found = {f.name: f.value for f in codec_upper_bound(own, data, codes)}
        metrics = {"psnr", "iou"} | ({"chamfer", "empty"} if grid else set())
        names = {f"{kind}.{name}" for kind in ("fitted", "ceiling") for name in metrics}
        assert set(found) == names | {"ceiling.weights"}
        if grid:
            assert found["fitted.iou"] == 1 >= found["ceiling.iou"]
