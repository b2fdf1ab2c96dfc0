"""Whatever goes wrong is a status and one sentence."""

import pytest
from starlette.requests import ClientDisconnect

from fieldloom.errors import InputError
from fieldloom.viewer.refusals import Refused, Unwanted, explain


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (Refused(404, "there is no such run."), 404, "there is no such run."),
        (InputError("x = 3: at least\n4."), 400, "x = 3: at least 4."),
        (Unwanted(), 499, "no one waits"),
        (ClientDisconnect(), 499, "no one waits"),
        (MemoryError(), 507, "more memory than there is"),
        (RuntimeError("CUDA out of memory. Tried\nmore"), 507, "more memory than there is"),
        (ValueError("a memory map"), 500, "fault of fieldloom"),
        (FileNotFoundError(2, "No such file", "/a\nb"), 500, "No such file ('/a b')."),
        (KeyError("\x1b[2J<b>"), 500, "fault of fieldloom"),
    ],
)
def test_errors(error, status, words):
    told, sentence = explain(error)
    assert told == status
    assert words in sentence
    assert sentence.isprintable()
