"""mNIF: mixture, descent on codes, gradients of both orders, updates, as the released model."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Generator, Tensor

from fieldloom.encoders import AutoDecode, Cavia, reconstruction_loss
from fieldloom.engine.loop import Training
from fieldloom.engine.stage import Stage
from fieldloom.family import Family
from fieldloom.metrics.losses import mse
from fieldloom.objectives import L2, Reconstruction
from fieldloom.renderers import Direct
from fieldloom.types import Batch, Domain, Function
from vectors import (
    Vectors,
    as_code,
    batch_of,
    cavia,
    layout,
    load,
    mixture,
    mixture_parameters,
    pick,
    same,
    slot,
)

FILES = {
    "mnif_image_latent_metasgd": "latent",
    "mnif_image_latent_zero_init": "latent",
    "mnif_voxel_latent_w050": "latent",
    "mnif_image_latent_shared": "latent-shared",
    "mnif_image_shared": "shared",
    "mnif_image_layerspecific": "layer",
}
ORDERS = pytest.mark.parametrize("order", ["second", "first"])


@dataclass
class Case:
    """One file: its arrays, its family, and the batch that every array was computed on."""

    name: str
    vectors: Vectors
    family: Family
    batch: Batch
    start: Tensor

    def encoder(self, steps: int = 3, second_order: bool = True) -> Cavia:
        return cavia(
            self.vectors,
            self.family,
            steps=steps,
            second_order=second_order,
            rate=float(self.vectors["lr_inner"]),
            reduction="batch",
        )

    def objective(self, order: str = "second") -> Reconstruction:
        """The outer loss of three steps, descending from the stored start."""
        self.family.conditioner.origin = lambda batch: self.start
        encoder = self.encoder(second_order=order == "second")
        return Reconstruction(self.family, encoder, Direct(), mse).train()

    def parameters(self, objective: Reconstruction) -> dict[str, Tensor]:
        rates = objective.encoder.rates
        named = mixture_parameters(self.family)
        return named if rates is None else named | {"meta_sgd_lrs": rates}


@pytest.fixture(params=FILES)
def case(request: pytest.FixtureRequest) -> Case:
    vectors = load(request.param)
    family = mixture(vectors, FILES[request.param], "sine")
    batch = batch_of(vectors["coords"], vectors["target"])
    return Case(request.param, vectors, family, batch, as_code(vectors["z0"]))


def test_coefficients(case: Case) -> None:
    """alpha (batch, layers, M) is the transpose of the released (batch, M, layers)."""
    alpha = case.family.conditioner.alpha(case.start)
    same(alpha, case.vectors["alpha_z0"].mT)
    same(alpha.abs().mean(), case.vectors["l1_mean_z0"])


def test_mixed_weights(case: Case) -> None:
    """Every weight and bias is the same weighted sum of bases."""
    stored = {slot(name): value for name, value in pick(case.vectors, "mixed_", "_z0").items()}
    same(dict(case.family.conditioner(case.start)), stored)


def test_values_and_loss(case: Case) -> None:
    """The field ends in a sine, and the loss is the mean over signals, points and channels."""
    same(case.family(case.batch.context.coords, case.start), case.vectors["out_z0"])
    losses = reconstruction_loss(case.start, case.batch.context, case.family, Direct(), mse)
    same(losses.mean(), case.vectors["loss_z0"])


def test_origin() -> None:
    """Descent starts at z = 0, or at alpha = 1/M where the code is the coefficients."""
    for name in ("mnif_image_latent_zero_init", "mnif_image_shared", "mnif_image_layerspecific"):
        vectors = load(name)
        origin = mixture(vectors, FILES[name], "sine").conditioner.origin(3)
        same(origin, as_code(vectors["z0"]))


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_codes_after_descent(case: Case, steps: int, training: bool) -> None:
    """z <- z - rate clamp(s) grad, with the error averaged over the batch as released."""
    encoder = case.encoder(steps).train(training)
    signal = case.batch.context
    code = as_code(case.vectors[f"z_after{steps - 1}"]) if steps > 1 else case.start
    before = reconstruction_loss(code, signal, case.family, Direct(), mse)
    same(before.mean(), case.vectors["inner_losses"][steps - 1])
    code = encoder.descend(case.start, signal, case.family, Direct(), mse)
    same(code, as_code(case.vectors[f"z_after{steps}"]))


def test_values_after_descent(case: Case) -> None:
    code = as_code(case.vectors["z_after3"])
    same(case.family(case.batch.context.coords, code), case.vectors["out_after"])


@ORDERS
def test_gradients(case: Case, order: str) -> None:
    """The outer loss, and its gradients with and without those of the inner gradients."""
    objective = case.objective(order)
    loss, _ = objective.loss("field", case.batch)
    same(loss, case.vectors["outer_loss"])
    named = case.parameters(objective)
    gradients = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
    stored = pick(case.vectors, f"grad_{order}_")
    same({name: gradients[name] for name in stored}, stored)


def test_adamw_step(case: Case) -> None:
    """One step of the loop with the defaults of adamw and the recipe's rate, 1e-4."""
    objective = case.objective()
    stage = Stage(batch=3, optimizer={"name": "adamw", "rate": 1e-4})
    logs = Training(objective, stage).advance(case.batch, 3, 0, torch.device("cpu"))
    assert logs["loss"] == pytest.approx(float(case.vectors["outer_loss"]), rel=1e-9)
    named = case.parameters(objective)
    stored = pick(case.vectors, "adamw_step_")
    same({name: named[name].detach() for name in stored}, stored)


def composite(raw: Tensor, times: Tensor, rays: Tensor) -> Tensor:
    """mNIF's volume rendering over white: raw (batch, rays * times, 4), rays (batch, rays, 6)."""
    raw = raw.unflatten(1, (rays.shape[1], -1))
    density = (torch.nn.functional.elu(raw[..., 3], 0.1) + 0.1).clamp(0, 10)
    gaps = torch.cat([times.diff(dim=-1), torch.full_like(times[..., :1], 1e10)], -1)
    alpha = 1 - torch.exp(-density * gaps * rays[..., 3:].norm(dim=-1, keepdim=True))
    passed = (1 - alpha[..., :-1] + 1e-10).cumprod(-1)
    weights = alpha * torch.cat([torch.ones_like(alpha[..., :1]), passed], -1)
    return (weights[..., None] * raw[..., :3]).sum(-2) + 1 - weights.sum(-1, keepdim=True)


@dataclass
class Scene:
    """The radiance field, its batch of rays (origin, direction), and itself their renderer."""

    vectors: Vectors
    family: Family
    batch: Batch
    evaluations = 8
    stochastic = False

    def domain(self, coord_dim: int, value_dim: int) -> Domain:
        return Domain(3, 0, 4)

    def deterministic(self) -> Scene:
        return self

    def __call__(
        self, function: Function, rays: Tensor, generator: Generator | None = None
    ) -> Tensor:
        times = self.vectors["t_vals"][0]  # the same for every ray
        points = rays[..., None, :3] + times[:, None] * rays[..., None, 3:]
        return composite(function(points.flatten(1, 2)), times, rays)


@pytest.fixture
def scene() -> Scene:
    vectors = load("mnif_scene_autodecode")
    rays = torch.cat([vectors["rays_o"], vectors["rays_d"]], -1)
    return Scene(vectors, mixture(vectors, "latent", "linear"), batch_of(rays, vectors["target"]))


def test_scene_values(scene: Scene) -> None:
    """The radiance field's last layer is linear; its picture is the released one."""
    code = as_code(scene.vectors["z"])
    same(scene.family(scene.vectors["coords"], code), scene.vectors["raw_out"])
    same(scene(scene.family.bind(code), scene.batch.context.coords), scene.vectors["rgb"])


@pytest.mark.parametrize("micro", [2, 1])
def test_autodecoding_step(scene: Scene, micro: int) -> None:
    """A step of table, L2 penalty and SGD is the released update of z, and shares its gradients.

    The released loss is a mean over the batch B and its penalty a sum. Here a code's step does not
    depend on the batch, so rate / B and B lambda are the same; nor on micro-batches.
    """
    vectors, count = scene.vectors, len(scene.batch)
    encoder = AutoDecode(scene.family.code_shape, signals=count).double()
    with torch.no_grad():
        encoder.table.copy_(as_code(vectors["z"]))
    penalty = L2(count * float(vectors["weight_decay_inner"]))
    objective = Reconstruction(scene.family, encoder, scene, mse, penalty).train()
    codes = {"name": "sgd", "rate": float(vectors["lr_z"]) / count, "schedule": "constant"}
    stage = Stage(batch=count, optimizer={"name": "adamw", "rate": 1e-4}, groups={"codes": codes})
    logs = Training(objective, stage).advance(scene.batch, micro, 0, torch.device("cpu"))
    assert logs["loss"] == pytest.approx(float(vectors["img_loss"]), rel=1e-9)
    assert logs["objective"] == pytest.approx(float(vectors["total_loss"]), rel=1e-9)
    same(encoder.table.detach(), as_code(vectors["z_new"]))
    assert encoder.table.grad is not None
    # the same without the cancellation of z - 1e-4 grad
    same(encoder.table.grad / count, as_code(vectors["grad_z"]))
    named = mixture_parameters(scene.family)
    stored = {name: layout(name, vectors[f"grad_{name}"]) for name in named}
    same({name: parameter.grad for name, parameter in named.items()}, stored)
