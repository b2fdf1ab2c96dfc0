"""The critic of patches: slow loops over patches, scales, norms, and whose step moves them."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from fieldloom import recipe as recipes
from fieldloom.conditioners import Hyper
from fieldloom.engine.loop import Training
from fieldloom.engine.run import Run
from fieldloom.engine.stage import Stage
from fieldloom.engine.tensors import read_tensors, write_tensors
from fieldloom.errors import InputError
from fieldloom.family import Family
from fieldloom.fields.mlp import Siren
from fieldloom.modalities import Grid
from fieldloom.objectives import CRITICS
from fieldloom.objectives.adversarial import Adversarial
from fieldloom.objectives.critics import PatchCritic
from fieldloom.priors import Gaussian
from fieldloom.registry import build
from fieldloom.renderers import Direct, Plucker
from fieldloom.training import train
from fieldloom.types import Batch, Signal

BATCH, SIDE, WIDTH = 3, 8, 2
CPU = torch.device("cpu")


def small(**arguments):
    defaults = dict(coord_dim=2, value_dim=2, width=3, depth=2, scales=2)
    return PatchCritic(**(defaults | arguments)).double()


def judge(critic, pictures):
    """Logits (batch, scales, rows, columns) of pictures (batch, channel, height, width)."""
    sides = tuple(pictures.shape[2:])
    logits = critic(
        torch.zeros(len(pictures), sides[0] * sides[1], 2).double(), _set(pictures), sides
    )
    height = max(sides[0] // 2 ** _depth(critic), 1)
    return logits.unflatten(1, (len(critic.scales), height, -1))


def _set(pictures):
    return pictures.flatten(2).mT


def _depth(critic):
    return sum(isinstance(layer, nn.LeakyReLU) for layer in critic.scales[0])


def convolutions(critic):
    return [m for m in critic.modules() if isinstance(m, nn.Conv2d)]


def vectors(critic):
    """The singular vectors of all spectral norms, by name."""
    return {n: t.clone() for n, t in critic.state_dict().items() if n.endswith(("._u", "._v"))}


# -- patches


def divided(convolution):
    """A convolution's weight over the norm that its own vectors tell, from what is saved."""
    saved = convolution.state_dict()
    u, v, raw = (saved[f"parametrizations.weight.{n}"] for n in ("0._u", "0._v", "original"))
    return raw / (u @ raw.flatten(1) @ v)


def window(picture, top, left, size):
    """Rows top to top + size, and columns, zero where the picture (channel, h, w) has none."""
    found = picture.new_zeros(len(picture), size, size)
    for i in range(size):
        for j in range(size):
            if 0 <= top + i < picture.shape[1] and 0 <= left + j < picture.shape[2]:
                found[:, i, j] = picture[:, top + i, left + j]
    return found


def patch_of(layers, extents, picture, top, left, size):
    """The window of what the layers answer, from the one patch of the picture that it needs."""
    if not layers:
        return window(picture, top, left, size)
    *before, layer = layers
    (k, _), stride, pad = layer.kernel_size, layer.stride[0], layer.padding[0]
    first = [x * stride - pad for x in (top, left)]
    needed = patch_of(before, extents, picture, *first, (size - 1) * stride + k)
    if before:
        height, width = extents[len(before)]
        needed = F.leaky_relu(needed, 0.2)
        rows, columns = (x + torch.arange(needed.shape[1]) for x in first)
        needed[:, (rows < 0) | (rows >= height)] = 0  # a convolution pads with zeros
        needed[:, :, (columns < 0) | (columns >= width)] = 0
    return F.conv2d(needed[None], divided(layer), layer.bias, stride)[0]


def slow_scale(scale, picture):
    """Logits (rows, columns) of one picture, each from its own patch."""
    layers = [layer for layer in scale if isinstance(layer, nn.Conv2d)]
    extents = [tuple(picture.shape[1:])]
    for layer in layers[:-1]:
        (k, _), pad = layer.kernel_size, layer.padding[0]
        extents.append(tuple((n + 2 * pad - k) // 2 + 1 for n in extents[-1]))
    rows, columns = extents[-1]
    return torch.stack(
        [
            torch.cat(
                [patch_of(layers, extents, picture, i, j, 1).flatten() for j in range(columns)]
            )
            for i in range(rows)
        ]
    )


def slow_half(picture):
    return torch.stack(
        [
            torch.stack(
                [
                    picture[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((1, 2))
                    for j in range(picture.shape[2] // 2)
                ],
                1,
            )
            for i in range(picture.shape[1] // 2)
        ],
        1,
    )


@pytest.mark.parametrize(
    ("sides", "arguments"),
    [
        ((8, 8), {}),
        ((12, 9), {}),
        ((8, 11), dict(kernel=3)),
        ((9, 8), dict(kernel=5)),
        ((8, 10), dict(kernel=2, depth=1)),
        ((16, 8), dict(scales=3, depth=1)),
        ((16, 17), dict(scales=1, depth=4, width=1)),
    ],
)
def test_a_logit_is_that_of_its_patch(sides, arguments):
    """Every logit by plain convolutions of one cropped patch, of every scale by itself."""
    critic = small(**arguments).eval()
    pictures = torch.randn(2, 2, *sides).double()
    found = critic(torch.zeros(2, sides[0] * sides[1], 2).double(), _set(pictures), sides)
    for picture, logits in zip(pictures, found, strict=True):
        expected = []
        for place, scale in enumerate(critic.scales):
            picture = slow_half(picture) if place else picture
            own = slow_scale(scale, picture)
            if not place:
                rows, columns = own.shape
            up = [[own[i * len(own) // rows, j * own.shape[1] // columns] for j in range(columns)]
                  for i in range(rows)]  # fmt: skip
            expected += [logit for row in up for logit in row]
        torch.testing.assert_close(logits, torch.stack(expected))


def test_a_logit_depends_on_its_receptive_field_alone():
    """Strides of 2 and kernels of 4, then one of 3: 18 by 18 pixels, 4 apart; the next 36, 8."""
    critic = small(depth=2).eval()
    picture = torch.randn(1, 2, 40, 40).double()
    before = judge(critic, picture)
    for row, column in [(0, 0), (4, 6), (9, 9), (3, 0)]:
        for scale, (near, far) in enumerate([(7, 10), (14, 21)]):
            step = 4 * 2**scale
            centre = [(x // 2**scale) * step for x in (row, column)]
            (top, bottom), (left, right) = ((c - near, c + far) for c in centre)
            outside = torch.ones(40, 40, dtype=torch.bool)
            outside[max(top, 0) : max(bottom + 1, 0), max(left, 0) : max(right + 1, 0)] = False
            changed = picture + outside * torch.randn_like(picture)
            after = judge(critic, changed)
            torch.testing.assert_close(after[0, scale, row, column], before[0, scale, row, column])
            assert not torch.allclose(after, before)
            inside = picture + ~outside * torch.randn_like(picture)
            assert not torch.allclose(
                judge(critic, inside)[0, scale, row, column], before[0, scale, row, column]
            )


def test_signals_are_judged_alone():
    critic, pictures = small().eval(), torch.randn(4, 2, 8, 8).double()
    together = judge(critic, pictures)
    for i in range(4):
        torch.testing.assert_close(judge(critic, pictures[i : i + 1])[0], together[i])


@pytest.mark.parametrize("sides", [(16, 16), (17, 23), (31, 16)])
def test_every_scale_weighs_the_same(sides):
    """Of a black picture a scale's logits are its last bias; their mean is that of the biases."""
    critic = small(scales=3)
    with torch.no_grad():
        for convolution in convolutions(critic):
            convolution.bias.zero_()
        for scale, bias in zip(critic.scales, (1.0, 10.0, 100.0), strict=True):
            scale[-1].bias.fill_(bias)
    logits = judge(critic, torch.zeros(2, 2, *sides).double())
    assert logits.mean((2, 3)).tolist() == [[1, 10, 100]] * 2
    assert logits.mean().item() == pytest.approx(37)


def test_every_patch_of_a_scale_weighs_the_same_where_sides_divide():
    critic, pictures = small(scales=3).eval(), torch.randn(2, 2, 32, 16).double()
    means = judge(critic, pictures).mean((2, 3))
    for place, scale in enumerate(critic.scales):
        picture = F.avg_pool2d(pictures, 2**place)
        torch.testing.assert_close(means[:, place], scale(picture).mean((1, 2, 3)))


def test_widths_are_doubled_and_capped():
    critic = PatchCritic(2, 3, width=2, depth=6, scales=1)
    sizes = [(c.in_channels, c.out_channels, c.stride[0]) for c in convolutions(critic)]
    assert sizes == [
        (3, 2, 2),
        (2, 4, 2),
        (4, 8, 2),
        (8, 16, 2),
        (16, 16, 2),
        (16, 16, 2),
        (16, 1, 1),
    ]
    assert all(hasattr(c, "parametrizations") for c in convolutions(critic))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in critic.modules())


def test_a_gradient_reaches_every_parameter():
    critic, pictures = small(), torch.randn(2, 2, 16, 16).double()
    judge(critic, pictures).square().mean().backward()
    for name, parameter in critic.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_a_gradient_by_finite_differences():
    """Through the division by the norm too, whose vectors are held."""
    critic, pictures = small().eval(), torch.randn(2, 2, 8, 8).double()
    weight = critic.scales[0][0].parametrizations.weight.original
    value = lambda: judge(critic, pictures).square().mean()
    (slope,) = torch.autograd.grad(value(), weight)
    for place in [(0, 0, 0, 0), (2, 1, 3, 2)]:
        ends = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                weight[place] += step
            ends.append(value().item())
            with torch.no_grad():
                weight[place] -= step
        assert slope[place].item() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-4, abs=1e-9)


# -- what is refused


def test_refusals():
    critic = small(depth=3, scales=2)
    where, values = torch.zeros(1, 64, 2).double(), torch.zeros(1, 64, 2).double()
    with pytest.raises(InputError, match="'patches' judges whole pictures: leave points out"):
        critic(where, values, None)
    with pytest.raises(InputError, match="two axes, not 3"):
        critic(where, values, (4, 4, 4))
    with pytest.raises(InputError, match="8 by 8 is too small .* at least 16 by 16"):
        critic(where, values, (8, 8))
    for wrong in (dict(width=0), dict(depth=0), dict(scales=0), dict(kernel=1), dict(slope=1.0)):
        with pytest.raises(InputError, match=f"{next(iter(wrong))} = "):
            small(**wrong)


@pytest.mark.parametrize(
    ("depth", "scales", "kernel"), [(1, 1, 4), (3, 1, 2), (2, 3, 4), (2, 2, 5)]
)
def test_the_smallest_picture(depth, scales, kernel):
    """The size that the message names is judged, with a logit at least; one less is refused."""
    critic = small(depth=depth, scales=scales, kernel=kernel)
    side = 2 ** (depth + scales - 1)
    logits = judge(critic, torch.randn(1, 2, side, side).double())
    assert logits.shape == (1, scales, 2 ** (scales - 1), 2 ** (scales - 1))
    with pytest.raises(InputError, match=f"at least {side} by {side}"):
        judge(critic, torch.randn(1, 2, side, side - 1).double())


def test_a_recipe_line_builds_it():
    spec = {"name": "patches", "width": 4, "depth": 1, "scales": 1, "kernel": 4, "slope": 0.1}
    critic = build("critic", spec, {"critic": CRITICS}, coord_dim=2, value_dim=3)
    assert critic.scales[0][0].in_channels == 3
    assert critic.scales[0][1].negative_slope == 0.1


# -- steps


def family(coord_dim=2):
    field = Siren(coord_dim, 2, width=4, depth=3, frequency=4.0)
    return Family(field, Hyper(field.slots, width=WIDTH, hidden=(5,))).double()


def duel(critic=None, coord_dim=2, render=None, **rules):
    prior = Gaussian((1, WIDTH), standard=True).double()
    rules = {"game": "hinge", "r1": 0.0} | rules
    return Adversarial(family(coord_dim), render or Direct(), prior, critic or small(), **rules)


def checks():
    """Chequered pictures: what no smooth field is at first."""
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    signs = 1 - 2.0 * ((rows + columns) % 2)
    pictures = torch.tensor([0.6, 0.8, 1.0])[:, None, None, None] * signs.expand(BATCH, 2, -1, -1)
    coords = Grid(2, SIDE).grid().expand(BATCH, -1, -1).double()
    signal = Signal(coords, _set(pictures).double(), torch.arange(BATCH), grid=(SIDE, SIDE))
    return Batch(signal, signal)


def stage(**more):
    optimizer = {"name": "adam", "rate": 1e-2}
    return Stage(**(dict(steps=100, batch=BATCH, optimizer=optimizer, schedule="constant") | more))


def largest(weight):
    return torch.linalg.matrix_norm(weight.detach().flatten(1), 2).item()


def test_the_largest_singular_values_stay_near_one():
    """By SVD, while those of the weights that are divided grow by a third and more."""
    critic = small(width=4)
    training = Training(duel(critic), stage())
    raw = lambda: [largest(c.parametrizations.weight.original) for c in convolutions(critic)]
    before = raw()
    for _ in range(30):
        training.advance(checks(), BATCH, 0, CPU)
    critic.eval()
    assert min(now / then for now, then in zip(raw(), before, strict=True)) > 4 / 3
    assert [largest(c.weight) for c in convolutions(critic)] == pytest.approx([1] * 6, abs=0.1)


def test_norms_move_in_the_critics_step_alone():
    objective = duel()
    objective.train()
    modes = {n: m.training for n, m in objective.named_modules()}
    before = vectors(objective.critic)
    assert len(before) == 2 * 2 * 3  # two scales of three convolutions: u and v each
    objective.loss("generator", checks())[0].backward()
    same = vectors(objective.critic)
    assert all(torch.equal(same[n], before[n]) for n in before)
    assert {n: m.training for n, m in objective.named_modules()} == modes
    objective.loss("critic", checks())
    after = vectors(objective.critic)
    assert not any(torch.equal(after[n], before[n]) for n in before if after[n].numel() > 1)


class Normed(nn.Module):
    """A critic with both kinds of norms."""

    def __init__(self):
        super().__init__()
        self.linear = spectral_norm(nn.Linear(2 * SIDE * SIDE, 3))
        self.norm = nn.BatchNorm1d(3)

    def forward(self, coords, values, grid):
        return self.norm(self.linear(values.flatten(1)))


def test_batch_norms_are_trained_in_both_steps():
    objective = duel(Normed().double())
    objective.train()
    mean, before = objective.critic.norm.running_mean.clone(), vectors(objective.critic)
    objective.loss("generator", checks())
    assert not torch.equal(objective.critic.norm.running_mean, mean)
    assert all(torch.equal(t, before[n]) for n, t in vectors(objective.critic).items())


def test_norms_move_again_after_a_critic_that_failed():
    objective = duel()
    objective.train()
    scattered = checks().target.subset(10)
    with pytest.raises(InputError, match="leave points out"):
        objective.loss("generator", Batch(scattered, scattered))
    assert all(m.training for m in objective.critic.modules())
    with pytest.raises(InputError, match="leave points out"):
        duel(points=10).loss("critic", checks())


def test_the_critic_learns_to_tell_and_the_generator_to_deceive():
    """Each alone, against the other as it is."""
    still = {"name": "sgd", "rate": 0.0}
    objective = duel(small(width=4))
    training = Training(objective, stage(groups={"generator": still}))
    logs = [training.advance(checks(), BATCH, 0, CPU) for _ in range(40)]
    assert logs[-1]["critic.loss"] < 0.5 * logs[0]["critic.loss"]
    assert logs[-1]["critic.data"] > 0.5 > -0.5 > logs[-1]["critic.samples"]
    training = Training(objective, stage(groups={"critic": still}))
    logs = [training.advance(checks(), BATCH, 0, CPU) for _ in range(40)]
    assert logs[-1]["critic.samples"] > logs[0]["critic.samples"] + 0.5
    assert logs[-1]["generator.loss"] < logs[0]["generator.loss"] - 0.5


def test_the_penalty_is_the_slope_of_the_mean_of_a_signals_logits():
    objective, data = duel(r1=2.0, r1_of="logit"), checks()
    objective.eval()  # norms stand still: the same critic for both
    judged = lambda values: objective.critic(
        data.target.coords[:1], values, data.target.grid
    ).mean()
    slopes = [
        torch.autograd.functional.jacobian(judged, data.target.values[i : i + 1])
        for i in range(BATCH)
    ]
    steep = np.mean([(s**2).sum().item() for s in slopes])
    loss, logs = objective.loss("critic", data)
    assert logs["gradient"].item() == pytest.approx(steep)
    assert loss.item() - logs["loss"].item() == pytest.approx(2.0 / 2 * steep)


def test_pictures_of_rays_are_judged_where_they_stand():
    """Critics of rendered views get pixels and their places in the picture, and its grid."""
    rays = torch.randn(BATCH, 16, 6).double()
    signal = Signal(rays, torch.randn(BATCH, 16, 2).double(), torch.arange(BATCH), grid=(4, 4))
    objective, seen = duel(small(depth=1), coord_dim=6, render=Plucker(), grid_dim=2), []
    whole = objective.critic.forward
    objective.critic.forward = lambda *given: seen.append(given) or whole(*given)
    for player in ("critic", "generator"):
        assert objective.loss(player, Batch(signal, signal))[0].isfinite()
    axis = torch.linspace(-1, 1, 4).double()
    expected = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).flatten(0, 1)
    assert len(seen) == 3
    for coords, _, grid in seen:
        torch.testing.assert_close(coords, expected.expand(BATCH, -1, -1))
        assert grid == (4, 4)


# -- runs that go on


def test_a_state_holds_all_that_the_critics_next_step_depends_on(tmp_path):
    """Through a file, into objectives that were drawn anew."""

    def ended(cut):
        training = Training(duel(), stage())
        training.objective.train()
        for step in range(6):
            if step == cut:
                write_tensors(tmp_path / "state", *training.state())
                torch.manual_seed(99)
                training = Training(duel(), stage())
                training.objective.train()
                training.restore(read_tensors(tmp_path / "state")[:2])
            training.advance(checks(), BATCH, 5, CPU)
        return training.state()[0]

    torch.manual_seed(1)
    straight = ended(None)
    torch.manual_seed(1)
    resumed = ended(3)
    names = {n.rpartition(".")[2] for n in straight if n.startswith("model/critic")}
    assert names == {"original", "_u", "_v", "bias"}
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[n], resumed[n]) for n in straight)


class Stop(Exception):
    pass


OVERRIDES = [
    'objective={game="hinge",r1=0.0,critic={name="patches",width=4,depth=2,scales=2}}',
    "train.field.ema=0.9",
]


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(tmp_path, monkeypatch):
    loaded = recipes.load("gasp:tiny", OVERRIDES)
    straight = train(loaded, str(tmp_path / "straight"))
    whole, calls = Training.advance, []

    def dying(self, *rest):
        calls.append(1)
        if len(calls) == 8:  # two steps after the checkpoint
            raise Stop
        return whole(self, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "advance", dying)
        with pytest.raises(Stop):
            train(loaded, str(tmp_path / "killed"))
    resumed = train(None, str(tmp_path / "killed"), resume=True).state_dict()
    assert all(torch.equal(resumed[n], t) for n, t in straight.state_dict().items())
    logs = [Run(tmp_path / name).read_log() for name in ("straight", "killed")]
    strip = lambda log: [{k: v for k, v in x.items() if k != "seconds_a_step"} for x in log]
    assert strip(logs[0]) == strip(logs[1])
    assert {"critic.loss", "critic.data", "critic.samples", "generator.loss"} <= set(logs[0][-1])
    assert straight.sample(2).shape == (2, 1, 8, 8)
