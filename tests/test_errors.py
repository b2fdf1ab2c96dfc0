"""Messages: printable whatever a name holds, and suggestions of near names alone."""

import os

import pytest

from fieldloom.errors import escape_bytes, printable, quote_path, unknown

LATIN = os.fsdecode(b"caf\xe9")


def test_bytes_that_are_not_utf8_are_shown():
    assert escape_bytes(LATIN) == "caf\\xe9"
    assert quote_path(f"/a/{LATIN}/b") == "'/a/caf\\xe9/b'"
    assert printable(f"\x1b[31m{LATIN}\n.") == " [31mcaf\\xe9 ."
    assert escape_bytes("café\n") == "café\n"


NAMES = ["siren", "fourier-mlp", "experts", "local"]


@pytest.mark.parametrize(
    ("name", "near"),
    [("sirn", "siren"), ("sirne", "siren"), ("fourier", "fourier-mlp"), ("expert", "experts"),
     ("file", None), ("2024-05-01", None), ("loss", None), ("res", None), ("", None)],
)  # fmt: skip
def test_only_near_names_are_suggested(name, near):
    message = str(unknown("field", name, NAMES))
    assert (f"did you mean '{near}'?" in message) == (near is not None)
    assert ("did you mean" in message) == (near is not None)
    assert "There are: experts, fourier-mlp, local, siren." in message
