"""Triton kernels of SIREN: one layer with its gradients of both orders, and a whole small field.

Imported where there is an accelerator alone. They keep to what Triton 3.2 (torch 2.6) has. Sizes
are padded to powers of two from 16 on, as ``tl.dot`` needs: what is padded is read as zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fieldloom.nn.kernels import Layer, sine_layer
from fieldloom.nn.kernels.proof import Device, Proven, wave
from fieldloom.nn.kernels.siren import COMPOSED, Gradients, SineLayer, SineOperations

WIDEST = 128
"""The most inputs and outputs of a layer: its matrix is held by one program."""

POINTS = 64
"""Points that a program holds at a time."""

ROUNDS = 8
"""How many times POINTS a program adds up for the gradient of the matrix."""


# -- sine and cosine without branches

# pi in three parts (Cody and Waite): multiples of the first two are exact below 2^14 of them, so
# that phases up to 5e4 are reduced to the last bit; torch's sine branches beyond 1e5 for the same.
PI_1 = tl.constexpr(3.140625)
PI_2 = tl.constexpr(9.67502593994140625e-4)
PI_3 = tl.constexpr(1.509957990978376432e-7)
INVERSE_PI = tl.constexpr(0.3183098861837907)


@triton.jit
def _sine_within(r):
    """sin r for r in [-pi/2, pi/2], to 1e-7: the odd polynomial of least error of degree 9."""
    square = r * r
    p = square * 2.6083159809786593e-6 - 1.9810690719168633e-4
    p = square * p + 8.3330785855650902e-3
    p = square * p - 1.6666659712791443e-1
    return r + r * (square * p)


@triton.jit
def _reduced_sine(z, turns):
    """sin z = (-1)^n sin(z - n pi), for n near z / pi; half an odd number for the cosine."""
    return _sine_within(z - turns * PI_1 - turns * PI_2 - turns * PI_3)


@triton.jit
def sine(z):
    n = tl.floor(z * INVERSE_PI + 0.5)
    odd = n - 2 * tl.floor(0.5 * n)
    return _reduced_sine(z, n) * (1 - 2 * odd)


@triton.jit
def cosine(z):
    """cos z = -(-1)^n sin(z - (n + 1/2) pi), n the integer part of z / pi."""
    n = tl.floor(z * INVERSE_PI)
    odd = n - 2 * tl.floor(0.5 * n)
    return _reduced_sine(z, n + 0.5) * (2 * odd - 1)


# -- one layer. x (points, K), w (K, N), b (N): sizes without padding are ``inputs``, ``outputs``.


@triton.jit
def _rows(start, points, width, at, stride, row, column):
    """The part (rows, columns) of a matrix (points, width) whose rows lie ``stride`` apart."""
    inside = (row < points)[:, None] & (column < width)[None, :]
    return tl.load(start + at + row[:, None] * stride + column[None, :], mask=inside, other=0.0)


@triton.jit
def _matrix(start, inputs, outputs, k, n):
    inside = (k < inputs)[:, None] & (n < outputs)[None, :]
    return tl.load(start + k[:, None] * outputs + n[None, :], mask=inside, other=0.0)


@triton.jit
def _store(start, values, points, width, at, row, column):
    """Write a matrix (points, width) without gaps."""
    inside = (row < points)[:, None] & (column < width)[None, :]
    to = start + at + row[:, None] * width + column[None, :]
    tl.store(to, values.to(start.dtype.element_ty), mask=inside)


@triton.jit
def _forward(
    x_at, w_at, b_at, y_at, c_at, points, inputs, outputs, x_batch, x_row, w_batch, b_batch,
    P: tl.constexpr, K: tl.constexpr, N: tl.constexpr, KEEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """y = sin z, and where gradients will be asked for c = cos z; z = x w + b."""
    signal = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * P + tl.arange(0, P)
    k = tl.arange(0, K)
    n = tl.arange(0, N)
    x = _rows(x_at, points, inputs, signal * x_batch, x_row, row, k)
    w = _matrix(w_at + signal * w_batch, inputs, outputs, k, n)
    b = tl.load(b_at + signal * b_batch + n, mask=n < outputs, other=0.0).to(tl.float32)
    z = tl.dot(x, w, input_precision=PRECISION) + b[None, :]
    at = signal * points * outputs
    _store(y_at, sine(z), points, outputs, at, row, n)
    if KEEP:
        _store(c_at, cosine(z), points, outputs, at, row, n)


@triton.jit
def _backward(
    g_at, x_at, w_at, c_at, gx_at, gw_at, gb_at, points, inputs, outputs, x_batch, x_row, w_batch,
    again, P: tl.constexpr, K: tl.constexpr, N: tl.constexpr, ROUNDS: tl.constexpr,
    NEED_X: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """gz = g c, gx = gz w^T, and this program's part of gw = x^T gz and of gb, the sum of gz.

    ``again`` is 0: a matrix that is read in every round anew is not held in registers throughout,
    from where thousands of its numbers would spill (compiled for sm_90: 1,837 loads, now 74).
    """
    signal = tl.program_id(1).to(tl.int64)
    k = tl.arange(0, K)
    n = tl.arange(0, N)
    gw = tl.zeros((K, N), dtype=tl.float32)
    gb = tl.zeros((N,), dtype=tl.float32)
    at = signal * points * outputs
    for i in range(ROUNDS):
        row = (tl.program_id(0) * ROUNDS + i) * P + tl.arange(0, P)
        g = _rows(g_at, points, outputs, at, outputs, row, n).to(tl.float32)
        gz = g * _rows(c_at, points, outputs, at, outputs, row, n).to(tl.float32)
        gb += tl.sum(gz, 0)
        w = _matrix(w_at + signal * w_batch + i * again, inputs, outputs, k, n)
        gz = gz.to(w.dtype)
        x = _rows(x_at, points, inputs, signal * x_batch, x_row, row, k)
        gw += tl.dot(tl.trans(x), gz, input_precision=PRECISION)
        if NEED_X:
            gx = tl.dot(gz, tl.trans(w), input_precision=PRECISION)
            _store(gx_at, gx, points, inputs, signal * points * inputs, row, k)
    part = signal * tl.num_programs(0) + tl.program_id(0)
    _store(gw_at, gw, inputs, outputs, part * inputs * outputs, k, n)
    tl.store(gb_at + part * outputs + n, gb, mask=n < outputs)


@triton.jit
def _second(
    ux_at, uw_at, ub_at, g_at, x_at, w_at, y_at, c_at, dg_at, dx_at, dw_at, db_at,
    points, inputs, outputs, x_batch, x_row, w_batch, uw_batch, ub_batch, again,
    P: tl.constexpr, K: tl.constexpr, N: tl.constexpr, ROUNDS: tl.constexpr, HAS_UX: tl.constexpr,
    NEED_X: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradients of ``_backward``'s results: the formulas are at ``siren.SineGradient``."""
    signal = tl.program_id(1).to(tl.int64)
    k = tl.arange(0, K)
    n = tl.arange(0, N)
    ub = tl.load(ub_at + signal * ub_batch + n, mask=n < outputs, other=0.0).to(tl.float32)
    dw = tl.zeros((K, N), dtype=tl.float32)
    db = tl.zeros((N,), dtype=tl.float32)
    at = signal * points * outputs
    for i in range(ROUNDS):
        row = (tl.program_id(0) * ROUNDS + i) * P + tl.arange(0, P)
        x = _rows(x_at, points, inputs, signal * x_batch, x_row, row, k)
        w = _matrix(w_at + signal * w_batch + i * again, inputs, outputs, k, n)
        uw = _matrix(uw_at + signal * uw_batch + i * again, inputs, outputs, k, n)
        t = tl.dot(x, uw, input_precision=PRECISION) + ub[None, :]
        c = _rows(c_at, points, outputs, at, outputs, row, n).to(tl.float32)
        g = _rows(g_at, points, outputs, at, outputs, row, n).to(tl.float32)
        gz = (g * c).to(w.dtype)
        if HAS_UX:
            ux = _rows(ux_at, points, inputs, signal * points * inputs, inputs, row, k)
            t += tl.dot(ux, w, input_precision=PRECISION)
            dw += tl.dot(tl.trans(ux), gz, input_precision=PRECISION)
        _store(dg_at, t * c, points, outputs, at, row, n)
        dz = -t * g * _rows(y_at, points, outputs, at, outputs, row, n).to(tl.float32)
        db += tl.sum(dz, 0)
        dz = dz.to(w.dtype)
        dw += tl.dot(tl.trans(x), dz, input_precision=PRECISION)
        if NEED_X:
            dx = tl.dot(dz, tl.trans(w), input_precision=PRECISION)
            dx += tl.dot(gz, tl.trans(uw), input_precision=PRECISION)
            _store(dx_at, dx, points, inputs, signal * points * inputs, row, k)
    part = signal * tl.num_programs(0) + tl.program_id(0)
    _store(dw_at, dw, inputs, outputs, part * inputs * outputs, k, n)
    tl.store(db_at + part * outputs + n, db, mask=n < outputs)


# -- a whole field


@triton.jit
def _field(
    x_at, first_at, rest_at, y_at, points, inputs, width, outputs, hidden,
    x_batch, x_row, first_batch, rest_batch, w0_first, w0, w0_last,
    P: tl.constexpr, K: tl.constexpr, W: tl.constexpr, N: tl.constexpr,
    SINE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """sin(w0 (W h + b)) layer by layer at P points: hidden layers never leave the program.

    first: matrix and bias of the first layer; rest: those of ``hidden`` layers and of the last.
    """
    signal = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * P + tl.arange(0, P)
    k = tl.arange(0, K)
    w = tl.arange(0, W)
    n = tl.arange(0, N)
    x = _rows(x_at, points, inputs, signal * x_batch, x_row, row, k)
    at = first_at + signal * first_batch
    first = _matrix(at, inputs, width, k, w)
    b = tl.load(at + inputs * width + w, mask=w < width, other=0.0).to(tl.float32)
    h = sine(w0_first * (tl.dot(x, first, input_precision=PRECISION) + b[None, :]))
    at = rest_at + signal * rest_batch
    for _ in range(hidden):
        matrix = _matrix(at, width, width, w, w)
        bias = tl.load(at + width * width + w, mask=w < width, other=0.0).to(tl.float32)
        z = tl.dot(h.to(matrix.dtype), matrix, input_precision=PRECISION) + bias[None, :]
        h = sine(w0 * z)
        at += width * width + width
    last = _matrix(at, width, outputs, w, n)
    b = tl.load(at + width * outputs + n, mask=n < outputs, other=0.0).to(tl.float32)
    y = tl.dot(h.to(last.dtype), last, input_precision=PRECISION) + b[None, :]
    if SINE:
        y = sine(w0_last * y)
    _store(y_at, y, points, outputs, signal * points * outputs, row, n)


# -- and what calls them


def padded(size: int) -> int:
    return max(16, triton.next_power_of_2(size))


def fits(*sizes: int) -> bool:
    """Whether layers between so many units have kernels."""
    return max(sizes) <= WIDEST


def siren_operations(device: Device) -> SineOperations:
    """The passes of one layer, each proven on its own."""

    def forward(
        x: Tensor, weight: Tensor, bias: Tensor, keep: bool, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor | None]:
        (batch, points, inputs), outputs = x.shape, weight.shape[-1]
        y = x.new_empty(batch, points, outputs, dtype=dtype)
        cosine = torch.empty_like(y) if keep else None
        size, warps = (POINTS, 8) if max(inputs, outputs) <= 64 else (POINTS // 2, 8)
        with device.here(x):
            _forward[triton.cdiv(points, size), batch](
                x, weight, bias, y, y if cosine is None else cosine,
                points, inputs, outputs, x.stride(0), x.stride(1), step(weight), step(bias),
                P=size, K=padded(inputs), N=padded(outputs), KEEP=keep,
                PRECISION=device.precision(), num_warps=warps, num_stages=1,
            )  # fmt: skip
        return y, cosine

    def backward(g: Tensor, x: Tensor, weight: Tensor, cosine: Tensor, of_x: bool) -> Gradients:
        (batch, points, inputs), outputs = x.shape, weight.shape[-1]
        if spills(weight, device):
            return COMPOSED.backward(g, x, weight, cosine, of_x)
        parts = triton.cdiv(points, POINTS * ROUNDS)
        to_x = torch.empty_like(x, memory_format=torch.contiguous_format) if of_x else None
        to_weight = g.new_empty(batch, parts, inputs, outputs, dtype=torch.float32)
        to_bias = g.new_empty(batch, parts, outputs, dtype=torch.float32)
        with device.here(x):
            _backward[parts, batch](
                g, x, weight, cosine, g if to_x is None else to_x, to_weight, to_bias,
                points, inputs, outputs, x.stride(0), x.stride(1), step(weight), 0,
                P=POINTS, K=padded(inputs), N=padded(outputs), ROUNDS=ROUNDS, NEED_X=of_x,
                PRECISION=device.precision(), num_warps=8, num_stages=1,
            )  # fmt: skip
        return to_x, add_up(to_weight, weight), to_bias.sum(1)

    def second(
        u_x: Tensor | None, u_weight: Tensor, u_bias: Tensor,
        g: Tensor, x: Tensor, weight: Tensor, y: Tensor, cosine: Tensor, of_x: bool,
    ) -> tuple[Tensor, *Gradients]:  # fmt: skip
        (batch, points, inputs), outputs = x.shape, weight.shape[-1]
        if spills(weight, device):
            return COMPOSED.second(u_x, u_weight, u_bias, g, x, weight, y, cosine, of_x)
        exact = weight.dtype == torch.float32 and device.precision() == "ieee"
        size = POINTS // 2 if exact else POINTS
        parts = triton.cdiv(points, size * ROUNDS)
        to_g = torch.empty_like(g)
        to_x = torch.empty_like(x, memory_format=torch.contiguous_format) if of_x else None
        to_weight = g.new_empty(batch, parts, inputs, outputs, dtype=torch.float32)
        to_bias = g.new_empty(batch, parts, outputs, dtype=torch.float32)
        with device.here(x):
            _second[parts, batch](
                x if u_x is None else u_x, u_weight, u_bias, g, x, weight, y, cosine,
                to_g, g if to_x is None else to_x, to_weight, to_bias,
                points, inputs, outputs, x.stride(0), x.stride(1),
                step(weight), step(u_weight), step(u_bias), 0,
                P=size, K=padded(inputs), N=padded(outputs), ROUNDS=ROUNDS,
                HAS_UX=u_x is not None, NEED_X=of_x,
                PRECISION=device.precision(), num_warps=8, num_stages=1,
            )  # fmt: skip
        return to_g, to_x, add_up(to_weight, weight), to_bias.sum(1)

    name = "SIREN layers"
    return SineOperations(
        Proven(name, forward, COMPOSED.forward, tiny_forward, kind_of, device),
        Proven(f"gradients of {name}", backward, COMPOSED.backward, tiny_backward, kind_of, device),
        Proven(
            f"second gradients of {name}", second, COMPOSED.second, tiny_second, kind_of, device
        ),
    )


def step(x: Tensor) -> int:
    """The distance of two signals' numbers; 0 where they share them."""
    return x.stride(0) if len(x) > 1 else 0


def spills(weight: Tensor, device: Device) -> bool:
    """Whether the gradients' kernels would not fit into registers: float32 wider than 64."""
    exact = weight.dtype == torch.float32 and device.precision() == "ieee"
    return exact and max(weight.shape[1:]) > 64


def add_up(parts: Tensor, weight: Tensor) -> Tensor:
    """The gradient of a matrix from the programs' parts (batch, parts, in, out)."""
    total = parts.sum(1) if len(weight) > 1 else parts.sum((0, 1)).unsqueeze(0)
    return total.to(weight.dtype)


# tiny arguments: two signals, more points than one program adds up, not a multiple of a block

FEW = POINTS * ROUNDS + 9


def kind_of(*given: Any) -> Any:
    """Sizes of layers, dtypes, and what is shared: numbers of points and signals do not matter."""
    return tuple(
        (x.shape[-1], x.dtype, x.ndim == 2 or len(x) > 1) if isinstance(x, Tensor) else x
        for x in given
    )


def tiny_weights(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    inputs, outputs = weight.shape[1:]
    some = wave(weight, min(2, len(weight)), inputs, outputs, scale=3 / inputs)
    return some, wave(bias, min(2, len(bias)), outputs)


def tiny_forward(x: Tensor, weight: Tensor, bias: Tensor, *rest: Any) -> tuple[Any, ...]:
    return wave(x, 2, FEW, x.shape[-1]), *tiny_weights(weight, bias), *rest


def tiny_backward(
    g: Tensor, x: Tensor, weight: Tensor, cosine: Tensor, of_x: bool
) -> tuple[Any, ...]:
    inputs, outputs = weight.shape[1:]
    some, _ = tiny_weights(weight, g[0])
    given = wave(g, 2, FEW, outputs), wave(x, 2, FEW, inputs), some
    return *given, wave(cosine, 2, FEW, outputs), of_x


def tiny_second(
    u_x: Tensor | None, u_weight: Tensor, u_bias: Tensor,
    g: Tensor, x: Tensor, weight: Tensor, y: Tensor, cosine: Tensor, of_x: bool,
) -> tuple[Any, ...]:  # fmt: skip
    inputs, outputs = weight.shape[1:]
    some, bias = tiny_weights(weight, u_bias)
    rows = [None if z is None else wave(z, 2, FEW, z.shape[-1]) for z in (u_x, g, x, y, cosine)]
    u_some = wave(u_weight, len(some), inputs, outputs, scale=3 / inputs)
    return rows[0], u_some, bias, rows[1], rows[2], some, rows[3], rows[4], of_x


def siren_layer(device: Device) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """``kernels.sine_layer`` by these kernels, where the layer has some."""
    operations = siren_operations(device)

    def layer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        inputs, outputs = weight.shape[1:]
        dtype, x, weight = narrowed(x, weight)
        known = weight.dtype in (torch.float32, torch.bfloat16) and x.dtype == weight.dtype
        if not known or not fits(inputs, outputs) or not x.numel() or len(x) > MOST:
            return sine_layer(x, weight, bias)
        batch, points, _ = x.shape
        if len(weight) == len(bias) == 1:
            x = x.reshape(1, batch * points, inputs)
        x = x if x.stride(-1) == 1 or inputs == 1 else x.contiguous()
        weight, bias = weight.contiguous(), bias.contiguous()
        keep = torch.is_grad_enabled() and any(t.requires_grad for t in (x, weight, bias))
        y = SineLayer.apply(x, weight, bias, operations, dtype, keep)
        return y.view(batch, points, outputs)

    return layer


MOST = 65535
"""The most signals of a launch."""


def narrowed(x: Tensor, weight: Tensor) -> tuple[torch.dtype, Tensor, Tensor]:
    """The dtype of a layer's result, its input and its matrix: bfloat16 where that is asked for.

    Coordinates, fewer than 16 inputs, stay float32: they are few, and phases need their digits.
    """
    if weight.dtype == torch.bfloat16:
        return weight.dtype, x.to(weight.dtype), weight
    if not torch.is_autocast_enabled(x.device.type):
        return weight.dtype, x, weight
    dtype = torch.get_autocast_dtype(x.device.type)
    if weight.shape[1] < 16 and x.dtype == torch.float32:
        return dtype, x, weight
    return dtype, x.to(dtype), weight.to(dtype)


# -- a whole field


def siren_field(device: Device) -> Callable[..., Tensor | None]:
    """``kernels.siren`` by one kernel, where the field fits into it."""

    def field(
        coords: Tensor, first: Tensor, rest: Tensor, sizes: tuple[int, int, int, int],
        w0: tuple[float, float, float], bounded: bool,
    ) -> Tensor:  # fmt: skip
        inputs, width, outputs, hidden = sizes
        batch, points = max(len(coords), len(rest)), coords.shape[1]
        y = coords.new_empty(batch, points, outputs)
        size, warps = (POINTS, 16) if width > 64 else (2 * POINTS, 8)
        if width <= 64 and batch * points < 512 * size:  # few programs: more of them, and smaller
            size, warps = POINTS // 2, 4
        with device.here(coords):
            _field[triton.cdiv(points, size), batch](
                coords, first, rest, y, points, inputs, width, outputs, hidden,
                step(coords), coords.stride(1), step(first), step(rest), *w0,
                P=size, K=padded(inputs), W=padded(width), N=padded(outputs), SINE=bounded,
                PRECISION=device.precision(), num_warps=warps, num_stages=1,
            )  # fmt: skip
        return y

    proven = Proven("small SIREN fields", field, layer_by_layer, tiny_field, kind_of, device)

    def siren(
        coords: Tensor, layers: Sequence[Layer], frequencies: Sequence[float], bounded: bool
    ) -> Tensor | None:
        batch = max(len(x) for layer in layers for x in layer)
        width, outputs = layers[0][0].shape[-1], layers[-1][0].shape[-1]
        sizes = coords.shape[-1], width, outputs, len(layers) - 2
        alike = len(set(frequencies[1:-1])) <= 1 and coords.dtype == torch.float32
        most = max(batch, len(coords))
        if not alike or not fits(*sizes[:3]) or not coords.numel() or not 0 < most <= MOST:
            return None
        packed = []
        for some in (layers[:1], layers[1:]):
            flat = [x.expand(batch, *x.shape[1:]).flatten(1) for layer in some for x in layer]
            packed.append(torch.cat(flat, 1))
        first, rest = packed
        if torch.is_autocast_enabled(coords.device.type):
            rest = rest.to(torch.get_autocast_dtype(coords.device.type))
        if first.dtype != torch.float32 or rest.dtype not in (torch.float32, torch.bfloat16):
            return None
        coords = coords if coords.stride(-1) == 1 else coords.contiguous()
        w0 = frequencies[0], (*frequencies[1:-1], 1.0)[0], frequencies[-1]
        return proven(coords, first, rest, sizes, tuple(map(float, w0)), bounded)

    return siren


def layer_by_layer(
    coords: Tensor, first: Tensor, rest: Tensor, sizes: tuple[int, int, int, int],
    w0: tuple[float, float, float], bounded: bool,
) -> Tensor:  # fmt: skip
    """The same from the same numbers, plainly."""
    inputs, width, outputs, hidden = sizes
    h = coords
    at, pack = 0, first
    units = [inputs, *[width] * (hidden + 1), outputs]
    for i, (a, b) in enumerate(pairwise(units)):
        matrix = pack[:, at : at + a * b].unflatten(1, (a, b))
        bias = pack[:, at + a * b : at + a * b + b]
        at += a * b + b
        z = (h.to(matrix.dtype).float() @ matrix.float()) + bias[:, None].float()
        last = i == hidden + 1
        frequency = w0[0] if i == 0 else w0[2] if last else w0[1]
        h = (frequency * z).sin() if not last or bounded else z
        if i == 0:
            at, pack = 0, rest
    return h


def tiny_field(
    coords: Tensor, first: Tensor, rest: Tensor, sizes: tuple[int, int, int, int], *others: Any
) -> tuple[Any, ...]:
    batch, width = min(2, len(rest)), sizes[1]
    return (
        wave(coords, min(2, len(coords)) if batch > 1 else 1, FEW, coords.shape[-1]),
        wave(first, batch, first.shape[1], scale=0.1),
        wave(rest, batch, rest.shape[1], scale=0.1 / width),
        sizes,
        *others,
    )
