"""Functa: DeepMind's released code (float64 JAX) and mNIF's PyTorch port of it.

The ``nerf_*`` arrays of the official file are pictures of a volume renderer and not used here.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fieldloom.conditioners.modulation import Shift
from fieldloom.encoders import Cavia, reconstruction_loss
from fieldloom.family import Family
from fieldloom.fields.mlp import Siren
from fieldloom.metrics.losses import mse
from fieldloom.modalities.grid import Grid, Placement
from fieldloom.objectives import Reconstruction
from fieldloom.renderers import Direct
from fieldloom.types import Batch
from vectors import Vectors, as_code, batch_of, cavia, fill, load, pick, same, slot

DEPTH, WIDTH, LATENT = 5, 16, 12
STEPS = pytest.mark.parametrize("steps", [1, 2, 3])


def functa() -> Family:
    """Shifts of a SIREN whose last layer is linear, plus 0.5."""
    siren = Siren(2, 3, width=WIDTH, depth=DEPTH, bias="zero", offset=0.5)
    return Family(siren, Shift(siren.slots, width=LATENT)).double()


def parameters(family: Family, encoder: Cavia) -> dict[str, nn.Parameter]:
    """By the names of the port's vectors, each shared weight without its leading axis of 1."""
    assert encoder.rates is not None
    own = family.conditioner
    field = {f"{kind}{i}": own.base[slot(f"{kind}{i}")] for i in range(DEPTH) for kind in "Wb"}
    return field | {
        "l2m_weight": own.project.weight,
        "l2m_bias": own.project.bias,
        "meta_sgd_lrs": encoder.rates,
    }


def descended(objective: Reconstruction, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """The outer loss and its gradients by the port's names."""
    loss, _ = objective.loss("field", batch)
    named = parameters(objective.family, objective.encoder)
    gradients = torch.autograd.grad(loss, list(named.values()))
    return loss, {
        # shared weights have a leading axis of 1, which the vectors do not
        name: gradient[0] if name[0] in "Wb" else gradient
        for name, gradient in zip(named, gradients, strict=True)
    }


# -- the port

REDUCTIONS = pytest.mark.parametrize(
    ("prefix", "reduction"), [("batchmean", "batch"), ("persample", "signal")]
)


class Port:
    """The port's vectors, its family and batch."""

    def __init__(self) -> None:
        self.vectors = load("mnif_functaport_image")
        self.family = functa()
        shared = {n: t[None] for n, t in self.vectors.items() if n[0] in "Wb" and n[1:].isdigit()}
        fill(parameters(self.family, self.encoder()), self.vectors | shared)
        self.batch = batch_of(self.vectors["coords"], self.vectors["target"])
        self.start = as_code(self.vectors["z0"])

    def encoder(self, **options: object) -> Cavia:
        return cavia(self.vectors, self.family, rate=1.0, **options)


@pytest.fixture
def port() -> Port:
    return Port()


def test_port_values(port: Port) -> None:
    """Shifts stand inside w0 (W h + b + shift), chunk k of them at layer k; the end adds 0.5."""
    same(port.family(port.vectors["coords"], port.start), port.vectors["out_z0"])


def test_port_counts(port: Port) -> None:
    """Parameters of the field, and of all: with the map and the learned rates."""
    rates = sum(p.numel() for p in port.encoder().parameters())
    counts = [
        sum(p.numel() for p in m.parameters()) for m in (port.family.conditioner.base, port.family)
    ]
    assert [counts[0], counts[1] + rates] == port.vectors["nparams"].tolist()


@REDUCTIONS
@STEPS
def test_port_descent(port: Port, prefix: str, reduction: str, steps: int) -> None:
    """Codes after each step: the port averages errors over the batch, DeepMind does not."""
    signal = port.batch.context
    encoder = port.encoder(steps=steps - 1, reduction=reduction)
    code = encoder.descend(port.start, signal, port.family, Direct(), mse)
    errors = reconstruction_loss(code, signal, port.family, Direct(), mse)
    stored = port.vectors[f"{prefix}_inner_losses"][steps - 1]
    same(errors.mean() if reduction == "batch" else errors.sum(), stored)
    encoder.steps = steps
    code = encoder.descend(port.start, signal, port.family, Direct(), mse)
    same(code, as_code(port.vectors[f"{prefix}_z_after{steps}"]))
    if steps == 3:
        out = port.family(signal.coords, code)
        same(out, port.vectors[f"{prefix}_out_after"])


@REDUCTIONS
@pytest.mark.parametrize("order", ["second", "first"])
def test_port_gradients(port: Port, prefix: str, reduction: str, order: str) -> None:
    port.family.conditioner.origin = lambda batch: port.start
    encoder = port.encoder(reduction=reduction, second_order=order == "second")
    objective = Reconstruction(port.family, encoder, Direct(), mse).train()
    loss, gradients = descended(objective, port.batch)
    same(loss, port.vectors[f"{prefix}_outer_loss"])
    stored = pick(port.vectors, f"{prefix}_grad_{order}_")
    assert set(stored) == {"W1", "l2m_weight", "meta_sgd_lrs"}
    same({name: gradients[name] for name in stored}, stored)


# -- DeepMind's code


def haiku(vectors: Vectors, prefix: str) -> Vectors:
    """Haiku's arrays by the port's names; its weights are (in, out), the port's (out, in)."""
    root = f"{prefix}latent_modulated_siren"
    layers = [f"{root}/modulated_siren_layer{f'_{i}' if i else ''}/linear" for i in range(DEPTH)]
    project = f"{root}/~/latent_to_modulation/~/mlp/~/linear_0"
    named = {f"W{i}": vectors[f"{layer}/w"].mT for i, layer in enumerate(layers)}
    named |= {f"b{i}": vectors[f"{layer}/b"] for i, layer in enumerate(layers)}
    return named | {
        "l2m_weight": vectors[f"{project}/w"].mT,
        "l2m_bias": vectors[f"{project}/b"],
        "meta_sgd_lrs": vectors[f"{root}/~/meta_sgd_lrs/meta_sgd_lrs"],
    }


class Official:
    """DeepMind's vectors, the family with their parameters and the batch."""

    def __init__(self) -> None:
        self.vectors = load("functa_official_jax")
        self.family = functa()
        self.stored = haiku(self.vectors, "param:")
        shared = {n: t[None] for n, t in self.stored.items() if n[0] in "Wb"}
        fill(parameters(self.family, self.encoder()), self.stored | shared)
        target = self.vectors["target"].flatten(1, 2)
        coords = self.vectors["coords"].flatten(0, 1).expand(len(target), -1, -1)
        self.batch = batch_of(coords, target)

    def encoder(self, **options: object) -> Cavia:
        return cavia(self.stored, self.family, rate=1.0, **options)


@pytest.fixture
def official() -> Official:
    return Official()


def test_official_values(official: Official) -> None:
    """The image of the zero latent, which is where descent starts."""
    origin = official.family.conditioner.origin(1)
    out = official.family(official.batch.context.coords[:1], origin)
    same(out[0], official.vectors["out_latent0"].flatten(0, 1))


@STEPS
def test_official_descent(official: Official, steps: int) -> None:
    """Latents, each instance's loss and its PSNR after 1, 2, 3 steps from the origin."""
    signal = official.batch.context
    code = official.encoder(steps=steps)(signal, official.family, Direct(), mse)
    same(code, as_code(official.vectors[f"latent_after{steps}"]))
    losses = reconstruction_loss(code, signal, official.family, Direct(), mse)
    same(losses, official.vectors[f"loss_after{steps}"])
    stored = pytest.approx(official.vectors[f"psnr_after{steps}"].tolist(), rel=1e-9)
    assert (-10 * losses.log10()).tolist() == stored


def test_official_gradients(official: Official) -> None:
    """The outer loss and its second-order gradients of all shared parameters."""
    objective = Reconstruction(official.family, official.encoder(), Direct(), mse).train()
    loss, gradients = descended(objective, official.batch)
    same(loss, official.vectors["outer_loss"])
    stored = haiku(official.vectors, "grad:")
    assert len(stored) == sum(name.startswith("grad:") for name in official.vectors)
    same(gradients, {n: g.mT if n[0] == "W" else g for n, g in stored.items()})


@pytest.mark.parametrize(("place", "name"), [("centre", "centered"), ("corner", "uncentered")])
def test_official_grids(place: str, name: str) -> None:
    """Row, column in [0, 1]: float32 where a grid hands them over, exact before."""
    placement = Placement(place, low=0.0, high=1.0)
    stored = load("functa_official_jax")[f"grid_{name}_n4"]
    same(placement.axis(4), stored[:, 0, 0])
    grid = Grid(size=4, coords=placement).grid()
    same(grid, stored.flatten(0, 1)[None].float(), rtol=0, atol=1e-7)


def test_official_images_stand_on_that_grid(official: Official) -> None:
    """The coordinates that the official loss was taken at are those of the recipe's placement."""
    grid = Grid(size=8, coords=Placement("centre", 0.0, 1.0)).grid()
    same(grid, official.vectors["coords"].flatten(0, 1)[None].float(), rtol=0, atol=1e-7)
