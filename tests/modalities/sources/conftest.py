"""What tests of sources share: a cache of their own, and no network."""

import socket

import pytest


@pytest.fixture(autouse=True)
def _own_cache(cached):
    pass


@pytest.fixture
def offline(monkeypatch):
    """Whatever reaches out fails the test."""

    def reach(*given, **named):
        pytest.fail(f"reaches for the network: {given[1:]}")

    monkeypatch.setattr(socket.socket, "connect", reach)
    monkeypatch.setattr(socket, "getaddrinfo", reach)
