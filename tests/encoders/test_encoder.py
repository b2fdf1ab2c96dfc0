"""What encoders state about themselves."""

import pytest

from fieldloom.conditioners import FlatWeights, Shared
from fieldloom.encoders import AutoDecode, Cavia, Fit, Nothing
from fieldloom.family import Family
from fieldloom.modalities import MODALITIES
from fits import family


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
