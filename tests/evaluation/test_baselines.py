"""Baselines beside samples."""

from __future__ import annotations

import pytest
import torch
from torch import Generator

from fieldloom.errors import InputError
from fieldloom.evaluation.baselines import baseline_codes


def test_baselines_are_what_they_say():
    mixing = torch.tensor([[2.0, 0.0, 0.0], [1.0, 0.5, 0.0], [0.0, -1.0, 0.1]])
    known = (torch.randn(4000, 3) @ mixing.T + torch.tensor([5.0, 0.0, -5.0]))[:, None]
    made = baseline_codes(known, torch.ones(1, 1, 3), 4000, 1.0, Generator().manual_seed(0))
    assert {name: code.shape for name, code in made.items()} == dict.fromkeys(
        ("start", "noise", "gaussian", "fields"), (4000, 1, 3)
    )
    assert (made["start"] == 1).all()
    assert sorted(made["fields"][:, 0, 0].tolist()) == sorted(known[:, 0, 0].tolist())
    drawn, flat = made["gaussian"][:, 0], known[:, 0]
    torch.testing.assert_close(drawn.mean(0), flat.mean(0), atol=0.15, rtol=0)
    torch.testing.assert_close(drawn.T.cov(), flat.T.cov(), atol=0.2, rtol=0.1)
    spread = made["noise"].var(0)[0] / flat.var(0)
    torch.testing.assert_close(spread, torch.full((3,), 2.0), atol=0.1, rtol=0)


def test_noise_is_added_to_each_number_by_its_own_deviation():
    known = torch.randn(50, 2, 100) * torch.tensor([1e-3, 10.0])[:, None]
    known[:, :, 7] = 0  # padding
    made = baseline_codes(known, known[:1], 50, 0.1, Generator().manual_seed(0))
    base = baseline_codes(known, known[:1], 50, 0.0, Generator().manual_seed(0))
    assert {tuple(x) for x in base["noise"].flatten(1).tolist()} == {
        tuple(x) for x in known.flatten(1).tolist()
    }
    added = (made["noise"] - base["noise"]) / known.std(0).clamp_min(1e-9)
    assert added[:, :, 7].eq(0).all()
    assert added.std().item() == pytest.approx(0.1, rel=0.03)
    assert not torch.equal(base["noise"], base["fields"])  # other draws


def test_a_gaussian_of_few_codes_stays_in_their_span():
    known = torch.randn(5, 1, 100)
    drawn = baseline_codes(known, known[:1], 5, 0.1)["gaussian"][:, 0]
    centred = (known - known.mean(0))[:, 0]
    inside = torch.linalg.lstsq(centred.T, (drawn - known.mean(0)[0]).T).solution
    torch.testing.assert_close(centred.T @ inside, (drawn - known.mean(0)[0]).T, atol=1e-4, rtol=0)
    known = torch.randn(20, 1, 3000)
    drawn = baseline_codes(known, known[:1], 20)["gaussian"] - known.mean(0)
    energy = drawn.square().sum(2).mean() / known.var(0).sum()
    assert energy.item() == pytest.approx(1, abs=0.3)
    for ask in (dict(count=21), dict(count=2, noise=-1.0)):
        with pytest.raises(InputError, match="at least 2 and as many"):
            baseline_codes(known, known[:1], **ask)
