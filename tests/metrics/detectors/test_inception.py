"""The detector of FID, without its weights."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from draws import one_sentence
from fieldloom.errors import InputError
from fieldloom.metrics.detectors import Inception
from fieldloom.permit import Permit


def test_inception_without_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.delitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", raising=False)
    with pytest.raises(InputError, match="torch-fidelity and torchvision") as error:
        Inception(permit=Permit(network=True))
    assert one_sentence(error)
    with pytest.raises(InputError, match="no such file") as error:
        Inception("absent.pth")
    assert one_sentence(error)


class Recorder(nn.Module):
    """Stands for the network of torch-fidelity: keeps the calling conventions, not the weights."""

    def __init__(self, name: str, features_list: list[str], weights: str | None) -> None:
        super().__init__()
        assert features_list == ["2048"]
        if weights is None:
            raise OSError("no network")

    def forward(self, images: Tensor) -> tuple[Tensor]:
        assert images.dtype == torch.uint8
        assert images.shape[1] == 3
        return (images.flatten(2)[..., 0].float(),)


def test_inception_speaks_to_its_network(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    module = ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = Recorder
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, module.__name__, module)

    with pytest.raises(InputError, match="name a local file .* or give --network"):
        Inception()
    with pytest.raises(InputError, match="no network") as error:
        Inception(permit=Permit(network=True))
    assert one_sentence(error)
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"not a file of tensors")
    with pytest.raises(InputError, match="cannot be loaded") as error:
        Inception(str(broken))
    assert one_sentence(error)

    good = tmp_path / "good.pth"
    torch.save({}, good)
    images = torch.tensor([-0.1, 0.0, 0.5, 1.0, 1.2])[:, None, None, None].expand(-1, 1, 4, 4)
    found = Inception(str(good))(images.repeat(20, 1, 1, 1))
    assert found.shape == (100, 3)
    assert found[:5, 0].tolist() == [0, 0, 128, 255, 255]
