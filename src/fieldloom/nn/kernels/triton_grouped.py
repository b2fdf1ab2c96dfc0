"""Triton kernels of products with the matrix of a row's group: see ``grouped``.

Imported where there is an accelerator alone; as Triton 3.2 (torch 2.6) has it.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fieldloom.nn.dispatch import Groups
from fieldloom.nn.kernels.grouped import BLOCKWISE, GroupedOperations
from fieldloom.nn.kernels.proof import Device, Proven, wave

ROWS, TILE, STEP = 64, 64, 32
"""Rows of a block, columns of a result's tile, and terms that are added at a time."""


@triton.jit
def _multiply(
    x_at, w_at, b_at, y_at, order_at, group_at, first_at, last_at,
    inputs, outputs, w_group, w_row, w_column,
    READS: tl.constexpr, WRITES: tl.constexpr, BIAS: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A block of rows times the matrix of its group, read or written in the order given."""
    block = tl.program_id(0)
    first = tl.load(first_at + block)
    last = tl.load(last_at + block)
    row = first + tl.arange(0, M)
    there = row < last
    place = row
    if READS or WRITES:
        place = tl.load(order_at + row, mask=there, other=0)
    source = place if READS else row
    target = place if WRITES else row
    n = tl.program_id(1) * N + tl.arange(0, N)
    k = tl.arange(0, K)
    w_at += tl.load(group_at + block) * w_group
    total = tl.zeros((M, N), dtype=tl.float32)
    for start in range(0, tl.where(first < last, inputs, 0), K):
        inside = (start + k) < inputs
        x = tl.load(
            x_at + source[:, None] * inputs + (start + k)[None, :],
            mask=there[:, None] & inside[None, :],
            other=0.0,
        )
        w = tl.load(
            w_at + (start + k)[:, None] * w_row + n[None, :] * w_column,
            mask=inside[:, None] & (n < outputs)[None, :],
            other=0.0,
        )
        total = tl.dot(x, w, total, input_precision=PRECISION)
    if BIAS:
        total += tl.load(b_at + n, mask=n < outputs, other=0.0).to(tl.float32)[None, :]
    to = y_at + target[:, None] * outputs + n[None, :]
    tl.store(to, total.to(y_at.dtype.element_ty), mask=there[:, None] & (n < outputs)[None, :])


@triton.jit
def _correlate(
    a_at, b_at, c_at, order_at, ends_at, inputs, outputs,
    READS_A: tl.constexpr, READS_B: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile (K, N) of the sum over the rows of a group of a^T b, M rows at a time."""
    group = tl.program_id(0).to(tl.int64)
    end = tl.load(ends_at + group)
    begin = tl.load(ends_at + group - 1, mask=group > 0, other=0)
    k = tl.program_id(1) * K + tl.arange(0, K)
    n = tl.program_id(2) * N + tl.arange(0, N)
    total = tl.zeros((K, N), dtype=tl.float32)
    for start in range(begin, end, M):
        row = start + tl.arange(0, M)
        there = row < end
        place = row
        if READS_A or READS_B:
            place = tl.load(order_at + row, mask=there, other=0)
        a_row = place if READS_A else row
        b_row = place if READS_B else row
        a = tl.load(
            a_at + a_row[:, None] * inputs + k[None, :],
            mask=there[:, None] & (k < inputs)[None, :],
            other=0.0,
        )
        b = tl.load(
            b_at + b_row[:, None] * outputs + n[None, :],
            mask=there[:, None] & (n < outputs)[None, :],
            other=0.0,
        )
        total = tl.dot(tl.trans(a), b, total, input_precision=PRECISION)
    to = c_at + group * inputs * outputs + k[:, None] * outputs + n[None, :]
    inside = (k < inputs)[:, None] & (n < outputs)[None, :]
    tl.store(to, total.to(c_at.dtype.element_ty), mask=inside)


def grouped_operations(device: Device) -> GroupedOperations:
    """Both products, each proven on its own; doubles are multiplied block by block."""

    def multiply(
        x: Tensor, weight: Tensor, bias: Tensor | None, groups: Groups, reads: bool
    ) -> Tensor:
        inputs, outputs = weight.shape[1:]
        blocks, order = groups.blocks(ROWS), groups.permutation
        sorts = order is not None
        y = x.new_empty(len(x), outputs)
        with device.here(x):
            _multiply[len(blocks.group), triton.cdiv(outputs, TILE)](
                x, weight, x if bias is None else bias, y, groups.ends if order is None else order,
                blocks.group, blocks.first, blocks.last, inputs, outputs, *weight.stride(),
                READS=sorts and reads, WRITES=sorts and not reads, BIAS=bias is not None,
                M=ROWS, N=TILE, K=STEP, PRECISION=device.precision(), num_warps=4,
            )  # fmt: skip
        return y

    def correlate(a: Tensor, b: Tensor, groups: Groups, reads: bool) -> Tensor:
        inputs, outputs, order = a.shape[-1], b.shape[-1], groups.permutation
        sorts = order is not None
        c = a.new_empty(groups.count, inputs, outputs)
        tiles = triton.cdiv(inputs, TILE), triton.cdiv(outputs, TILE)
        with device.here(a):
            _correlate[groups.count, *tiles](
                a, b, c, groups.ends if order is None else order, groups.ends, inputs, outputs,
                READS_A=sorts and reads, READS_B=sorts and not reads,
                M=STEP, N=TILE, K=TILE, PRECISION=device.precision(), num_warps=4,
            )  # fmt: skip
        return c

    products = Proven("tiled layers", multiply, BLOCKWISE.multiply, tiny_multiply, kind_of, device)
    sums = Proven(
        "gradients of tiled layers", correlate, BLOCKWISE.correlate, tiny_correlate, kind_of, device
    )
    wide = lambda x: x.dtype == torch.float64
    return GroupedOperations(
        lambda x, *rest: (BLOCKWISE.multiply if wide(x) else products)(x, *rest),
        lambda a, *rest: (BLOCKWISE.correlate if wide(a) else sums)(a, *rest),
    )


def kind_of(*given: Any) -> Any:
    """Sizes, dtypes, and orders: numbers of rows and of groups do not matter."""
    return tuple(
        (x.shape[-1], x.stride(-1) == 1, x.dtype)
        if isinstance(x, Tensor)
        else x.permutation is None
        if isinstance(x, Groups)
        else x
        for x in given
    )


def tiny_groups(groups: Groups) -> Groups:
    """Three blocks and a bit, in four groups of which one is empty."""
    n = 3 * ROWS + 5
    ends = torch.tensor([70, 70, 75, n], device=groups.ends.device)
    order = torch.arange(n, device=ends.device).mul(7).remainder(n)  # n is no multiple of 7
    return Groups(None if groups.permutation is None else order, ends, n)


def tiny_multiply(
    x: Tensor, weight: Tensor, bias: Tensor | None, groups: Groups, reads: bool
) -> tuple[Any, ...]:
    few = tiny_groups(groups)
    inputs, outputs = weight.shape[1:]
    straight = weight.stride(-1) == 1
    some = wave(weight, few.count, *((inputs, outputs) if straight else (outputs, inputs)))
    bias = None if bias is None else wave(bias, outputs)
    return wave(x, few.n, inputs), some if straight else some.mT, bias, few, reads


def tiny_correlate(a: Tensor, b: Tensor, groups: Groups, reads: bool) -> tuple[Any, ...]:
    few = tiny_groups(groups)
    return wave(a, few.n, a.shape[-1]), wave(b, few.n, b.shape[-1]), few, reads
