"""Degenerate identities, and fast paths against slow ones in float64, values and gradients."""

import math

import pytest
import torch
from torch import nn

from fieldloom.conditioners import Film, FlatWeights, Mixture, Shared, Shift
from fieldloom.encoders import Cavia
from fieldloom.errors import InputError
from fieldloom.family import Family
from fieldloom.fields import Fourier, FourierMlp, Siren
from fieldloom.metrics.losses import mse
from fieldloom.modalities.grid import Grid
from fieldloom.nn.layers import fourier, fourier_interleaved, linear, log_spaced, octaves
from fieldloom.objectives import Reconstruction
from fieldloom.priors import Diffusion
from fieldloom.renderers import Direct as DirectRenderer

torch.set_default_dtype(torch.float32)


def coords(batch=3, points=7, dim=2):
    return torch.rand(batch, points, dim, dtype=torch.float64) * 2 - 1


def test_linear_over_shared_and_own_weights_is_einsum():
    x = coords(3, 5, 4).requires_grad_()
    for weights, biases in [(1, 1), (3, 3), (1, 3), (3, 1), (1, None), (3, None)]:
        w = torch.randn(weights, 4, 2, dtype=torch.float64, requires_grad=True)
        b = None
        if biases:
            b = torch.randn(biases, 2, dtype=torch.float64, requires_grad=True)
        slow = torch.einsum("bpi,bio->bpo", x, w.expand(3, -1, -1))
        slow = slow if b is None else slow + b.expand(3, -1)[:, None]
        fast = linear(x, w, b)
        torch.testing.assert_close(fast, slow)
        inputs = [x, w] if b is None else [x, w, b]
        up = torch.randn_like(slow)
        for got, want in zip(
            torch.autograd.grad(fast, inputs, up),
            torch.autograd.grad(slow, inputs, up),
            strict=True,
        ):
            torch.testing.assert_close(got, want)


def siren_by_hand(x, weights, w0, depth, last):
    for i in range(depth):
        pre = torch.einsum("bpi,io->bpo", x, weights[f"{i}.weight"][0]) + weights[f"{i}.bias"][0]
        x = torch.sin(w0 * pre) if i < depth - 1 or last else pre
    return x


@pytest.mark.parametrize("output", ["sine", "linear"])
def test_siren_by_hand(output):
    siren = Siren(2, 3, width=5, depth=4, frequency=7.0, output=output, offset=0.25)
    family = Family(siren, Shared(siren.slots)).double()
    x = coords()
    weights = family.conditioner(family.conditioner.origin(3))
    by_hand = siren_by_hand(x, weights, 7.0, 4, output == "sine") + 0.25
    torch.testing.assert_close(family(x, family.conditioner.origin(3)), by_hand)


def test_a_frequency_for_each_layer():
    siren = Siren(2, 1, width=5, depth=3, frequency=(3.0, 5.0, 1.0))
    weights = {n: s.init(None)[None].double() for n, s in siren.slots.items()}
    x = coords()
    h = torch.sin(3 * (x @ weights["0.weight"] + weights["0.bias"]))
    h = torch.sin(5 * (h @ weights["1.weight"] + weights["1.bias"]))
    torch.testing.assert_close(siren(x, weights), h @ weights["2.weight"] + weights["2.bias"])


def test_siren_starts_as_published():
    """U(-1/in, 1/in), then U(-sqrt(6/width)/w0, ...): bounds reached, not crossed (2006.09661)."""
    siren = Siren(2, 3, width=200, depth=3, frequency=30.0)
    for name, bound in [
        ("0.weight", 0.5),
        ("1.weight", math.sqrt(6 / 200) / 30),
        ("1.bias", 200**-0.5),
    ]:
        drawn = siren.slots[name].init(torch.Generator().manual_seed(0))
        assert 0.95 * bound < drawn.abs().max() <= bound
        assert drawn.mean().abs() < 0.1 * bound


def test_a_mixture_of_one_is_the_siren():
    siren = Siren(2, 3, width=6, depth=4)
    mixture = Family(siren, Mixture(siren.slots, experts=1, width=5)).double()
    shared = Family(siren, Shared(siren.slots)).double()
    shared.conditioner.base.load_state_dict(mixture.conditioner.basis.state_dict())
    x, zero = coords(), mixture.conditioner.origin(3)
    torch.testing.assert_close(mixture(x, zero), shared(x, shared.conditioner.origin(3)))


def test_the_gain_gives_the_mean_of_the_bases_the_spread_of_a_siren():
    """The std of a mean of M draws is that of one over sqrt(M); by the gain it is that of one."""
    siren = Siren(2, 3, width=64, depth=3)
    make = lambda **own: Mixture(
        siren.slots, 25, 5, generator=torch.Generator().manual_seed(0), **own
    )
    released, scaled = make(), make(gain="sqrt")
    for name, slot in (("1.weight", siren.slots["1.weight"]), ("1.bias", siren.slots["1.bias"])):
        one = slot.init(torch.Generator().manual_seed(1)).std()
        mean = lambda mixture, name=name: mixture(mixture.origin(1))[name].detach().std()
        assert mean(scaled) == pytest.approx(float(one), rel=0.03 if name == "1.weight" else 0.3)
        assert mean(released) == pytest.approx(float(mean(scaled)) / 5, rel=1e-5)
        assert torch.equal(scaled.basis[name], released.basis[name] * 5)
        assert torch.equal(make(gain=5.0).basis[name], scaled.basis[name])
    assert torch.equal(scaled.project.weight, released.project.weight)
    one = Mixture(siren.slots, 1, 5, gain="sqrt", generator=torch.Generator().manual_seed(0))
    plain = Mixture(siren.slots, 1, 5, generator=torch.Generator().manual_seed(0))
    for name, own in one.state_dict().items():
        assert torch.equal(own, plain.state_dict()[name])


@pytest.mark.parametrize("gain", [0.0, -1.0, float("nan"), float("inf")])
def test_a_gain_out_of_range_is_refused(gain):
    with pytest.raises(InputError, match="gain"):
        Mixture(Siren(2, 3, width=4, depth=3).slots, gain=gain)


@pytest.mark.parametrize("coefficients", ["latent", "latent-shared", "layer", "shared"])
def test_equal_coefficients_are_model_averaging(coefficients):
    siren = Siren(2, 3, width=6, depth=4)
    mixture = Family(siren, Mixture(siren.slots, experts=5, coefficients=coefficients)).double()
    averaged = Family(siren, Shared(siren.slots)).double()
    basis = mixture.conditioner.basis
    averaged.conditioner.base.load_state_dict({n: basis[n].mean(0, keepdim=True) for n in basis})
    x = coords()
    torch.testing.assert_close(
        mixture(x, mixture.conditioner.origin(3)), averaged(x, averaged.conditioner.origin(3))
    )


def test_a_mixture_is_the_sum_over_bases_at_every_layer():
    """arXiv:2310.19464, eq. 3, first line: the sum of the bases' layers, not of weights."""
    siren = Siren(2, 3, width=6, depth=3, frequency=4.0, output="sine")
    family = Family(siren, Mixture(siren.slots, experts=4, width=5)).double()
    code, h = torch.randn(3, 1, 5, dtype=torch.float64), coords()
    alpha, basis, x = family.conditioner.alpha(code), family.conditioner.basis, h
    for i in range(3):
        layers = [h @ basis[f"{i}.weight"][m] + basis[f"{i}.bias"][m] for m in range(4)]
        h = torch.sin(4 * sum(alpha[:, i, m, None, None] * g for m, g in enumerate(layers)))
    torch.testing.assert_close(family(x, code), h)


@pytest.mark.parametrize("conditioner", [Shift, Film])
def test_zero_modulation_is_the_base(conditioner):
    siren = Siren(2, 3, width=6, depth=4)
    family = Family(siren, conditioner(siren.slots, width=5)).double()
    base = Family(siren, Shared(siren.slots)).double()
    base.conditioner.base.load_state_dict(family.conditioner.base.state_dict())
    nn.init.zeros_(family.conditioner.project.bias)
    x = coords()
    torch.testing.assert_close(
        family(x, family.conditioner.origin(3)), base(x, base.conditioner.origin(3))
    )


def test_film_scales_and_shifts_pre_activations():
    siren = Siren(2, 3, width=4, depth=2, frequency=3.0)
    film = Film(siren.slots, width=5).double()
    code, x = torch.randn(3, 1, 5, dtype=torch.float64), coords()
    scale, shift = film.project(code[:, 0]).chunk(2, -1)
    base = film.base
    pre = x @ base["0.weight"][0] + base["0.bias"][0]
    h = torch.sin(3 * (pre * (1 + scale[:, None]) + shift[:, None]))
    torch.testing.assert_close(
        Family(siren, film)(x, code), h @ base["1.weight"][0] + base["1.bias"][0]
    )


def test_direct_packs_and_unpacks():
    siren = Siren(2, 3, width=4, depth=3)
    direct = FlatWeights(siren.slots, width=10)
    code = torch.randn(2, *direct.code_shape)
    weights = direct(code)
    flat = direct.pack(weights).flatten(1)
    size = sum(direct.sizes)
    torch.testing.assert_close(flat[:, :size], code.flatten(1)[:, :size])
    assert (flat[:, size:] == 0).all()
    assert list(direct.layout) == list(siren.slots)


def test_fourier_features_by_hand():
    x = coords(2, 3, 2)
    log, octave = log_spaced(4, 8.0), octaves(3)
    torch.testing.assert_close(
        log / math.pi, torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64)
    )
    torch.testing.assert_close(octave / math.pi, torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64))
    by_hand = [f(w * x[..., i]) for f in (torch.cos, torch.sin) for i in (0, 1) for w in log]
    torch.testing.assert_close(fourier(x, log), torch.stack(by_hand, -1))
    by_hand = [f(w * x[..., i]) for w in octave for f in (torch.sin, torch.cos) for i in (0, 1)]
    torch.testing.assert_close(fourier_interleaved(x, octave), torch.stack(by_hand, -1))


def test_normalised_weights_do_not_care_for_scale():
    field = FourierMlp(
        2, 3, width=6, depth=3, normalize=True, encoding=Fourier("log", count=4, bandwidth=3.0)
    )
    family = Family(field, Shared(field.slots)).double()
    x, none = coords(), family.conditioner.origin(3)
    before = family(x, none)
    family.conditioner.base["1.weight"].data.mul_(7)
    torch.testing.assert_close(family(x, none), before)


def test_micro_batches_and_stacking_change_nothing():
    """The gradient of a batch is the mean of its signals' gradients, second order included."""
    torch.manual_seed(0)
    siren = Siren(2, 3, width=6, depth=3, frequency=5.0)
    family = Family(siren, Mixture(siren.slots, experts=3, width=4)).double()
    objective = Reconstruction(
        family, Cavia(family.code_shape, rate=0.5).double(), DirectRenderer(), mse
    )
    objective.train()
    batch = Grid(size=4).observe(torch.rand(6, 3, 4, 4))
    signal = batch.context
    from dataclasses import replace

    from fieldloom.types import Batch

    signal = replace(signal, coords=signal.coords.double(), values=signal.values.double())
    batch = Batch(signal, signal)
    parameters = [p for p in objective.parameters() if p.requires_grad]
    whole = torch.autograd.grad(objective.loss("field", batch)[0], parameters)
    parts = [torch.zeros_like(p) for p in parameters]
    for first in range(0, 6, 2):
        loss = objective.loss("field", batch.part(slice(first, first + 2)))[0] / 3
        for total, g in zip(parts, torch.autograd.grad(loss, parameters), strict=True):
            total += g
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b)


def test_second_order_gradient_by_finite_differences():
    torch.manual_seed(0)
    siren = Siren(2, 1, width=4, depth=3, frequency=4.0)
    family = Family(siren, Mixture(siren.slots, experts=2, width=3)).double()
    encoder = Cavia(family.code_shape, steps=2, rate=0.3).double()
    objective = Reconstruction(family, encoder, DirectRenderer(), mse).train()
    signal = Grid(size=3, channels=1).observe(torch.rand(2, 1, 3, 3)).context
    from dataclasses import replace

    from fieldloom.types import Batch

    signal = replace(signal, coords=signal.coords.double(), values=signal.values.double())
    loss = lambda: objective.loss("field", Batch(signal, signal))[0]
    for parameter in (family.conditioner.basis["1.weight"], encoder.rates):
        (exact,) = torch.autograd.grad(loss(), parameter)
        flat, place = parameter.data.view(-1), parameter.numel() // 2
        old = flat[place].item()
        ends = []
        for sign in (1, -1):
            flat[place] = old + sign * 1e-5
            ends.append(loss().item())
        flat[place] = old
        assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(exact.view(-1)[place].item(), rel=1e-5)


class Posterior(nn.Module):
    """The exact clean code of N(mean, std^2), given a noisy one."""

    def __init__(self, mean, std):
        super().__init__()
        self.mean, self.std, self.prior = mean, std, [None]
        self.device = nn.Parameter(torch.zeros(()))

    def forward(self, x, time, label=None):
        abar = self.prior[0].alphas_cumprod[time].double().view(-1, 1, 1)
        gain = abar.sqrt() * self.std**2 / (abar * self.std**2 + 1 - abar)
        return (self.mean + gain * (x.double() - abar.sqrt() * self.mean)).float()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "total", "steps"),
    [("ddim", 1000, 1000), ("ddim", 1000, 250), ("ddim", 1000, 130), ("ddim", 60, 60),
     ("ddpm", 1000, 1000), ("ddpm", 1000, 600), ("ddpm", 100, 100), ("dpm++", 1000, 50),
     ("dpm++", 1000, 130)],
)  # fmt: skip
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_sampling_a_gaussian_is_exact(sampler, total, steps, schedule):
    denoiser = Posterior(1.5, 0.4)
    prior = Diffusion((1, 4), denoiser, schedule=schedule, steps=total)
    denoiser.prior[0] = prior
    drawn = prior.sample(
        2000, generator=torch.Generator().manual_seed(0), sampler=sampler, steps=steps
    )
    assert drawn.mean().item() == pytest.approx(1.5, abs=0.03)
    assert drawn.std().item() == pytest.approx(0.4, abs=0.03)


def test_what_cannot_be_sampled_well_is_refused():
    prior = Diffusion((1, 4), nn.Linear(1, 1), steps=1000)
    with pytest.raises(ValueError, match="steps=1001 is not right: it is from 1 to 1000"):
        prior.sample(2, sampler="ddim", steps=1001)
    with pytest.raises(ValueError, match="predict = 'eps' divides by a signal"):
        Diffusion((1, 4), nn.Linear(1, 1), predict="eps", schedule="cosine")
    with pytest.raises(ValueError, match="guidance=3.0 needs label"):
        prior.sample(2, guidance=3.0)


@pytest.mark.parametrize("predict", ["x0", "eps", "v"])
def test_what_the_denoiser_predicts_gives_back_the_clean_code(predict):
    """The clean code of a perfect answer is x0, whatever the parametrisation."""
    prior = Diffusion((1, 3), nn.Linear(1, 1), predict=predict, schedule="linear", steps=100)
    clean, noise = torch.randn(2, 1, 3), torch.randn(2, 1, 3)
    time = torch.full((2,), 40)
    answer = prior.target(clean, noise, time)
    noisy = prior.add_noise(clean, noise, time)
    found = prior.estimate_clean(answer, noisy, prior.alphas_cumprod[40].item())
    torch.testing.assert_close(found, clean, rtol=1e-3, atol=1e-4)


def test_guidance_of_one_is_conditional_and_more_leaves_the_unconditional():
    class Means(nn.Module):
        def __init__(self):
            super().__init__()
            self.here = nn.Parameter(torch.zeros(()))

        def forward(self, x, time, label):
            return label.view(-1, 1, 1).float().expand_as(x)  # "any" is class 2

    prior = Diffusion((1, 1), Means(), classes=2, steps=10)
    at = lambda g: prior.sample(1, 0, generator=torch.Generator().manual_seed(0), guidance=g).item()
    assert at(1.0) == pytest.approx(0.0, abs=1e-4)
    assert at(3.0) == pytest.approx(2 + 3 * (0 - 2), abs=1e-3)
