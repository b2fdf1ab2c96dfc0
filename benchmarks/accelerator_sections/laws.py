"""The laws of families and encoders on a device, in float32, and its values beside the CPU's."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from accelerator_sections.parts import Result
from fieldloom.conditioners import CONDITIONERS
from fieldloom.encoders import ENCODERS
from fieldloom.engine import device as devices
from fieldloom.family import Family
from fieldloom.fields import FIELDS, Fourier, Tiling
from fieldloom.metrics.losses import mse
from fieldloom.modalities import MODALITIES
from fieldloom.renderers import Direct
from fieldloom.types import layer_of

BATCH, POINTS = 3, 11
CLOSE = {"rtol": 1e-3, "atol": 5e-4}
"""Phases are large in some fields: another order of a sum is 1e-4 there."""

FIELD_ARGUMENTS: dict[str, list[dict[str, Any]]] = {
    "siren": [
        dict(width=6, depth=3, frequency=5.0),
        dict(width=5, depth=4, frequency=5.0, output="sine", offset=0.5),
    ],
    "fourier-mlp": [
        dict(width=6, depth=3, encoding=Fourier("octaves", 4, 3.0)),
        dict(width=6, depth=3, normalize=True, encoding=Fourier("log", 4, 3.0)),
        dict(width=6, depth=3, encoding=Fourier("gaussian", 4, 3.0)),
        dict(width=6, depth=3, encoding=Fourier("learned", 4, 3.0)),
    ],
    "experts": [
        dict(width=5, depth=3, tiling=Tiling(((2, 1), 3, 1), blend), encoding=Fourier(count=2))
        for blend in ("nearest", "linear")
    ],
    "local": [dict(width=4, features=9, tokens=3, query=2.0, bands=(4.0, 2.0))],
}  # fmt: skip

Slots = Mapping[str, Any]


def of_role(role: str) -> Callable[[Slots], str]:
    """The second slot of a role, whatever it is called."""
    return lambda slots: [name for name, slot in slots.items() if slot.role == role][1]


def first(slots: Slots) -> str:
    return next(name for name, slot in slots.items() if slot.role != "fixed")


def one_layer(slots: Slots) -> str:
    return f"{layer_of(of_role('weight')(slots))}.*"


CONDITIONER_ARGUMENTS: dict[str, list[dict[str, Any]]] = {
    "shared": [{}],
    "substitute": [dict(slot=first)],
    "flat-weights": [{}, dict(only=one_layer)],
    "mixture": [dict(experts=3, width=4), dict(experts=3, width=4, coefficients="layer")],
    "shift": [dict(width=4)],
    "film": [dict(width=4)],
    "hyper": [dict(width=4, hidden=(5, 6)), dict(width=4, hidden=(5,), rank=2, activation="relu")],
    "columns": [dict(width=4, groups=2)],
    "factor": [dict(slot=of_role("weight"), rank=3)],
}
"""What depends on the field is a function of its slots."""
ENCODER_ARGUMENTS: dict[str, dict[str, Any]] = {
    "cavia": dict(rate=0.05, rates="fixed"),
    "autodecode": dict(signals=BATCH, std=0.1),
    "fit": dict(steps=5, rate=1e-3),
    "transformer": dict(
        axes=(5, 5), value_dim=3, coord_dim=2, width=8, depth=1, heads=2, patch=2, pad=1
    ),
}


def check_all(device: torch.device) -> Result:
    """How many cases there are, how many hold, and why others do not."""
    broken, count = {}, 0
    for name, law in cases():
        count += 1
        try:
            torch.manual_seed(0)
            law(device)
        except Exception as error:  # one law's error is its result
            broken[name] = f"{type(error).__name__}: {str(error)[:300]}"
    return {"share": (count - len(broken)) / count, "cases": count, "broken": broken}


def cases() -> Iterator[tuple[str, Callable[[torch.device], None]]]:
    for field, arguments in FIELD_ARGUMENTS.items():
        for i, own in enumerate(arguments):
            for conditioner, others in CONDITIONER_ARGUMENTS.items():
                for j, other in enumerate(others):
                    name = f"{field}{i}-{conditioner}{j}"
                    yield (
                        name,
                        lambda at, given=(field, own, conditioner, other): family_laws(at, *given),
                    )
    for name in ENCODER_ARGUMENTS:
        yield name, lambda at, name=name: encoder_laws(at, name)


def make_family(field: str, own: dict[str, Any], conditioner: str, other: dict[str, Any]) -> Family:
    made = FIELDS[field](2, 3, **own)
    if hasattr(made, "kernels"):
        made.kernels = devices.kernels
    given = {key: x(made.slots) if callable(x) else x for key, x in other.items()}
    return Family(made, CONDITIONERS[conditioner](made.slots, **given))


def family_laws(device: torch.device, *given: Any) -> None:
    """Values and gradients are the CPU's; signals and points are independent; bind is forward."""
    here = make_family(*given)
    there = copy.deepcopy(here).to(device)
    coords = torch.rand(BATCH, POINTS, 2) * 2 - 1
    noise = 0.1 * torch.randn(BATCH, *here.code_shape)
    codes = {"here": here.conditioner.origin(BATCH) + noise}
    codes["there"] = there.conditioner.origin(BATCH) + noise.to(device)
    code = codes["here"].detach()
    values = there(coords.to(device), code.to(device))
    same(values, here(coords, code))
    same(there.bind(code.to(device))(coords.to(device)), values)
    alone = torch.cat(
        [there(coords[i : i + 1].to(device), code[i : i + 1].to(device)) for i in range(BATCH)]
    )
    same(alone, values)
    order = torch.randperm(POINTS)
    same(there(coords[:, order].to(device), code.to(device)), values[:, order.to(device)])
    here(coords, codes["here"]).square().sum().backward()
    there(coords.to(device), codes["there"]).square().sum().backward()
    for (name, a), (_, b) in zip(here.named_parameters(), there.named_parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        if a.grad is not None and b.grad is not None:
            scale = float(a.grad.abs().max())
            torch.testing.assert_close(b.grad.cpu(), a.grad, rtol=5e-3, atol=5e-3 * scale + 1e-6)


def encoder_laws(device: torch.device, name: str) -> None:
    """Codes are the CPU's, each independent of its batch, none worse than knowing nothing."""
    field = FIELDS["siren"](2, 3, width=8, depth=3, frequency=5.0)
    here = Family(field, CONDITIONERS["mixture"](field.slots, experts=4, width=6))
    there = copy.deepcopy(here).to(device)
    own = {} if name == "fit" else {"code_shape": here.code_shape}
    encoder = ENCODERS[name](**own, **ENCODER_ARGUMENTS[name]).eval()
    on_device = copy.deepcopy(encoder).to(device)
    signal = MODALITIES["image"](size=5).observe(torch.rand(BATCH, 3, 5, 5)).target
    code = on_device(signal.to(device), there, Direct(), mse)
    same(code, encoder(signal, here, Direct(), mse))
    part = signal.part(slice(1, 2)).to(device)
    same(on_device(part, there, Direct(), mse)[0], code[1])
    if not encoder.reads_grid:
        error = lambda z: mse(there(signal.coords.to(device), z), signal.values.to(device))
        start = there.conditioner.origin(BATCH)
        assert bool((error(code) <= error(start) + 1e-6).all()), "descent raised the loss"


def same(made: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(made.detach().cpu(), expected.detach().cpu(), **CLOSE)
