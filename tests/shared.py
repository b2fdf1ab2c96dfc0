"""The folder of vectors and data that some tests read: ``$FIELDLOOM_SHARED``, or ``../shared``."""

import os
from pathlib import Path

import pytest


def shared(*parts: str) -> Path:
    """A path in it; skips the test that asks where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared"
    path = Path(os.environ.get("FIELDLOOM_SHARED", default)).joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{'/'.join(parts)} is absent: set FIELDLOOM_SHARED")
    return path
