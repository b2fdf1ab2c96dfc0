"""Which numbers become 0 and 1: decided once for a whole set, by type and content, or by the user.

``source.range = [low, high]`` decides where it is given, and numbers outside it are refused.
Without it booleans are 0 and 1, and uint8 goes from 0 to 255, unless the whole set is 0 and 1;
where it is dark throughout, as labels are, the summary says so. Of other types the largest number
decides: up to 1 they go from 0 to 1, up to 255 from 0 to 255 where it is in the upper half, up to
65,535 likewise (of uint16 in the upper three quarters). Numbers in between have no certain range
(12 bits in 16, floats to 1.02), and neither have negative ones: these are refused, with the ranges
that are likely.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fieldloom.errors import InputError, quote

Range = tuple[float, float] | None
"""``source.range``: the numbers that become 0 and 1; None: decided by type and content."""
Kind = Literal["bool", "uint8", "uint16", "integer", "float"]
"""Types of numbers that have a rule of their own."""

BYTE, WORD = 255, 65535
"""The largest numbers of 8 and of 16 bits."""
TOPS = (BYTE, 4095, WORD)
"""White of 8, 12 and 16 bits."""
DARK = 16
"""The largest number of a set of 8 bits from which on nothing is said: labels of classes read dark.
"""
CLOSE = 1e-6
"""How far beyond a given range rounding may carry a number, relative to the range."""


@dataclass(frozen=True)
class Scale:
    """The numbers that become 0 and 1. words: for the summary, where they are not the plain ones.

    Plain are uint8 from 0 to 255, floats from 0 to 1, and booleans.
    """

    low: float
    high: float
    words: str = ""

    def apply(self, array: NDArray[Any]) -> NDArray[np.float64]:
        """The array with ``low`` as 0 and ``high`` as 1, float64 in [0, 1]."""
        unit = (np.asarray(array, np.float64) - self.low) / (self.high - self.low)
        return unit.clip(0, 1)


EIGHT_BITS = Scale(0.0, 255.0)
UNIT = Scale(0.0, 1.0)


def kind_of(dtype: np.dtype[Any]) -> Kind:
    """The kind of an array's numbers."""
    if dtype.kind in "fb":
        return "float" if dtype.kind == "f" else "bool"
    return "uint8" if dtype == np.uint8 else "uint16" if dtype == np.uint16 else "integer"


def check_range(given: Range) -> None:
    """Raise InputError for a ``source.range`` that is none."""
    if given is not None and not -math.inf < given[0] < given[1] < math.inf:
        raise InputError(f"source.range = {quote(list(given))}: finite, the lower one first.")


def decide_scale(
    kind: Kind, low: float, high: float, given: Range = None, what: str = "the numbers"
) -> Scale:
    """The scale of a set whose numbers go from ``low`` to ``high``, by the rules of this module.

    given: ``source.range``; booleans are 0 and 1 in spite of it. what: the numbers in words.
    Raises InputError for numbers outside the given range, and for those whose range is not certain.
    """
    check_range(given)
    if kind == "bool":
        return UNIT
    extent = f"{what} go from {low:,.6g} to {high:,.6g}"
    extent = f"{what} are all {low:,.6g}" if low == high else extent
    if given is not None:
        slack = CLOSE * (given[1] - given[0])
        if low < given[0] - slack or high > given[1] + slack:
            raise InputError(f"source.range = {quote(list(given))}: {extent}.")
        first, last = map(float, given)
        return Scale(first, last, f"{describe_range(first, last)} (source.range)")
    first, last = (low, high) if low < high else (min(low, 0.0), max(high, 0.0))
    whole = f"[{-_round_up(-first):.12g}, {_round_up(last):.12g}]"
    if low < 0:
        signed = ["[-1, 1]"] if low >= -1 and high <= 1 else []
        raise InputError(
            f"source: {extent}, and below 0 no range is certain: set source.range to the numbers "
            f"that become 0 and 1, such as {' or '.join(dict.fromkeys([*signed, whole]))}."
        )
    if high == 0:
        return EIGHT_BITS if kind == "uint8" else UNIT
    if high <= 1:
        return UNIT if kind == "float" else Scale(0.0, 1.0, f"{kind} numbers of 0 and 1 alone")
    if kind == "uint8" and high < DARK:
        white = f"source.range = [0, {high:g}] makes it white"
        return Scale(0.0, float(BYTE), f"largest value {high:g} of {BYTE}: {white}")
    if kind == "uint8":
        return EIGHT_BITS
    for top, least in ((BYTE, BYTE / 2), (WORD, WORD / (4 if kind == "uint16" else 2))):
        if least < high <= top:
            return Scale(0.0, float(top), describe_range(0.0, float(top)))
    likely = [f"[0, {top}]" for top in TOPS if top >= high]
    likely = [whole, *likely] if kind == "float" or not likely else likely
    likely = list(dict.fromkeys(likely))
    raise InputError(
        f"source: {extent}, and their range is not certain: set source.range to the numbers that "
        f"become 0 and 1, such as {' or '.join(likely[:2])}."
    )


def scale_array(array: NDArray[Any], given: Range) -> tuple[NDArray[Any], Scale]:
    """A set of numbers as uint8 in 0 .. 255, where it is stored so, else float32 in [0, 1].

    Raises InputError as ``decide_scale`` does, and for numbers that are not finite.
    """
    kind = kind_of(array.dtype)
    ends = np.array([array.min(), array.max()])  # NaN is the extremum of what contains it
    with np.errstate(over="ignore"):  # as they are kept: 1 + 1e-12 is 1
        kept = ends.astype(np.float32) if kind == "float" else ends
    low, high = float(kept[0]), float(kept[1])
    if not (math.isfinite(low) and math.isfinite(high)):
        with np.errstate(over="ignore"):
            first = int(np.argwhere(~np.isfinite(array.astype(kept.dtype)))[0][0])
        raise InputError(
            f"source: the array has numbers that are not finite (NaN or infinity), the first in "
            f"its datum {first}."
        )
    scale = decide_scale(kind, low, high, given)
    if kind == "uint8" and (scale.low, scale.high) == (0, BYTE):
        return array, scale
    if scale == UNIT:
        return array.astype(np.float32), scale
    return scale.apply(array).astype(np.float32), scale


def describe_range(low: float, high: float) -> str:
    """``numbers from 0 to 4,095``."""
    return f"numbers from {low:,.6g} to {high:,.6g}"


def _round_up(number: float) -> float:
    """The next number of three digits; whole numbers are kept."""
    if number == int(number):
        return number
    step = 10.0 ** (math.floor(math.log10(abs(number))) - 2)
    return float(f"{math.ceil(number / step) * step:.6g}")
