"""Metrics of sets of images: the detector that is chosen, and what figures say of themselves."""

from __future__ import annotations

import pytest
import torch

from draws import normal, uniform
from fieldloom.errors import InputError
from fieldloom.evaluation.image_sets import (
    build_detector,
    describe_frechet,
    feature_set_metrics,
    image_set_metrics,
)
from fieldloom.metrics import detectors
from fieldloom.metrics.detectors import Gabor
from fieldloom.metrics.sets import prdc
from fieldloom.settings import Evaluation

SETS = ("frechet", "kid", "precision-recall", "density-coverage")


def asked(*metrics: str, **own) -> Evaluation:
    return Evaluation(metrics=metrics, **own)


def test_the_default_is_as_good_as_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detectors, "is_installed", lambda: True)
    assert detectors.choose_detector() == "efficientnet-lite0"
    monkeypatch.setattr(detectors, "is_installed", lambda: False)
    with pytest.warns(UserWarning, match=r"'gabor': pip install 'fieldloom\[detector\]'"):
        assert isinstance(build_detector(asked("kid"), 9), Gabor)


def test_a_recipe_gets_the_detector_that_it_names(recwarn: pytest.WarningsRecorder) -> None:
    assert isinstance(build_detector(asked("kid", detector="gabor"), 9), Gabor)
    assert build_detector(asked("psnr", detector="gabor"), 9) is None
    assert not recwarn.list
    with pytest.raises(InputError, match="unknown detector 'fid'"):
        asked("kid", detector="fid")


@pytest.mark.parametrize(("metric", "least"), [("kid", 3), ("density-coverage", 5)])
def test_few_images_are_too_few(metric: str, least: int) -> None:
    settings = asked(metric, detector="gabor")
    with pytest.warns(UserWarning, match=f"more than {least} data"):
        assert build_detector(settings, least) is None
    detector = build_detector(settings, least + 1)
    images = uniform(2, least + 1, 1, 8, 8).float()
    made = [detector(images[1])]
    assert image_set_metrics(settings, detector, [images[0]], made, "x", "none")


def test_figures_say_how_they_were_measured() -> None:
    true, made = normal(40, 6), normal(30, 6, seed=1) + 1
    found = feature_set_metrics(SETS, Gabor(), true, made, "30 of 40", "none")
    values, hows = {x.name: x.value for x in found}, {x.name: x.how for x in found}
    assert list(values) == ["frechet", "kid", "kid.error", "precision", "recall", "f1",
                            "density", "coverage"]  # fmt: skip
    near, wide = prdc(true, made, 3), prdc(true, made, 5)
    assert (values["recall"], values["coverage"]) == (near["recall"], wide["coverage"])
    assert (hows["recall"][-5:], hows["coverage"][-5:]) == ("k = 3", "k = 5")
    assert all("gabor" in how for name, how in hows.items() if name != "kid.error")
    alone = feature_set_metrics(["precision-recall"], Gabor(), true, made, "x", "none")
    assert {x.name: x.value for x in alone} == near


def test_a_frechet_distance_of_few_images_says_so() -> None:
    assert "biased" in describe_frechet(Gabor(), "none", 200, 448)
    assert "biased" not in describe_frechet(Gabor(), "none", 500, 448)
    found = feature_set_metrics(["frechet"], Gabor(), torch.rand(4, 9), torch.rand(5, 9), "x", "")
    assert "4 images of 9 features" in found[0].how
