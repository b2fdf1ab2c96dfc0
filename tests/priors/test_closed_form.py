"""The prior that mixes neighbouring codes."""

import pytest
import torch

from fieldloom.errors import InputError
from fieldloom.priors import Neighbours


def test_neighbours_mixes_a_code_with_the_nearest_of_its_own():
    """Every sample is a convex combination of one code and its two nearest others."""
    codes = torch.randn(7, 1, 8)
    prior = Neighbours((1, 8), 7, neighbours=3)
    prior.fit(codes)
    flat, starts = codes.flatten(1), set()
    cliques = {
        i: sorted(range(7), key=lambda j, i=i: (flat[i] - flat[j]).norm().item())[:3]
        for i in range(7)
    }
    for sample in prior.sample(60).flatten(1):
        fitting = []
        for i, clique in cliques.items():
            shares = torch.linalg.lstsq(flat[clique].T, sample[:, None]).solution[:, 0]
            rest = (shares @ flat[clique] - sample).norm()
            if rest < 1e-4 and abs(shares.sum() - 1) < 1e-4 and shares.min() > -1e-4:
                fitting.append(i)
        assert fitting
        starts |= {fitting[0]} if len(fitting) == 1 else set()
    assert len(starts) >= 2


def test_one_neighbour_gives_training_codes_back():
    """As GEM's released class does."""
    codes = 30 + 1e-3 * torch.randn(7, 1, 8)  # by a matrix product all would be as near
    prior = Neighbours((1, 8), 7, neighbours=1)
    prior.fit(codes)
    drawn = prior.sample(100).flatten(1)
    apart = (drawn[:, None] - codes.flatten(1)).abs().amax(2)
    assert apart.amin(1).max() == 0
    assert len(apart.argmin(1).unique()) == 7


@pytest.mark.parametrize(
    "neighbours",
    [-1, 0, 8],
)
def test_as_many_neighbours_as_there_are_codes(neighbours):
    prior = Neighbours((1, 8), 7)
    prior.fit(torch.randn(7, 1, 8))
    with pytest.raises(InputError, match="neighbours"):
        prior.sample(2, neighbours=neighbours)
