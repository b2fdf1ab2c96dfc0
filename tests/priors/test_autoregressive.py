"""The transformer that generates tokens one after another."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Generator, Tensor, nn

from fieldloom import recipe as recipes
from fieldloom.assembly import TABLES
from fieldloom.codecs import CODECS, Quantize, Whiten
from fieldloom.conditioners import FlatWeights
from fieldloom.errors import InputError
from fieldloom.fields import Siren
from fieldloom.metrics.cost import count_parameters
from fieldloom.nn.transformer import CausalAttention
from fieldloom.priors import Autoregressive
from fieldloom.priors.heads import SamplingConfig, sample_categorical
from fieldloom.registry import build
from vectors import Vectors, load, same
from weights import some, weights

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


def test_a_part_of_a_call_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fieldloom.priors.prior.BATCH", 2)
    for kind in [kind for kind in KINDS if kind != "l1"]:
        prior = prior_of(kind, 3)
        draw = lambda part, own=prior: own.sample(
            5, generator=Generator().manual_seed(2), part=part, temperature=0.9
        )
        assert torch.equal(draw((2, 5)), draw(None)[2:])


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
        (ids, dict(top_k=0), "top_k=0 "),
        (ids, dict(top_p=0.0), "top_p=0.0"),
        (ids, dict(temperature=0.0), "temperature=0.0"),
        (numbers, dict(top_k=3), "are for tokens"),
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


# -- a run


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
