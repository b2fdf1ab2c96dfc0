"""mNIF's second stage: schedules, denoiser, a step of training and of sampling. Coordinates."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fieldloom.denoisers import ResMlp
from fieldloom.denoisers.conditions import embed_sinusoid
from fieldloom.engine.loop import Training
from fieldloom.engine.stage import Stage
from fieldloom.modalities.grid import Grid, Placement
from fieldloom.objectives import CodeBatch, Objective
from fieldloom.priors import Diffusion
from sampling import take_step
from vectors import Vectors, load, same

FLOAT32 = {"rtol": 1e-5, "atol": 1e-5}


def diffusion(**options: object) -> Diffusion:
    return Diffusion((1, 12), nn.Identity(), **options)


# -- schedules, in float32; the vectors are float64


@pytest.mark.parametrize(
    ("schedule", "name"), [("cosine", "betas"), ("linear", "betas_linear_1000")]
)
def test_betas(schedule: str, name: str) -> None:
    stored = load("mnif_diffusion_schedule")[name].float()
    same(diffusion(schedule=schedule).betas, stored, rtol=1e-4, atol=0)


def test_cumulative_products() -> None:
    """What training mixes code and noise with."""
    vectors, own = load("mnif_diffusion_schedule"), diffusion()
    pick = lambda name: vectors[f"spaced1000_{name}"].float()
    same(own.alphas_cumprod, pick("alphas_cumprod"), rtol=1e-4, atol=0)
    one, zero = torch.ones(1000, 1, 1), torch.zeros(1000, 1, 1)
    time = torch.arange(1000)
    clean, noise = (
        own.add_noise(one, zero, time).flatten(),
        own.add_noise(zero, one, time).flatten(),
    )
    same(clean, pick("sqrt_alphas_cumprod"), rtol=1e-4, atol=0)
    same(noise, pick("sqrt_one_minus_alphas_cumprod"), rtol=1e-3, atol=0)


@pytest.fixture
def noise(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What the ancestral sampler draws: the last tensor of this list, zero where it is empty."""
    drawn: list[Tensor] = []
    draw = lambda shape, **rest: drawn[-1].expand(shape) if drawn else torch.zeros(shape)
    monkeypatch.setattr(torch, "randn", draw)
    return drawn


def test_posterior(noise: list[Tensor]) -> None:
    """The ancestral step's mean is coef1 x0 + coef2 x_t, its variance beta_t ("fixed large")."""
    vectors, prior = load("mnif_diffusion_schedule"), diffusion()
    assert prior.times("ddpm", 1000, "trailing") == list(range(999, -1, -1))
    one, zero = torch.ones(1, 1, 1), torch.zeros(1, 1, 1)
    # 1 - abar_t is a difference of float32: it cancels where abar_t is nearly 1
    tolerance = {"rtol": 2e-3, "atol": 1e-6}
    mean = lambda clean, t, x: take_step(prior, "ddpm", x, clean, t, t - 1).squeeze()
    steps = [1, 10, 100, 500, 900, 999]
    for t in steps:
        coefs = torch.stack([mean(one, t, zero), mean(zero, t, one)])
        stored = [vectors[f"spaced1000_posterior_mean_coef{i}"][t] for i in (1, 2)]
        same(coefs, torch.stack(stored).float(), **tolerance)
    noise.append(one)
    for t in steps:
        same(mean(zero, t, zero), vectors["betas"][t].sqrt().float(), **tolerance)


@pytest.mark.parametrize("steps", [50, 100])
def test_published_ddim_times(steps: int) -> None:
    """``spacing = "leading"`` visits the times of the released respacing."""
    stored = load("mnif_diffusion_schedule")[f"resp_ddim{steps}_timestep_map"]
    assert diffusion().times("ddim", steps, "leading")[::-1] == stored.tolist()


def test_time_embedding() -> None:
    """[cos, sin] of 32 frequencies, 1 down to 1/10000."""
    vectors = load("mnif_diffusion_schedule")
    same(embed_sinusoid(vectors["temb_t"], 64), vectors["temb_64"], rtol=1e-4, atol=1e-4)


# -- one step

LAYERS = {
    "block_input": "input",
    "block_time.0": "time",
    "block_output.0": "norm",
    "block_output.2": "output",
    "block1.0": "norm1",
    "block1.2": "linear1",
    "blockt.1": "time",
    "block2.0": "norm2",
    "block2.3": "linear2",
}


def own_name(released: str) -> str:
    """``blocks.0.block1.2.weight`` -> ``blocks.0.linear1.weight``."""
    head, layer, kind = "", *released.rsplit(".", 1)
    if layer.startswith("blocks."):
        _, number, layer = layer.split(".", 2)
        head = f"blocks.{number}."
    return f"{head}{LAYERS[layer]}.{kind}"


class Step:
    """The vectors of a step as codes of one token, and the diffusion with their weights."""

    def __init__(self) -> None:
        self.vectors: Vectors = load("mnif_diffusion_step")
        net = ResMlp((1, 12), depth=4, width=32, groups=4, time=16)
        stored = {n: t for n, t in self.vectors.items() if n.startswith("param:")}
        net.load_state_dict({own_name(n.removeprefix("param:")): t for n, t in stored.items()})
        self.prior = Diffusion((1, 12), net)
        self.time = self.vectors["t"]

    def code(self, name: str) -> Tensor:
        return self.vectors[name][:, None]

    def sample(self, sampler: str) -> Tensor:
        """A step of the sampler for every signal at its own time: x_{t-1}."""
        out, x = self.code("net_out"), self.code("x_t")
        steps = [
            take_step(self.prior, sampler, x[i : i + 1], out[i : i + 1], t, t - 1)
            for i, t in enumerate(self.time.tolist())
        ]
        return torch.cat(steps)


@pytest.fixture
def step() -> Step:
    return Step()


def test_noisy_code(step: Step) -> None:
    same(
        step.prior.add_noise(step.code("x0"), step.code("noise"), step.time),
        step.code("x_t"),
        **FLOAT32,
    )


def test_denoiser(step: Step) -> None:
    """Blocks, time and skips, with random weights where the network starts at zero."""
    same(step.prior.denoiser(step.code("x_t"), step.time), step.code("net_out"), **FLOAT32)


def test_training_loss(step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    """Diffusion.loss at the stored times and noise: unweighted, against x0; and its gradients."""
    monkeypatch.setattr(torch, "randint", lambda *args, **rest: step.time)
    monkeypatch.setattr(torch, "randn_like", lambda x: step.code("noise"))
    losses = step.prior.loss(step.code("x0"))
    same(losses, step.vectors["loss_per_sample"], **FLOAT32)
    same(losses.mean(), step.vectors["loss"], **FLOAT32)
    net = step.prior.denoiser
    weights = [net.input.weight, net.blocks[0].linear1.weight]
    stored = [step.vectors[f"grad_{n}"] for n in ("block_input_weight", "blocks0_block1_2_weight")]
    same(list(torch.autograd.grad(losses.mean(), weights)), stored, **FLOAT32)


def test_ancestral_mean(step: Step, noise: list[Tensor]) -> None:
    # beta_t / (1 - abar_t) in float32, as in test_posterior
    same(step.sample("ddpm"), step.code("p_mean"), rtol=1e-3, atol=1e-4)
    # x0 is predicted, and not changed
    same(step.code("net_out"), step.code("p_pred_xstart"), **FLOAT32)


def test_ancestral_sample(step: Step, noise: list[Tensor]) -> None:
    """Mean plus sqrt(beta_t) times the stored noise, and no noise at t = 0."""
    mean = step.sample("ddpm")
    noise.append(torch.zeros(()))
    out, x = step.code("net_out"), step.code("x_t")
    for i, t in enumerate(step.time.tolist()):
        one = slice(i, i + 1)
        noise[-1] = step.code("p_sample_noise")[one]
        sample = take_step(step.prior, "ddpm", x[one], out[one], t, t - 1)
        same(sample, step.code("p_sample")[one], rtol=1e-3, atol=1e-4)
        spread = (sample - mean[one]).square().mean() / noise[-1].square().mean()
        variance = step.vectors["p_variance"][i, 0] if t else torch.zeros(())
        same(spread, variance, rtol=1e-2, atol=1e-9)


def test_ddim_sample(step: Step) -> None:
    """Deterministic DDIM; 1e-3, as noise is a cancelling difference at t = 999."""
    same(step.sample("ddim"), step.code("ddim_sample_eta0"), rtol=1e-3, atol=1e-3)


class Ramp(Objective):
    """Plain SGD at rate 1 makes w = [1, 2, 3] k after k steps."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(3))
        self.players = {"ramp": {"shared": [self.w]}}

    def loss(self, player: str, batch: tuple[Tensor, None]) -> tuple[Tensor, dict[str, Tensor]]:
        return -(self.w * torch.tensor([1.0, 2.0, 3.0])).sum(), {}


def test_averaged_weights() -> None:
    """Decay min(0.9999, (1 + n) / (10 + n)), n = 1 at the first step; finish() installs them."""
    stored = load("mnif_diffusion_step")["ema_trace"]
    objective = Ramp()
    optimizer = {"name": "sgd", "rate": 1.0}
    stage = Stage(batch=1, optimizer=optimizer, schedule="constant", ema=0.9999)
    training = Training(objective, stage)
    for expected in stored:
        training.advance(CodeBatch(torch.zeros(1, 1, 1)), 1, 0, torch.device("cpu"))
        same(training.averaged["w"], expected, **FLOAT32)
    same(objective.w.detach(), 5 * torch.tensor([1.0, 2.0, 3.0]))
    training.finish()
    same(objective.w.detach(), stored[-1], **FLOAT32)


# -- coordinates


@pytest.mark.parametrize(
    ("name", "size", "place"),
    [
        ("mgrid2_n8", (8, 8), "corner"),
        ("mgrid2_4x6", (4, 6), "corner"),
        ("mgrid3_n4", (4, 4, 4), "corner"),
        ("mgrid_voxel_n4", (4, 4, 4), "right"),
    ],
)
def test_coordinates(name: str, size: tuple[int, ...], place: str) -> None:
    """Row-major, in the array's order of axes, in [-1, 1]."""
    grid = Grid(axes=len(size), size=size, coords=Placement(place)).grid()
    same(grid, load("mnif_coords")[name][None], rtol=0, atol=1e-6)


def test_voxel_placement_matches_point_samples() -> None:
    """Sampled points (int + 1) / 128 - 1 of a 256-grid are those of the placement ``right``."""
    vectors = load("mnif_coords")
    axis = Placement("right").axis(256)
    same(axis[vectors["shapenet_points_int"]], vectors["shapenet_points_norm"])
