"""Draws of known distributions, and whether an error is one sentence."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Generator, Tensor

from fieldloom.errors import InputError


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=Generator().manual_seed(seed))


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=Generator().manual_seed(seed))


def one_sentence(error: pytest.ExceptionInfo[InputError]) -> bool:
    message = str(error.value)
    return message.endswith(".") and "\n" not in message and len(re.findall(r"\. ", message)) == 0
