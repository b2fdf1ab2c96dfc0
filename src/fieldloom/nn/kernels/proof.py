"""A kernel proves itself before it is used: on tiny data, against the plain way, once a process."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fieldloom.errors import shorten
from fieldloom.progress import announce


class Device(NamedTuple):
    """What kernels need to know of the device that they run on.

    here:      makes the device of a tensor the current one.
    capturing: whether operations are being recorded, so that no number may be read.
    precision: of products of float32: ``ieee``, or ``tf32`` where that is allowed.
    """

    here: Callable[[Tensor], AbstractContextManager[Any]]
    capturing: Callable[[], bool]
    precision: Callable[[], str]


TOLERANCE = {"ieee": 1e-4, "tf32x3": 1e-4, "tf32": 5e-2, "bfloat16": 5e-2}
"""The largest difference, as a fraction of the largest number: of phases of a few radians."""


class Proven:
    """A kernel that gives way to the plain function where it fails, or makes other numbers.

    name:    of what it computes, for the sentence that says so.
    example: tiny arguments of the same kind, from those of a call.
    kind:    what of the arguments another compiled kernel, or other numbers, depend on.
    """

    def __init__(
        self,
        name: str,
        kernel: Callable[..., Any],
        plain: Callable[..., Any],
        example: Callable[..., tuple[Any, ...]],
        kind: Callable[..., Hashable],
        device: Device,
    ) -> None:
        self.name, self.kernel, self.plain, self.device = name, kernel, plain, device
        self.example, self.kind = example, kind
        self.holds: dict[Hashable, bool] = {}

    def __call__(self, *given: Any) -> Any:
        precision = self.device.precision()
        kind = (precision, self.kind(*given))
        if kind not in self.holds:
            if self.device.capturing():
                return self.plain(*given)
            self.holds[kind] = self._prove(given, precision)
        return (self.kernel if self.holds[kind] else self.plain)(*given)

    def _prove(self, given: tuple[Any, ...], precision: str) -> bool:
        with torch.inference_mode(False), torch.no_grad():
            tiny = self.example(*given)
            try:
                own, right = flatten(self.kernel(*tiny)), flatten(self.plain(*tiny))
                worst = max(difference(a, b) for a, b in zip(own, right, strict=True))
            except Exception as error:  # whatever a compiler or a driver may raise
                lines = str(error).strip().splitlines() or [""]
                why = f"it fails ({type(error).__name__}: {shorten(lines[-1])})"
            else:
                narrow = any(x.dtype == torch.bfloat16 for x in (*flatten(tiny), *own))
                allowed = TOLERANCE["bfloat16" if narrow else precision]
                if worst <= allowed:
                    return True
                why = f"its numbers are off by {worst:.1e} of the largest"
        if False not in self.holds.values():
            announce(f"{self.name}: computed without the kernel, since {why}.")
        return False


def flatten(given: Any) -> list[Tensor]:
    """All tensors of nested tuples and lists."""
    if isinstance(given, Tensor):
        return [given]
    return [x for one in given for x in flatten(one)] if isinstance(given, tuple | list) else []


def difference(a: Tensor, b: Tensor) -> float:
    """The largest difference of two tensors, as a fraction of the largest number of the second."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return float("inf")
    scale = b.float().abs().max().clamp(min=1e-30)
    worst = ((a.float() - b.float()).abs().max() / scale).item()
    return worst if worst == worst else float("inf")


def wave(like: Tensor, *shape: int, scale: float = 1.0) -> Tensor:
    """Numbers in [-scale, scale] without pattern, the same in every process."""
    count = torch.Size(shape).numel()
    numbers = torch.arange(count, device=like.device, dtype=torch.float32).mul(2.399963)
    return numbers.sin().mul(scale).view(shape).to(like.dtype)
