"""What encoders state about themselves, and refinement as an encoder: ``Fit`` begun at codes."""

from dataclasses import replace

import pytest
import torch

from fieldloom import recipe
from fieldloom.conditioners import FlatWeights, Mixture, Shared
from fieldloom.encoders import AutoDecode, Cavia, Encoder, Fit, Nothing, Plateau, refine, stacks
from fieldloom.errors import InputError
from fieldloom.family import Family
from fieldloom.fields import Siren
from fieldloom.metrics.losses import mse
from fieldloom.modalities import MODALITIES
from fieldloom.renderers import Direct
from fieldloom.types import Signal

POINTS = 12
HOW = (Direct(), mse)


def family() -> Family:
    torch.manual_seed(0)
    field = Siren(2, 1, width=6, depth=3, frequency=4.0)
    return Family(field, Mixture(field.slots, experts=3, width=4)).double()


def signals(count: int = 3) -> Signal:
    coords = torch.rand(count, POINTS, 2, dtype=torch.float64) * 2 - 1
    values = torch.randn(count, POINTS, 1, dtype=torch.float64)
    return Signal(coords, values, torch.arange(count))


class Given(Encoder):
    """Codes by the signals' indices."""

    def __init__(self, codes):
        super().__init__()
        self.codes = codes

    def forward(self, signal, family, render, loss_fn):
        return self.codes[signal.index]


# -- how many signals at a time


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (dict(signals=100, points=64, batch=32), 32),
        (dict(signals=100, points=64, batch=32, micro=8), 8),
        (dict(signals=5, points=64, batch=32, micro=8), 8),
        (dict(signals=100, points=64, batch=32, micro=8, trained_points=64), 8),
        (dict(signals=100, points=64, batch=32, micro=8, trained_points=16), 2),
        (dict(signals=100, points=16, batch=32, micro=8, trained_points=64), 8),
        (dict(signals=100, points=10**6, batch=32, micro=8, trained_points=16), 1),
    ],
)
def test_a_micro_batch_of_encoding_holds_no_more_points_than_one_of_training(given, expected):
    assert Nothing().batch_size(**given) == expected


def test_encoders_that_split_batches_take_all_and_coupled_codes_the_training_batch():
    given = dict(points=64, batch=32, micro=8, trained_points=16)
    for encoder in (Fit(), AutoDecode((1, 4), 3)):
        assert encoder.batch_size(100, **given) == 100
        assert encoder.batch_size(0, **given) == 1
    coupled = Cavia((1, 4), reduction="batch")
    assert coupled.batch_size(100, **given) == 32
    assert Fit(start=coupled).batch_size(100, **given) == 32


def test_what_a_code_costs():
    assert Nothing().point_evaluations(50) == 50
    assert Fit(20).point_evaluations(50) == 1000
    assert Fit(20, points=8).point_evaluations(50) == 160


def test_codes_among_the_parameters_of_an_encoder():
    table = AutoDecode((1, 4), 3)
    assert [x.shape for x in table.code_parameters()] == [(3, 1, 4)]
    assert Cavia((1, 4)).code_parameters() == []


def test_a_family_without_codes():
    field = family().field
    assert family().has_code
    assert Family(field, FlatWeights(field.slots)).has_code
    assert not Family(field, Shared(field.slots)).has_code


def test_rays_of_views_are_no_points_of_a_grid():
    made = {name: make() for name, make in MODALITIES.items()}
    stated = {name for name, one in made.items() if one.grid_dim != one.coord_dim}
    assert stated == {"views"}


# -- from given codes, step by step


def test_refinement_is_a_fit_that_starts_at_the_encoders_answer():
    own, signal, codes = family(), signals(), torch.randn(3, 1, 4, dtype=torch.float64)
    for how in (dict(keep="best"), dict(keep="last", points=5, draw="anew")):
        started = Fit(6, 0.05, start=Given(codes), **how)(signal, own, *HOW)
        assert torch.equal(Fit(6, 0.05, **how).refine(codes, signal, own, *HOW), started)
    assert torch.equal(Fit(0).refine(codes, signal, own, *HOW), codes)


def test_given_codes_go_to_their_stacks(monkeypatch):
    own, signal, codes = family(), signals(5), torch.randn(5, 1, 4, dtype=torch.float64)
    fit, seen = Fit(4, 0.05), []
    whole = fit.refine(codes, signal, own, *HOW)
    monkeypatch.setattr(stacks, "CPU_LAYER", 2 * 4 * 6 * POINTS)  # stacks of two
    parts = fit.refine(codes, signal, own, *HOW, on_step=seen.append)
    torch.testing.assert_close(parts, whole)
    assert [at.step for at in seen] == [0, 1, 2, 3, 4] * 3
    assert torch.equal(torch.cat([at.code for at in seen if at.step == 0]), codes)
    assert [len(at.losses) for at in seen if at.step == 0] == [2, 2, 1]


def test_a_descent_ends_where_it_is_told_to():
    own, signal = family(), signals()
    for keep in ("best", "last"):
        told = Fit(50, 0.05, keep=keep)(signal, own, *HOW, on_step=lambda at: at.step == 3)
        assert torch.equal(told, Fit(3, 0.05, keep=keep)(signal, own, *HOW))


def test_only_signals_that_go_on_are_told_of():
    own, signal = family(), signals()
    signal = replace(signal, values=torch.full_like(signal.values, torch.nan))
    seen = []
    Fit(9, 0.05, plateau=Plateau(stop=2))(signal, own, *HOW, on_step=seen.append)
    assert [at.step for at in seen] == [0, 1]  # a loss that is no number is never a new lowest


def test_codes_whose_quality_did_not_rise_stay():
    own, signal, codes = family(), signals(), torch.randn(3, 1, 4, dtype=torch.float64)
    rise = torch.tensor([1.0, 0.0, -1.0])
    quality = lambda _, code, __: torch.zeros(3) if torch.equal(code, codes) else rise
    found = refine(codes, signal, own, *HOW, quality, steps=2)
    assert found.family is own
    assert [torch.equal(a, b) for a, b in zip(found.code, codes, strict=True)] == [
        False,
        True,
        True,
    ]
    assert found.before.tolist() == [0, 0, 0]
    assert found.after.tolist() == [1, 0, 0]


@pytest.mark.parametrize("wrong", [dict(steps=-1), dict(rate=0.0), dict(points=0)])
def test_refinement_takes_no_wrong_numbers(wrong):
    codes = torch.zeros(3, 1, 4, dtype=torch.float64)
    with pytest.raises(InputError, match="refine: steps"):
        refine(codes, signals(), family(), *HOW, lambda *_: torch.zeros(3), **wrong)


# -- old recipes


def test_the_old_key_of_the_mask_channel_is_read():
    with pytest.warns(match="encoder.known.*is now.*encoder.mask_channel"):
        old = recipe.load("laginr:tiny", ["encoder.known=true"])
    assert old["encoder"]["mask_channel"] is True
    assert "known" not in old["encoder"]
