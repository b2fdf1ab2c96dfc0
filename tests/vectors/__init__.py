"""The conformance vectors of published code, and how their arrays map onto fieldloom's parts.

``data/vectors/README.md`` says how those were made that ship with the tests; the others lie in
``$FIELDLOOM_SHARED/vectors``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fieldloom.conditioners.mixture import Mixture
from fieldloom.encoders import Cavia
from fieldloom.family import Family
from fieldloom.fields.mlp import Siren
from fieldloom.types import Batch, Code, Signal
from shared import shared

Vectors = dict[str, Tensor]

EXACT = {"rtol": 1e-9, "atol": 1e-11}
"""For float64 vectors."""


def load(name: str) -> Vectors:
    """The arrays of ``vectors/NAME.npz``; skips the test that asks where ``shared`` finds none."""
    with np.load(shared("vectors", f"{name}.npz")) as arrays:
        return {key: torch.from_numpy(np.array(arrays[key])) for key in arrays.files}


def same(actual: Any, expected: Any, **tolerance: float) -> None:
    """Equal shapes, types and values, for tensors or mappings of them; at EXACT where not told."""
    torch.testing.assert_close(actual, expected, **(tolerance or EXACT))


def pick(vectors: Vectors, prefix: str, suffix: str = "") -> Vectors:
    """The arrays ``{prefix}X{suffix}`` as {X: array in fieldloom's layout}."""
    chosen = {
        key.removeprefix(prefix).removesuffix(suffix): value
        for key, value in vectors.items()
        if key.startswith(prefix) and key.endswith(suffix)
    }
    assert chosen, f"no array is named {prefix}*{suffix}"
    return {key: layout(key, value) for key, value in chosen.items()}


def layout(name: str, stored: Tensor) -> Tensor:
    """A stored array in our layout: weights W0, basis_W0 ... are (out, in), slots (in, out)."""
    if name == "meta_sgd_lrs":  # (H,) or (1, M, 1) -> one rate a channel of the code
        return stored.flatten()
    return stored.mT if name.removeprefix("basis_").startswith("W") else stored


def slot(name: str) -> str:
    """``W3`` -> ``3.weight``, ``b3`` -> ``3.bias``."""
    return f"{name[1:]}.{'weight' if name[0] == 'W' else 'bias'}"


def as_code(stored: Tensor) -> Code:
    """Latents (B, H) -> (B, 1, H); coefficients (B, M, K) -> (B, K, M)."""
    return stored[:, None] if stored.ndim == 2 else stored.mT


def fill(parameters: Mapping[str, nn.Parameter], vectors: Mapping[str, Tensor]) -> None:
    """Set parameters by the name of their vectors."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            stored = layout(name, vectors[name])
            assert stored.shape == parameter.shape, name
            parameter.copy_(stored)


def mixture(vectors: Vectors, coefficients: str, output: str) -> Family:
    """mNIF's SIREN and mixture with the stored bases and projection, in float64."""
    experts, width, coord_dim = vectors["basis_W0"].shape
    depth = sum(key.startswith("basis_W") for key in vectors)
    value_dim = vectors[f"basis_W{depth - 1}"].shape[1]
    w0 = float(vectors["w0"]) if "w0" in vectors else 30.0
    siren = Siren(coord_dim, value_dim, width=width, depth=depth, frequency=w0, output=output)
    codes = vectors["proj_weight"].shape[1] if "proj_weight" in vectors else 1
    family = Family(siren, Mixture(siren.slots, experts, codes, coefficients)).double()
    fill(mixture_parameters(family), vectors)
    return family


def mixture_parameters(family: Family) -> dict[str, nn.Parameter]:
    """A mixture's parameters by the names of their vectors: basis_W0, basis_b0, proj_weight."""
    own = family.conditioner
    depth = family.field.depth
    named = {
        f"basis_{kind}{i}": own.basis[slot(f"{kind}{i}")] for i in range(depth) for kind in "Wb"
    }
    if hasattr(own, "project"):
        named |= {"proj_weight": own.project.weight, "proj_bias": own.project.bias}
    return named


def cavia(vectors: Vectors, family: Family, **options: Any) -> Cavia:
    """Descent with the stored rates, in float64; without rates where none are stored."""
    rates = "learned" if "meta_sgd_lrs" in vectors else "fixed"
    encoder = Cavia(family.code_shape, rates=rates, **options).double()
    if encoder.rates is not None:
        fill({"meta_sgd_lrs": encoder.rates}, vectors)
    return encoder


def batch_of(coords: Tensor, values: Tensor) -> Batch:
    """A batch to reconstruct."""
    signal = Signal(coords, values, torch.arange(len(coords)))
    return Batch(signal, signal)
