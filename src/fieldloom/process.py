"""Processes: settings that make small tensors fast in this one; whether another still runs."""

from __future__ import annotations

import ctypes
import os
import sys

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


def alive(number: int) -> bool:
    """Whether a process of this host runs, by its number; True where the system does not tell."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
