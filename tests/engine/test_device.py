"""Devices by their names."""

import pytest
import torch

from fieldloom.engine import device as devices
from fieldloom.errors import InputError


def test_a_device_is_picked_by_its_name():
    assert devices.pick("cpu") == torch.device("cpu")
    if not torch.accelerator.is_available():
        assert devices.pick() == torch.device("cpu")


@pytest.mark.parametrize("name", ["abacus", "cpu:x", "cpu:-1", ""])
def test_a_device_that_there_is_not(name):
    with pytest.raises(InputError, match=f"device '{name}' is not available here; there are: auto"):
        devices.pick(name)


@pytest.mark.parametrize("kind", ["cuda", "mps", "xpu"])
def test_any_maker_s_accelerator_is_picked(kind, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device(kind))
    assert devices.pick() == torch.device(kind)
    assert devices.pick(f"{kind}:1") == torch.device(kind, 1)
    with pytest.raises(InputError, match=f"there are: auto, {kind}, cpu"):
        devices.pick("abacus")
