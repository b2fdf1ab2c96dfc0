"""Messages: printable whatever a name holds, and suggestions of near names alone."""

import os

import pytest

from fieldloom.errors import (
    call_fit,
    call_train,
    escape_bytes,
    in_words_of,
    name_argument,
    name_value,
    printable,
    quote_path,
    set_key,
    unknown,
)

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


def test_settings_are_named_in_the_words_of_the_caller():
    """Those of Python, but where a verb of the command line runs."""
    assert set_key("source.path", "FOLDER") == 'source={"path": "FOLDER"}'
    assert set_key("train.field.steps", 9) == 'train={"field": {"steps": 9}}'
    assert name_value("source.path", "'a'") == "source.path = 'a'"
    assert name_argument("resume", True) == "resume=True"
    assert name_argument("stage", "field") == 'stage="field"'
    assert call_fit("my photo.jpg") == "fieldloom.fit('my photo.jpg')"
    assert 'source={"path": ' in call_train("mnif:faces64", "photos")
    with in_words_of({"source.path": "--source", "*": "--set"}):
        assert set_key("source.path", "FOLDER") == "--source FOLDER"
        assert set_key("source.split", [0.9, 0.1]) == "--set source.split=[0.9,0.1]"
        assert name_value("source.path", "'a'") == "--source 'a'"
        assert name_argument("resume", True) == "--resume"
        assert name_argument("top_k", 1) == "--top-k 1"
        assert call_fit("my photo.jpg") == "fieldloom fit 'my photo.jpg'"
        assert call_train("mnif:faces64", "a b") == "fieldloom train mnif:faces64 --source 'a b'"
    with in_words_of({"evaluate.*": "--set"}):  # of a trained run only its evaluation can change
        assert set_key("evaluate.seed", 1) == "--set evaluate.seed=1"
        assert set_key("source.name", "array") == "source.name = array in the recipe"
    assert name_argument("resume") == "resume"
