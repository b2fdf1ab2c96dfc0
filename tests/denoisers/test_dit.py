"""The transformer that denoises tokens, against its definition."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusions import CLASSES, SHAPE, stage2
from fieldloom.conditioners import FlatWeights
from fieldloom.denoisers import DENOISERS, Dit, ResMlp, WeightTransformer
from fieldloom.errors import InputError
from fieldloom.fields import Siren
from fieldloom.metrics.cost import count_parameters
from fieldloom.registry import build
from vectors import same


def fresh(classes: int = CLASSES, **own: object) -> Dit:
    return Dit(SHAPE, classes, **(dict(depth=2, width=24, heads=3, time=8) | own)).double()


def stirred(classes: int = CLASSES) -> Dit:
    """A network of which no part is zero."""
    net = fresh(classes)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0, 0.3)
    return net


def inputs(batch: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    code = torch.randn(batch, *SHAPE, dtype=torch.float64)
    return code, torch.randint(1000, (batch,)), torch.randint(CLASSES, (batch,))


# -- the network


def test_the_published_size() -> None:
    """LA-GINR's 458M: DiT-L between tokens of 256 channels, whose positions are no parameters."""
    tables = {"denoiser": DENOISERS}
    with torch.device("meta"):
        net = build("denoiser", "dit", tables, code_shape=(256, 256), classes=1000)
    assert count_parameters(net) == 458_316_032
    assert sum(tensor.numel() for tensor in net.state_dict().values()) == 458_316_032


def waves(at: float, width: int) -> Tensor:
    """[cos | sin] of at / 10000^(2 i / width)."""
    angles = [at / 10000 ** (2 * i / width) for i in range(width // 2)]
    waves = [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
    return torch.tensor(waves, dtype=torch.float64)


def slow_attention(attention: nn.Module, x: Tensor) -> Tensor:
    """Of one signal (tokens, width), head by head, query by query."""
    q, k, v = attention.qkv(x).split(x.shape[1], 1)
    mixed = []
    for mine in torch.arange(x.shape[1]).chunk(attention.heads):
        scores = [[(a @ b / math.sqrt(len(mine))).exp() for b in k[:, mine]] for a in q[:, mine]]
        rows = [sum(s * w for s, w in zip(row, v[:, mine], strict=True)) for row in scores]
        mixed.append(torch.stack([r / sum(s) for r, s in zip(rows, scores, strict=True)]))
    return attention.out(torch.cat(mixed, 1))


def slow(net: Dit, code: Tensor, time: int, label: int) -> Tensor:
    """One signal (tokens, width) by section 3.2 of arXiv:2212.09748."""
    width = net.input.out_features

    def norm(x: Tensor) -> Tensor:
        return (x - x.mean(1, True)) / (x.var(1, correction=0, keepdim=True) + 1e-6).sqrt()

    embedded = waves(time, net.time[0].in_features)
    condition = F.silu(net.time[2](F.silu(net.time[0](embedded))) + net.label.weight[label])
    x = net.input(code) + torch.stack([waves(i, width) for i in range(len(code))])
    for block in net.blocks:
        b1, g1, a1, b2, g2, a2 = block.adapt[1](condition).view(6, width)
        x = x + a1 * slow_attention(block.attention, norm(x) * (1 + g1) + b1)
        x = x + a2 * block.mlp[2](F.gelu(block.mlp[0](norm(x) * (1 + g2) + b2)))
    shift, scale = net.adapt[1](condition).view(2, width)
    return net.output(norm(x) * (1 + scale) + shift)


def test_the_network_is_its_definition() -> None:
    net, (code, time, label) = stirred(), inputs()
    cases = zip(code, time.tolist(), label.tolist(), strict=True)
    expected = torch.stack([slow(net, *case) for case in cases])
    # angles are float32: a time of 1000 has its phase to 6e-5
    same(net(code, time, label), expected, rtol=1e-3, atol=1e-3)
    same(net(code, 0 * time, label), torch.stack([slow(net, c, 0, int(n)) for c, n in
         zip(code, label, strict=True)]), rtol=1e-5, atol=1e-5)  # fmt: skip


def test_the_initial_draw() -> None:
    """Answers 0; linear maps Xavier-uniform, embeddings N(0, 0.02), modulations zero."""
    net = fresh(classes=200, width=48)
    code, time, label = inputs()
    assert not net(code, time, label).any()
    for name, parameter in net.named_parameters():
        if name.endswith("bias") or "adapt" in name or name.startswith("output"):
            assert not parameter.any(), name
        elif name.startswith(("time", "label")):
            assert 0.015 < parameter.std() < 0.025, name
        else:
            bound = math.sqrt(6 / sum(parameter.shape))
            assert 0.9 * bound < parameter.abs().max() <= bound, name


def test_a_gradient_reaches_every_parameter() -> None:
    net = stirred()
    net(*inputs()).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_a_fresh_network_can_leave_zero() -> None:
    """Zeros in a row would stay: only the last map's own may be there."""
    net = fresh()
    net(*inputs()).sub(1).square().sum().backward()
    assert net.output.weight.grad.any()
    assert net.output.bias.grad.any()


def test_signals_are_independent() -> None:
    net, (code, time, label) = stirred(), inputs()
    whole = net(code, time, label)
    assert whole.shape == code.shape
    for i in range(len(code)):
        one = slice(i, i + 1)
        same(net(code[one], time[one], label[one]), whole[one])


def test_a_token_knows_its_place() -> None:
    """Permuting the tokens permutes the answer only where their positions are taken away."""
    net, (code, time, label) = stirred(), inputs()
    order = torch.tensor([2, 0, 1, 4, 3])
    moved = lambda: net(code[:, order], time, label) - net(code, time, label)[:, order]
    assert moved().abs().amax((1, 2)).min() > 0.01
    net.position.zero_()
    same(moved(), torch.zeros_like(code))


def test_time_and_class_matter() -> None:
    net, (code, time, label) = stirred(), inputs()
    whole = net(code, time, label)
    for other in (net(code, (time + 500) % 1000, label), net(code, time, (label + 1) % CLASSES)):
        assert (other - whole).abs().amax((1, 2)).min() > 0.01


LAYOUT = FlatWeights(Siren(2, 1, width=3, depth=2).slots).layout
MAKERS = {
    "resmlp": lambda classes: ResMlp((1, 13), classes, depth=2, width=12, groups=3, time=8),
    "dit": lambda classes: Dit((1, 13), classes, depth=2, width=24, heads=3, time=8),
    "weight-transformer": lambda classes: WeightTransformer(
        (1, 13), LAYOUT, classes, width=12, depth=2, heads=3, bands=4
    ),
}


@pytest.mark.parametrize("name", DENOISERS)
def test_no_label_is_any_class(name: str) -> None:
    """Of every denoiser: the last row of its embedding; without classes labels do not matter."""
    code, time = torch.randn(3, 1, 13, dtype=torch.float64), torch.tensor([0, 7, 500])
    label = torch.tensor([0, 3, 2])
    for classes in (CLASSES, 0):
        net = MAKERS[name](classes).double()
        for parameter in net.parameters():
            nn.init.normal_(parameter, std=0.3)
        free = net(code, time)
        if classes:
            same(free, net(code, time, torch.full_like(label, CLASSES)), rtol=0, atol=0)
            assert (free - net(code, time, label)).abs().amax((1, 2)).min() > 1e-4
        else:
            assert net.label is None
            same(free, net(code, time, label), rtol=0, atol=0)


def test_positions_are_not_saved() -> None:
    net, twin, given = stirred(), fresh(), inputs()
    assert "position" not in net.state_dict()
    twin.load_state_dict(net.state_dict())
    same(twin(*given), net(*given), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(depth=0), "depth = 0 is at least 1"),
        (dict(ratio=0.0), "ratio = 0 positive"),
        (dict(width=27), "width = 27 and time = 8 are even"),
        (dict(time=7), "width = 24 and time = 7 are even"),
        (dict(heads=5), "heads = 5: a divisor of the width, 24"),
        (dict(heads=0), "heads = 0: a divisor"),
    ],
)
def test_wrong_sizes_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fresh(**wrong)


def test_a_code_of_another_shape_is_refused() -> None:
    code, time, label = inputs()
    with pytest.raises(InputError, match=r"a code is \(5, 3\), not \(1, 3\)"):
        fresh()(code[:, :1], time, label)


# -- LA-GINR's second stage: linear schedule, x0, guidance; in float32


def test_many_codes_are_denoised_a_few_at_a_time() -> None:
    """Pieces of codes with their own times and labels: the same answer, in bounded memory."""
    net, (code, time, label) = stirred(), inputs(7)
    seen: list[int] = []
    net.register_forward_hook(lambda module, given, answer: seen.append(len(answer)))
    prior = stage2(net, SHAPE)
    whole = prior.denoise(code, time, label)
    same(prior.denoise(code, time, label, tokens=3 * SHAPE[0]), whole)
    same(prior.denoise(code, time, label, tokens=1), whole)
    assert seen == [7, 3, 3, 1, *[1] * 7]
