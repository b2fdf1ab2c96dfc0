"""What the server answers where it cannot do what is asked: a status and one sentence."""

from __future__ import annotations

import os
import traceback

from starlette.requests import ClientDisconnect

from fieldloom.errors import FieldloomError, shorten

SENTENCE = 600
"""The most characters of a sentence."""


class Refused(FieldloomError):
    """A request that is refused. status: of HTTP."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Unwanted(Exception):
    """Work whose client has gone, or that the user has cancelled."""


def explain(error: BaseException) -> tuple[int, str]:
    """The status and the sentence for whatever went wrong; a browser sees no more than that."""
    if isinstance(error, Refused):
        return error.status, shorten(str(error), SENTENCE)
    if isinstance(error, Unwanted | ClientDisconnect):
        return 499, "no one waits for this any more."
    if isinstance(error, FieldloomError):
        return 400, shorten(str(error), SENTENCE)
    if isinstance(error, MemoryError) or "memory" in str(error).partition("\n")[0]:
        return 507, "this needs more memory than there is: ask for less at a time."
    if isinstance(error, OSError):
        where = f" ('{shorten(str(error.filename))}')" if error.filename else ""
        return 500, f"{error.strerror or 'a file cannot be read'}{where}."
    if os.environ.get("FIELDLOOM_TRACEBACK"):
        traceback.print_exception(error)
    message = shorten(str(error).partition("\n")[0], 300)
    return 500, (
        f"this is a fault of fieldloom, not of the input: {type(error).__name__}: {message}. "
        "FIELDLOOM_TRACEBACK=1 shows where; please report it."
    )
