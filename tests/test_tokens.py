"""Weights as tokens, and the transformer that generates them one after another."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from typer.testing import CliRunner

import fieldloom
from fieldloom import recipe as recipes
from fieldloom.assembly import TABLES, open_source
from fieldloom.cli import app
from fieldloom.codecs import CODECS, Quantize, Whiten, quantize
from fieldloom.codecs.tokens import cut_tokens, gather_tokens, scatter_tokens
from fieldloom.conditioners import FlatWeights
from fieldloom.engine.run import Run
from fieldloom.errors import InputError
from fieldloom.evaluation import evaluator_of
from fieldloom.evaluation.upper_bound import codec_upper_bound
from fieldloom.fields import Fourier, FourierMlp, Siren
from fieldloom.metrics.cost import count_parameters
from fieldloom.metrics.paired import psnr
from fieldloom.modalities.sources import Source
from fieldloom.nn.kmeans import kmeans, lloyd_max, nearest_centroids
from fieldloom.nn.transformer import CausalAttention
from fieldloom.priors import PRIORS, Autoregressive
from fieldloom.priors.heads import SamplingConfig, sample_categorical
from fieldloom.registry import build
from fieldloom.training import train
from fieldloom.types import Data, Slot
from vectors import Vectors, load, same

CUTS = ("scalar", "row", "neuron")


def weights(width: int | None = None, **own: object) -> FlatWeights:
    """All weights of a small perceptron, one layer of which is wider than the others."""
    field = Siren(2, 3, width=4, depth=3, **own)
    return FlatWeights(field.slots, width=width)


def some(conditioner: FlatWeights, count: int = 60, seed: int = 0) -> Tensor:
    """Codes around the start, each layer at a scale of its own."""
    generator = Generator().manual_seed(seed)
    shapes = {name: slot.shape for name, slot in conditioner.layout.items()}
    noise = {
        name: 10.0 ** -int(name[0]) * torch.randn(count, *shape, generator=generator)
        for name, shape in shapes.items()
    }
    return conditioner.origin(1).detach() + conditioner.pack(noise)


# -- where tokens stand


@pytest.mark.parametrize("token", CUTS)
@pytest.mark.parametrize("width", [None, 7])
def test_every_weight_is_in_one_token(token: str, width: int | None) -> None:
    conditioner = weights(width)
    codes = some(conditioner, 3)
    positions = cut_tokens(conditioner.code_shape, conditioner.layout, token)
    index = torch.from_numpy(positions.index)
    held = index[index >= 0].sort().values
    assert held.tolist() == list(range(sum(conditioner.sizes)))
    same(
        scatter_tokens(gather_tokens(codes, index), index, conditioner.code_shape),
        codes,
        rtol=0,
        atol=0,
    )
    # a token is one layer's, and no two stand at one place
    where = list(zip(positions.layer, positions.row, positions.column, strict=True))
    assert len(set(where)) == len(index)
    assert positions.layer.tolist() == sorted(positions.layer)


def test_tokens_are_neurons_in_the_order_of_pytorch() -> None:
    """Linear(in, out) by linear: weight (out, in) row by row, then the bias."""
    conditioner = weights()
    codes = some(conditioner, 2)
    matrices = conditioner.unpack(codes)
    pytorch = [
        x for i in range(3) for x in (matrices[f"{i}.weight"].mT, matrices[f"{i}.bias"][:, None])
    ]
    positions = {
        token: cut_tokens(conditioner.code_shape, conditioner.layout, token) for token in CUTS
    }
    read = {token: gather_tokens(codes, torch.from_numpy(positions[token].index)) for token in CUTS}
    same(read["scalar"][..., 0], torch.cat([x.flatten(1) for x in pytorch], 1), rtol=0, atol=0)
    rows = [row for matrix in pytorch for row in matrix.unbind(1)]
    assert read["row"].shape == (2, len(rows), 4)
    for row, true in zip(read["row"].unbind(1), rows, strict=True):
        same(row, F.pad(true, (0, 4 - true.shape[1])), rtol=0, atol=0)
    neurons = [torch.cat([w, b.mT], 2) for w, b in zip(pytorch[::2], pytorch[1::2], strict=True)]
    for got, true in zip(
        read["neuron"].unbind(1), [n for layer in neurons for n in layer.unbind(1)], strict=True
    ):
        same(got, F.pad(true, (0, 5 - true.shape[1])), rtol=0, atol=0)
    scalar = positions[
        "scalar"
    ]  # of the second layer: 4 inputs, the bias in the column behind them
    second = scalar.layer == 1
    assert scalar.row[second].tolist() == [r for r in range(4) for _ in range(4)] + [0, 1, 2, 3]
    assert scalar.column[second].tolist() == [0, 1, 2, 3] * 4 + [4] * 4
    assert positions["row"].row[positions["row"].layer == 1].tolist() == [0, 1, 2, 3, 4]


def test_tiles_inputs_and_missing_biases_have_tokens_too() -> None:
    draw = lambda generator: torch.zeros(1)
    layout = {
        "tokens": Slot((3, 2), draw, "input"),
        "grid": Slot((2, 5), draw, "input"),
        "0.weight": Slot((2, 3, 4), draw, "weight"),
        "0.bias": Slot((2, 4), draw, "bias"),
        "1.weight": Slot((4, 1), draw, "weight"),
    }
    size = 6 + 10 + 24 + 8 + 4
    lengths = {"scalar": size, "row": 3 + 2 + 8 + 2 + 1, "neuron": 3 + 2 + 8 + 1}
    for token, length in lengths.items():
        index = cut_tokens((1, size), layout, token).index
        assert len(index) == length
        assert sorted(index[index >= 0].tolist()) == list(range(size))
    assert cut_tokens((1, size), layout, "neuron").index[5].tolist() == [16, 20, 24, 40, -1]


def test_codes_that_are_no_weights_are_cut_as_they_are() -> None:
    assert cut_tokens((3, 4), None, "row").index.tolist() == [
        list(range(i, i + 4)) for i in (0, 4, 8)
    ]
    assert cut_tokens((3, 4), None, "scalar").index.shape == (12, 1)
    with pytest.raises(InputError, match="conditioner 'flat-weights'"):
        cut_tokens((3, 4), None, "neuron")


# -- codebooks


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


def slow_lloyd(values: list[float], centroids: list[float]) -> list[float]:
    while True:
        cells: list[list[float]] = [[] for _ in centroids]
        for value in values:
            cells[min(range(len(centroids)), key=lambda i: abs(value - centroids[i]))].append(value)
        means = [sum(c) / len(c) if c else w for c, w in zip(cells, centroids, strict=True)]
        if max(abs(a - b) for a, b in zip(means, centroids, strict=True)) < 1e-12:
            return means
        centroids = means


def test_scalar_codebooks_are_a_fixed_point_and_good() -> None:
    values = torch.randn(400, dtype=torch.float64) ** 3
    centroids = lloyd_max(values[:, None], 9)[:, 0]
    same(
        torch.tensor(slow_lloyd(values.tolist(), centroids.tolist()), dtype=centroids.dtype),
        centroids,
    )
    cost = lambda centroids: (values[:, None] - centroids).square().amin(1).mean().item()
    tries = [slow_lloyd(values.tolist(), values[torch.randperm(400)[:9]].tolist()) for _ in "abcd"]
    assert cost(centroids) < min(cost(torch.tensor(x).double()) for x in tries) * 1.1
    # the best 2 centroids of few numbers, by trying all cuts
    few = torch.randn(30, dtype=torch.float64).sort().values
    best = min(few[:i].var(correction=0) * i + few[i:].var(correction=0) * (30 - i)
               for i in range(1, 30))  # fmt: skip
    found = lloyd_max(few[:, None], 2)[:, 0]
    assert (few[:, None] - found).square().amin(1).sum() < best * 1.2


def test_vector_codebooks_are_a_fixed_point() -> None:
    """No token is nearer to another centroid, and every centroid is the mean of its own."""
    middles = torch.randn(6, 3).double() * 5
    tokens = (middles[:, None] + 0.1 * torch.randn(6, 20, 3).double()).flatten(0, 1)
    mask = torch.ones_like(tokens)
    codebook = kmeans(tokens, mask, 6)
    index = torch.tensor([min(range(6), key=lambda i: (t - codebook[i]).norm()) for t in tokens])
    assert nearest_centroids(tokens, mask, codebook).tolist() == index.tolist()
    for i in range(6):
        same(codebook[i], tokens[index == i].mean(0))
    assert len({tuple(index[i : i + 20].tolist()) for i in range(0, 120, 20)}) == 6
    same(kmeans(tokens, mask, 6), codebook, rtol=0, atol=0)


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


# -- the transformer, by the vectors of the released code


def published(norm: str, vectors: Vectors) -> Autoregressive:
    own = {k.removeprefix("gpt.p."): v for k, v in vectors.items() if k.startswith("gpt.p.")}
    codec = Quantize((1, 12), codebook_size=15, center="none")
    codec.books.copy_(torch.arange(15.0).view(1, 1, 15, 1))
    prior = Autoregressive(
        (1, 12), codec=codec, positions=("position",), norm=norm, depth=2, width=8, heads=2
    ).double()
    names = {
        "transformer.wte.weight": "head.table.weight",
        "transformer.wpe.weight": "network.tables.position.weight",
        "transformer.ln_f": "network.norm",
        "transformer.h": "network.blocks",
        "ln_1": "norm1",
        "ln_2": "norm2",
        "attn.c_attn": "attention.qkv",
        "attn.c_proj": "attention.out",
        "mlp.c_fc": "mlp.0",
        "mlp.c_proj": "mlp.2",
    }
    state = {}
    for name, value in own.items():
        for old, new in names.items():
            name = name.replace(old, new)
        if name != "lm_head.weight" and not (
            norm == "none" and (".norm1" in name or ".norm2" in name)
        ):
            state[name] = value
    same(own["lm_head.weight"], own["transformer.wte.weight"], rtol=0, atol=0)
    kept = {k: v for k, v in prior.state_dict().items() if k.startswith("codec.")}
    prior.load_state_dict(state | kept)
    return prior


@pytest.mark.parametrize(("norm", "suffix"), [("none", ""), ("pre", "_preln")])
def test_published_blocks(norm: str, suffix: str) -> None:
    vectors = load("nefgpt_tokens")
    prior = published(norm, vectors)
    idx, targets = vectors["gpt.idx"], vectors["gpt.targets"]
    assert (idx[:, 0] == 15).all()  # the start
    hidden = prior.hidden_states(idx.roll(-1, 1))  # its last token is not read
    same(prior.head.logits(hidden), vectors[f"gpt.logits{suffix}"])
    same(prior.head.loss(hidden, targets).mean() / 12, vectors[f"gpt.loss{suffix}"])
    code = targets.double()[:, None]  # entry i of this codebook is the number i
    hidden = prior.hidden_states(targets)
    same(prior.loss(code), prior.head.loss(hidden, targets) / 12)


@pytest.mark.parametrize(
    ("k", "temperature"), [(3, 0.8), (3, 1.0), (5, 0.8), (5, 1.0), (None, 0.7)]
)
def test_published_probabilities(k: int | None, temperature: float) -> None:
    vectors = load("nefgpt_tokens")
    found = SamplingConfig(temperature, k).probabilities(vectors["logits"])
    same(found, vectors[f"probs.k{k}.t{temperature}"])


@pytest.mark.parametrize(
    ("variant", "count", "printed"),
    [("small", 5_722_112, 5.72), ("medium", 13_896_576, 13.90), ("big", 27_186_176, 27.19)],
)
def test_published_sizes(variant: str, count: int, printed: float) -> None:
    """With the norms that the released blocks hold and never call; 3,712 tokens of 127."""
    recipe = recipes.load(f"weights:planes-{variant}")
    known = dict(coord_dim=3, value_dim=1)
    field = build("field", recipe["field"], TABLES, **known)
    conditioner = build("conditioner", recipe["conditioner"], TABLES, slots=field.slots)
    assert conditioner.code_shape == (1, 3712)
    with torch.device("meta"):
        prior = build(
            "prior", recipe["prior"], TABLES, code_shape=(1, 3712), layout=conditioner.layout,
            classes=0, signals=0,
        )  # fmt: skip
    assert count_parameters(prior) + sum(recipe["dead"].values()) == count
    assert round(count / 1e6, 2) == printed


# -- the transformer, by laws


def test_causal_attention_is_slow_attention() -> None:
    attention = CausalAttention(6, 2).double()
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    q, k, v = attention.qkv(x).split(6, -1)
    for b, t in itertools.product(range(2), range(5)):
        mixed = []
        for own in (slice(0, 3), slice(3, 6)):
            scores = torch.stack([q[b, t, own] @ k[b, s, own] / math.sqrt(3) for s in range(t + 1)])
            mixed.append(scores.softmax(0) @ v[b, : t + 1, own])
        same(attention(x)[b, t], attention.out(torch.cat(mixed)))


KINDS = {
    "tokens": dict(codec=dict(token="row", per="layer", levels=2, codebook_size=6, center="mean")),
    "scalars": dict(codec=dict(codebook_size=6, center="mean"), norm="none", tied=False),
    "mixture": dict(token="neuron", components=3),
    "gaussian": dict(token="scalar", components=1),
    "l1": dict(token="row", head="l1"),
}


def prior_of(kind: str, classes: int = 0, stir: float = 0.3) -> Autoregressive:
    """A small one in float64, of which no part is zero, with a codec that knows some codes."""
    conditioner = weights(7)
    own = dict(KINDS[kind])
    made = own.pop("codec", None)
    shape, layout = conditioner.code_shape, conditioner.layout
    codec = Whiten(shape) if made is None else Quantize(shape, layout, **made)
    codec.fit(some(conditioner))
    prior = Autoregressive(shape, classes, codec, layout, depth=2, width=8, heads=2, **own).double()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.normal_(0, stir)
    return prior.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_made_and_put_back(kind: str) -> None:
    prior, codes = prior_of(kind), some(weights(7), 4).double()
    tokens = prior.tokenize(codes)
    assert tokens.shape[:2] == (4, prior.tokens)
    made = prior.codec.decode(prior.detokenize(tokens))
    if prior.codec.vocabulary is None:
        same(made, codes)
    else:
        assert (prior.codec.decode(prior.detokenize(prior.tokenize(made))) - made).abs().max() < 1
        assert (prior.detokenize(tokens) == prior.codec.encode(codes)).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [0, 3])
def test_the_future_does_not_matter(kind: str, classes: int) -> None:
    prior, codes = prior_of(kind, classes), some(weights(7), 4).double()
    tokens, label = prior.tokenize(codes), torch.tensor([0, 1, 2, 0]) if classes else None
    hidden = prior.hidden_states(tokens, label)
    assert hidden.shape[1] == prior.tokens + (classes > 0)
    position = prior.tokens // 2
    changed = tokens.clone()
    vocabulary = prior.codec.vocabulary
    changed[:, position:] = (
        changed[:, position:] + 1 if vocabulary is None else (changed[:, position:] + 1) % 6
    )
    other = prior.hidden_states(changed, label)
    ahead = position + 1 + (classes > 0)
    same(other[:, :ahead], hidden[:, :ahead], rtol=0, atol=1e-12)
    assert (other[:, ahead] - hidden[:, ahead]).abs().max() > 1e-6
    if classes:  # the class is seen by every token, and not by what it is predicted from
        other = prior.hidden_states(tokens, label.flip(0) * 0 + 1)
        same(other[:, 0], hidden[:, 0], rtol=0, atol=0)
        assert ((other[:, 1:] - hidden[:, 1:])[label != 1].abs().amax(-1) > 1e-6).all()


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_gets_a_gradient(kind: str) -> None:
    prior, codes = prior_of(kind, 3), some(weights(7), 60).double()
    prior.loss(codes, torch.arange(60) % 3).sum().backward()
    for name, parameter in prior.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_the_loss_is_the_joint_likelihood() -> None:
    """Of token ids and class, in nats: every token by itself, from a forward pass of its own."""
    prior, codes = prior_of("tokens", 3), some(weights(7), 2).double()
    tokens, label = prior.tokenize(codes), torch.tensor([2, 1])
    nats = -(prior.hidden_states(tokens, label)[:, 0] @ prior.label.weight.T).log_softmax(-1)
    total = nats[torch.arange(2), label]
    codebook = prior.codec.vocabulary.codebook.flatten()
    for position in range(prior.tokens):
        last = prior.hidden_states(tokens[:, : position + 1], label)[:, -1]
        rows = [*range(codebook[position] * 6, codebook[position] * 6 + 6), -1]
        scores = last @ prior.head.table.weight[rows].T
        total = total - scores.log_softmax(-1)[torch.arange(2), tokens[:, position]]
    same(prior.loss(codes, label), total / (prior.tokens + 1))


def test_the_density_of_numbers() -> None:
    """A mixture of independent normals, against torch's; what a token has not does not count."""
    from torch import distributions as d

    prior, codes = prior_of("mixture"), some(weights(7), 5).double()
    tokens = prior.tokenize(codes)
    logits, mean, spread = prior.head.mixture(prior.hidden_states(tokens))
    total = 0
    for position, index in enumerate(prior.index):
        real = int((index >= 0).sum())
        parts = d.Independent(
            d.Normal(mean[:, position, :, :real], spread[:, position, :, :real].exp()), 1
        )
        mixture = d.MixtureSameFamily(d.Categorical(logits=logits[:, position]), parts)
        total = total - mixture.log_prob(tokens[:, position, :real])
    same(prior.loss(codes), total / sum(weights(7).sizes))


def slow_draw(
    prior: Autoregressive, count: int, label: Tensor | None, generator: Generator, **how: object
) -> Tensor:
    """Without a cache: the whole sequence for every token."""
    class_noise = torch.rand(count, generator=generator, dtype=torch.float64)
    noise = prior.head.draw_noise(count, generator)
    if label is None and prior.classes:
        scores = prior.network(prior.head.start().expand(count, 1, -1))[:, 0]
        label = sample_categorical((scores @ prior.label.weight.T).softmax(-1), class_noise)
    blank = prior.tokenize(torch.zeros(count, *prior.code_shape).double())
    tokens = torch.zeros_like(blank)
    for position in range(prior.tokens):
        hidden = prior.hidden_states(tokens, label)[:, position + (prior.classes > 0)]
        tokens[:, position] = prior.head.sample(
            hidden, position, noise[:, position], SamplingConfig(**how)
        )
    return prior.codec.decode(prior.detokenize(tokens))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [0, 3])
@torch.no_grad()
def test_cached_generation_is_uncached_generation(
    kind: str, classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    prior = prior_of(kind, classes)
    how: dict = {} if kind == "l1" else {"temperature": 0.9}
    if "tokens" in kind:
        how |= {"top_k": 4, "top_p": 0.9}
    for label in [None] if classes == 0 else [None, torch.tensor([2, 0, 1, 1, 2])]:
        slow = slow_draw(prior, 5, label, Generator().manual_seed(1), **how)
        fast = prior.sample(5, label, generator=Generator().manual_seed(1), **how)
        same(fast, slow)
        assert torch.isfinite(fast).all()
        # and it does not matter how many are generated at a time
        monkeypatch.setattr("fieldloom.priors.autoregressive.CACHE_BYTES", 1)
        assert prior.batch_size() == 1
        alone = prior.sample(5, label, generator=Generator().manual_seed(1), **how)
        monkeypatch.undo()
        same(alone, fast)


@torch.no_grad()
def test_cached_states_are_uncached_states() -> None:
    """In pieces of any length."""
    prior = prior_of("tokens", 3)
    x = torch.randn(2, prior.network.length, 8, dtype=torch.float64)
    whole = prior.network(x)
    caches = prior.network.caches()
    parts = [prior.network(part, caches) for part in x.split([1, 3, 1, x.shape[1] - 5], 1)]
    same(torch.cat(parts, 1), whole)
    with pytest.raises(InputError, match="a sequence has"):
        prior.network(x[:, :1], caches)


def slow_probabilities(
    logits: list[float], temperature: float, top_k: int | None, top_p: float | None
) -> list[float]:
    heated = [x / temperature for x in logits]
    ranked = sorted(range(len(logits)), key=lambda i: -heated[i])[: top_k or len(logits)]
    mass = {i: math.exp(heated[i]) for i in ranked}
    whole = sum(mass.values())
    kept, reached = [], 0.0
    for i in ranked:
        if top_p is not None and reached >= top_p:
            break
        kept.append(i)
        reached += mass[i] / whole
    total = sum(mass[i] for i in kept)
    return [mass[i] / total if i in kept else 0.0 for i in range(len(logits))]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("top_k", [None, 1, 4, 99])
@pytest.mark.parametrize("top_p", [None, 0.01, 0.5, 0.9, 1.0])
def test_top_k_top_p_and_temperature(
    temperature: float, top_k: int | None, top_p: float | None
) -> None:
    logits = torch.randn(5, 9, dtype=torch.float64) * 2
    found = SamplingConfig(temperature, top_k, top_p).probabilities(logits)
    slow = [slow_probabilities(row, temperature, top_k, top_p) for row in logits.tolist()]
    same(found, torch.tensor(slow, dtype=torch.float64))


def test_entries_are_sampled_by_their_probabilities() -> None:
    probabilities = torch.tensor([[0.0, 0.5, 0.0, 0.3, 0.2, 0.0]]).repeat(20_000, 1)
    noise = torch.rand(20_000, generator=Generator().manual_seed(0), dtype=torch.float64)
    fractions = torch.bincount(sample_categorical(probabilities, noise), minlength=6) / 20_000
    assert (fractions - probabilities[0]).abs().max() < 0.015
    ends = torch.tensor([0.0, 1 - 1e-16], dtype=torch.float64)
    assert sample_categorical(probabilities[:2], ends).tolist() == [1, 4]


@torch.no_grad()
def test_the_start_is_never_drawn() -> None:
    prior = prior_of("scalars")
    prior.head.head.weight[-1] = 0  # its logit is 0, all others -1000 or so
    prior.head.head.weight[:-1] = prior.head.head.weight[:1] * 0 - 1000
    prior.network.norm.weight.zero_()
    prior.network.norm.bias.fill_(1.0)
    probabilities = prior.head.logits(
        prior.hidden_states(prior.tokenize(some(weights(7), 2).double()))
    ).softmax(-1)
    assert (probabilities[..., -1] > 0.999).all()
    tokens = prior.draw(20, None, Generator().manual_seed(0))
    assert int(tokens.max()) < 6


def test_sampling_options_are_checked() -> None:
    ids, numbers, l1 = (prior_of(kind) for kind in ("scalars", "mixture", "l1"))
    for prior, option, match in [
        (ids, dict(topk=3), "unknown sampling option.*did you mean 'top_k'"),
        (ids, dict(top_k=0), "top_k = 0"),
        (ids, dict(top_p=0.0), "top_p = 0"),
        (ids, dict(temperature=0.0), "temperature = 0"),
        (numbers, dict(top_k=3), "these are of token ids"),
        (l1, dict(temperature=0.5), "head 'l1' has one answer"),
    ]:
        with pytest.raises(InputError, match=match):
            prior.sample(2, **option)
    with pytest.raises(InputError, match="the codec makes the tokens"):
        Autoregressive((1, 4), codec=Quantize((1, 4)), token="row")
    with pytest.raises(InputError, match="codes need labels"):
        prior_of("scalars", 3).loss(some(weights(7), 2).double())


@torch.no_grad()
def test_a_cold_mixture_is_its_middle_and_l1_has_one_answer() -> None:
    cold = prior_of("gaussian").sample(3, temperature=1e-12)
    same(cold[0], cold[1], rtol=1e-4, atol=1e-4)
    hot = prior_of("gaussian").sample(3)
    assert (hot[0] - hot[1]).abs().max() > 1e-2
    only = prior_of("l1").sample(3)
    same(only[0], only[1], rtol=0, atol=0)


def fitted(prior: nn.Module, codes: Tensor, labels: Tensor | None, steps: int) -> nn.Module:
    prior.fit(codes, labels)
    adam = torch.optim.Adam(prior.parameters(), 3e-3)
    for _ in range(steps):
        loss = prior.loss(codes, labels).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    return prior.eval()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tokens", "mixture"])
def test_a_toy_distribution_is_learned(kind: str) -> None:
    """Class 0: b = a, class 1: b = -a, a is 1 or 2 in fractions of 3 to 1; class 1 three times."""
    classes = torch.tensor([0, 1, 1, 1]).repeat(64)
    a = torch.where(torch.arange(256) // 4 % 4 == 0, 2.0, 1.0)
    codes = torch.stack([a, torch.where(classes == 0, a, -a)], 1)[:, None]
    codes = codes + 0.05 * torch.randn(codes.shape, generator=Generator().manual_seed(0))
    codec = CODECS["quantize"]((1, 2), codebook_size=7, center="none") if kind == "tokens" else None
    prior = Autoregressive((1, 2), 2, codec, depth=1, width=32, heads=2, components=4)
    fitted(prior, codes, classes, 300)
    sampled = prior.sample(400, generator=Generator().manual_seed(0))[:, 0]
    near = lambda x, y: (x - y).abs() < 0.4
    same_sign = near(sampled[:, 0], sampled[:, 1])
    other_sign = near(sampled[:, 0], -sampled[:, 1])
    assert (same_sign | other_sign).float().mean() > 0.95
    assert 0.15 < same_sign.float().mean() < 0.35
    assert 0.15 < near(sampled[:, 0], 2.0).float().mean() < 0.35
    for label, right in ((0, 1), (1, -1)):
        asked = prior.sample(200, label, generator=Generator().manual_seed(0))[:, 0]
        assert near(asked[:, 0] * right, asked[:, 1]).float().mean() > 0.95
    if kind == "tokens":  # the likeliest entry alone
        greedy = prior.sample(50, 1, generator=Generator().manual_seed(0), top_k=1)[:, 0]
        assert near(greedy, torch.tensor([1.0, -1.0])).all()


def test_fields_of_mnist_have_the_published_lengths() -> None:
    """16 features, 16-16-1: 560 weights and, as in the report, an output's bias."""
    for bias, count in ((True, 561), (False, 560)):
        field = FourierMlp(
            2,
            1,
            width=16,
            depth=3,
            output_bias=bias,
            encoding=Fourier("octaves", count=4, pi=False),
        )
        conditioner = FlatWeights(field.slots)
        assert len(cut_tokens(conditioner.code_shape, conditioner.layout, "scalar").index) == count
        assert len(cut_tokens(conditioner.code_shape, conditioner.layout, "neuron").index) == 33


# -- a run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A finished run of weights:tiny, and what was finished when its codec was."""
    folder, finished = tmp_path_factory.mktemp("runs") / "weights", []
    train(
        recipes.load("weights:tiny"), str(folder), on_codec=lambda s, _: finished.extend(s.finished)
    )
    return folder, finished


def test_a_run_samples_by_tokens(run: tuple[Path, list[str]]) -> None:
    folder, finished = run
    assert finished == ["field", "codec"]  # before anything is trained on tokens
    system = fieldloom.load(folder)
    codec = system.prior.codec
    same(codec.center, system.family.conditioner.origin(1)[0].detach(), rtol=0, atol=0)
    codes = system.sample_codes(3, label=5, top_k=3, top_p=0.9, temperature=0.8)
    # a sample is made of entries: of each token one of the first level plus one of the second
    index = codec.index
    left = gather_tokens(codes - codec.center, index)
    sums = (codec.books[0, 0][:, None] + codec.books[0, 1]).flatten(0, 1) * (index >= 0)[:, None]
    far = (left[:, :, None] - sums).abs().amax(-1)  # (3, tokens, 15 * 15)
    assert far.amin(2).max() < 1e-6
    raw = gather_tokens(Run(folder).read_codes()[0][:3] - codec.center, index)
    assert (raw[:, :, None] - sums).abs().amax(-1).amin(2).max() > 1e-3  # unlike what was fitted
    assert system.decode(codes).shape == (3, 1, 8, 8)
    same(system.sample_codes(3, label=5, top_k=1), system.sample_codes(3, label=5, top_k=1))
    with pytest.raises(InputError, match="unknown sampling option"):
        system.sample_codes(3, guidance=2.0)


def test_interrupted_training_goes_on_as_if_it_had_not_been(
    run: tuple[Path, list[str]], tmp_path: Path
) -> None:
    half = recipes.load("weights:tiny", ["train.prior.save_every=10"])
    saved = []
    write = Run.write_state

    def stop(self: Run, stage: str, *state: object) -> None:
        write(self, stage, *state)
        saved.append(stage)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "write_state", stop)
        with pytest.raises(KeyboardInterrupt):
            train(half, str(tmp_path / "run"))
    assert saved == ["prior"]
    again = train(None, str(tmp_path / "run"), resume=True)
    whole = fieldloom.load(run[0])
    for name, tensor in whole.state_dict().items():
        same(again.state_dict()[name], tensor, rtol=0, atol=0)


def test_keys_of_before_are_read() -> None:
    """Of a variant, of --set, and of a codec inside a codec."""
    new = ["prior.codec.codebook_size=9", "prior.positions=['level']"]
    old = ["prior.codec.codes=9", "prior.places=['level']"]
    for name in ("weights:tiny", "weights:tiny-graph-words"):
        with pytest.warns(UserWarning, match=r"codes.*codebook_size.*"):
            found = recipes.load(name, old)
        assert found == recipes.load(name, new)
        assert found["prior"]["codec"]["codebook_size"] == 9
    with pytest.warns(UserWarning, match="tensors.*weight-transformer"):
        before = recipes.load("hyperdiffusion:tiny", ["prior.denoiser.name=tensors"])
    assert before == recipes.load("hyperdiffusion:tiny")


def test_the_ceiling_is_measured_on_the_signal(run: tuple[Path, list[str]]) -> None:
    folder, _ = run
    system = fieldloom.load(folder)
    source = open_source(system.recipe, system.modality)
    codes = Run(folder).read_codes()[0][:20]
    data = source.read(source.train[:20])
    own = evaluator_of(system, source)
    found = {f.name: f.value for f in codec_upper_bound(own, data, codes)}
    assert set(found) == {"ceiling.weights", "fitted.psnr", "ceiling.psnr"}
    true = data.tensor
    by_hand = [
        psnr(system.predict(c).tensor, true).mean().item() for c in (codes, coded(system, codes))
    ]
    same([found["fitted.psnr"], found["ceiling.psnr"]], by_hand, rtol=1e-6, atol=0)
    assert found["ceiling.psnr"] != found["fitted.psnr"]  # of fields that hardly know their data
    assert 0 < found["ceiling.weights"] < 1
    system.prior.codec = CODECS["identity"](system.prior.code_shape)
    exact = {f.name: f.value for f in codec_upper_bound(own, data, codes)}
    assert exact["ceiling.psnr"] == exact["fitted.psnr"]
    assert exact["ceiling.weights"] == 0


def coded(system: fieldloom.System, codes: Tensor) -> Tensor:
    return system.prior.codec.decode(system.prior.codec.encode(codes))


def test_the_command_says_the_ceiling(run: tuple[Path, list[str]]) -> None:
    folder, _ = run
    done = CliRunner().invoke(app, ["ceiling", str(folder), "--count", "7"])
    assert done.exit_code == 0, done.output
    assert "ceiling.psnr" in done.output
    assert "7 training data" in done.output
    names = [figure["name"] for figure in json.loads((folder / "ceiling.json").read_text())]
    assert names == ["ceiling.weights", "fitted.psnr", "ceiling.psnr"]


def test_the_ceiling_of_shapes() -> None:
    """IoU and Chamfer of grids, IoU of scattered points."""
    from fieldloom.assembly import build as assemble

    recipe = recipes.load("weights:tiny")
    changed = recipe | {
        "modality": {"name": "voxel", "size": 8, "range": "unit"},
        "objective": "reconstruction",
        "encoder": "nothing",
        "prior": {"name": "autoregressive", "codec": "quantize", "width": 16},
    }
    for modality in ("voxel", "points"):
        changed["modality"] = changed["modality"] | {"name": modality}
        system = assemble(changed)
        codes = some(system.family.conditioner, 5)
        system.prior.fit(codes, start=system.family.conditioner.origin(1)[0].detach())
        grid = modality == "voxel"
        coords = torch.rand(5, 30, 3) * 2 - 1
        data = system.predict(codes) if grid else Data(torch.rand(5, 30, 1), coords=coords)
        own = evaluator_of(system, Source(data, (), torch.arange(5), torch.arange(0)))
        found = {f.name: f.value for f in codec_upper_bound(own, data, codes)}
        metrics = {"psnr", "iou"} | ({"chamfer", "empty"} if grid else set())
        names = {f"{kind}.{name}" for kind in ("fitted", "ceiling") for name in metrics}
        assert set(found) == names | {"ceiling.weights"}
        if grid:
            assert found["fitted.iou"] == 1 >= found["ceiling.iou"]


def test_a_codecs_own_vectors_are_tokens() -> None:
    """Of another shape than the code's: rows of theirs, whatever the layout of the weights."""

    class Halves(CODECS["identity"]):
        inner_shape = (2, 3)

        def encode(self, code: Tensor) -> Tensor:
            return code.reshape(len(code), 2, 3)

        def decode(self, inner: Tensor) -> Tensor:
            return inner.reshape(len(inner), 1, 6)

    field = Siren(1, 1, width=1, depth=2)
    layout = FlatWeights(field.slots).layout
    prior = Autoregressive((1, 6), codec=Halves((1, 6)), layout=layout, width=8, heads=2, depth=1)
    codes = torch.randn(4, 1, 6)
    same(prior.tokenize(codes), codes.view(4, 2, 3), rtol=0, atol=0)
    same(prior.codec.decode(prior.detokenize(prior.tokenize(codes))), codes, rtol=0, atol=0)
    assert prior.sample(2).shape == (2, 1, 6)
