"""Video and audio files, opened by FFmpeg."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fieldloom.errors import InputError, quote_path, shorten


@contextmanager
def open_media(file: Path, what: str) -> Iterator[Any]:
    """An open container. Errors in the with block become InputError: it is no ``what``."""
    import av

    try:
        # Without a protocol no other file or address that this one names can be opened.
        with (
            file.open("rb") as content,
            av.open(content, options={"protocol_whitelist": "none"}) as container,
        ):
            yield container
    except (InputError, MemoryError):
        raise
    except Exception as error:  # FFmpeg fails in many ways on a broken file
        raise InputError(
            f"{quote_path(file)} is no {what} that can be read: {shorten(str(error))}."
        ) from None
