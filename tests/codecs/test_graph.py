"""The graph codec: hidden neurons may be permuted, and the decoded function stays."""

import math

import pytest
import torch

import fieldloom
from fieldloom import recipe as recipes
from fieldloom.codecs import Graph, Quantize, quantize
from fieldloom.conditioners import FlatWeights
from fieldloom.engine.run import Run
from fieldloom.errors import InputError
from fieldloom.family import Family
from fieldloom.fields import Experts, Fourier, FourierMlp, Siren, Tiling
from fieldloom.priors import PRIORS, Diffusion
from fieldloom.training import train

SIZES = dict(width=6, depth=4)


def family_of(field=None) -> Family:
    torch.manual_seed(0)
    field = field or FourierMlp(2, 3, encoding=Fourier("octaves", count=2), **SIZES)
    return Family(field, FlatWeights(field.slots)).double()


def codec_of(family: Family, **own) -> Graph:
    torch.manual_seed(1)
    shape, layout = family.conditioner.code_shape, family.conditioner.layout
    return Graph(shape, layout, width=8, rounds=2, latent=5, **own).double()


def codes_of(family: Family, count=5) -> torch.Tensor:
    torch.manual_seed(2)
    start = family.conditioner.origin(count).detach()
    return start + 0.3 * torch.randn_like(start)


def permuted(family: Family, codes: torch.Tensor, seed=3) -> torch.Tensor:
    """The same functions with the neurons of every hidden layer in another order."""
    weights = {k: v.clone() for k, v in family.conditioner.unpack(codes).items()}
    generator = torch.Generator().manual_seed(seed)
    for i in range(SIZES["depth"] - 1):
        order = torch.randperm(SIZES["width"], generator=generator)
        weights[f"{i}.weight"] = weights[f"{i}.weight"][..., order]
        weights[f"{i}.bias"] = weights[f"{i}.bias"][..., order]
        weights[f"{i + 1}.weight"] = weights[f"{i + 1}.weight"][..., order, :]
    return family.conditioner.pack(weights)


def test_permuting_hidden_neurons_permutes_latents_and_keeps_the_decoded_function():
    family = family_of()
    codec, codes = codec_of(family), codes_of(family)
    codec.fit(codes)
    coords = torch.rand(5, 7, 2).double()
    other = permuted(family, codes)
    torch.testing.assert_close(family(coords, other), family(coords, codes))
    assert not torch.allclose(other, codes)
    one, two = codec.encode(codes), codec.encode(other)
    assert one.shape == (5, *codec.inner_shape) == (5, 3 * 6 + 3, 5)
    assert not torch.allclose(one, two)
    for first in (0, 6, 12):  # each hidden layer holds the same latents in another order
        a, b = one[:, first : first + 6], two[:, first : first + 6]
        torch.testing.assert_close(a.sort(1).values, b.sort(1).values)
    torch.testing.assert_close(one[:, 18:], two[:, 18:])  # outputs stay
    a, b = codec.decode(one), codec.decode(two)
    assert a.shape == codes.shape
    torch.testing.assert_close(family(coords, a), family(coords, b))
    torch.testing.assert_close(codec.loss(codes), codec.loss(other))


@pytest.mark.parametrize("order", ["norm", "start"])
def test_a_canonical_order_forgets_permutations(order):
    family = family_of()
    codec, codes = codec_of(family, order=order), codes_of(family)
    codec.fit(codes, start=family.conditioner.origin(1)[0].detach())
    torch.testing.assert_close(codec.encode(permuted(family, codes)), codec.encode(codes))
    # and is a permutation of the order that there was
    kept = codec_of(family)
    kept.fit(codes)
    one, two = codec.encode(codes), kept.encode(codes)
    torch.testing.assert_close(one.sort(1).values, two.sort(1).values)


def test_neurons_are_matched_to_the_start():
    """Codes near the start keep its order; a permuted start is put back."""
    family = family_of()
    codec, kept = codec_of(family, order="start"), codec_of(family)
    start = family.conditioner.origin(1).detach()
    codes = start + 0.01 * torch.randn(4, *start.shape[1:]).double()
    for one in (codec, kept):
        one.fit(codes, start=start[0])
    torch.testing.assert_close(codec.encode(permuted(family, codes)), kept.encode(codes))


def test_learned_vectors_may_tell_neurons_apart():
    """By their places: fields of permuted neurons are then others."""
    family = family_of()
    codec, codes = codec_of(family, identities="neuron"), codes_of(family)
    more = 2 * 8 * (3 * SIZES["width"] - 3)  # vectors of encoder and decoder
    count = lambda module: sum(p.numel() for p in module.parameters())
    assert count(codec) == count(codec_of(family)) + more
    codec.fit(codes)
    one, two = codec.encode(codes), codec.encode(permuted(family, codes))
    assert not torch.allclose(one[:, :6].sort(1).values, two[:, :6].sort(1).values)
    codec.loss(codes).sum().backward()
    assert codec.encoder.nodes[1].grad.abs().sum((0, 2)).min() > 0
    with pytest.raises(InputError, match="identities = 'neuron' needs order = 'kept'"):
        codec_of(family, identities="neuron", order="norm")


@pytest.mark.slow
def test_it_learns_fields_that_share_a_start():
    family = family_of()
    generator = torch.Generator().manual_seed(5)
    start = family.conditioner.origin(1).detach()
    directions = torch.randn(3, math.prod(start.shape[1:]), generator=generator).double()
    mix = torch.randn(300, 3, generator=generator).double()
    codes = start + 0.2 * (mix @ directions).view(300, *start.shape[1:])
    codec = codec_of(family)
    codec.fit(codes[:250])
    adam = torch.optim.Adam(codec.parameters(), 1e-2)
    before = codec.loss(codes[250:]).mean().item()
    for step in range(150):
        loss = codec.loss(codes[step % 5 * 50 : step % 5 * 50 + 50]).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    after = codec.loss(codes[250:]).mean().item()
    assert before > 0.9  # it knew nothing
    assert after < 0.7
    error = (codec.decode(codec.encode(codes[250:])) - codes[250:]).flatten(1)
    standardised = error / codec.std
    torch.testing.assert_close(standardised.square().mean().item(), after)


def test_gradients_reach_everything_and_signals_are_independent():
    family = family_of(Siren(2, 1, width=6, depth=3))
    codec, codes = codec_of(family), codes_of(family)
    codec.fit(codes)
    codec.loss(codes).sum().backward()
    for name, parameter in codec.named_parameters():
        # the last round's changes of inputs, and the head, see no latent of theirs
        if not name.startswith(("encoder.rounds.1.change.0", "encoder.rounds.1.norms.0",
                                "encoder.rounds.1.back.0")):  # fmt: skip
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
    torch.testing.assert_close(codec.encode(codes[1:2])[0], codec.encode(codes)[1])


def test_only_plain_perceptrons_are_read():
    tiled = Experts(
        2, 3, width=5, depth=3, tiling=Tiling(tiles=(2, 2, 1)), encoding=Fourier(count=2)
    )
    for layout in (
        None,
        FlatWeights(tiled.slots).layout,
        FlatWeights(family_of().field.slots, "1.*").layout,
    ):
        if layout is not None and len(layout) == 2:
            Graph((1, 42), layout)  # one layer is a perceptron, too
            continue
        with pytest.raises(ValueError, match="one plain perceptron"):
            Graph((1, 10), layout)
    with pytest.raises(ValueError, match="at least 1"):
        Graph((1, 10), family_of().conditioner.layout, latent=0)


def learned(codec, codes, steps=150):
    adam = torch.optim.Adam(codec.parameters(), 1e-2)
    for _ in range(steps):
        loss = codec.loss(codes).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()


@pytest.mark.slow
def test_tokens_of_latents():
    """Quantised latents lose more than latents, and less with more levels."""
    family = family_of(Siren(2, 1, width=5, depth=3))
    torch.manual_seed(4)
    start = family.conditioner.origin(1).detach()
    directions = torch.randn(2, start.numel()).double()
    codes = start + 0.2 * (torch.randn(200, 2).double() @ directions).view(200, 1, -1)
    codec = codec_of(family)
    codec.fit(codes)
    learned(codec, codes)
    lost = {}
    for levels in (1, 3):
        torch.manual_seed(0)
        shape, layout = family.conditioner.code_shape, family.conditioner.layout
        own = dict(token="row", codebook_size=31, levels=levels, center="mean", codec=codec)
        tokens = Quantize(shape, layout, **own).double()
        assert tokens.trained
        torch.testing.assert_close(tokens.loss(codes[:3]), codec.loss(codes[:3]))
        tokens.fit(codes)
        assert tokens.encode(codes).shape == (200, *codec.inner_shape[:1], levels)
        lost[levels] = tokens.distortion(codes).mean()
    alone = (codec.decode(codec.encode(codes)) - codes).square().mean()
    assert alone < lost[3] < lost[1] < codes.var(0).mean()


@pytest.mark.slow
@pytest.mark.parametrize("row", ["tiny-graph", "tiny-graph-words"])
def test_a_run_trains_the_codec_before_the_prior(row, tmp_path):
    recipe, found = recipes.load(f"weights:{row}"), []
    kmeans = quantize.kmeans
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantize, "kmeans", lambda *rest: (found.append(1), kmeans(*rest))[1])
        train(recipe, str(tmp_path / "whole"))
    assert len(found) == (2 if "words" in row else 0)  # a level each, of trained latents alone
    log = Run(tmp_path / "whole").read_log()
    assert list(dict.fromkeys(x["stage"] for x in log)) == ["field", "codec", "prior"]
    # interrupted in the middle of the codec's stage, it goes on to the same weights
    stages = {"codec": {**recipe["train"]["codec"], "save_every": 4}}
    cut = recipes.merge(recipe, {"train": stages})
    steps = 0

    def stop(*_):
        nonlocal steps
        steps += 1
        if steps == 6:
            raise InputError("stopped")

    loss = Graph.loss
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Graph, "loss", lambda self, code: (stop(), loss(self, code))[1])
        with pytest.raises(InputError, match="stopped"):
            train(cut, str(tmp_path / "cut"))
    train(None, str(tmp_path / "cut"), resume=True)
    one, two = (fieldloom.load(str(tmp_path / name)) for name in ("whole", "cut"))
    for (name, a), b in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, msg=name)
    assert one.sample(3, seed=1).shape == (3, 1, 8, 8)


def test_diffusion_keeps_the_shape_of_codes():
    family = family_of()
    with pytest.raises(ValueError, match="codec 'whiten' or 'identity'"):
        Diffusion(family.conditioner.code_shape, torch.nn.Identity(), codec=codec_of(family))


@pytest.mark.parametrize("name", ["gaussian", "neighbours"])
@pytest.mark.parametrize("tokens", [False, True])
def test_closed_form_priors_refuse_latents_and_tokens(name, tokens):
    family = family_of()
    codec = codec_of(family)
    shape, layout = family.conditioner.code_shape, family.conditioner.layout
    if tokens:
        codec = Quantize(shape, layout, token="row", codec=codec)
    own = {"signals": 9} if name == "neighbours" else {}
    instead = "prior 'autoregressive'" if tokens else "codec 'whiten' or 'identity'"
    with pytest.raises(InputError, match=f"^prior '{name}' .*: take {instead}"):
        PRIORS[name](shape, codec=codec, **own)
