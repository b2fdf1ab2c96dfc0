"""Numbers, and what data are called, in words."""

from __future__ import annotations

import math

from fieldloom.evaluation import Metric
from fieldloom.system import System


def format_number(value: int | float, digits: int = 4) -> str:
    """A number as text: so many significant digits, or whole with separated thousands."""
    if not math.isfinite(value):
        return str(value)
    whole = abs(value) >= 10 and (float(value).is_integer() or abs(value) >= 10**digits)
    return f"{value:,.0f}" if whole else f"{value:.{digits}g}"


def format_measured(value: int | float, digits: int = 3) -> str:
    """As ``format_number``, with the zeros that its digits end in: ``20.0``, ``0.950``."""
    if float(value).is_integer() or abs(value) >= 10 ** (digits - 1) or abs(value) < 1e-4:
        return format_number(value, digits)
    return f"{value:#.{digits}g}"


def format_seconds(seconds: int | float) -> str:
    """``0.4 ms``, ``12 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 1:
        return f"{format_number(float(f'{1000 * seconds:.2g}'))} ms"
    if seconds < 60:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min"


def format_size(size: int | float) -> str:
    """``377 MiB``, ``1.4 GiB``."""
    size = float(size)
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{format_number(size, 3)} {unit}"
        size /= 1024
    return f"{format_number(size, 3)} GiB"


THINGS = {
    "images": ("picture", "pictures"),
    "video": ("video", "videos"),
    "audio": ("sound", "sounds"),
    "shapes": ("shape", "shapes"),
    "views": ("object", "objects"),
}
"""A modality's ``kind`` -> one of its data and several, in words."""


def things(system: System) -> tuple[str, str]:
    """One of a system's data and several, in words."""
    if system.modality.kind == "views" and not system.family.has_code:
        return "scene", "scenes"
    return THINGS.get(system.modality.kind, ("datum", "data"))


def find_detector(metric: Metric) -> str:
    """The detector of a set metric, the first word of its ``how``."""
    return metric.how.partition(",")[0]
