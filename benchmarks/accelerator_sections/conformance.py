"""The conformance vectors, computed on a device in float32, beside the CPU's float32 and float64.

Each file holds named weights, inputs and outputs of a published system (its README says which). A
check gives the outputs of the package's parts beside the stored ones. On the CPU, in the file's own
precision, they must be the same: that the arrays are read rightly. On the device in float32 they
may be as far from them as the CPU's float32, and a little more.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experts import multiply
from torch import Tensor, nn

from accelerator_sections.parts import Absent, Result
from fieldloom.codecs import Quantize
from fieldloom.conditioners import Columns, Factor, FlatWeights, Mixture, Shift, Substitute
from fieldloom.denoisers import ResMlp, WeightTransformer
from fieldloom.encoders import AutoDecode, Cavia, Transformer
from fieldloom.engine import device as devices
from fieldloom.family import Family
from fieldloom.fields import ARRANGEMENTS, Experts, Fourier, FourierMlp, Local, Siren, Tiling
from fieldloom.fields.arrangements import positions
from fieldloom.geometry.cameras import rays
from fieldloom.metrics.losses import mse
from fieldloom.modalities import MODALITIES
from fieldloom.nn.dispatch import Assignment, dispatch
from fieldloom.nn.layers import zeros
from fieldloom.nn.tiles import blend_corners, tile_indices
from fieldloom.objectives import L2, Reconstruction
from fieldloom.priors import Autoregressive, Diffusion
from fieldloom.renderers import Direct, Volume, plucker
from fieldloom.types import Batch, Cameras, Data, Signal, Slot

Vectors = dict[str, Tensor]
Pairs = Iterator[tuple[str, Tensor, Tensor]]
"""What a check yields: a name, what the package's parts made, and what is stored."""

EXACT = 2e-3
"""The largest relative error in a file's own precision; the files of float32 reach it at phases of
a thousand periods, those of float64 stay below 1e-8."""
WORSE, ROUNDING = 10.0, 5e-5
"""How much further from the vectors than the CPU's float32 the device may be."""

PROCESSOR = ("mnif_metrics", "mnif_coords", "feature_metrics", "pointcloud_metrics",
             "pointcloud_metrics_degenerate", "laginr_freqs")  # fmt: skip
"""Files of what is computed on the processor whatever the device: metrics, grids, constants. The
tests of the package compare them."""


def check_all(folder: Path, device: torch.device) -> Result:
    """Every file of a folder. Raises Absent where there is none."""
    files = sorted(folder.glob("*.npz")) if folder.is_dir() else []
    if not files:
        raise Absent(f"there are no vectors in '{folder}': give --vectors FOLDER.")
    found = {path.stem: check_file(path, device) for path in files if path.stem not in PROCESSOR}
    fine = [name for name, own in found.items() if own["agrees"]]
    return {
        "share": len(fine) / len(found) if found else 0.0,
        "others": [name for name in found if name not in fine],
        "of_the_processor": [path.stem for path in files if path.stem in PROCESSOR],
        "files": found,
    }


def check_file(path: Path, device: torch.device) -> Result:
    """The largest relative errors of one file: as stored, on the CPU and on the device."""
    try:
        own = errors_of(path, torch.device("cpu"), None)
        here = errors_of(path, torch.device("cpu"), torch.float32)
        there = errors_of(path, device, torch.float32)
    except Exception as error:  # one file's error is its result
        return {"agrees": False, "why": f"{type(error).__name__}: {str(error)[:500]}"}
    close = {name: there[name] <= WORSE * here[name] + ROUNDING for name in there}
    return {
        "agrees": all(close.values()) and max(own.values()) < EXACT,
        "stored": max(own.values()),
        "cpu": max(here.values()),
        "device": max(there.values()),
        "far": [name for name, near in close.items() if not near],
    }


def errors_of(path: Path, device: torch.device, dtype: torch.dtype | None) -> dict[str, float]:
    """Name -> the largest difference from what is stored, relative to the largest number there."""
    with np.load(path) as arrays:
        held = {k: np.array(arrays[k]) for k in arrays.files if arrays[k].dtype.kind != "U"}
    stored = {key: torch.from_numpy(value) for key, value in held.items()}
    floats = {key for key, value in stored.items() if value.is_floating_point()}
    given = {
        key: value.to(device, dtype if key in floats else None) for key, value in stored.items()
    }
    torch.manual_seed(0)
    errors: dict[str, float] = {}
    for name, made, true in CHECKS[path.stem](given):
        made, true = made.detach().cpu().double(), true.detach().cpu().double()
        assert made.shape == true.shape, (name, made.shape, true.shape)
        scale = max(float(true.abs().max()), 1e-12)
        errors[name] = max(errors.get(name, 0.0), float((made - true).abs().max()) / scale)
    return errors


# How arrays are laid out.


def like(module: Any, vectors: Vectors) -> Any:
    """A module on the device and in the precision of the vectors; a family with its kernels."""
    if isinstance(module, Family) and hasattr(module.field, "kernels"):
        module.field.kernels = devices.kernels
    return module.to(next(x for x in vectors.values() if x.is_floating_point()))


def fill(parameters: Mapping[str, nn.Parameter], stored: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(stored[name])


def under(vectors: Vectors, prefix: str) -> Vectors:
    """The arrays whose names begin so, by the rest of their names."""
    return {k.removeprefix(prefix): v for k, v in vectors.items() if k.startswith(prefix)}


def as_code(stored: Tensor) -> Tensor:
    """Latents (B, H) -> (B, 1, H); coefficients (B, M, K) -> (B, K, M)."""
    return stored[:, None] if stored.ndim == 2 else stored.mT


def signal_of(coords: Tensor, values: Tensor) -> Signal:
    return Signal(coords, values, torch.arange(len(coords), device=coords.device))


def gradients(loss: Tensor, named: Mapping[str, Tensor]) -> Vectors:
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


# mNIF and Functa.


def mixture_of(vectors: Vectors, coefficients: Any, output: Any) -> tuple[Family, dict[str, Any]]:
    """A SIREN and its mixture with the stored bases; its parameters by the names of the arrays."""
    experts, width, inputs = vectors["basis_W0"].shape
    depth = sum(key.startswith("basis_W") for key in vectors)
    outputs = vectors[f"basis_W{depth - 1}"].shape[1]
    w0 = float(vectors["w0"]) if "w0" in vectors else 30.0
    siren = Siren(inputs, outputs, width=width, depth=depth, frequency=w0, output=output)
    codes = vectors["proj_weight"].shape[1] if "proj_weight" in vectors else 1
    family = like(Family(siren, Mixture(siren.slots, experts, codes, coefficients)), vectors)
    own: Any = family.conditioner
    named = {
        f"basis_{kind}{i}": own.basis[f"{i}.{'weight' if kind == 'W' else 'bias'}"]
        for i in range(depth)
        for kind in "Wb"
    }
    if hasattr(own, "project"):
        named |= {"proj_weight": own.project.weight, "proj_bias": own.project.bias}
    fill(named, {n: turn(n, vectors[n]) for n in named})
    return family, named


def turn(name: str, stored: Tensor) -> Tensor:
    """Weights are stored (out, in)."""
    return stored.mT if name.removeprefix("basis_").startswith("W") else stored


def mnif(coefficients: str) -> Callable[[Vectors], Pairs]:
    def check(vectors: Vectors) -> Pairs:
        family, named = mixture_of(vectors, coefficients, "sine")
        signal, start = signal_of(vectors["coords"], vectors["target"]), as_code(vectors["z0"])
        rates = "learned" if "meta_sgd_lrs" in vectors else "fixed"
        encoder = like(
            Cavia(family.code_shape, rate=float(vectors["lr_inner"]), rates=rates,
                  reduction="batch"), vectors)  # fmt: skip
        if encoder.rates is not None:
            fill({"s": encoder.rates}, {"s": vectors["meta_sgd_lrs"].flatten()})
            named |= {"meta_sgd_lrs": encoder.rates}
        encoder.train()
        yield "values", family(signal.coords, start), vectors["out_z0"]
        code = encoder.descend(start, signal, family, Direct(), mse)
        yield "code", code, as_code(vectors["z_after3"])
        loss = mse(family(signal.coords, code), signal.values).mean()
        yield "loss", loss, vectors["outer_loss"]
        stored = under(vectors, "grad_second_")
        found = gradients(loss, {name: named[name] for name in stored})
        for name, value in stored.items():
            value = value.flatten() if name == "meta_sgd_lrs" else turn(name, value)
            yield f"gradient of {name}", found[name], value

    return check


def mnif_scene(vectors: Vectors) -> Pairs:
    """A radiance field by auto-decoding: pictures, the penalised loss and its gradients."""
    family, named = mixture_of(vectors, "latent", "linear")
    near, far = float(vectors["near"]), float(vectors["far"])
    render = Volume(near, far, samples=vectors["t_vals"].shape[1])
    given = torch.cat([vectors["rays_o"], vectors["rays_d"]], -1)
    signal, code = signal_of(given, vectors["target"]), as_code(vectors["z"])
    yield "picture", render(family.bind(code), given), vectors["rgb"]
    yield "depth", render.march(family.bind(code), given).depth, vectors["depth"]
    encoder = like(AutoDecode(family.code_shape, signals=len(code)), vectors)
    fill({"table": encoder.table}, {"table": code})
    penalty = L2(len(code) * float(vectors["weight_decay_inner"]))
    objective = Reconstruction(family, encoder, render, mse, penalty).train()
    loss, _ = objective.loss("field", Batch(signal, signal))
    yield "loss", loss, vectors["total_loss"]
    found = gradients(loss, {"z": encoder.table, **named})
    yield "gradient of z", found["z"], as_code(vectors["grad_z"])
    for name in named:
        yield f"gradient of {name}", found[name], turn(name, vectors[f"grad_{name}"])


def functa_of(stored: Vectors, vectors: Vectors) -> tuple[Family, Cavia]:
    """A SIREN shifted by its code; ``stored``: by the port's names, weights (out, in)."""
    width, latent = stored["W1"].shape[0], stored["l2m_weight"].shape[1]
    siren = Siren(2, 3, width=width, depth=5, bias="zero", offset=0.5)
    family = like(Family(siren, Shift(siren.slots, width=latent)), vectors)
    encoder = like(Cavia(family.code_shape, rate=1.0), vectors).train()
    own: Any = family.conditioner
    named = {f"W{i}": own.base[f"{i}.weight"] for i in range(5)}
    named |= {f"b{i}": own.base[f"{i}.bias"] for i in range(5)}
    named |= {"l2m_weight": own.project.weight, "l2m_bias": own.project.bias}
    named |= {"meta_sgd_lrs": encoder.rates}
    put = lambda n: turn(n, stored[n])[None] if n[0] in "Wb" else stored[n].flatten()
    fill(named, {n: stored[n] if n.startswith("l2m") else put(n) for n in named})
    return family, encoder


def functa_port(vectors: Vectors) -> Pairs:
    family, encoder = functa_of(vectors, vectors)
    signal, start = signal_of(vectors["coords"], vectors["target"]), as_code(vectors["z0"])
    yield "values", family(signal.coords, start), vectors["out_z0"]
    code = encoder.descend(start, signal, family, Direct(), mse)
    yield "code", code, as_code(vectors["persample_z_after3"])
    yield "picture", family(signal.coords, code), vectors["persample_out_after"]
    loss = mse(family(signal.coords, code), signal.values).mean()
    yield "loss", loss, vectors["persample_outer_loss"]
    own: Any = family.conditioner
    found = gradients(loss, {"W1": own.base["1.weight"], "l2m_weight": own.project.weight})
    yield "gradient of W1", found["W1"][0], vectors["persample_grad_second_W1"].mT
    stored = vectors["persample_grad_second_l2m_weight"]
    yield "gradient of the map", found["l2m_weight"], stored


def functa_official(vectors: Vectors) -> Pairs:
    root = "param:latent_modulated_siren"
    layers = [f"{root}/modulated_siren_layer{f'_{i}' if i else ''}/linear" for i in range(5)]
    project = f"{root}/~/latent_to_modulation/~/mlp/~/linear_0"
    stored = {f"W{i}": vectors[f"{layer}/w"].mT for i, layer in enumerate(layers)}
    stored |= {f"b{i}": vectors[f"{layer}/b"] for i, layer in enumerate(layers)}
    stored |= {"l2m_weight": vectors[f"{project}/w"].mT, "l2m_bias": vectors[f"{project}/b"]}
    stored |= {"meta_sgd_lrs": vectors[f"{root}/~/meta_sgd_lrs/meta_sgd_lrs"]}
    family, encoder = functa_of(stored, vectors)
    values = vectors["target"].flatten(1, 2)
    coords = vectors["coords"].flatten(0, 1).expand(len(values), -1, -1)
    origin = family.conditioner.origin(1)
    yield "values", family(coords[:1], origin)[0], vectors["out_latent0"].flatten(0, 1)
    code = encoder(signal_of(coords, values), family, Direct(), mse)
    yield "code", code, as_code(vectors["latent_after3"])
    loss = mse(family(coords, code), values).mean()
    yield "loss", loss, vectors["outer_loss"]
    own: Any = family.conditioner
    (found,) = torch.autograd.grad(loss, [own.project.weight])
    stored_gradient = vectors[f"grad:{project.removeprefix('param:')}/w"].mT
    yield "gradient of the map", found, stored_gradient


# Diffusion.

RESMLP = {
    "block_input": "input", "block_time.0": "time", "block_output.0": "norm",
    "block_output.2": "output", "block1.0": "norm1", "block1.2": "linear1", "blockt.1": "time",
    "block2.0": "norm2", "block2.3": "linear2",
}  # fmt: skip


def resmlp_name(released: str) -> str:
    """``blocks.0.block1.2.weight`` -> ``blocks.0.linear1.weight``."""
    layer, kind = released.rsplit(".", 1)
    head, layer = re.fullmatch(r"(blocks\.\d+\.)?(.*)", layer).groups()  # type: ignore[union-attr]
    return f"{head or ''}{RESMLP[layer]}.{kind}"


def diffusion_step(vectors: Vectors) -> Pairs:
    net = ResMlp((1, 12), depth=4, width=32, groups=4, time=16)
    net.load_state_dict({resmlp_name(n): x for n, x in under(vectors, "param:").items()})
    prior = like(Diffusion((1, 12), net), vectors)
    code = lambda name: vectors[name][:, None]
    noisy = prior.add_noise(code("x0"), code("noise"), vectors["t"])
    yield "noisy code", noisy, code("x_t")
    clean = prior.denoiser(code("x_t"), vectors["t"])
    yield "clean code", clean, code("net_out")
    losses = (clean - code("x0")).square().mean((1, 2))
    yield "losses", losses, vectors["loss_per_sample"]
    named = {"block_input_weight": net.input.weight}
    named |= {"blocks0_block1_2_weight": net.blocks[0].linear1.weight}
    for name, own in gradients(losses.mean(), named).items():
        yield f"gradient of {name}", own, vectors[f"grad_{name}"]


def diffusion_schedule(vectors: Vectors) -> Pairs:
    for schedule, name in (("cosine", "betas"), ("linear", "betas_linear_1000")):
        prior = like(Diffusion((1, 12), nn.Identity(), schedule=schedule), vectors)
        yield name, prior.betas, vectors[name]
        if schedule == "cosine":
            yield "products", prior.alphas_cumprod, vectors["spaced1000_alphas_cumprod"]


def laginr_ddpm(vectors: Vectors) -> Pairs:
    width = vectors["x0"].shape[1:]
    prior = like(Diffusion(tuple(width), nn.Identity(), schedule="linear"), vectors)
    yield "betas", prior.betas, vectors["betas"]
    made = prior.add_noise(vectors["x0"], vectors["eps"], vectors["t"])
    yield "noisy tokens", made, vectors["xt"]


# Levels-of-Experts.


def loe_blend(vectors: Vectors) -> Pairs:
    q = vectors["q"][:, None]
    for n in (2, 3, 4, 5, 8):
        identity = torch.eye(n, dtype=q.dtype, device=q.device)
        # positions next to a border are for float64 alone
        inside = (q - q.round()).abs()[:, 0] > 1e-6
        tile = tile_indices(q, (n,))
        yield "nearest", identity[tile][inside], vectors[f"B_nearest_N{n}"][inside]
        table, shares = blend_corners(q, (n,))
        linear = sum(
            share[:, None] * identity[torch.tensor(own, device=q.device)[tile]]
            for own, share in zip(table, shares.T, strict=True)
        )
        assert isinstance(linear, Tensor)
        yield "linear", linear[inside], vectors[f"B_linear_N{n}"][inside]


def loe_layer(vectors: Vectors) -> Pairs:
    for tag in ("2d_2x2", "2d_4x4", "2d_2x3", "3d_2x2x2", "3d_4x4x4"):
        own = under(vectors, f"{tag}.")
        tiles = tuple(own["Ns"].tolist())
        q = own["p"] * own["alpha"] + own["beta"]
        tile = tile_indices(q, tiles)
        yield "tiles", tile, own["tile_id"]
        for blend in ("nearest", "linear"):
            weight = own["W"].mT.contiguous().requires_grad_()
            x = own["x"].clone().requires_grad_()
            (order,) = dispatch([Assignment(tile, len(weight), own=False)], 1, len(x))
            blended = None
            if blend == "linear":
                table, shares = blend_corners(q, tiles)
                blended = table, order.gather(shares)
            y = order.scatter(multiply(x, order, weight, own["b"], blended))
            yield f"values, {blend}", y, own[f"y_{blend}"]
            dw, dx = torch.autograd.grad(y, (weight, x), own["gy"])
            yield f"gradient of weights, {blend}", dw, own[f"dW_{blend}"].mT
            yield f"gradient of inputs, {blend}", dx, own[f"dx_{blend}"]


def loe_net(vectors: Vectors) -> Pairs:
    for tag, count, activation in (
        ("img2d", 3, "relu"), ("img2d_leaky", 2, "leaky-relu"), ("vid3d", 2, "relu"),
    ):  # fmt: skip
        own = under(vectors, f"{tag}.")
        tiles = tuple(own["tiles"].tolist())
        stored = [own[f"W{i}"].mT for i in range(len(tiles))]
        for blend in ("nearest", "linear"):
            field = Experts(
                own["p"].shape[1],
                stored[-1].shape[-1],
                width=tuple(w.shape[-1] for w in stored[:-1]),
                depth=len(tiles),
                activation=activation,
                tiling=Tiling(tiles=tiles, blend=blend, centred=False, low=0.0, high=1.0),
                encoding=Fourier(count=count, include_input=True),
            )
            field.kernels = devices.kernels
            weights = {f"{i}.bias": own[f"b{i}"][None] for i in range(len(tiles))}
            for i, w in enumerate(stored):
                weights[f"{i}.weight"] = w.reshape(1, *field.slots[f"{i}.weight"].shape)
            yield f"{tag}, {blend}", field(own["p"][None], weights)[0], own[f"out_{blend}"]


def loe_arrangements(vectors: Vectors) -> Pairs:
    for name, key, tiles, own in (
        ("quadtree_N2", "quad-tree", [2] * 5, {}), ("gray_N2", "gray", [2] * 5, {}),
        ("fine_to_coarse_N2", "fine-to-coarse", [2] * 5, {}),
        ("nested_4_4_2", "coarse-to-fine", [4, 4, 2], {}),
        ("chunked_N4", "chunked", [4] * 3, {}),
        ("interleaved_N4", "interleaved", [4] * 3, {"scale": 32.0}),
    ):  # fmt: skip
        p, each = vectors["p"][:, None], [(n,) for n in tiles]
        layers = ARRANGEMENTS[key](**own)(each)
        found = [tile_indices(positions(p, at), n) for at, n in zip(layers, each, strict=True)]
        yield name, torch.stack(found), vectors[name]


# Weights as data.


def field_of(kind: str, inputs: int = 3) -> FourierMlp:
    own: dict[str, Any] = {
        "hd": dict(width=5, depth=3),
        "ng3": dict(width=4, depth=3, activation="gelu", output="tanh", output_bias=False),
    }[kind]
    encoding = Fourier("octaves", 2, pi=False, include_input=True)
    return FourierMlp(inputs, 1, encoding=encoding, **own)


def weight_fields(vectors: Vectors) -> Pairs:
    for kind, out in (("hd", "logits"), ("ng3", "out")):
        stored = under(vectors, f"{kind}.p.layers.")
        weights = {n: (w.mT if w.ndim == 2 else w)[None] for n, w in stored.items()}
        made = field_of(kind)(vectors["hd.coords"][None], weights)[0]
        yield kind, made, vectors[f"{kind}.{out}"]


def hyperdiffusion(vectors: Vectors) -> Pairs:
    """The denoiser, whose tokens are tensors; within a tensor numbers are ours, (in, out)."""
    shapes = {"0.weight": (15, 5), "1.weight": (5, 4), "2.weight": (4, 1)}
    slots: dict[str, Slot] = {}
    for name, shape in shapes.items():
        slots[name] = Slot(shape, zeros(shape), "weight")
        slots[name.replace("weight", "bias")] = Slot(shape[1:], zeros(shape[1:]), "bias")
    ends = [0, *accumulate(vectors["sizes"].tolist())]
    order = []  # of the released numbers inside each of our tensors
    for slot in slots.values():
        places = torch.arange(math.prod(slot.shape), device=vectors["w"].device)
        turned = places.view(slot.shape[::-1]).mT if slot.role == "weight" else places
        order.append(turned.flatten())
    whole = torch.cat([own + first for own, first in zip(order, ends, strict=False)])
    net = WeightTransformer(
        (1, ends[-1]), slots, width=8, depth=2, heads=2, time="octaves", bands=6, highest=5.0
    )
    old = under(vectors, "p.decoder.")
    state = {"position": old["pos_emb"][0]}
    state["time.weight"] = old[f"input_parameter_projections.{len(order)}.0.weight"]
    for i, own in enumerate(order):
        state[f"input.{i}.weight"] = old[f"input_parameter_projections.{i}.0.weight"][:, own]
        state[f"output.{i}.weight"] = old[f"output_parameter_projections.{i}.0.weight"][own]
    state |= both("norm_in", old, "ln_in") | both("norm", old, "ln_f")
    for b in (0, 1):
        head = f"blocks.{b}."
        for kind in KINDS:
            three = [old[f"{head}attn.{part}.{kind}"] for part in ("query", "key", "value")]
            state[f"{head}attention.qkv.{kind}"] = torch.cat(three)
        for ours, theirs in (("attention.out", "attn.proj"), ("norm1", "ln1"), ("norm2", "ln2"),
                             ("mlp.0", "mlp.0"), ("mlp.2", "mlp.2")):  # fmt: skip
            state |= both(f"{head}{ours}", old, f"{head}{theirs}")
    net.load_state_dict(state)
    made = like(net, vectors)(vectors["w"][:, None, whole], vectors["t"])
    yield "clean weights", made[:, 0], vectors["out"][:, whole]


GPT = {
    "transformer.wte.weight": "head.table.weight",
    "transformer.wpe.weight": "network.tables.position.weight",
    "transformer.ln_f": "network.norm", "transformer.h": "network.blocks", "ln_1": "norm1",
    "ln_2": "norm2", "attn.c_attn": "attention.qkv", "attn.c_proj": "attention.out",
    "mlp.c_fc": "mlp.0", "mlp.c_proj": "mlp.2",
}  # fmt: skip


def nefgpt(vectors: Vectors) -> Pairs:
    for norm, suffix in (("none", ""), ("pre", "_preln")):
        codec = Quantize((1, 12), codebook_size=15, center="none")
        codec.books.copy_(torch.arange(15.0).view(1, 1, 15, 1))
        prior = Autoregressive(
            (1, 12), codec=codec, positions=("position",), norm=norm, depth=2, width=8, heads=2
        )  # type: ignore[arg-type]
        state = {k: v for k, v in prior.state_dict().items() if k.startswith("codec.")}
        for name, value in under(vectors, "gpt.p.").items():
            if name == "lm_head.weight" or (
                norm == "none" and (".ln_1" in name or ".ln_2" in name)
            ):
                continue
            for old, new in GPT.items():
                name = name.replace(old, new)
            state[name] = value
        prior.load_state_dict(state)
        prior = like(prior, vectors)
        hidden = prior.hidden_states(vectors["gpt.idx"].roll(-1, 1))  # its last is not read
        yield f"logits{suffix}", prior.head.logits(hidden), vectors[f"gpt.logits{suffix}"]
        loss = prior.head.loss(hidden, vectors["gpt.targets"]).mean() / 12
        yield f"loss{suffix}", loss, vectors[f"gpt.loss{suffix}"]


# IPC, TransINR, LA-GINR.

BLOCKS = {
    "ipc": {
        "norm1": "transformer.blocks.{i}.ln1", "norm2": "transformer.blocks.{i}.ln2",
        "attention.out": "transformer.blocks.{i}.attn.proj",
        "mlp.0": "transformer.blocks.{i}.mlp.0", "mlp.2": "transformer.blocks.{i}.mlp.2",
    },
    "transinr": {
        "norm1": "transformer_encoder.layers.{i}.0.norm",
        "norm2": "transformer_encoder.layers.{i}.1.norm",
        "attention.out": "transformer_encoder.layers.{i}.0.fn.to_out.0",
        "mlp.0": "transformer_encoder.layers.{i}.1.fn.net.0",
        "mlp.2": "transformer_encoder.layers.{i}.1.fn.net.3",
    },
}  # fmt: skip
KINDS = ("weight", "bias")


def both(ours: str, stored: Vectors, theirs: str) -> Vectors:
    return {f"{ours}.{kind}": stored[f"{theirs}.{kind}"] for kind in KINDS}


def blocks_of(stored: Vectors) -> int:
    found = (re.search(r"(?:blocks|layers)\.(\d)", name) for name in stored)
    return len({match[1] for match in found if match})


def encoder_state(code: str, stored: Vectors) -> Vectors:
    """A transformer's parameters, but the head's, by our names."""
    state: Vectors = {}
    for i in range(blocks_of(stored)):
        for ours, theirs in BLOCKS[code].items():
            state |= both(f"blocks.{i}.{ours}", stored, theirs.format(i=i))
        name = f"blocks.{i}.attention.qkv"
        if code == "transinr":  # no biases; keys and values are one matrix
            own = f"transformer_encoder.layers.{i}.0.fn"
            state[f"{name}.weight"] = torch.cat(
                [stored[f"{own}.to_q.weight"], stored[f"{own}.to_kv.weight"]]
            )
        else:
            own = f"transformer.blocks.{i}.attn"
            for kind in KINDS:
                three = [stored[f"{own}.{part}.{kind}"] for part in ("query", "key", "value")]
                state[f"{name}.{kind}"] = torch.cat(three)
    if code == "ipc":
        state |= both("tokeniser", stored, "latent_mapping.latent_mapping")
        positions = stored["latent_mapping.pos_emb_latent"][0]
        return state | {"positions": positions, "asked": stored["weight_groups.weight_groups"]}
    state |= both("tokeniser", stored, "tokenizer.prefc") | {"asked": stored["wtokens"]}
    if "tokenizer.posemb" in stored:
        state["positions"] = stored["tokenizer.posemb"]
    return state


def base_state(stored: Vectors, layers: list[str]) -> Vectors:
    """Arrays (in + 1, out), whose last row is the bias."""
    state = {}
    for i, name in enumerate(layers):
        state |= {
            f"base.{i}.weight": stored[name][None, :-1], f"base.{i}.bias": stored[name][None, -1],
        }  # fmt: skip
    return state


HYPONET = [f"hyponet.params_dict.linear_wb{i}" for i in range(4)]
PICTURE: dict[str, Any] = dict(depth=4, count=4, bandwidth=16.0, offset=0.5)


def perceptron(
    inputs: int, outputs: int, count: int, bandwidth: float, pi: bool = True, **own: Any
) -> FourierMlp:
    encoding = Fourier("log", count, bandwidth, pi)
    return FourierMlp(inputs, outputs, width=16, encoding=encoding, normalize=True, **own)


def picture_signal(vectors: Vectors) -> Signal:
    return MODALITIES["image"](size=10, range="unit").observe(vectors["xs"]).context


def view_signal(vectors: Vectors) -> Signal:
    img, pose, focal = (vectors[name] for name in ("img", "pose", "focal"))
    last = img.new_tensor([0, 0, 0, 1.0]).expand(*pose.shape[:2], 1, 4)
    middle = torch.full_like(focal, 4.0)
    cameras = Cameras(c2w=torch.cat([pose, last], 2), intrinsics=torch.cat([focal, middle], -1))
    modality = MODALITIES["views"](size=8, range="unit")
    return modality.observe(Data(img, cameras=cameras)).context.to(img.device)


def encode(
    vectors: Vectors, code: str, family: Family, signal: Signal, head: Vectors | None, **own: Any
) -> Tensor:
    stored = under(vectors, "w/")
    assert signal.grid is not None
    encoder = Transformer(
        family.code_shape, signal.grid, value_dim=3, coord_dim=signal.coords.shape[-1], grid_dim=2,
        width=24, depth=blocks_of(stored), heads=3, patch=4, bias=code == "ipc",
        head=head is not None, **own,
    )  # fmt: skip
    encoder.load_state_dict(encoder_state(code, stored) | (head or {}))
    encoder = like(encoder, vectors).eval()
    return encoder(signal.to(vectors_device(vectors)), family, Direct(), mse)


def vectors_device(vectors: Vectors) -> torch.device:
    return next(iter(vectors.values())).device


def composed(
    vectors: Vectors, field: FourierMlp, signal: Signal, **own: Any
) -> tuple[Family, Tensor]:
    """IPC: the second layer is a product of two factors."""
    stored = under(vectors, "w/")
    state = base_state(stored, HYPONET)
    del state["base.1.weight"]
    state["shared"] = stored["shared_factor.linear_wb1"][0]
    head: Vectors = {}
    for j in (0, 1):
        head |= both(f"head.{j}", stored, f"group_modulation_postfc.linear_wb1.{j}")
    conditioner = Factor(field.slots, "1.weight", rank=8, origin="zero")
    conditioner.load_state_dict(state)
    family = like(Family(field, conditioner), vectors)
    return family, encode(vectors, "ipc", family, signal, head, **own)


def scaled(
    vectors: Vectors, code: str, field: FourierMlp, signal: Signal, groups: int,
    names: tuple[list[str], list[str]], **own: Any,
) -> tuple[Family, Tensor]:  # fmt: skip
    """TransINR: tokens scale the columns of every weight."""
    stored = under(vectors, "w/")
    state = base_state(stored, names[0])
    for i, name in enumerate(names[1]):
        for j in (0, 1):
            state |= both(f"maps.{i}.{j}", stored, f"{name}.{j}")
    conditioner = Columns(field.slots, width=24, groups=groups)
    conditioner.load_state_dict(state)
    family = like(Family(field, conditioner), vectors)
    return family, encode(vectors, code, family, signal, None, **own)


def ipc(vectors: Vectors) -> Pairs:
    signal = picture_signal(vectors)
    family, code = composed(vectors, perceptron(2, 3, **PICTURE), signal, pad=1)
    yield "picture", family(signal.coords, code), vectors["out_bhwc"].flatten(1, 2)
    yield "elsewhere", family(vectors["coord2"], code), vectors["out2"]


def ipc_transinr(vectors: Vectors) -> Pairs:
    signal = picture_signal(vectors)
    maps = [f"group_modulation_postfc.linear_wb{i}" for i in range(4)]
    field = perceptron(2, 3, **PICTURE)
    family, code = scaled(vectors, "ipc", field, signal, 8, (HYPONET, maps), pad=1)
    yield "picture", family(signal.coords, code), vectors["out_bhwc"].flatten(1, 2)


def transinr(vectors: Vectors) -> Pairs:
    signal = picture_signal(vectors)
    layers, maps = ([f"{n}.wb{i}" for i in range(4)] for n in ("base_params", "wtoken_postfc"))
    field = perceptron(2, 3, **PICTURE | dict(bandwidth=1024.0))
    family, code = scaled(vectors, "transinr", field, signal, 8, (layers, maps), pad=1)
    yield "picture", family(signal.coords, code), vectors["out_bhwc"].flatten(1, 2)


def march(vectors: Vectors, family: Family, code: Tensor) -> Tensor:
    render = Volume(
        2.0, 6.0, 6, range="unit", colour="sigmoid", density="relu", intervals="t", last=1e-3
    )
    given = torch.cat([vectors["rays_o"], vectors["rays_d"]], -1)
    return render(lambda points: family(points, code), given)


def ipc_nerf(vectors: Vectors) -> Pairs:
    field = perceptron(3, 4, depth=4, count=4, bandwidth=256.0, pi=False)
    family, code = composed(vectors, field, view_signal(vectors), rays="origin")
    yield "rays", march(vectors, family, code), vectors["rgb"]


def transinr_nvs(vectors: Vectors) -> Pairs:
    names = ("wb0", "wb1", "rgb_density_fc")
    layers, maps = ([f"{n}.{m}" for m in names] for n in ("base_params", "wtoken_postfc"))
    field = perceptron(3, 4, depth=3, count=3, bandwidth=256.0, pi=False)
    own = dict(rays="origin", positions="none")
    signal = view_signal(vectors)
    family, code = scaled(vectors, "transinr", field, signal, 4, (layers, maps), **own)
    yield "raw values", family(vectors["pts"], code), vectors["raw"]


def descend(vectors: Vectors, conditioner: Any, state: Vectors) -> tuple[Family, Tensor, Tensor]:
    """Two steps of descent, and the loss after them, which keeps its graph."""
    conditioner.load_state_dict(state)
    family = like(Family(perceptron(2, 3, **PICTURE), conditioner), vectors)
    signal = picture_signal(vectors)
    shape = family.code_shape
    cavia = like(Cavia(shape, steps=2, rate=0.01, rates="fixed", relative=True), vectors).train()
    code = cavia(signal, family, Direct(), mse)
    made = family(signal.coords, code)
    return family, made, mse(made, signal.values).mean()


def ipc_meta(vectors: Vectors) -> Pairs:
    stored = under(vectors, "w/")
    state = base_state(stored, HYPONET)
    del state["base.1.weight"]
    state["shared"] = stored["factors.shared_factors.linear_wb1"]
    state["start"] = stored["factors.init_modulation_factors.linear_wb1"].mT
    slots = perceptron(2, 3, **PICTURE).slots
    family, made, loss = descend(vectors, Factor(slots, "1.weight", rank=8), state)
    yield "picture", made.mT.unflatten(2, (10, 10)), vectors["out"]
    yield "loss", loss, vectors["loss"]
    own: Any = family.conditioner
    found = gradients(loss, {"shared": own.shared})
    stored_gradient = under(vectors, "grad/")["factors.shared_factors.linear_wb1"]
    yield "gradient of the factor", found["shared"], stored_gradient


def learned_init(vectors: Vectors) -> Pairs:
    stored = under(vectors, "w/")
    state = {n: x for n, x in base_state(stored, HYPONET).items() if n.endswith("bias")}
    direct = FlatWeights(perceptron(2, 3, **PICTURE).slots, only="*.weight")
    initial = "factors.init_modulation_factors.linear_wb"
    starts = {f"{i}.weight": stored[f"{initial}{i}"][None] for i in range(4)}
    packed = direct.pack({name: x.cpu() for name, x in starts.items()})
    _, made, loss = descend(vectors, direct, state | {"start": packed})
    yield "picture", made.mT.unflatten(2, (10, 10)), vectors["out"]
    yield "loss", loss, vectors["loss"]


def ipc_rays(vectors: Vectors) -> Pairs:
    height, width = int(vectors["H"]), int(vectors["W"])
    pose = vectors["pose"]
    centre = pose.new_tensor([width / 2, height / 2]).expand(2, 2)
    c2w = torch.cat([pose, pose.new_tensor([0, 0, 0, 1.0]).expand(2, 1, 4)], 1)
    given = rays(c2w, torch.cat([vectors["focal"], centre], -1), height, width)
    stored = torch.cat([vectors["rays_o"], vectors["rays_d"]], -1).flatten(1, 2)
    yield "rays", given, stored
    yield "pluecker", plucker(given), vectors["plucker_d_m"].flatten(1, 2)
    render = Volume(2.0, 6.0, 7, range="unit", colour="sigmoid", density="relu", last=1e-3)
    t = vectors["z"].expand(2, -1, -1)
    seen = render.composite_raw(vectors["raw"], t, torch.ones_like(t[..., :1]))
    yield "colours", seen.colour, vectors["rgb"]


def laginr(vectors: Vectors) -> Pairs:
    for tag in ("img_L2", "img_L3", "ray_L2"):
        own = under(vectors, f"{tag}/")
        width, inputs, features, tokens, heads, query, *bands = own["cfg"].tolist()
        field = Local(
            int(inputs), 3, width=int(width), features=int(features), tokens=int(tokens),
            heads=int(heads), query=query, bands=tuple(bands),
        )  # fmt: skip
        family = Family(field, Substitute(field.slots, "tokens"))
        named = {"query": "query_freq"} | {name: f"attn.{name}" for name in "qkvo"}
        for level in field.levels:
            named |= {f"band{level}": f"band_freq.{level}", f"mod{level}": f"band_mod.{level}"}
            named |= {f"out{level}": f"out.{level}"}
            named |= {f"hidden{level}": f"hidden.{level}"} if level > 1 else {}
        state = {"start": own["in.Z"][0]}
        for ours, theirs in named.items():
            state[f"base.{ours}.weight"] = own[f"w.{theirs}.weight"].mT[None]
            if ours != "k":
                state[f"base.{ours}.bias"] = own[f"w.{theirs}.bias"][None]
        family = like(family, own)
        family.conditioner.load_state_dict(state)
        yield tag, family(own["in.coord"], own["in.Z"]), own["y"]


CHECKS: dict[str, Callable[[Vectors], Pairs]] = {
    "mnif_image_latent_metasgd": mnif("latent"),
    "mnif_image_latent_zero_init": mnif("latent"),
    "mnif_voxel_latent_w050": mnif("latent"),
    "mnif_image_latent_shared": mnif("latent-shared"),
    "mnif_image_shared": mnif("shared"),
    "mnif_image_layerspecific": mnif("layer"),
    "mnif_scene_autodecode": mnif_scene,
    "mnif_functaport_image": functa_port,
    "functa_official_jax": functa_official,
    "mnif_diffusion_step": diffusion_step,
    "mnif_diffusion_schedule": diffusion_schedule,
    "laginr_ddpm": laginr_ddpm,
    "loe_blend1d": loe_blend,
    "loe_layer": loe_layer,
    "loe_net": loe_net,
    "loe_arrangements": loe_arrangements,
    "weight_fields": weight_fields,
    "hyperdiffusion_model": hyperdiffusion,
    "nefgpt_tokens": nefgpt,
    "ipc_tiny": ipc,
    "ipc_transinr_tiny": ipc_transinr,
    "ipc_nerf_tiny": ipc_nerf,
    "ipc_meta_tiny": ipc_meta,
    "ipc_learnedinit_tiny": learned_init,
    "ipc_rays_render": ipc_rays,
    "transinr_tiny": transinr,
    "transinr_nvs_tiny": transinr_nvs,
    "laginr_from_equations": laginr,
}
