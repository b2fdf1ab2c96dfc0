"""The local decoder of LA-GINR against a slow, spelled-out twin."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fieldloom.conditioners import Substitute
from fieldloom.errors import InputError
from fieldloom.family import Family
from fieldloom.fields import Field, Local
from fieldloom.metrics.cost import count_macs
from fieldloom.types import Weights
from transformers_by_hand import agree, close, draw, local, slow_attention


def gamma(v: Tensor, count: int, sigma: float) -> Tensor:
    """[cos(pi w_j v_i) | sin(pi w_j v_i)] of one point, w_j = sigma^(j / (n - 1))."""
    angles = [
        math.pi * sigma ** (j / (count - 1) if count > 1 else 0) * x
        for x in v
        for j in range(count)
    ]
    stacked = torch.stack(angles)
    return torch.cat([stacked.cos(), stacked.sin()])


def slow_local(
    coords: Tensor, weights: Weights, own: Mapping[str, Any], offset: float = 0.0
) -> Tensor:
    """Equations 2 to 9, one point at a time; the weights of each signal are its own."""
    answers = []
    for b in range(len(coords)):
        w = {name: tensor[b if len(tensor) > 1 else 0] for name, tensor in weights.items()}
        layer = lambda name, x, w=w: x @ w[f"{name}.weight"] + w.get(f"{name}.bias", 0)
        for v in coords[b]:
            count = own["features"] // (2 * len(v))
            q = layer("query", gamma(v, count, own["query"])).clamp(min=0)
            if own["aggregate"] == "attention":
                z = w["tokens"][None]
                found = slow_attention(
                    layer("q", q)[None, None], layer("k", z), layer("v", z), own["heads"]
                )
                m = layer("o", found[0, 0])
            else:
                matrix = w["tokens"].mT @ w["compose.weight"]
                columns = [c / c.square().sum().sqrt() for c in matrix.mT]
                m = torch.stack([(q * c).sum() for c in columns]) + w["compose.bias"]
                m = m.clamp(min=0)
            if own["modulate"] == "stack":
                for level in range(1, len(own["bands"]) + 1):
                    m = layer(f"hidden{level}", m).clamp(min=0)
                answers.append(layer(f"out{level}", m) + offset)
                continue
            answer, h = offset, 0.0
            for level, sigma in enumerate(own["bands"], 1):
                band = layer(f"band{level}", gamma(v, count, sigma)).clamp(min=0)
                h = h + (band + layer(f"mod{level}", m)).clamp(min=0)
                if level > 1:
                    h = layer(f"hidden{level}", h).clamp(min=0)
                answer = answer + layer(f"out{level}", h)
            answers.append(answer)
    return torch.stack(answers).unflatten(0, coords.shape[:2])


def weights_of(field: Field, batch: int = 1) -> dict[str, Tensor]:
    return {
        name: torch.stack([slot.init(None) for _ in range(batch)]).double().requires_grad_()
        for name, slot in field.slots.items()
    }


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
@pytest.mark.parametrize("aggregate", ["attention", "compose"])
@pytest.mark.parametrize("modulate", ["bands", "stack"])
def test_local(levels: int, aggregate: str, modulate: str) -> None:
    """Values, and gradients to coordinates, tokens and all weights, shared ones and own ones."""
    field, own = local(levels=levels, aggregate=aggregate, modulate=modulate, offset=0.5)
    own.pop("offset")
    coords = (draw(2, 3, 2) / 2).requires_grad_()
    for batch in (1, 2):
        weights = weights_of(field, batch)
        given = [coords, *weights.values()]
        agree(field(coords, weights), slow_local(coords, weights, own, 0.5), *given)


@pytest.mark.parametrize("coord_dim", [1, 2, 3, 4, 5, 6])
def test_local_takes_points_of_any_dimension(coord_dim: int) -> None:
    """27 features: the largest even multiple of the dimension that is no more."""
    field, own = local(coord_dim, features=27)
    encoded = 27 // (2 * coord_dim) * 2 * coord_dim
    assert field.slots["query.weight"].shape == field.slots["band1.weight"].shape == (encoded, 6)
    coords, weights = draw(2, 3, coord_dim), weights_of(field)
    close(field(coords, weights), slow_local(coords, weights, own))


def test_local_takes_directions() -> None:
    _, own = local(features=24)
    field = Local(3, 4, 3, **own)
    coords, weights = draw(2, 3, 6), weights_of(field)
    assert field(coords, weights).shape == (2, 3, 4)
    close(field(coords, weights), slow_local(coords, weights, own))


def watched(field: Local, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many points are decoded at a time."""
    sizes, decode = [], field._decode
    monkeypatch.setattr(
        field, "_decode", lambda c, *rest: sizes.append(c.shape[1]) or decode(c, *rest)
    )
    return sizes


@pytest.mark.parametrize("aggregate", ["attention", "compose"])
def test_local_in_pieces(aggregate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without gradients a few points at a time, with them all at once; the answers are the same."""
    whole, _ = local(aggregate=aggregate)
    small, _ = local(aggregate=aggregate, piece=3)
    coords, weights = draw(2, 10, 2).requires_grad_(), weights_of(whole)
    given = [coords, *weights.values()]
    sizes = watched(small, monkeypatch)
    agree(small(coords, weights), whole(coords, weights), *given)
    assert sizes == [10]
    with torch.no_grad():
        close(small(coords, weights), whole(coords, weights))
        assert sizes == [10, 3, 3, 3, 1]
        close(small(coords[:, :2], weights), whole(coords[:, :2], weights))


@pytest.mark.parametrize("aggregate", ["attention", "compose"])
def test_every_weight_of_local_can_be_an_instances_own(aggregate: str) -> None:
    field, own = local(aggregate=aggregate)
    family = Family(field, Substitute(field.slots, "tokens")).double()
    code = draw(3, *family.code_shape)
    unfolded = family.unfold(code)
    coords = draw(3, 4, 2)
    start = unfolded.conditioner.origin(3)
    close(unfolded(coords, start), family(coords, code))
    moved = start + 0.1 * draw(*start.shape)
    weights = unfolded.conditioner(moved)
    assert {len(weight) for weight in weights.values()} == {3}
    close(unfolded(coords, moved), slow_local(coords, weights, own))


def test_tokens_are_a_set() -> None:
    field, _ = local()
    coords, weights = draw(2, 5, 2), weights_of(field, 2)
    order = torch.tensor([2, 0, 3, 1])
    turned = weights | {"tokens": weights["tokens"][:, order]}
    close(field(coords, turned), field(coords, weights))
    # composed, each token meets its own row of the shared factor
    field, _ = local(aggregate="compose")
    weights = weights_of(field, 2)
    turned = weights | {"tokens": weights["tokens"][:, order]}
    assert not torch.allclose(field(coords, turned), field(coords, weights))
    turned["compose.weight"] = weights["compose.weight"][:, order]
    close(field(coords, turned), field(coords, weights))


def test_the_composed_weight_has_unit_columns() -> None:
    """Longer tokens change nothing."""
    field, _ = local(aggregate="compose")
    coords, weights = draw(2, 5, 2), weights_of(field)
    longer = weights | {"tokens": 7 * weights["tokens"]}
    close(field(coords, longer), field(coords, weights))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(features=3), "features = 3"),
        (dict(tokens=0), "tokens = 0"),
        (dict(bands=()), r"bands = \[\]"),
        (dict(bands=(4.0, 0.5)), "0.5"),
        (dict(query=0.0), "query = 0.0"),
        (dict(piece=0), "piece = 0"),
        (dict(heads=4), "heads = 4: a divisor of the width, 6"),
    ],
)
def test_what_local_refuses(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        local(**wrong)


@pytest.mark.parametrize("modulate", ["bands", "stack"])
@pytest.mark.parametrize("aggregate", ["attention", "compose"])
def test_multiplications_of_local(aggregate: str, modulate: str) -> None:
    """What torch counts; keys and values, or the composed matrix, are made once a signal.

    The composed matrix is counted as the tokens that make it: as many as features, as published.
    """
    field, own = local(aggregate=aggregate, modulate=modulate, levels=3, tokens=6)
    weights = {name: weight.detach().float() for name, weight in weights_of(field).items()}
    coords, points = torch.rand(1, 50, 2), 50
    plain = sdpa_kernel(SDPBackend.MATH)  # the others are not counted on every device
    with plain, FlopCounterMode(display=False) as counter:
        field(coords, weights)
    once = own["tokens"] * own["width"] ** 2 * (2 if aggregate == "attention" else 1)
    assert counter.get_total_flops() / 2 == count_macs(field.slots, once, points)
