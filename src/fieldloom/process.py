"""Processes: what makes small tensors fast in this one, and whether another still runs."""

from __future__ import annotations

import ctypes
import os
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def quicken() -> None:
    """Keep freed memory, and let waiting threads give way sooner; before torch is imported.

    The command line does this. glibc hands freed tensors back and faults their pages in
    again; OpenMP's threads spin for long while they wait (what that costs: docs/decisions.md).
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt is not None:
            mallopt(TRIM_THRESHOLD, 1 << 30)
            mallopt(MMAP_THRESHOLD, 8 << 20)  # larger ones go back: a step that frees, frees


def alive(number: int) -> bool:
    """Whether a process of this host runs; True where the system does not tell."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
