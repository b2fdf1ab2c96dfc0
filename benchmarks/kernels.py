"""Kernels of SIREN and of tiled layers against torch's operations, and against torch.compile.

    python benchmarks/kernels.py --device cuda --out RESULTS.json

Seconds are the least of many calls. ``bound`` is the share of what the device can do at most that a
way reaches: its matrix products and sines in float32 (``bounds.py``), with the backward passes as
two, and the second derivatives as five times the products of the forward pass. A device without
kernels, such as a CPU, has the plain ways alone. ``tf32x3`` is float32 of three products of TF32.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fieldloom.process import tune_process

tune_process()  # as the command line does: before torch is imported

import torch  # noqa: E402
from bounds import Bounds, Work, least_seconds, point_of  # noqa: E402
from bounds import measure as measure_bounds  # noqa: E402
from torch import Tensor  # noqa: E402

from fieldloom.engine import device as devices  # noqa: E402
from fieldloom.fields import Siren  # noqa: E402
from fieldloom.nn.dispatch import Groups  # noqa: E402
from fieldloom.nn.kernels import PLAIN, Kernels  # noqa: E402
from fieldloom.nn.kernels.grouped import grouped_linear  # noqa: E402

Way = Callable[..., Any]


def ways_of(device: torch.device) -> dict[str, Kernels]:
    """The kernels to compare: torch's, and those that the device has."""
    found = {"plain": PLAIN}
    if devices.kernels(device) is not PLAIN:
        found |= {"kernel": devices.kernels(device)}
        found |= {"tf32x3": devices.triton_kernels(device, "tf32x3")}
    return found


def measure(
    device: torch.device, limits: Bounds | None = None, seconds: float = 0.2, small: bool = False
) -> dict[str, Any]:
    """Seconds, share of the bound of every way. small: sizes for a quick look."""
    limits = limits or measure_bounds(device, seconds)
    found: dict[str, Any] = {}
    for name, task, work in (*layers(device, small), *fields(device, small), *tiles(device, small)):
        rows: dict[str, Any] = {}
        for way, function in task.items():
            try:
                took = least_seconds(function, device, seconds)
                rows[way] = {"seconds": took, "bound": limits.seconds(work) / took}
            except Exception as error:  # one way that fails must not stop the others
                rows[way] = {"error": f"{type(error).__name__}: {error}"[:300]}
        found[name] = rows
    return found


Case = tuple[str, Mapping[str, Way], Work]


def layers(device: torch.device, small: bool) -> Iterator[Case]:
    """A layer of 32 signals with matrices of their own: values, gradients, second derivatives."""
    batch, points = (2, 256) if small else (32, 4096)
    for inputs, outputs in ((2, 64), (64, 64), (128, 128)):
        torch.manual_seed(0)
        x = torch.randn(batch, points, inputs, device=device, requires_grad=inputs > 2)
        weight = torch.randn(batch, inputs, outputs, device=device, requires_grad=True)
        bias = torch.randn(batch, outputs, device=device, requires_grad=True)
        given = (x, weight, bias)
        once = Work(2 * batch * points * inputs * outputs, batch * points * outputs)
        functions = {way: own.sine_layer for way, own in ways_of(device).items()}
        if device.type != "cpu":
            functions["compiled"] = torch.compile(lambda *own: torch.sin(torch.baddbmm(
                own[2].unsqueeze(1), *own[:2])))  # fmt: skip
        for order, share in ((0, 1), (1, 3), (2, 8)):
            task = {
                way: lambda function=function, order=order, given=given: derive(
                    function, given, order
                )
                for way, function in functions.items()
                if way != "compiled" or order < 2  # torch.compile has no second derivatives
            }
            yield f"layer {inputs} to {outputs}, order {order}", task, once * share


def derive(function: Way, given: tuple[Tensor, ...], order: int) -> Any:
    """Values (order 0), gradients (1), or the gradients of gradients (2) of a layer."""
    with torch.set_grad_enabled(order > 0):
        y = function(*given)
    if order == 0:
        return y
    about = [x for x in given if x.requires_grad]
    first = torch.autograd.grad(y, about, y.detach(), create_graph=order > 1)
    if order == 1:
        return first
    return torch.autograd.grad(first, about, [g.detach() for g in first], materialize_grads=True)


def fields(device: torch.device, small: bool) -> Iterator[Case]:
    """Decoding of small fields (mNIF's S, and wider), many codes at a time and one."""
    for width, depth, codes in ((64, 6, 64), (64, 6, 1), (128, 7, 64)):
        codes, points = (min(codes, 2), 256) if small else (codes, 4096)
        torch.manual_seed(0)
        siren = Siren(2, 3, width=width, depth=depth, output="sine")
        weights = {
            n: torch.stack([s.init(None) for _ in range(codes)]).to(device)
            for n, s in siren.slots.items()
        }
        coords = torch.rand(codes, points, 2, device=device) * 2 - 1
        task = {
            way: lambda own=own, c=coords, w=weights, siren=siren: decode(siren, own, c, w)
            for way, own in ways_of(device).items()
        }
        work = point_of(siren.slots, last_sine=True) * (codes * points)
        yield f"field {width} x {depth}, {codes} codes", task, work


def decode(siren: Siren, kernels: Kernels, coords: Tensor, weights: dict[str, Tensor]) -> Tensor:
    siren.kernels = lambda device: kernels
    with torch.inference_mode():
        return siren(coords, weights)


def tiles(device: torch.device, small: bool) -> Iterator[Case]:
    """A tiled layer of Levels-of-Experts as an accelerator has it; ``untiled``: a plain layer."""
    n, width = (2048, 64) if small else (65536, 256)
    torch.manual_seed(0)
    x = torch.randn(n, width, device=device, requires_grad=True)
    weight = torch.randn(16, width, width, device=device, requires_grad=True)
    bias = torch.randn(width, device=device, requires_grad=True)
    tile = torch.randint(16, (n,), device=device)
    groups = groups_of(tile)
    once = Work(2 * n * width * width)
    for order, share in ((0, 1), (1, 3)):
        task: dict[str, Way] = {
            way: lambda own=own, order=order: derive(
                lambda *given: grouped_linear(given[0], groups, *given[1:], None, own.grouped),
                (x, weight, bias),
                order,
            )
            for way, own in ways_of(device).items()
        }
        task["untiled"] = lambda order=order: derive(
            lambda x, weight, bias: torch.addmm(bias, x, weight[0]), (x, weight, bias), order
        )
        yield f"tiled layer, order {order}", task, once * share
    yield "order of points by tiles", {"plain": lambda: groups_of(tile)}, Work(0)


def groups_of(tile: Tensor) -> Groups:
    """The order of points by their tiles, as an accelerator finds it."""
    ordered, order = tile.to(torch.uint8).sort(stable=True)
    index = torch.arange(16, dtype=torch.uint8, device=tile.device)
    return Groups(order, torch.searchsorted(ordered, index, right=True), len(tile))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seconds", type=float, default=0.2, help="of each measurement")
    parser.add_argument("--small", action="store_true", help="sizes for a quick look")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    device = devices.pick(asked.device)
    found = {
        "environment": devices.environment(device),
        "kernels": measure(device, seconds=asked.seconds, small=asked.small),
    }
    text = json.dumps(found, indent=2)
    print(text)
    if asked.out:
        asked.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
