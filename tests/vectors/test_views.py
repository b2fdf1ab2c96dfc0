"""Radiance fields: mNIF's released scene, Functa's two renderers, IPC's rays and pictures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fieldloom.conditioners.modulation import Shift
from fieldloom.encoders import AutoDecode
from fieldloom.engine.loop import Training
from fieldloom.engine.stage import Stage
from fieldloom.family import Family
from fieldloom.fields.mlp import Siren
from fieldloom.geometry.cameras import rays
from fieldloom.metrics.losses import mse
from fieldloom.objectives import L2, Reconstruction
from fieldloom.renderers import DENSITIES, Plucker, Volume, plucker
from fieldloom.types import Batch
from vectors import (
    Vectors,
    as_code,
    batch_of,
    fill,
    layout,
    load,
    mixture,
    mixture_parameters,
    same,
    slot,
)

FLOAT32 = {"rtol": 1e-5, "atol": 1e-5}


class Scene:
    """mNIF's radiance field, its rays, and the renderer of its recipe."""

    def __init__(self) -> None:
        self.vectors = load("mnif_scene_autodecode")
        self.family = mixture(self.vectors, "latent", "linear")
        near, far = float(self.vectors["near"]), float(self.vectors["far"])
        self.render = Volume(near, far, samples=self.vectors["t_vals"].shape[1])
        given = torch.cat([self.vectors["rays_o"], self.vectors["rays_d"]], -1)
        self.batch: Batch = batch_of(given, self.vectors["target"])
        self.code = as_code(self.vectors["z"])


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_mnif_rays_of_a_camera(scene: Scene) -> None:
    """Pixel centres, the focal length in pixels, directions that are not normalised."""
    focal = float(scene.vectors["focal"])
    intrinsics = torch.tensor([focal, focal, 2, 2], dtype=torch.float64)
    same(rays(scene.vectors["c2w"], intrinsics, 4, 4), scene.batch.context.coords)


def test_mnif_samples_of_a_ray(scene: Scene) -> None:
    """Where the field is evaluated: equal steps from near to far, both ends included."""
    t = scene.render.ray_samples(scene.batch.context.coords)
    same(t.flatten(0, 1), scene.vectors["t_vals"])
    asked = []

    def function(points: Tensor) -> Tensor:
        asked.append(points)
        return points.new_zeros(*points.shape[:2], 4)

    scene.render(function, scene.batch.context.coords)
    assert len(asked) == 1
    same(asked[0], scene.vectors["coords"])


def test_mnif_pictures(scene: Scene) -> None:
    """Colour over white, expected depth and opacity of every ray."""
    function, given = scene.family.bind(scene.code), scene.batch.context.coords
    same(scene.render(function, given), scene.vectors["rgb"])
    seen = scene.render.march(function, given)
    same(seen.colour, scene.vectors["rgb"])
    same(seen.depth, scene.vectors["depth"])
    same(seen.opacity, scene.vectors["acc"])
    # what a ray leaves over lies at the far end
    far = scene.render.depth(function, given)
    same(far[..., 0], scene.vectors["depth"] + (1 - scene.vectors["acc"]) * scene.render.far)


@pytest.mark.parametrize("micro", [2, 1])
def test_mnif_autodecoding(scene: Scene, micro: int) -> None:
    """The released loss and all its gradients, through the objective, the loop and Volume.

    The released total is the mean error plus half the sum of z^2 over the batch; ours the mean over
    signals, so the penalty's weight is the size of the batch, and a code's rate is divided by it.
    """
    vectors, count = scene.vectors, len(scene.batch)
    encoder = AutoDecode(scene.family.code_shape, signals=count).double()
    with torch.no_grad():
        encoder.table.copy_(scene.code)
    penalty = L2(count * float(vectors["weight_decay_inner"]))
    objective = Reconstruction(scene.family, encoder, scene.render, mse, penalty).train()
    loss, logs = objective.loss("field", scene.batch)
    same(loss, vectors["total_loss"])
    same(logs["loss"], vectors["img_loss"])
    named = mixture_parameters(scene.family)
    found = torch.autograd.grad(loss, [encoder.table, *named.values()])
    same(found[0], as_code(vectors["grad_z"]))
    stored = {name: layout(name, vectors[f"grad_{name}"]) for name in named}
    same(dict(zip(named, found[1:], strict=True)), stored)

    codes = {"name": "sgd", "rate": float(vectors["lr_z"]) / count, "schedule": "constant"}
    stage = Stage(batch=count, optimizer={"name": "adamw", "rate": 1e-4}, groups={"codes": codes})
    Training(objective, stage).advance(scene.batch, micro, 0, torch.device("cpu"))
    same(encoder.table.detach(), as_code(vectors["z_new"]))


@pytest.mark.parametrize("background", ["white", "none"])
@pytest.mark.parametrize(
    ("prefix", "options"),
    [("vr_mnif", {}), ("vr_functa", dict(last=1e-3, bounded=True))],
    ids=["mnif", "functa"],
)
def test_mnif_composites(prefix: str, options: dict[str, Any], background: str) -> None:
    """Compositing alone, in both branches of mNIF's code: both put white behind a ray."""
    vectors = load("mnif_scene_autodecode")
    render = Volume(0.8, 1.8, samples=8, background=background, **options)
    raw = torch.cat([vectors["vr_in_rgb"], vectors["vr_in_density_raw"]], -1)
    same(DENSITIES["elu"](vectors["vr_in_density_raw"]), vectors["vr_in_density_act"])
    length = vectors["vr_in_dirs"].norm(dim=-1, keepdim=True)
    seen = render.composite_raw(raw, vectors["vr_in_t"], length)
    same(seen.weights, vectors[f"{prefix}_weights"])
    same(seen.opacity, vectors[f"{prefix}_acc"])
    same(seen.depth, vectors[f"{prefix}_depth"])
    left = 0.0 if background == "white" else (1 - vectors[f"{prefix}_acc"]).unsqueeze(-1)
    same(seen.colour + left, vectors[f"{prefix}_rgb"])


# -- IPC


def test_ipc_rays_and_plucker() -> None:
    """A pose is (3, 4), a focal length one of x and one of y; the picture's middle is the axis."""
    vectors = load("ipc_rays_render")
    height, width = int(vectors["H"]), int(vectors["W"])
    centre = torch.tensor([width / 2, height / 2]).expand(2, 2)
    c2w = torch.cat([vectors["pose"], torch.tensor([0, 0, 0, 1.0]).expand(2, 1, 4)], 1)
    given = rays(c2w, torch.cat([vectors["focal"], centre], -1), height, width)
    stored = torch.cat([vectors["rays_o"], vectors["rays_d"]], -1).flatten(1, 2)
    same(given, stored, **FLOAT32)
    expected = vectors["plucker_d_m"].flatten(1, 2)
    same(plucker(given), expected, **FLOAT32)
    same(Plucker()(lambda x: x, given), expected, **FLOAT32)


def test_ipc_pictures() -> None:
    """Sigmoid colours in [0, 1], ReLU densities, a last stretch of 1e-3, over white."""
    vectors = load("ipc_rays_render")
    render = Volume(2.0, 6.0, 7, range="unit", colour="sigmoid", density="relu", last=1e-3)
    t = vectors["z"].expand(2, -1, -1)
    seen = render.composite_raw(vectors["raw"], t, torch.ones(2, 5, 1))
    same(seen.colour, vectors["rgb"], **FLOAT32)


# -- DeepMind's Functa


class Functa:
    """DeepMind's latent-modulated SIREN over a scene, with its camera."""

    def __init__(self) -> None:
        self.vectors = load("functa_official_jax")
        stored = self.parameters(self.vectors)
        depth, (width, latent) = 5, (stored["W1"].shape[1], stored["l2m_weight"].shape[1])
        siren = Siren(3, 4, width=width, depth=depth, bias="zero", offset=0.5)
        self.family = Family(siren, Shift(siren.slots, width=latent)).double()
        own = self.family.conditioner
        named = {f"{k}{i}": own.base[slot(f"{k}{i}")] for i in range(depth) for k in "Wb"}
        named |= {"l2m_weight": own.project.weight, "l2m_bias": own.project.bias}
        fill(named, stored)
        prefix = "nerf_param:latent_modulated_siren/~/latent_vector/latent_vector"
        self.code = self.vectors[prefix][None, None]

    @staticmethod
    def parameters(vectors: Vectors) -> Vectors:
        """By the port's names; Haiku's weights are (in, out), the port's (out, in)."""
        root = "nerf_param:latent_modulated_siren"
        named = {}
        for i in range(5):
            layer = f"{root}/modulated_siren_layer{f'_{i}' if i else ''}/linear"
            named |= {f"W{i}": vectors[f"{layer}/w"].mT[None], f"b{i}": vectors[f"{layer}/b"][None]}
        project = f"{root}/~/latent_to_modulation/~/mlp/~/linear_0"
        return named | {
            "l2m_weight": vectors[f"{project}/w"].mT,
            "l2m_bias": vectors[f"{project}/b"],
        }


@pytest.fixture
def functa() -> Functa:
    return Functa()


def test_functa_rays(functa: Functa) -> None:
    """As mNIF's: the same camera model."""
    vectors = functa.vectors
    focal = float(vectors["nerf_focal"])
    intrinsics = torch.tensor([focal, focal, 2, 2], dtype=torch.float64)
    given = rays(vectors["nerf_pose"], intrinsics, 4, 4)
    stored = torch.cat([vectors["nerf_rays"][0], vectors["nerf_rays"][1]], -1)
    same(given, stored.flatten(0, 1))


def test_functa_pictures(functa: Functa) -> None:
    """Raw values with 0.5 added to density and colour; depths without the background's."""
    vectors = functa.vectors
    samples, near, far, white = vectors["nerf_render_config"].tolist()
    assert white == 1
    stored = torch.cat([vectors["nerf_rays"][0], vectors["nerf_rays"][1]], -1)
    render = Volume(near, far, int(samples), range="unit", last=1e-3, bounded=True)
    seen = render.march(functa.family.bind(functa.code), stored.flatten(0, 1)[None])
    same(seen.colour[0], vectors["nerf_rgb"].flatten(0, 1))
    same(seen.depth[0], vectors["nerf_depth"].flatten())
