"""The numbers of several functions of one program: what all share, and what each has of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

GAP = 16
"""Numbers between two differences that are kept with them: a range costs as much to name."""


class Own(NamedTuple):
    """What one function has of its own. ranges: (first, count) in the shared numbers; numbers: all
    of them, one behind the other."""

    ranges: list[tuple[int, int]]
    numbers: Tensor


def divide_numbers(functions: Sequence[Tensor]) -> tuple[Tensor, list[Own]]:
    """The numbers of the first function, and what each function has of its own.

    functions: (n, 4) each, as ``Shader.numbers``.
    """
    flat = [x.reshape(-1) for x in functions]
    shared, differs = flat[0], torch.zeros(len(flat[0]), dtype=torch.bool)
    for own in flat[1:]:
        differs |= own != shared
    ranges = find_ranges(differs)
    take = lambda x: torch.cat([x[a : a + n] for a, n in ranges]) if ranges else x[:0]
    return shared, [Own(ranges, take(own)) for own in flat]


def find_ranges(marked: Tensor) -> list[tuple[int, int]]:
    """The ranges (first, count) that cover all marked places (n,), joined across small gaps."""
    places = marked.nonzero().flatten()
    if not len(places):
        return []
    ends = (places.diff() > GAP).nonzero().flatten()
    firsts = torch.cat([places[:1], places[ends + 1]])
    lasts = torch.cat([places[ends], places[-1:]])
    return [(int(a), int(b - a + 1)) for a, b in zip(firsts, lasts, strict=True)]
