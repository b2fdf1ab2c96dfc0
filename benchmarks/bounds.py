"""What a machine can do at most, measured: matrix products, sines, copies; and bounds made of them.

    python benchmarks/bounds.py --device auto

A rate is that of the fastest of many repetitions. Matrix products are of two square matrices, in
float32 and, where the device has it, as TF32 and bfloat16; sines are of phases in [-30, 30] that
stay in a cache or in registers, so that no memory is waited for; a copied byte is read and written,
and counts twice.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from fieldloom.process import tune_process

tune_process()  # as the command line does: before torch is imported

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from fieldloom.engine import device as devices  # noqa: E402
from fieldloom.types import Slot  # noqa: E402

SINES_EACH = 32
"""Sines that a GPU's kernel takes of one number, in a register."""
SINE_KERNEL = f"""
template <typename T> T repeated_sine(T x) {{
    #pragma unroll 1
    for (int i = 0; i < {SINES_EACH}; ++i) x = sin(x * T(30));
    return x;
}}
"""


@dataclass(frozen=True)
class Bounds:
    """matrix: FLOP a second by type of number; sines a second; copied: bytes a second."""

    matrix: Mapping[str, float]
    sines: float
    copied: float

    def seconds(self, work: Work, dtype: str = "float32") -> float:
        """The time that some work takes at least: matrices, then sines, each at its own rate."""
        return work.flop / self.matrix[dtype] + work.sines / self.sines


@dataclass(frozen=True)
class Work:
    """flop: of matrix products, a product and a sum count two; sines: evaluations of a sine."""

    flop: float
    sines: float = 0.0

    def __mul__(self, times: float) -> Work:
        return Work(self.flop * times, self.sines * times)


def point_of(slots: Mapping[str, Slot], last_sine: bool = False) -> Work:
    """The work of one point of a SIREN: 33.4 kFLOP and 320 sines (mNIF S, whose last is 3 more).

    last_sine: whether the output is a sine, too.
    """
    shapes = [slot.shape for slot in slots.values() if slot.role == "weight"]
    outputs = [shape[-1] for shape in (shapes if last_sine else shapes[:-1])]
    return Work(sum(2 * a * b for a, b in shapes), sum(outputs))


def measure(device: torch.device, seconds: float = 0.5) -> Bounds:
    """The bounds of a device. seconds: that each of the measurements repeats for."""
    return Bounds(
        {name: matrix_rate(device, name, seconds) for name in matrix_types(device)},
        sine_rate(device, seconds),
        copy_rate(device, seconds),
    )


def matrix_types(device: torch.device) -> list[str]:
    return ["float32", *(["tf32"] if device.type == "cuda" else []), "bfloat16"]


def matrix_rate(device: torch.device, name: str, seconds: float) -> float:
    """FLOP a second of a square matrix product; name: ``float32``, ``tf32`` or ``bfloat16``."""
    side = 1024 if device.type == "cpu" else 8192
    dtype = torch.bfloat16 if name == "bfloat16" else torch.float32
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    with tf32(name == "tf32"):
        return 2 * side**3 / least_seconds(lambda: torch.mm(a, b, out=out), device, seconds)


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether float32 products may round their factors to TF32, where the device has it."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def sine_rate(device: torch.device, seconds: float) -> float:
    """Sines a second: on a CPU of 1 MiB of float32, on CUDA repeated in a kernel of its own."""
    count, each = 1 << (18 if device.type == "cpu" else 22), 1
    x = torch.empty(count, device=device).uniform_(-30, 30)
    out = torch.empty_like(x)
    task: Callable[[], Any] = lambda: torch.sin(x, out=out)
    if device.type == "cuda":
        try:
            repeated = torch.cuda.jiterator._create_jit_fn(SINE_KERNEL)
            check_sines(repeated(x), x)
            task, each = (lambda: repeated(x)), SINES_EACH
        except (AttributeError, RuntimeError) as error:
            print(f"sines are measured by torch.sin, whose memory bounds them: {error}")
    return count * each / least_seconds(task, device, seconds)


def check_sines(found: Tensor, x: Tensor) -> None:
    """Raise RuntimeError where what a kernel made is no sines of x."""
    assert found.shape == x.shape
    if not bool(found.abs().max() <= 1) or not bool(found.std() > 0.1):
        raise RuntimeError("the kernel of sines gives other values.")


def copy_rate(device: torch.device, seconds: float) -> float:
    """Bytes a second that are read or written by copying what no cache holds."""
    a = torch.zeros(1 << (26 if device.type == "cpu" else 28), device=device)
    b = torch.empty_like(a)
    return 2 * a.nbytes / least_seconds(lambda: b.copy_(a), device, seconds)


def least_seconds(
    task: Callable[[], Any], device: torch.device, seconds: float, least: float = 5e-3
) -> float:
    """The least time of a call. Calls are timed together until they take ``least`` seconds."""
    calls, best, began = 1, float("inf"), time.perf_counter()
    task()
    devices.synchronize(device)
    while True:
        start = time.perf_counter()
        for _ in range(calls):
            task()
        devices.synchronize(device)
        taken = time.perf_counter() - start
        if taken < least:
            calls *= 2
            continue
        best = min(best, taken / calls)
        if time.perf_counter() - began > seconds:
            return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each measurement")
    parser.add_argument("--threads", type=int, help="torch's own choice where not given")
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    device = devices.pick(asked.device)
    found = measure(device, asked.seconds)
    print(json.dumps({"environment": devices.environment(device), **asdict(found)}, indent=2))


if __name__ == "__main__":
    main()
