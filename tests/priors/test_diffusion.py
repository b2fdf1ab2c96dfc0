"""Diffusion on codes as LA-GINR's second stage has it, and what it learns."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor, nn

from diffusions import CLASSES, SHAPE, stage2
from fieldloom.codecs import Whiten
from fieldloom.denoisers import Dit
from fieldloom.priors import Diffusion
from sampling import take_step
from vectors import Vectors, load, same

# -- LA-GINR's second stage: linear schedule, x0, guidance; in float32


class Two(nn.Module):
    """Answers ``conditional`` for a class and ``free`` for "any", and notes what it was asked."""

    def __init__(self, conditional: Tensor, free: Tensor) -> None:
        super().__init__()
        self.conditional, self.free = conditional, free
        self.weight = nn.Parameter(torch.zeros(()))  # a denoiser tells its device
        self.times: list[int] = []

    def forward(self, code: Tensor, time: Tensor, label: Tensor) -> Tensor:
        self.times.append(int(time[0]))
        return torch.where((label < CLASSES).view(-1, 1, 1), self.conditional, self.free)


@pytest.fixture
def vectors() -> Vectors:
    return load("laginr_ddpm")


def test_schedule(vectors: Vectors) -> None:
    prior = stage2(nn.Identity())
    same(prior.betas.double(), vectors["betas"], rtol=1e-5, atol=0)
    same(prior.alphas_cumprod.double(), vectors["alphas_bar"], rtol=1e-4, atol=0)


def test_noisy_tokens(vectors: Vectors) -> None:
    prior = stage2(nn.Identity())
    noisy = prior.add_noise(vectors["x0"], vectors["eps"], vectors["t"])
    same(noisy, vectors["xt"], rtol=1e-5, atol=1e-5)
    assert prior.target(vectors["x0"], vectors["eps"], vectors["t"]) is vectors["x0"]


@pytest.mark.parametrize(("spacing", "number"), [("leading", 0), ("trailing", 1)])
def test_a_step_of_250(vectors: Vectors, spacing: str, number: int) -> None:
    """500 -> 496 is a step of leading times, 3 -> the clean code one of trailing times."""
    prior = stage2(nn.Identity())
    time, before = (int(vectors[name][number]) for name in ("ddim_t", "ddim_tprev"))
    times = [*prior.times("ddim", 250, spacing), -1]
    assert times[times.index(time) + 1] == before
    clean, x = (vectors[name][number : number + 1].float() for name in ("ddim_x0hat", "xt"))
    expected = vectors["ddim_xprev"][number : number + 1].float()
    same(take_step(prior, "ddim", x, clean, time, before), expected, rtol=1e-4, atol=1e-4)


def test_guidance(vectors: Vectors) -> None:
    """uncond + 2.5 (cond - uncond) on x0, which the last step returns; its 250 published times."""
    two = Two(vectors["cfg_cond"].float(), vectors["cfg_uncond"].float())
    prior = stage2(two)
    draw = lambda **own: prior.sample(2, 1, steps=250, spacing="leading", **own)
    expected = vectors["cfg_2p5"].float()
    # the last of leading times, 0, goes to no noise at all
    same(draw(guidance=2.5), expected, rtol=1e-5, atol=1e-5)
    assert two.times[::2] == two.times[1::2] == list(range(996, -1, -4))
    same(draw(), two.conditional, rtol=1e-5, atol=1e-5)


def test_tokens_have_their_own_statistics() -> None:
    """The default of ``whiten``: every token's every channel by its own mean and deviation."""
    codes = torch.randn(500, *SHAPE) * torch.rand(SHAPE).add(0.1) + torch.randn(SHAPE)
    prior = stage2(nn.Identity(), SHAPE, codec=Whiten(SHAPE))
    prior.fit(codes)
    inner = prior.codec.encode(codes)
    same(inner.mean(0), torch.zeros(SHAPE), rtol=0, atol=1e-5)
    same(inner.std(0), torch.ones(SHAPE), rtol=0, atol=1e-5)


def test_a_tenth_of_the_classes_is_dropped() -> None:
    class Labels(nn.Module):
        def forward(self, code: Tensor, time: Tensor, label: Tensor) -> Tensor:
            self.seen = label
            return code

    prior = stage2(Labels(), (1, 1))
    prior.loss(torch.zeros(10_000, 1, 1), torch.ones(10_000, dtype=torch.long))
    seen = prior.denoiser.seen.bincount(minlength=CLASSES + 1)
    assert seen[1] + seen[CLASSES] == 10_000
    assert 850 < seen[CLASSES] < 1150  # five standard deviations


# -- what it learns


def two_modes(count: int = 256) -> tuple[Tensor, Tensor]:
    """Tokens 0 .. 4 times +-1, the sign that of the class: a code's place counts, too."""
    labels = torch.arange(count) % 2
    mean = torch.arange(SHAPE[0]).view(-1, 1) * (labels * 2.0 - 1).view(-1, 1, 1)
    return mean + 0.2 * torch.randn(count, *SHAPE), labels


@pytest.fixture(scope="module")
def trained() -> Diffusion:
    torch.manual_seed(0)
    codes, labels = two_modes()
    net = Dit(SHAPE, 2, depth=2, width=32, heads=2, ratio=2.0, time=16)
    prior = Diffusion(SHAPE, net, 2, Whiten(SHAPE), schedule="linear")
    prior.fit(codes, labels)
    adam = torch.optim.Adam(prior.parameters(), 3e-3)
    for step in range(200):
        some = torch.arange(step * 64, step * 64 + 64) % len(codes)
        loss = prior.loss(codes[some], labels[some]).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    return prior.eval()


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_it_draws_the_asked_class(trained: Diffusion, guidance: float) -> None:
    label = torch.arange(40) % 2
    seeded = Generator().manual_seed(1)
    drawn = trained.sample(40, label, generator=seeded, guidance=guidance, steps=20)
    assert drawn.shape == (40, *SHAPE)
    sign = drawn[:, 1:].mean((1, 2)).sign()
    assert (sign == label * 2 - 1).float().mean() > 0.97


def test_it_learns_every_place(trained: Diffusion) -> None:
    """The means of tokens, 0 to 4, are those of their places; without a class both modes come."""
    drawn = trained.sample(200, 1, generator=Generator().manual_seed(1), steps=20)
    expected = torch.arange(SHAPE[0]).view(-1, 1).expand(SHAPE).float()
    same(drawn.mean(0), expected, rtol=0, atol=0.25)
    free = trained.sample(200, generator=Generator().manual_seed(1), steps=20)
    share = (free[:, 1:].mean((1, 2)) > 0).float().mean()
    assert 0.25 < share < 0.75


@pytest.mark.parametrize("options", [{}, {"sampler": "ddpm", "steps": 3}, {"sampler": "dpm++"}])
def test_a_part_of_a_call_is_that_of_the_whole(
    trained: Diffusion, options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the noise of the codes before is drawn, and no code of theirs."""
    monkeypatch.setattr("fieldloom.priors.prior.BATCH", 4)
    draw = lambda part: trained.sample(
        11, generator=Generator().manual_seed(2), part=part, **options
    )
    whole = draw(None)
    for begin, end in ((0, 4), (4, 8), (8, 11), (4, 11)):
        assert torch.equal(draw((begin, end)), whole[begin:end])
    calls: list[int] = []
    plain = trained.denoise
    monkeypatch.setattr(
        trained, "denoise", lambda x, *rest: calls.append(len(x)) or plain(x, *rest)
    )
    draw((8, 11))
    assert set(calls) == {3}
