"""Learning curves of runs, from their logs (arXiv:2310.05624, Fig. 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Curve(NamedTuple):
    """PSNR (of sound SNR) in dB after each of ``steps``, and the seconds until then.

    Of several data they are means.
    """

    steps: list[int]
    seconds: list[float]
    psnr: list[float]


def learning_curve(log: Sequence[Mapping[str, Any]]) -> Curve:
    """The curve of the lines of a run's log that have a PSNR or an SNR, of the stage ``field``.

    Seconds are steps times the mean seconds of a step since training was last begun or resumed.
    """
    ratio = ratio_of(log)
    complete = lambda line: all(line.get(key) is not None for key in (ratio, "seconds_a_step"))
    lines = [line for line in log if line["stage"] == "field" and complete(line)]
    return Curve(
        [int(line["step"]) for line in lines],
        [line["step"] * line["seconds_a_step"] for line in lines],
        [float(line[ratio]) for line in lines],
    )


def ratio_of(log: Sequence[Mapping[str, Any]]) -> str:
    """What a run's log measures its fits by: ``snr`` of sound, ``psnr`` of all other data."""
    return "snr" if any("snr" in line for line in log) else "psnr"
