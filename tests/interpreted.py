"""Triton's kernels on a CPU: by its interpreter, which a process has from its start or never."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor


class GaveWay(AssertionError):
    """A kernel failed, or made other numbers than the plain path."""


def prepare() -> None:
    """What a process of this kind begins with."""
    os.environ["TRITON_INTERPRET"] = "1"
    torch.set_num_threads(1)
    from triton.runtime import interpreter

    from fieldloom.nn.kernels import proof, triton_siren

    def refuse(text: str) -> None:
        raise GaveWay(text)

    proof.announce = refuse
    triton_siren.POINTS, triton_siren.FEW = 16, 16 * triton_siren.ROUNDS + 9  # less to interpret
    plain = interpreter.InterpreterBuilder.create_dot

    def dot(builder: Any, a: Any, b: Any, *rest: Any) -> Any:
        return plain(builder, widen(a), widen(b), *rest)

    interpreter.InterpreterBuilder.create_dot = dot


def widen(x: Any) -> Any:
    """A matrix of the interpreter whose numbers are bfloat16, which it would multiply as bits."""
    import triton.language as tl
    from triton.runtime.interpreter import TensorHandle

    if x.dtype.scalar != tl.bfloat16:
        return x
    return TensorHandle((x.data.astype(np.uint32) << 16).view(np.float32), tl.float32)


def kernels(precision: str = "ieee") -> Any:
    from fieldloom.nn.kernels.fused import fused_kernels
    from fieldloom.nn.kernels.proof import Device

    return fused_kernels(Device(lambda x: nullcontext(), lambda: False, lambda: precision))


def derive(function: Any, given: list[Tensor]) -> list[Tensor]:
    """Values, gradients, and gradients of these, of what requires some."""
    about = [x for x in given if x.requires_grad]
    y = function(*given)
    first = torch.autograd.grad(y.float().pow(3).sum(), about, create_graph=True)
    second = torch.autograd.grad(
        sum(g.square().sum() for g in first), about, materialize_grads=True
    )
    return [x.detach() for x in (y, *first, *second)]


def worst(found: list[Tensor], exact: list[Tensor]) -> float:
    """The largest difference, as a fraction of a tensor's largest number."""
    pairs = zip(found, exact, strict=True)
    return max(
        float((a.double() - b).abs().max() / b.abs().max().clamp(min=1e-9)) for a, b in pairs
    )


def doubles(given: list[Tensor]) -> list[Tensor]:
    return [x.detach().double().requires_grad_(x.requires_grad) for x in given]


def layer(inputs: int, outputs: int, shared: str, precision: str = "float32") -> float:
    """The error of a layer and its gradients against float64."""
    from fieldloom.nn.kernels import sine_layer

    torch.manual_seed(0)
    own = shared == "own"
    given = [
        torch.randn(2, 71, inputs, requires_grad=inputs > 3),
        (torch.randn(2 if own else 1, inputs, outputs) * 3 / inputs**0.5).requires_grad_(),
        torch.randn(1 if shared == "shared" else 2, outputs, requires_grad=True),
    ]
    exact = derive(sine_layer, doubles(given))
    fused = kernels().sine_layer
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        found = derive(fused, given)
        assert fused(*given).dtype == getattr(torch, precision)
    return worst(found, exact)


def field(width: int, depth: int, codes: int, precision: str = "float32", **own: Any) -> float:
    """The largest error of a field's values against float64, by its one kernel."""
    from fieldloom.fields import Siren

    torch.manual_seed(0)
    siren, plain = (Siren(2, 3, width=width, depth=depth, **own) for _ in range(2))
    calls = []
    fused = kernels()

    def whole(*given: Any) -> Any:
        calls.append(fused.siren(*given))
        return calls[-1]

    siren.kernels = lambda device: fused._replace(siren=whole)
    weights = {n: torch.stack([s.init(None) for _ in range(codes)]) for n, s in siren.slots.items()}
    coords = torch.rand(2, 133, 2) * 2 - 1
    if precision == "bfloat16":  # as System.evaluate has it: the first layer stays exact
        weights = {n: w if n.startswith("0.") else w.bfloat16() for n, w in weights.items()}
    with torch.inference_mode():
        exact = plain(coords.double(), {n: w.double() for n, w in weights.items()})
        found = siren(coords, weights)
    assert calls[0] is not None
    assert found.dtype == torch.float32
    return float((found - exact).abs().max())


def tiles(inputs: int, outputs: int, sort: bool, precision: str = "float32") -> float:
    """The error of a layer of five groups, one empty, and of its gradients against float64."""
    from fieldloom.nn.dispatch import Groups
    from fieldloom.nn.kernels.grouped import grouped_linear

    torch.manual_seed(0)
    n = 203
    key = torch.tensor([0, 1, 3, 4])[torch.randint(4, (n,))]
    ordered, order = key.sort(stable=True)
    ends = torch.searchsorted(ordered, torch.arange(5), right=True)
    groups = Groups(order if sort else None, ends, n)
    shapes = ((n, inputs), (5, inputs, outputs), (outputs,), (n, 2))
    given = [torch.randn(shape, requires_grad=True) for shape in shapes]
    table = [[0, 1, 2, 3, 4], [1, 2, 3, 4, 0]]
    own = kernels().grouped
    run = lambda x, weight, bias, shares: grouped_linear(
        x, groups, weight, bias, (table, shares), own
    )
    exact = derive(
        lambda x, weight, bias, shares: grouped_linear(x, groups, weight, bias, (table, shares)),
        doubles(given),
    )
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        return worst(derive(run, given), exact)


def descend(fused: bool) -> list[float]:
    """The loss of a step of CAVIA, and its gradient's norm: with second derivatives of fields."""
    from fieldloom.assembly import build, objective_of
    from fieldloom.nn.kernels import plain

    chosen = kernels()
    system = build("mnif", "tiny", encoder={"noise": 0.0, "steps": 1}).use(
        (lambda device: chosen) if fused else plain
    )
    torch.manual_seed(0)
    batch = system.modality.observe(torch.rand(1, 1, 8, 8))
    loss, _ = objective_of(system.train()).loss("field", batch)
    loss.mean().backward()
    norms = [p.grad.norm() for p in system.parameters() if p.grad is not None]
    return [loss.mean().item(), torch.stack(norms).norm().item()]


NUMBERS = ("order_at", "group_at", "first_at", "last_at", "ends_at")
PARTS = ("gw_at", "gb_at", "dw_at", "db_at")


def compile_all(folder: str) -> dict[str, int]:
    """Bytes of machine code of every kernel, of float32 and bfloat16 in turns; cached there."""
    os.environ |= {"TRITON_CACHE_DIR": folder, "TRITON_DEFAULT_FP_FUSION": "1"}
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from fieldloom.nn.kernels import triton_grouped, triton_siren

    made = {}
    square = dict(P=32, K=32, N=32, PRECISION="ieee")
    tiled = dict(M=64, N=64, PRECISION="ieee")
    for module, name, sizes in (
        (triton_siren, "_forward", square | dict(KEEP=True)),
        (triton_siren, "_backward", square | dict(ROUNDS=8, NEED_X=True)),
        (triton_siren, "_second", square | dict(ROUNDS=8, HAS_UX=True, NEED_X=True)),
        (triton_siren, "_field", square | dict(K=16, W=32, N=16, SINE=True)),
        (triton_grouped, "_multiply", tiled | dict(K=32, READS=True, WRITES=False, BIAS=True)),
        (triton_grouped, "_correlate", tiled | dict(M=32, K=64, READS_A=True, READS_B=False)),
    ):
        kernel = getattr(module, name)
        dtype, card = (("fp32", 80), ("bf16", 90))[len(made) % 2]
        signature = {}
        for argument in kernel.arg_names:
            if argument in sizes:
                signature[argument] = "constexpr"
            elif module is triton_grouped and argument in NUMBERS:
                signature[argument] = "*i64"
            elif argument.endswith("_at"):
                signature[argument] = "*fp32" if argument in PARTS else f"*{dtype}"
            else:
                signature[argument] = "fp32" if argument.startswith("w0") else "i32"
        source = ASTSource(fn=kernel, signature=signature, constexprs=sizes)
        made[name] = len(triton.compile(source, target=GPUTarget("cuda", card, 32)).asm["cubin"])
    return made
