"""What a request says, checked: numbers of its address, and its body."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

from starlette.requests import Request

from fieldloom.errors import shorten
from fieldloom.viewer.drawing import Look
from fieldloom.viewer.refusals import Refused

JSON_BYTES, JSON_SECONDS = 1 << 16, 20.0
"""The most bytes of a body of JSON, and the seconds that it may take to arrive."""
SIDE, PIXELS = 4096, 1 << 20
"""The longest side of a picture, and its pixels."""
FAR = 1e6
"""The largest number of a look."""


def whole(request: Request, name: str, default: int, least: int, most: int) -> int:
    """A whole number of a query. Raises Refused."""
    text = request.query_params.get(name)
    if text is None:
        return default
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 19):
        raise Refused(400, f"{name} = '{shorten(text, 40)}' is no whole number.")
    if not least <= int(text) <= most:
        raise Refused(400, f"{name} = {int(text)}: from {least} to {most:,}.")
    return int(text)


def real(request: Request, name: str, default: Any, least: int | float, most: int | float) -> Any:
    """A number of a query, or the default. Raises Refused."""
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise Refused(400, f"{name} = '{shorten(text, 40)}': a number from {least:g} to {most:g}.")
    return value


def read_size(request: Request) -> tuple[int, int]:
    """(height, width) of a picture. Raises Refused."""
    width, height = (whole(request, name, 256, 1, SIDE) for name in ("width", "height"))
    if width * height > PIXELS:
        raise Refused(400, f"width x height = {width * height:,} pixels: at most {PIXELS:,}.")
    return height, width


def read_look(request: Request) -> Look:
    """What of a function is drawn. Raises Refused."""
    x0, y0 = (real(request, name, 0.0, -FAR, FAR) for name in ("x0", "y0"))
    x1, y1 = (real(request, name, 1.0, -FAR, FAR) for name in ("x1", "y1"))
    if not (x1 - x0 > 1e-9 and y1 - y0 > 1e-9):
        raise Refused(400, "the part of the plane is empty: x0 < x1 and y0 < y1 are needed.")
    time = real(request, "time", 0.5, 0, 1)
    yaw = real(request, "yaw", 0.0, -FAR, FAR)
    pitch = real(request, "pitch", None, -math.pi / 2, math.pi / 2)
    return Look(x0, y0, x1, y1, time, yaw, pitch, real(request, "distance", None, 1e-6, FAR))


async def read_body(request: Request, most: int, seconds: int | float) -> bytes:
    """The body of a request. Raises Refused where it is larger, or takes longer to arrive."""
    told = request.headers.get("content-length", "0")
    too_large = Refused(413, f"it is larger than {describe_bytes(most)}.")
    if not told.isdecimal() or int(told[:19]) > most:
        raise too_large
    parts, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise too_large
                parts.append(part)
    except TimeoutError:
        raise Refused(408, f"it did not arrive within {seconds:g} s.") from None
    return b"".join(parts)


def describe_bytes(count: int) -> str:
    return f"{count / 1e6:g} MB" if count >= 1e6 else f"{count / 1e3:.3g} kB"


async def read_json(request: Request) -> Any:
    """The body of a request as JSON. Raises Refused."""
    content = await read_body(request, JSON_BYTES, JSON_SECONDS)
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise Refused(400, "the body of the request is no JSON.") from None
