"""Processes: settings that make this one fast, and its products; whether another still runs."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock

from fieldloom.errors import InputError

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def tune_process() -> None:
    """Keep freed memory, and let waiting threads yield sooner. Call it before torch is imported.

    The command line does. Otherwise glibc returns the memory of freed tensors and faults its pages
    in again, and OpenMP's threads spin for long while they wait (measured in docs/decisions.md).
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt is not None:
            mallopt(TRIM_THRESHOLD, 1 << 30)
            mallopt(MMAP_THRESHOLD, 8 << 20)  # larger blocks are returned to the system


def return_memory() -> None:
    """Return freed memory to the system, where its C library can, so that a peak is one's own."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for products of bfloat16 matrices."""
    import torch  # late: ``tune_process`` comes before it

    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in asked)


_rounding = RLock()


@contextmanager
def rounded_products() -> Iterator[None]:
    """A context in which this process rounds factors of float32 products to bfloat16.

    Sums and results are float32 (oneDNN's ``fpmath`` mode). All threads are in it at once; another
    one that asks for it waits until it has ended, since each puts back what it found. Raises
    InputError where the processor has no instructions for it.
    """
    import torch  # late: ``tune_process`` comes before it

    if not multiplies_bfloat16():
        raise InputError(
            "bfloat16: this processor has no matrix instructions for it, so that it would only be "
            "less exact: take float32."
        )
    matmul = getattr(torch.backends.mkldnn, "matmul", None)  # torch 2.9; before, one for all
    with _rounding:
        if matmul is None:
            before = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision("medium")
            try:
                yield
            finally:
                torch.set_float32_matmul_precision(before)
            return
        precision, matmul.fp32_precision = matmul.fp32_precision, "bf16"
        try:
            yield
        finally:
            matmul.fp32_precision = precision


def alive(number: int) -> bool:
    """Whether a process of this host runs, by its number; True where the system does not tell."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def birth(number: int) -> str:
    """When a process of this host began, as the system counts; "" where it has ended, or the system
    does not tell. It tells a process from a later one of the same number.
    """
    try:
        told = Path(f"/proc/{number}/stat").read_bytes().decode(errors="replace")
        state, *rest = told.rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if state in "ZX" else rest[18]  # field 22 of proc_pid_stat(5)


def count_cores() -> int:
    """The cores that this process may use, or fewer where OMP_NUM_THREADS says so."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(asked)) if asked.isdecimal() and int(asked) > 0 else cores
