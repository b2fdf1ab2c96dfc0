"""Vectors and data that some tests read: what ships in ``data``, and a larger folder beside it.

The folder is ``$FIELDLOOM_SHARED``, or ``../shared``.
"""

import os
from pathlib import Path

import pytest

OWN = Path(__file__).resolve().parent / "data"


def shared(*parts: str) -> Path:
    """A path in ``data``, or else in the folder; skips the test that asks where it is in neither.

    ``FIELDLOOM_SHARED`` may name an empty folder, to see what runs on a fresh clone.
    """
    default = OWN.parents[2] / "shared"
    path = OWN.joinpath(*parts)
    if not path.exists():
        path = Path(os.environ.get("FIELDLOOM_SHARED", default)).joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{'/'.join(parts)} is absent: set FIELDLOOM_SHARED")
    return path
