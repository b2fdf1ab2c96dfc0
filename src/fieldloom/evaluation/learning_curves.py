"""Learning curves of runs, from their logs (arXiv:2310.05624, Fig. 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Curve(NamedTuple):
    """PSNR in dB after each of ``steps``, and the seconds until then (means over several data)."""

    steps: list[int]
    seconds: list[float]
    psnr: list[float]


def learning_curve(log: Sequence[Mapping[str, Any]]) -> Curve:
    """The curve of the lines of a run's log that have a PSNR, of the stage ``field``.

    Seconds are steps times the mean seconds of a step since training was last begun or resumed.
    """
    complete = lambda line: all(line.get(key) is not None for key in ("psnr", "seconds_a_step"))
    lines = [line for line in log if line["stage"] == "field" and complete(line)]
    return Curve(
        [int(line["step"]) for line in lines],
        [line["step"] * line["seconds_a_step"] for line in lines],
        [float(line["psnr"]) for line in lines],
    )
