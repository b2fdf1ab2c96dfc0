"""Data that stay on a device are observed there: nothing mixes, and nothing crosses.

The device is ``meta``, which has shapes alone: what is read of it is an error, too.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fieldloom.modalities import MODALITIES
from fieldloom.modalities.grid import Context
from fieldloom.types import Cameras, Data


class Crossings(TorchDispatchMode):
    """Refuses operations of tensors on several devices, and counts copies between devices."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        made = func(*args, **kwargs or {})
        if func.overloadpacket.__name__ in ("_to_copy", "copy_"):
            self.count += given[-1].device != made.device
        else:
            places = {x.device for x in given if x.ndim}
            assert len(places) <= 1, f"{func} of tensors on {places}"
        return made


def there(*shape):
    return torch.rand(*shape).to("meta")


def grids(name, *shape, **how):
    modality = MODALITIES[name](size=shape[2:], **how)
    return modality, Data(there(*shape), index=torch.arange(shape[0]).to("meta"))


def views(**how):
    modality = MODALITIES["views"](size=8, **how)
    orbit = modality.cameras(5)
    c2w = orbit.c2w.expand(2, -1, -1, -1).float().to("meta")
    cameras = Cameras(c2w, orbit.intrinsics.expand(2, -1, -1).to("meta"))
    return modality, Data(there(2, 5, 3, 8, 8), cameras, index=torch.arange(2).to("meta"))


def samples():
    return MODALITIES["points"](), Data(there(3, 50, 1), coords=there(3, 50, 3))


CASES = {
    "image": lambda: grids("image", 3, 3, 8, 8),
    "hidden": lambda: grids("image", 3, 3, 8, 8, context=Context(hide=(0.1, 0.5))),
    "smaller": lambda: grids("image", 3, 3, 8, 8, context=Context(size=4)),
    "sphere": lambda: grids("sphere", 3, 1, 8, 16),
    "video": lambda: grids("video", 2, 3, 4, 8, 8),
    "points": samples,
    "views": lambda: views(held=1),
    "support": lambda: views(held=1, support=(1, 3), query=1),
    "patches": lambda: views(patch=4),
}
HOW = {
    "all": {},
    "few": {"points": 5},
    "together": {"points": 5, "together": True},
    "both": {"points": 5, "keep_grid": True},
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("case", CASES)
def test_data_on_a_device_are_observed_there(case, how):
    modality, data = CASES[case]()
    modality.observe(data, **HOW[how])  # which may bring a grid there
    with Crossings() as crossings:
        batch = modality.observe(data, **HOW[how])
    for signal in (batch.context, batch.target):
        for tensor in (signal.coords, signal.values, signal.index, signal.mask):
            assert tensor is None or tensor.device.type == "meta"
    if case != "support":  # whose views are chosen on the processor, where cameras are
        assert crossings.count == 0


def test_a_sphere_has_the_same_points_kept_or_not(monkeypatch):
    modality = MODALITIES["sphere"](size=(8, 16))
    data = Data(torch.rand(3, 1, 8, 16))
    kept = modality.observe(data, 20, torch.Generator().manual_seed(0)).target
    monkeypatch.setattr(MODALITIES["sphere"].func, "_grid_like", None)
    where = torch.unravel_index(torch.arange(128), (8, 16))
    whole = modality._combine_axes(modality._axis_coords((8, 16)), where)
    assert all((whole == point).all(-1).any() for point in kept.coords.flatten(0, 1))
