"""Constants of formulas where the data are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor


def constant(numbers: Tensor | Sequence[float] | Sequence[Sequence[int]], x: Tensor) -> Tensor:
    """Numbers of the CPU in the dtype and on the device of x.

    An accelerator keeps them: a copy from the CPU waits for all that the accelerator has been
    given, and cannot be captured.
    """
    if isinstance(numbers, Tensor):
        return numbers.to(x) if x.device == numbers.device else _kept(*_plain(numbers), *_of(x))
    return x.new_tensor(numbers) if x.is_cpu else _kept(*_plain(torch.tensor(numbers)), *_of(x))


def _plain(numbers: Tensor) -> tuple[tuple[float, ...], tuple[int, ...]]:
    return tuple(numbers.flatten().tolist()), tuple(numbers.shape)


def _of(x: Tensor) -> tuple[torch.dtype, torch.device]:
    return x.dtype, x.device


@lru_cache(maxsize=1024)
def _kept(
    numbers: tuple[float, ...], shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    with torch.inference_mode(False):  # what is kept may be asked for in training, too
        whole = torch.tensor(numbers, dtype=torch.float64).view(shape)
        return whole.to(dtype).to(device)
