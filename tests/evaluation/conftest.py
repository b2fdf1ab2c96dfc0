"""Data that several tests of evaluation share."""

import pytest
import torch

from fieldloom.types import Data


@pytest.fixture
def images() -> Data:
    return Data(torch.rand(3, 1, 8, 8))
