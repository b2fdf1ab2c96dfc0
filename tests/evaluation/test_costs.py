"""Costs of untrained recipes beside the published ones."""

import pytest

from fieldloom.evaluation.costs import PARTS, cost_row


def test_a_published_number_of_another_system_stands_beside_none():
    """``differs`` of ``gasp:shapenet32``: its learned parameters are of the system for images."""
    row = cost_row("gasp:shapenet32", timed=False)
    assert row["learnable"]["published"] is None
    assert row["learnable"]["ours"] > 0
    assert cost_row("mnif:celebahq64-S", timed=False)["learnable"]["published"] is not None


def parts(name):
    row = cost_row(name, timed=False)
    return {key: row[key]["ours"] for key in PARTS}


def test_an_encoder_and_a_denoiser_are_counted():
    """By hand: 4 patches of 16 pixels and 4 queries of width 12, a code of 4 tokens of 8."""
    found = parts("laginr:tiny")
    block = lambda tokens, width: tokens * width * width * 12 + 2 * tokens * tokens * width
    encoding = 4 * 16 * 12 + block(8, 12) + 4 * 12 * 8
    assert found["encoding"] == pytest.approx(encoding / 1e9)
    call = 4 * 8 * 16 + 256 * 16 + 16 * 16 + block(4, 16) + 16 * 6 * 16 + 16 * 32 + 4 * 16 * 8
    assert found["sampling"] == pytest.approx(50 * call / 1e9)
    assert found["prior"] == 10_056


def test_descent_takes_its_steps_and_a_drawn_code_of_a_generator_nothing():
    """A step of CAVIA: the field of 8 x 8 pixels, its mixture, and their gradients."""
    found = parts("mnif:tiny")
    field, own = 64 * (2 * 8 + 8 * 8 + 8), 4 * (2 * 8 + 8 + 8 * 8 + 8 + 8 + 1) + 8 * 12
    once = 3 * field - 64 * 2 * 8 + 2 * own  # of the bases and the coordinates no gradient
    assert found["encoding"] == pytest.approx(2 * once / 1e9)
    gan = parts("gasp:tiny")
    assert (gan["encoding"], gan["sampling"]) == (0, 0)
    assert parts("weights:tiny")["sampling"] > 0
    assert parts("mnif:digits-experts")["encoding"] is None  # tiles need values


def test_a_prior_of_neighbours_needs_no_data():
    """Their number is not known: ``source.split`` says shares."""
    assert cost_row("gem:tiny", timed=False)["parameters"]["ours"] > 0
