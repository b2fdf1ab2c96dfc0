"""Fields from one pass: IPC's and TransINR's code, and LA-GINR's equations, step by step."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fieldloom.conditioners import Columns, Conditioner, Factor, FlatWeights, Substitute
from fieldloom.encoders import Cavia, Transformer, reconstruction_loss
from fieldloom.family import Family
from fieldloom.fields import Fourier, FourierMlp, Local
from fieldloom.geometry.cameras import rays
from fieldloom.metrics.losses import mse
from fieldloom.modalities import MODALITIES
from fieldloom.nn.layers import log_spaced
from fieldloom.renderers import RENDERERS, Renderer, Volume, plucker
from fieldloom.types import Cameras, Data, Signal
from vectors import Vectors, load, same

FLOAT32 = {"rtol": 1e-5, "atol": 2e-6}
PHASE = {"rtol": 1e-4, "atol": 1e-4}
"""Where phases reach a thousand: float32 knows them to no more."""

TWICE = {"rtol": 1e-4, "atol": 1e-7}
"""For second derivatives in float32, of 1e-3 to 1e-1."""

BLOCK = {
    "ipc": {
        "norm1": "transformer.blocks.{i}.ln1",
        "norm2": "transformer.blocks.{i}.ln2",
        "attention.out": "transformer.blocks.{i}.attn.proj",
        "mlp.0": "transformer.blocks.{i}.mlp.0",
        "mlp.2": "transformer.blocks.{i}.mlp.2",
    },
    "transinr": {
        "norm1": "transformer_encoder.layers.{i}.0.norm",
        "norm2": "transformer_encoder.layers.{i}.1.norm",
        "attention.out": "transformer_encoder.layers.{i}.0.fn.to_out.0",
        "mlp.0": "transformer_encoder.layers.{i}.1.fn.net.0",
        "mlp.2": "transformer_encoder.layers.{i}.1.fn.net.3",
    },
}
"""A block's layers by their names in each code."""


def under(vectors: Vectors, prefix: str) -> Vectors:
    """The arrays of a folder, without its name."""
    return {k.removeprefix(prefix): v for k, v in vectors.items() if k.startswith(prefix)}


def both(ours: str, stored: Vectors, theirs: str) -> Vectors:
    """The weight and the bias of a norm or a linear layer."""
    return {f"{ours}.{kind}": stored[f"{theirs}.{kind}"] for kind in ("weight", "bias")}


def block_state(code: str, stored: Vectors, i: int) -> Vectors:
    state: Vectors = {}
    for ours, theirs in BLOCK[code].items():
        state |= both(f"blocks.{i}.{ours}", stored, theirs.format(i=i))
    if code == "transinr":  # no biases; keys and values are one matrix
        own = f"transformer_encoder.layers.{i}.0.fn"
        three = [stored[f"{own}.to_q.weight"], stored[f"{own}.to_kv.weight"]]
        return state | {f"blocks.{i}.attention.qkv.weight": torch.cat(three)}
    for kind in ("weight", "bias"):
        own = f"transformer.blocks.{i}.attn"
        three = [stored[f"{own}.{part}.{kind}"] for part in ("query", "key", "value")]
        state[f"blocks.{i}.attention.qkv.{kind}"] = torch.cat(three)
    return state


def blocks(stored: Vectors) -> int:
    """How many blocks were stored."""
    return len(
        {found[1] for name in stored if (found := re.search(r"(?:blocks|layers)\.(\d)", name))}
    )


def encoder_state(code: str, stored: Vectors) -> Vectors:
    """A transformer's parameters, but the head's."""
    state: Vectors = {}
    for i in range(blocks(stored)):
        state |= block_state(code, stored, i)
    if code == "ipc":
        state |= both("tokeniser", stored, "latent_mapping.latent_mapping")
        positions = stored["latent_mapping.pos_emb_latent"][0]
        return state | {"positions": positions, "asked": stored["weight_groups.weight_groups"]}
    state |= both("tokeniser", stored, "tokenizer.prefc") | {"asked": stored["wtokens"]}
    if "tokenizer.posemb" in stored:
        state["positions"] = stored["tokenizer.posemb"]
    return state


def base_state(stored: Vectors, layers: list[str]) -> Vectors:
    """Arrays (in + 1, out), whose last row is the bias, by the names of a conditioner's base."""
    state = {}
    for i, name in enumerate(layers):
        weight, bias = stored[name][None, :-1], stored[name][None, -1]
        state |= {f"base.{i}.weight": weight, f"base.{i}.bias": bias}
    return state


HYPONET = [f"hyponet.params_dict.linear_wb{i}" for i in range(4)]


def perceptron(
    coord_dim: int, value_dim: int, count: int, bandwidth: float, pi: bool = True, **own: Any
) -> FourierMlp:
    """The normalised perceptron of all these systems, 16 wide."""
    encoding = Fourier("log", count, bandwidth, pi)
    return FourierMlp(coord_dim, value_dim, width=16, encoding=encoding, normalize=True, **own)


PICTURE = dict(depth=4, count=4, bandwidth=16.0, offset=0.5)


def image(vectors: Vectors) -> Signal:
    """Pictures (batch, 3, 10, 10) at their pixel centres in [-1, 1]."""
    return MODALITIES["image"](size=10, range="unit").observe(vectors["xs"]).context


def views(vectors: Vectors) -> Signal:
    """Two posed pictures of each object, 8 x 8: their rays and colours."""
    img, pose, focal = (vectors[name] for name in ("img", "pose", "focal"))
    last = torch.tensor([0, 0, 0, 1.0]).expand(*pose.shape[:2], 1, 4)
    middle = torch.full_like(focal, 4.0)
    modality = MODALITIES["views"](size=8, range="unit")
    cameras = Cameras(c2w=torch.cat([pose, last], 2), intrinsics=torch.cat([focal, middle], -1))
    return modality.observe(Data(img, cameras=cameras)).context


class System:
    """An encoder and a family with stored parameters, and what it was run on."""

    def __init__(
        self,
        vectors: Vectors,
        code: str,
        field: FourierMlp,
        conditioner: Conditioner,
        conditioned: Vectors,
        signal: Signal,
        head: Vectors | None = None,
        **options: Any,
    ) -> None:
        conditioner.load_state_dict(conditioned)
        stored = under(vectors, "w/")
        assert signal.grid is not None
        self.vectors, self.signal, self.family = vectors, signal, Family(field, conditioner)
        self.encoder = Transformer(
            conditioner.code_shape,
            signal.grid,
            value_dim=3,
            coord_dim=signal.coords.shape[-1],
            grid_dim=2,
            width=24,
            depth=blocks(stored),
            heads=3,
            patch=4,
            bias=code == "ipc",
            head=head is not None,
            **options,
        ).eval()
        self.encoder.load_state_dict(encoder_state(code, stored) | (head or {}))
        with torch.no_grad():
            self.code = self.encoder(signal, self.family, RENDERERS["direct"](), mse)

    def made(self) -> Vectors:
        """The weights of each instance as the field uses them: of unit length over inputs."""
        weights = self.family.conditioner(self.code)
        return {
            n: F.normalize(w, dim=-2) if n.endswith(".weight") else w for n, w in weights.items()
        }


def composed(vectors: Vectors, field: FourierMlp, signal: Signal, **options: Any) -> System:
    """IPC: the second layer is composed; the weight that it would have had is dead, ours is not."""
    stored = under(vectors, "w/")
    state = base_state(stored, HYPONET)
    del state["base.1.weight"]
    state["shared"] = stored["shared_factor.linear_wb1"][0]
    head = {}
    for j in (0, 1):
        head |= both(f"head.{j}", stored, f"group_modulation_postfc.linear_wb1.{j}")
    conditioner = Factor(field.slots, "1.weight", rank=8, origin="zero")
    return System(vectors, "ipc", field, conditioner, state, signal, head, **options)


def scaled(
    vectors: Vectors,
    code: str,
    field: FourierMlp,
    signal: Signal,
    groups: int,
    layers: list[str],
    maps: list[str],
    **options: Any,
) -> System:
    """TransINR: tokens scale the columns of every weight."""
    stored = under(vectors, "w/")
    state = base_state(stored, layers)
    for i, name in enumerate(maps):
        for j in (0, 1):
            state |= both(f"maps.{i}.{j}", stored, f"{name}.{j}")
    conditioner = Columns(field.slots, width=24, groups=groups)
    return System(vectors, code, field, conditioner, state, signal, **options)


def ipc() -> System:
    vectors = load("ipc_tiny")
    return composed(vectors, perceptron(2, 3, **PICTURE), image(vectors), pad=1)


def ipc_nerf() -> System:
    vectors = load("ipc_nerf_tiny")
    field = perceptron(3, 4, depth=4, count=4, bandwidth=256.0, pi=False)
    return composed(vectors, field, views(vectors), rays="origin")


def ipc_transinr() -> System:
    """IPC's own TransINR: with biases of queries, keys and values, and lower frequencies."""
    vectors = load("ipc_transinr_tiny")
    maps = [f"group_modulation_postfc.linear_wb{i}" for i in range(4)]
    field = perceptron(2, 3, **PICTURE)
    return scaled(vectors, "ipc", field, image(vectors), 8, HYPONET, maps, pad=1)


def transinr() -> System:
    vectors = load("transinr_tiny")
    layers, maps = ([f"{n}.wb{i}" for i in range(4)] for n in ("base_params", "wtoken_postfc"))
    field = perceptron(2, 3, **PICTURE | dict(bandwidth=1024.0))
    return scaled(vectors, "transinr", field, image(vectors), 8, layers, maps, pad=1)


def transinr_nvs() -> System:
    """Views are a set: there are no positions."""
    vectors = load("transinr_nvs_tiny")
    names = ("wb0", "wb1", "rgb_density_fc")
    layers, maps = ([f"{n}.{m}" for m in names] for n in ("base_params", "wtoken_postfc"))
    field = perceptron(3, 4, depth=3, count=3, bandwidth=256.0, pi=False)
    options = dict(rays="origin", positions="none")
    return scaled(vectors, "transinr", field, views(vectors), 4, layers, maps, **options)


Make = Callable[[], System]
over = lambda *made: pytest.mark.parametrize("make", made, ids=lambda make: make.__name__)

# -- what an encoder sees and answers


@over(ipc, ipc_transinr, ipc_nerf)
def test_patches(make: Make) -> None:
    """Channels first; of views colour, origin and direction, one view after another."""
    system = make()
    same(system.encoder.patches(system.signal), system.vectors["patches"], **FLOAT32)


@over(ipc, ipc_transinr, transinr)
def test_coordinates(make: Make) -> None:
    """Pixel centres, rows first."""
    system = make()
    same(system.signal.coords, system.vectors["coord"].flatten(1, 2), **FLOAT32)


@over(ipc, ipc_transinr, transinr, transinr_nvs)
def test_tokens(make: Make) -> None:
    """Patches with their positions, then what is asked for; and both after every block."""
    system = make()
    met: list[Tensor] = []
    for block in system.encoder.blocks:
        block.register_forward_hook(lambda module, given, answer: met.extend([*given, answer]))
    system.encoder(system.signal, system.family, RENDERERS["direct"](), mse)
    found = {
        "data_tokens": met[0][:, : -len(system.encoder.asked)],
        "tokens_in": met[0],
        "block0_out": met[1],
        "block1_out": met[-1],
        "tokens_out": met[-1],
    }
    stored = {name: system.vectors[name] for name in found if name in system.vectors}
    assert len(stored) == {ipc: 5, ipc_transinr: 5, transinr: 3, transinr_nvs: 1}[make]
    same({name: found[name] for name in stored}, stored, **FLOAT32)


# -- what a conditioner makes of the answer


@over(ipc, ipc_nerf)
def test_composed_weight(make: Make) -> None:
    """The product of both factors, before it is scaled."""
    system = make()
    weight = system.family.conditioner(system.code)["1.weight"]
    same(weight.detach(), system.vectors["mod/linear_wb1"], **FLOAT32)


def test_column_scales() -> None:
    """What multiplies each column of each weight: the released code stores it by itself."""
    system = ipc_transinr()
    conditioner = system.family.conditioner
    weights = conditioner(system.code)
    for i in range(4):
        scales = weights[f"{i}.weight"] / conditioner.base[f"{i}.weight"]
        same(scales.detach(), system.vectors[f"mod/linear_wb{i}"], rtol=1e-4, atol=1e-5)


def test_token_ranges() -> None:
    """Every weight has its own tokens: at most as many as it has columns."""
    system = transinr()
    ends = torch.tensor(system.family.conditioner.tokens).cumsum(0)
    stored = system.vectors["wtoken_rng"]
    same(ends, stored[:, 1])
    same(ends[:-1], stored[1:, 0])


@pytest.mark.parametrize(
    ("make", "prefix", "names"),
    [
        (ipc, "modulated", [f"linear_wb{i}" for i in range(4)]),
        (ipc_transinr, "modulated", [f"linear_wb{i}" for i in range(4)]),
        (transinr, "params", [f"wb{i}" for i in range(4)]),
        (transinr_nvs, "params", ["wb0", "wb1", "rgb_density_fc"]),
    ],
)
def test_weights(make: Make, prefix: str, names: list[str]) -> None:
    """All weights that the perceptron uses, of unit length, and the shared biases."""
    system = make()
    made = system.made()
    for i, name in enumerate(names):
        weight = made[f"{i}.weight"].expand(2, -1, -1)
        found = torch.cat([weight, made[f"{i}.bias"].expand(2, -1).unsqueeze(1)], 1)
        same(found.detach(), system.vectors[f"{prefix}/{name}"], **FLOAT32)


# -- what a field makes of the weights


@over(ipc, ipc_transinr, transinr, ipc_nerf, transinr_nvs)
def test_features(make: Make) -> None:
    """[cos | sin], coordinate by coordinate."""
    system = make()
    given = system.vectors["pts" if make is transinr_nvs else "coord"].flatten(1, -2)
    base = system.family.conditioner.base.mapping()
    tolerance = PHASE if make in (transinr, ipc_nerf) else {"rtol": 1e-5, "atol": 2e-5}
    same(system.family.field.encode(given, base), system.vectors["fourier"], **tolerance)


@over(ipc, ipc_transinr, transinr)
def test_pictures(make: Make) -> None:
    """Values on the grid, the error of each picture and its PSNR; and values anywhere."""
    system = make()
    vectors, tolerance = system.vectors, PHASE if make is transinr else FLOAT32
    with torch.no_grad():
        out = system.family(system.signal.coords, system.code)
    same(out, vectors["out_bhwc"].flatten(1, 2), **tolerance)
    errors = mse(out, system.signal.values)
    same(errors, vectors["mse_per_image"], **tolerance)
    psnr = -10 * errors.log10()
    same(psnr.mean(), vectors["psnr"], rtol=1e-4, atol=0)
    if make is transinr:
        return
    same(psnr, vectors["psnr_per_image"], rtol=1e-5, atol=0)
    same(errors.mean(), vectors["loss"], **FLOAT32)
    same(out.mT.unflatten(2, (10, 10)), vectors["out_bchw"], **FLOAT32)
    with torch.no_grad():
        same(system.family(vectors["coord2"], system.code), vectors["out2"], **FLOAT32)


def volume() -> Renderer:
    """Six samples from 2 to 6, sigmoid and ReLU, white behind, a last stretch of 1e-3."""
    return Volume(
        2.0, 6.0, 6, range="unit", colour="sigmoid", density="relu", intervals="t", last=1e-3
    )


@over(ipc_nerf, transinr_nvs)
def test_rendered(make: Make) -> None:
    """Rays through a code of two views. TransINR's are all white: no density is positive."""
    system = make()
    queries = torch.cat([system.vectors["rays_o"], system.vectors["rays_d"]], -1)
    with torch.no_grad():
        seen = volume()(lambda points: system.family(points, system.code), queries)
    same(seen, system.vectors["rgb"], rtol=1e-4, atol=2e-5)
    assert (seen == 1).all() == (make is transinr_nvs)


def test_raw_values_along_rays() -> None:
    system = ipc_nerf()
    queries = torch.cat([system.vectors["rays_o"], system.vectors["rays_d"]], -1)
    met: list[tuple[Tensor, Tensor]] = []

    def function(points: Tensor) -> Tensor:
        met.append((points, system.family(points, system.code)))
        return met[-1][1]

    with torch.no_grad():
        volume()(function, queries)
    points, raw = met[0]
    same(points.unflatten(1, (10, 6)), system.vectors["coord"], **FLOAT32)
    same(volume().ray_samples(queries), system.vectors["z"].expand(2, -1, -1), **FLOAT32)
    same(raw.unflatten(1, (10, 6)), system.vectors["raw"], rtol=1e-4, atol=2e-5)


def test_raw_values_at_points() -> None:
    system = transinr_nvs()
    with torch.no_grad():
        raw = system.family(system.vectors["pts"], system.code)
    same(raw, system.vectors["raw"], rtol=1e-4, atol=2e-5)


# -- codes found by descent


class Descent:
    """IPC's meta-learned systems: steps as long as the weight that they change, squared."""

    def __init__(self, vectors: Vectors, conditioner: Conditioner, state: Vectors) -> None:
        conditioner.load_state_dict(state)
        self.vectors, self.signal = vectors, image(vectors)
        self.family = Family(perceptron(2, 3, **PICTURE), conditioner)

    def adapted(self, steps: int = 2) -> Tensor:
        shape = self.family.code_shape
        cavia = Cavia(shape, steps=steps, rate=0.01, rates="fixed", relative=True).train()
        return cavia(self.signal, self.family, RENDERERS["direct"](), mse)

    def loss(self) -> Tensor:
        return reconstruction_loss(
            self.adapted(), self.signal, self.family, RENDERERS["direct"](), mse
        ).mean()

    def gradients(self) -> Vectors:
        """d loss / d parameter, through both steps, by our names."""
        named = dict(self.family.named_parameters())
        found = torch.autograd.grad(self.loss(), list(named.values()))
        return {n.removeprefix("conditioner."): g for n, g in zip(named, found, strict=True)}


def meta() -> Descent:
    """The second layer's own factor descends, the shared one and all else is learned."""
    vectors = load("ipc_meta_tiny")
    stored = under(vectors, "w/")
    state = base_state(stored, HYPONET)
    del state["base.1.weight"]
    state["shared"] = stored["factors.shared_factors.linear_wb1"]
    state["start"] = stored["factors.init_modulation_factors.linear_wb1"].mT
    slots = perceptron(2, 3, **PICTURE).slots
    return Descent(vectors, Factor(slots, "1.weight", rank=8), state)


def learned_init() -> Descent:
    """All weights descend, biases stay."""
    vectors = load("ipc_learnedinit_tiny")
    stored = under(vectors, "w/")
    base = base_state(stored, HYPONET)
    state = {name: tensor for name, tensor in base.items() if name.endswith("bias")}
    direct = FlatWeights(perceptron(2, 3, **PICTURE).slots, only="*.weight")
    starts = {f"{i}.weight": stored[f"{INITIAL}{i}"][None] for i in range(4)}
    return Descent(vectors, direct, state | {"start": direct.pack(starts)})


INITIAL = "factors.init_modulation_factors.linear_wb"


@pytest.mark.parametrize("make", [meta, learned_init])
def test_descent(make: Callable[[], Descent]) -> None:
    """Errors before each step, what both steps come to, its pictures and their error."""
    own = make()
    vectors, direct = own.vectors, RENDERERS["direct"]()
    for steps in (0, 1):
        errors = reconstruction_loss(
            own.adapted(steps), own.signal, own.family, direct, mse
        ).detach()
        same(errors.sum(), vectors["inner_mse"][steps], **FLOAT32)
        psnr = -10 * errors.log10()
        same(psnr.sum(), vectors["inner_psnr"][steps], **FLOAT32)
    code = own.adapted().detach()
    if make is meta:
        same(code.mT, vectors["adapted/linear_wb1"], **FLOAT32)
    else:
        weights = own.family.conditioner.unpack(code)
        stored = {f"{i}.weight": vectors[f"adapted/linear_wb{i}"] for i in range(4)}
        same(weights, stored, **FLOAT32)
    out = own.family(own.signal.coords, code).detach()
    same(out.mT.unflatten(2, (10, 10)), vectors["out"], **FLOAT32)
    same(own.loss().detach(), vectors["loss"], **FLOAT32)


def test_second_derivatives_of_factors() -> None:
    own = meta()
    found, stored = own.gradients(), under(own.vectors, "grad/")
    expected = base_state(stored, HYPONET)
    dead = expected.pop("base.1.weight")
    assert not dead.any()  # the weight that IPC ignores
    expected["shared"] = stored["factors.shared_factors.linear_wb1"]
    expected["start"] = stored["factors.init_modulation_factors.linear_wb1"].mT
    same(found, expected, **TWICE)
    assert len(stored) == 6  # nothing of the vectors is left out


def test_second_derivatives_of_weights() -> None:
    own = learned_init()
    found, stored = own.gradients(), under(own.vectors, "grad/")
    base = base_state(stored, HYPONET)
    assert not any(g.any() for name, g in base.items() if name.endswith("weight"))
    start = own.family.conditioner.unpack(found.pop("start"))
    same(found, {name: g for name, g in base.items() if name.endswith("bias")}, **TWICE)
    same(start, {f"{i}.weight": stored[f"{INITIAL}{i}"][None] for i in range(4)}, **TWICE)
    assert len(stored) == 8


# -- LA-GINR


class Equations:
    """The stored decoder as ``local`` behind ``substitute``; the key's bias is not asked for."""

    def __init__(self, tag: str) -> None:
        self.vectors = under(load("laginr_from_equations"), f"{tag}/")
        width, inputs, features, tokens, heads, query, *bands = self.vectors["cfg"].tolist()
        self.field = Local(
            int(inputs),
            3,
            width=int(width),
            features=int(features),
            tokens=int(tokens),
            heads=int(heads),
            query=query,
            bands=tuple(bands),
        )
        self.family = Family(self.field, Substitute(self.field.slots, "tokens")).double()
        named = {"query": "query_freq"} | {name: f"attn.{name}" for name in "qkvo"}
        for level in self.field.levels:
            named |= {f"band{level}": f"band_freq.{level}", f"mod{level}": f"band_mod.{level}"}
            named |= {f"out{level}": f"out.{level}"}
            named |= {f"hidden{level}": f"hidden.{level}"} if level > 1 else {}
        state = {"start": self.vectors["in.Z"][0]}
        for ours, theirs in named.items():
            state[f"base.{ours}.weight"] = self.vectors[f"w.{theirs}.weight"].mT[None]
            if ours != "k":
                state[f"base.{ours}.bias"] = self.vectors[f"w.{theirs}.bias"][None]
        stored = sum(name.startswith("w.") for name in self.vectors)
        assert len(state) == stored  # one start more, one bias less
        self.family.conditioner.load_state_dict(state)
        self.coords, self.code = self.vectors["in.coord"], self.vectors["in.Z"]


TAGS = pytest.mark.parametrize("tag", ["img_L2", "img_L3", "ray_L2"])


@TAGS
def test_equations(tag: str) -> None:
    own = Equations(tag)
    same(own.family(own.coords, own.code).detach(), own.vectors["y"])


@TAGS
def test_equations_step_by_step(tag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a point finds among the tokens, and what each level answers."""
    own = Equations(tag)
    aggregate, banded, met = own.field._aggregate, own.field._bands, {}

    def spied_aggregate(*given: Any) -> Tensor:
        met["m"] = aggregate(*given)
        return met["m"]

    def spied_bands(*given: Any) -> list[Tensor]:
        met["levels"] = list(banded(*given))
        return met["levels"]

    monkeypatch.setattr(own.field, "_aggregate", spied_aggregate)
    monkeypatch.setattr(own.field, "_bands", spied_bands)
    with torch.no_grad():
        own.family(own.coords, own.code)
    same(met["m"], own.vectors["m"])
    assert len(met["levels"]) == len(own.field.levels)
    for level, found in zip(own.field.levels, met["levels"], strict=True):
        weight, bias = (own.vectors[f"w.out.{level}.{kind}"] for kind in ("weight", "bias"))
        same(found, own.vectors[f"h.{level}"] @ weight.mT + bias)


def test_the_keys_bias_cancels() -> None:
    """The stored one is no zero, and yet nothing needs it."""
    assert (Equations("img_L2").vectors["w.attn.k.bias"].abs() > 0.01).any()


def test_rays_are_pluecker_coordinates() -> None:
    vectors = Equations("ray_L2").vectors
    given = torch.cat([vectors["in.ray_o"], vectors["in.ray_d"]], -1)
    same(plucker(given), vectors["in.coord"])
    same(plucker(torch.cat([given[..., :3], 3 * given[..., 3:]], -1)), vectors["in.coord"])


def test_bands() -> None:
    """sigma^(j / (n - 1)), of the published bandwidths."""
    stored = load("laginr_freqs")
    for name, frequencies in stored.items():
        _, sigma, count = name.split("_")
        bandwidth = float(sigma.removeprefix("sigma"))
        same(log_spaced(int(count.removeprefix("n")), bandwidth, pi=False), frequencies)
    # 256 features are 64 frequencies of two coordinates, but 21 of six
    image, ray = Local(2, 3), Local(6, 3, query=2.0, bands=(8.0, 4.0))
    pi = torch.pi
    same([b / pi for b in [image.query, *image.bands]],
         [stored[f"omega_sigma{s}_n64"] for s in (16, 128, 32)])  # fmt: skip
    same([b / pi for b in [ray.query, *ray.bands]],
         [stored[f"omega_sigma{s}_n21"] for s in (2, 8, 4)])  # fmt: skip


# -- IPC's cameras, as pictures of views ask for them


def test_pluecker_of_a_camera() -> None:
    """A view's rays in the form that a light field and LA-GINR's tokens see."""
    vectors = load("ipc_rays_render")
    height, width = int(vectors["H"]), int(vectors["W"])
    middle = torch.tensor([width / 2, height / 2]).expand(2, 2)
    last = torch.tensor([0, 0, 0, 1.0]).expand(2, 1, 4)
    c2w, intrinsics = (
        torch.cat([vectors["pose"], last], 1),
        torch.cat([vectors["focal"], middle], 1),
    )
    given = rays(c2w, intrinsics, height, width)
    signal = Signal(given, torch.zeros(2, 24, 3), torch.arange(2), grid=(1, height, width))
    for name, stored in {
        "plucker": vectors["plucker_d_m"],
        "origin": torch.cat([vectors["rays_o"], vectors["rays_d"]], -1),
    }.items():
        encoder = Transformer((1, 4), (1, 4, 6), 3, 6, 4, 1, 1, patch=1, rays=name, grid_dim=2)
        same(encoder.patches(signal)[..., 3:], stored.flatten(1, 2), **FLOAT32)
