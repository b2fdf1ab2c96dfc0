"""The influence of tokens on what is decoded, against slow and obvious ways to it."""

import pytest
import torch

import fieldloom
from fieldloom.evaluation.influence import analyse_influence, draw_tokens, influence, locality

CODED = ["functa", "mnif", "transinr", "ipc", "laginr"]


@pytest.fixture(params=CODED)
def system(request):
    return fieldloom.build(request.param, "tiny")


def test_influence_is_the_difference_without_a_token(system, images):
    code = system.encode(images.part([0]))
    tokens = draw_tokens(system, 3)
    found = influence(system, code, tokens)
    torch.testing.assert_close(found.whole, system.predict(code).tensor[0])
    assert found.maps.shape == (len(tokens), 8, 8)
    for token, seen in zip(tokens, found.maps, strict=True):
        without = code.clone()
        without[:, token] = 0
        made = system.predict(without).tensor[0]
        torch.testing.assert_close(seen, (made - found.whole).abs().mean(0))
    assert found.maps.max() > 0


def test_tokens_are_drawn_from_the_seed():
    system = fieldloom.build("laginr", "tiny")
    assert draw_tokens(system, 99) == [0, 1, 2, 3]
    drawn = {tuple(draw_tokens(system, 2, seed)) for seed in range(30)}
    assert drawn == {(a, b) for a in range(4) for b in range(a + 1, 4)}
    assert draw_tokens(system, 2, 5) == draw_tokens(system, 2, 5)
    assert draw_tokens(fieldloom.build("functa", "tiny"), 8) == [0]


def test_influence_on_a_view(scenes):
    """The view is the first held-out one of each object, by its own camera."""
    system, data = scenes
    found = analyse_influence(system, data, 99)
    assert len(found.tokens) == len(found.influences[0].maps)
    for i, own in enumerate(found.influences):
        code, camera = system.encode(data)[i : i + 1], data.cameras.part([i]).views([4])
        torch.testing.assert_close(found.originals[i], data.tensor[i, 4])
        whole = system.predict(code, cameras=camera).tensor[0, 0]
        torch.testing.assert_close(own.whole, whole)
        for token, seen in zip(found.tokens, own.maps, strict=True):
            without = code.clone()
            without[:, token] = 0
            changed = system.predict(without, cameras=camera).tensor[0, 0]
            torch.testing.assert_close(seen, (changed - whole).abs().mean(0))
    assert found.draw().shape == (2 * (2 + len(found.tokens)), 3, 8, 8)


def test_locality():
    maps = torch.zeros(4, 10, 10)
    maps[0] = 3
    maps[1, 2, 7] = 5
    maps[2] = torch.rand(10, 10)
    found = locality(maps)
    assert found[0].item() == pytest.approx(0.1)
    assert found[1] == 1
    by_size = sorted(maps[2].flatten().tolist())
    assert found[2].item() == pytest.approx(sum(by_size[-10:]) / sum(by_size), rel=1e-5)
    assert found[3].isnan()
