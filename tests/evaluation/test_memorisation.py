"""What was copied: the nearest training data and codes."""

from __future__ import annotations

import math

import pytest
import torch

from compared_sets import clouds, far, pictures, without
from fieldloom.evaluation.measures import MEASURES
from fieldloom.evaluation.memorisation import (
    NearestNeighbours,
    Novelty,
    nearest_codes,
    nearest_in_parts,
)


@pytest.mark.parametrize("measure", MEASURES)
def test_the_nearest_signals(measure):
    make = clouds if measure == "chamfer" else pictures
    queries, known = without(make(5, seed=1), 2), without(make(9, seed=2), 4)
    queries[3] = known[7]
    (found,) = nearest_in_parts([queries], known.split(4), measure)
    (whole,) = nearest_in_parts([queries], [known], measure)
    assert all(map(torch.equal, found, whole))
    for i, query in enumerate(queries):
        each = [far(query, one, measure) for one in known]
        place = -1 if i == 2 else each.index(min(each))
        assert found.indices[i] == place
        assert found.distances[i].item() == pytest.approx(min(each), rel=1e-6)
    assert (found.indices[2], found.distances[2]) == (-1, math.inf)
    assert (found.indices[3], found.distances[3]) == (7, 0)


def test_the_nearest_codes():
    queries, known = torch.randn(5, 2, 3), torch.randn(9, 2, 3)
    queries[1], queries[4, 0, 0] = known[6], math.nan
    found = nearest_codes(queries, known)
    for i in range(4):
        each = [(queries[i] - one).double().square().sum().sqrt().item() for one in known]
        assert found.indices[i] == each.index(min(each))
        assert found.distances[i].item() == pytest.approx(min(each), rel=1e-6)
    assert found.distances[1] == 0
    assert (found.indices[4], found.distances[4]) == (-1, math.inf)


def test_novelty_is_beside_held_out_fields():
    near = lambda *x: NearestNeighbours(
        torch.tensor(x, dtype=torch.float64), torch.zeros(len(x)).long()
    )
    found = Novelty(near(0.0, 1.0, math.inf), near(2.0, 4.0, 8.0))
    assert (found.ratio, found.nearer) == (0.25, pytest.approx(2 / 3))
    alone = Novelty(near(0.0), None)
    assert math.isnan(alone.ratio)
    assert math.isnan(alone.nearer)
