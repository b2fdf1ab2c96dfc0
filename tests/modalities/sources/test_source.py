"""Sources are divided into parts for training and testing."""

import pytest
import torch

from fieldloom.errors import InputError
from fieldloom.modalities.sources import divide


def test_splits():
    train, test = divide(10, (0.8, 0.2), shuffle=True)
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(10))
    assert torch.equal(train, divide(10, (0.8, 0.2), shuffle=True)[0])
    assert divide(10, (7, 2), shuffle=False)[1].tolist() == [8, 9]  # a validation part between
    assert divide(10, (0.7, 0.2), shuffle=False)[1].tolist() == [7, 8]
    whole = divide(10, (10, 0), shuffle=False)
    assert [len(part) for part in whole] == [10, 0]
    assert len(divide(10, (1.0, 0.0), shuffle=False)[0]) == 10
    for split in [(0.0, 1.0), (8, 3), (11, 0)]:
        with pytest.raises(InputError, match="does not fit 10 signals"):
            divide(10, split, shuffle=False)
