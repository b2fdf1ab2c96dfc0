"""What all detectors have."""

from __future__ import annotations

import pytest
import torch

from draws import one_sentence
from fieldloom.errors import InputError
from fieldloom.metrics.detectors import DETECTORS, Gabor
from fieldloom.metrics.detectors.detector import identify


def test_detectors_name_themselves() -> None:
    for name, detector in DETECTORS.items():
        assert detector.name == name
        assert detector.filter
        assert (detector.metric == "fid") == (name == "inception")
    with pytest.raises(InputError) as error:
        Gabor()(torch.zeros(1, 4, 8, 8))
    assert one_sentence(error)


def test_identities_tell_detectors_apart() -> None:
    assert identify("a", "b") == identify("a", "b") != identify("ab")
    known = [detector.identity for detector in DETECTORS.values() if detector.name != "inception"]
    assert len(set(known)) == len(known)
