"""The weights of the detector of points, as they come with the package."""

from __future__ import annotations

import hashlib
import json
import struct
from importlib import resources

import pytest
import torch

from fieldloom.errors import InputError
from fieldloom.metrics import point_network
from fieldloom.metrics.point_network import FILE, SHA256, check_hash, published_network

CONTENT = (resources.files("fieldloom.metrics") / FILE).read_bytes()


def test_weights_are_the_published_ones_and_say_how_they_were_made():
    assert hashlib.sha256(CONTENT).hexdigest() == SHA256
    assert len(CONTENT) < 2e6
    (size,) = struct.unpack("<Q", CONTENT[:8])
    about = json.loads(json.loads(CONTENT[8 : 8 + size])["__metadata__"]["fieldloom"])
    assert about["command"].startswith("python benchmarks/points.py train")
    assert about["seed"] == 0
    assert "CC0" in about["data"]


def test_other_weights_are_refused(monkeypatch):
    changed = bytearray(CONTENT)
    changed[-1] ^= 1
    with pytest.raises(InputError, match="not the published ones: install fieldloom anew"):
        check_hash(bytes(changed))
    monkeypatch.setattr(point_network, "SHA256", "0" * 64)
    published_network.cache_clear()
    with pytest.raises(InputError, match="not the published ones"):
        published_network()
    published_network.cache_clear()


def test_every_point_is_seen_alike_and_nothing_learns():
    network = published_network()
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    cloud = torch.rand(1, 7, 3, dtype=torch.float64)
    twice = torch.cat([cloud, cloud], 1)  # neither the maximum nor the mean counts points
    torch.testing.assert_close(network(twice), network(cloud))
