"""PSNR against time: what is measured, when, and of which data."""

import math

import pytest
import torch

import fieldloom
from fieldloom.encoders import Fit
from fieldloom.errors import InputError
from fieldloom.evaluation.influence import draw_tokens
from fieldloom.evaluation.learning_curves import Curve
from fieldloom.evaluation.timing import (
    Budget,
    Rates,
    mean_curve,
    measured_steps,
    psnr_against_time,
    random_network,
)
from fieldloom.metrics.paired import psnr


def test_marks_go_from_the_first_to_the_last_step():
    for steps in (0, 1, 7, 100, 1000):
        marks = measured_steps(steps)
        assert marks[0] == 0
        assert marks[-1] == steps
        assert marks == sorted(set(marks))
        assert len(marks) <= 34


def test_curves_are_averaged_as_far_as_all_come():
    a, b = (
        Curve([0, 2, 5], [0.0, 1.0, 3.0], [10.0, 20.0, 30.0]),
        Curve([0, 2], [1.0, 2.0], [20.0, 24.0]),
    )
    assert mean_curve([a, b]) == Curve([0, 2], [0.5, 1.5], [15.0, 22.0])


@pytest.mark.parametrize(("name", "of_codes"), [("functa", 1e-3), ("laginr", None)])
def test_four_ways_to_a_field(name, of_codes, images):
    """All begin where they should, and what is measured after the last step is what is there."""
    system, images = fieldloom.build(name, "tiny"), images.part([0, 1])
    found = psnr_against_time(
        system, images, Budget(6, math.inf), Rates(of_codes, 1e-4, 1e-3), width=16
    )
    assert list(found) == ["encoder", "codes", "weights", "scratch"]
    encoded = psnr(system.predict(system.encode(images)).tensor, images.tensor).mean().item()
    for what in ("encoder", "codes", "weights"):
        assert found[what].psnr[0] == pytest.approx(encoded, abs=1e-3)
    assert found["encoder"].steps == [0]
    for what, rate in (("codes", of_codes), ("weights", 1e-4)):
        refined = system.refine(images, what, 6, rate, 64)
        assert found[what].steps == [0, 1, 2, 3, 4, 5, 6]
        assert found[what].psnr[-1] == pytest.approx(refined.after.mean().item(), abs=1e-3)
    assert found["scratch"].psnr[-1] > found["scratch"].psnr[0]


def test_a_network_from_scratch_fits_a_picture(images):
    system = fieldloom.build("functa", "tiny")
    other, code = random_network(system, width=32)
    sizes = [64 * 32 + 32, 32 * 32 + 32, 32 * 32 + 32, 32 + 1]  # 32 cosines and 32 sines first
    assert code.shape == (1, 1, sum(sizes))
    signal = system.modality.encoding(images.part([0]))
    fitted = Fit(150, 3e-3)(signal, other.family, other.render, other.loss_fn)
    assert other.fidelity(fitted, signal).item() > 25
    assert not torch.equal(code, random_network(system, width=32, seed=1)[1])


def test_a_budget_of_no_seconds_measures_only_the_beginning(images):
    system = fieldloom.build("functa", "tiny")
    found = psnr_against_time(system, images.part([0]), Budget(9, 0.0), width=8)
    assert all(curve.steps == [0] for curve in found.values())


def test_time_is_of_grids_with_codes(scenes, images):
    with pytest.raises(InputError, match="grids"):
        psnr_against_time(*scenes)
    bare = fieldloom.build("functa", "tiny", conditioner="shared", encoder="nothing", prior="none")
    for ask in (lambda: psnr_against_time(bare, images), lambda: draw_tokens(bare, 1)):
        with pytest.raises(InputError, match="have no codes"):
            ask()
