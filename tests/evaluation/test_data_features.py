"""Features of data in the cache."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from draws import uniform
from fieldloom.evaluation import data_features as kept
from fieldloom.evaluation.data_features import FEW, gather_features
from fieldloom.metrics.detectors import Detector, Gabor
from fieldloom.metrics.sets import Moments, frechet


class Counted:
    """A detector of two numbers that counts the images that it has seen."""

    name, filter, metric, identity = "counted", "none", "frechet", "one"

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return images.flatten(1)[:, :2].clone()


def data_features(detector: Detector, parts: list[Tensor]) -> Tensor:
    """Those of all parts."""
    return torch.cat(list(kept.data_features(detector, parts)))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIELDLOOM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_features_of_data_are_computed_once(cache: Path) -> None:
    detector, images, few = Counted(), uniform(FEW + 1, 1, 2, 2), uniform(5, 1, 2, 2)
    for _ in range(2):
        found = data_features(detector, [images, few])
        assert torch.equal(found, torch.cat([images, few]).flatten(1)[:, :2])
    assert detector.seen == len(images) + 2 * len(few)  # few are not kept
    data_features(detector, [images + 1])
    detector.identity = "two"
    data_features(detector, [images])
    assert detector.seen == 3 * len(images) + 2 * len(few)
    assert len(list(cache.iterdir())) == 3


def test_damaged_features_are_computed_again(cache: Path) -> None:
    detector, images = Counted(), uniform(FEW + 1, 1, 2, 2)
    true = data_features(detector, [images])
    (file,) = cache.iterdir()
    content = bytearray(file.read_bytes())
    for damaged in (content[:40], bytes(content[:-1]) + b"\0", b""):
        file.write_bytes(damaged)
        assert torch.equal(data_features(detector, [images]), true)
    assert detector.seen == 4 * len(images)


def test_a_cache_that_cannot_be_written_costs_only_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FIELDLOOM_CACHE", str(tmp_path / "file"))
    images = uniform(FEW + 1, 1, 8, 8)
    assert torch.equal(data_features(Gabor(), [images]), Gabor()(images))


def test_moments_stand_for_many_features(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frechet distances of sets whose features were never together, and of fewer than features."""
    monkeypatch.setattr(kept, "HELD", 100)
    for count in (301, 40):
        real, fake = uniform(count, 8), 0.5 + uniform(count, 8) ** 2
        parts = real.split(12), fake.split(60)
        joined = [gather_features(iter(x), True) for x in parts]
        assert isinstance(joined[0], Moments)
        assert frechet(*joined) == pytest.approx(frechet(real, fake), rel=1e-10)
        assert frechet(joined[0], real) == pytest.approx(0, abs=1e-12)
        assert torch.equal(gather_features(iter(parts[0]), False), real)
