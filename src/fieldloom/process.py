"""Settings of the whole process that make small tensors fast on a CPU."""

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
