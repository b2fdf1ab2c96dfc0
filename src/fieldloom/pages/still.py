"""The small picture that stands in a page where a browser cannot draw the field."""

from __future__ import annotations

import base64
import io

import torch
from PIL import Image

from fieldloom.export import pixels
from fieldloom.system import System
from fieldloom.thumbnail import draw_thumbnail
from fieldloom.types import Code

POINTS = 128 * 128
"""The most points of a picture."""

QUALITIES, BYTES = (85, 60, 30), 20_000
"""Of its JPEG, the first that is small enough; the most bytes of it as text."""


def draw_still(system: System, code: Code) -> str:
    """The address ``data:...`` of a picture of one code (1, tokens, width), or an empty text where
    these data have none."""
    with torch.inference_mode():
        image = draw_thumbnail(system, code, most=POINTS)
    if image is None:
        return ""
    picture, text = Image.fromarray(pixels(image)), ""
    for quality in QUALITIES:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality)
        text = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
        if len(text) <= BYTES:
            break
    return text
