"""Codebooks: nearest entries, round trips, what more entries are worth."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from fieldloom.codecs import CODECS, Quantize, quantize
from fieldloom.errors import InputError
from fieldloom.priors import PRIORS
from vectors import load, same
from weights import some, weights

CUTS = ("scalar", "row", "neuron")


def test_published_tokens() -> None:
    vectors = load("nefgpt_tokens")
    codebook = vectors["codebook"].sort()
    codec = Quantize((1, 40), codebook_size=15).double()
    codec.center.copy_(vectors["theta_init"])
    codec.books.copy_(codebook.values.view(1, 1, 15, 1))
    tokens = codec.encode(vectors["theta"].view(1, 1, 40))
    assert codebook.indices[tokens[0, :, 0]].tolist() == vectors["tokens"].tolist()
    same(codec.decode(tokens).flatten(), vectors["theta_hat"])


QUANTIZERS = [
    dict(token=token, per=per, levels=levels)
    for token in CUTS
    for per in ("all", "layer")
    for levels in (1, 2)
]


@pytest.mark.parametrize("own", QUANTIZERS, ids=lambda own: "-".join(map(str, own.values())))
@pytest.mark.parametrize("center", ["start", "mean", "none"])
def test_tokens_round_trip(own: dict, center: str) -> None:
    conditioner = weights(7)
    codes, start = some(conditioner), conditioner.origin(1)[0].detach()
    codec = Quantize(
        conditioner.code_shape, conditioner.layout, codebook_size=9, center=center, **own
    )
    codec.fit(codes, start=start)
    tokens = codec.encode(codes)
    vocabulary = codec.vocabulary
    assert tokens.shape == (60, *vocabulary.codebook.shape)
    assert 0 <= int(tokens.min()) <= int(tokens.max()) < vocabulary.size == 9
    layers = 3 if own["per"] == "layer" else 1
    assert vocabulary.codebooks == layers * own["levels"] == vocabulary.codebook.max() + 1
    made = codec.decode(tokens)
    if own["levels"] == 1:  # what is made of tokens is read as the same tokens
        same(codec.decode(codec.encode(made)), made, rtol=1e-5, atol=1e-6)
    center = {"start": start, "mean": codes.mean(0), "none": 0}[center]
    real = sum(conditioner.sizes)
    lost = (made - codes).square().sum((1, 2)) / real
    same(codec.distortion(codes), lost, rtol=1e-4, atol=1e-7)
    assert lost.mean() < 0.7 * (codes - center).square().sum((1, 2)).mean() / real
    assert (made.flatten(1)[:, real:] == 0).all()
    # it is all in the state
    twin = Quantize(
        conditioner.code_shape, conditioner.layout, codebook_size=9, center="mean", **own
    )
    twin.load_state_dict(codec.state_dict())
    same(twin.decode(twin.encode(codes)), made, rtol=0, atol=0)


def test_the_nearest_entries_by_hand() -> None:
    """Level by level, token by token, of each its own layer's vocabulary."""
    conditioner = weights()
    codes = some(conditioner, 12)
    codec = Quantize(
        conditioner.code_shape, conditioner.layout, "neuron", "layer", 5, 3, "mean"
    ).double()
    codec.fit(codes.double())
    tokens = codec.encode(codes.double())
    positions = codec.vocabulary.positions
    for i, code in enumerate(codes.double() - codec.center):
        for j, index in enumerate(positions.index):
            index = index[index >= 0]
            left = code.flatten()[index]
            for level in range(3):
                codebook = codec.books[positions.layer[j], level][:, : len(index)]
                far = [(left - entry).square().sum() for entry in codebook]
                best = min(range(5), key=far.__getitem__)
                assert tokens[i, j, level] == best
                left = left - codebook[best]


@pytest.mark.parametrize("own", [dict(), dict(token="row"), dict(token="neuron", levels=2)])
def test_more_entries_are_never_worse(own: dict) -> None:
    conditioner = weights()
    codes, start = some(conditioner, 100), conditioner.origin(1)[0].detach()
    lost = []
    for count in (1, 2, 4, 8, 16, 32):
        codec = Quantize(conditioner.code_shape, conditioner.layout, codebook_size=count, **own)
        codec.fit(codes, start=start)
        lost.append(codec.distortion(codes).mean().item())
    for worse, better in itertools.pairwise(lost):
        assert better < worse
    for per in ("all", "layer"):  # layers differ in scale, so each its own is better
        codec = Quantize(
            conditioner.code_shape, conditioner.layout, codebook_size=8, per=per, **own
        )
        codec.fit(codes, start=start)
        lost.append(codec.distortion(codes).mean().item())
    assert lost[-1] < lost[-2]


def test_a_level_more_is_never_worse() -> None:
    conditioner = weights()
    codes, start = some(conditioner, 100), conditioner.origin(1)[0].detach()
    lost = []
    for levels in (1, 2, 3, 4):
        codec = Quantize(
            conditioner.code_shape, conditioner.layout, "row", codebook_size=4, levels=levels
        )
        codec.fit(codes, start=start)
        lost.append(codec.distortion(codes).mean().item())
    for worse, better in itertools.pairwise(lost):
        assert better < worse


def test_few_distinct_weights_are_exact() -> None:
    levels = torch.tensor([-2.0, -0.5, 0.0, 0.1, 7.0])
    codes = levels[torch.randint(5, (40, 3, 4))]
    for token in ("scalar", "row"):
        codec = Quantize((3, 4), token=token, codebook_size=130, center="none")
        codec.fit(codes)
        same(codec.decode(codec.encode(codes)), codes, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("center", "read"), [("none", [250, 250]), ("mean", [250] * 6)])
def test_what_stands_before_quantize_reads_a_few_codes_at_a_time(
    center: str, read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more of them than codebooks are found from, and with all their digits."""

    class Counting(CODECS["identity"]):
        def encode(self, code: Tensor) -> Tensor:
            seen.append(len(code))
            assert not torch.is_autocast_enabled("cpu")
            return code

    seen: list[int] = []
    monkeypatch.setattr(quantize, "BATCH", 250)
    codes = torch.randn(1000, 1, 4) + 3
    codec = Quantize((1, 4), token="row", codebook_size=2, center=center, codec=Counting((1, 4)))
    codec.fit(codes)  # 256 rows an entry: of every second code
    assert seen == read
    mean = codes.mean(0) if center == "mean" else torch.zeros(1, 4)
    same(codec.center, mean, rtol=1e-6, atol=0)
    seen.clear()
    with torch.autocast("cpu", torch.bfloat16):
        ids = codec.encode(codes)
    assert seen == [250] * 4
    far = (codes - codec.center - codec.books[0, 0]).square().sum(2)
    assert torch.equal(ids[:, 0, 0], far.argmin(1))


def test_what_is_wrong_with_a_vocabulary_is_said() -> None:
    with pytest.raises(InputError, match="center = 'start' needs the start"):
        Quantize((1, 4)).fit(torch.randn(5, 1, 4))
    with pytest.raises(InputError, match="codebook_size = 0"):
        Quantize((1, 4), codebook_size=0)
    for name in ("gaussian", "neighbours"):
        own = dict(signals=9) if name == "neighbours" else {}
        with pytest.raises(InputError, match="take prior 'autoregressive'"):
            PRIORS[name]((1, 4), codec=Quantize((1, 4)), **own)
