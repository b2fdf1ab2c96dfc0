"""PSNR against wall time: an encoder's answer, its refinement, a network fitted from scratch.

Source: arXiv:2310.05624, section 4.5 and Fig. 7.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from torch import Generator

from fieldloom.conditioners import FlatWeights
from fieldloom.encoders import Fit, Step
from fieldloom.encoders.refinement import RATES, choose_rate
from fieldloom.engine.device import synchronize
from fieldloom.errors import InputError
from fieldloom.evaluation.learning_curves import Curve
from fieldloom.family import Family
from fieldloom.fields import Fourier, FourierMlp
from fieldloom.metrics.paired import FIDELITY
from fieldloom.progress import track
from fieldloom.system import System
from fieldloom.types import Code, Data, Signal


class Start(NamedTuple):
    """Where a fit begins: codes of a system, Adam's rate, and the seconds spent before it.

    relative: whether the rate is a part of the code's size, as of ``Fit``.
    """

    system: System
    code: Code
    rate: float
    seconds: float
    relative: bool = False


@dataclass(frozen=True)
class Rates:
    """Adam's rates: to refine codes (None: as ``refine`` chooses it), to refine all weights, and to
    fit the network from scratch.
    """

    codes: float | None = None
    weights: float = RATES["weights"]
    scratch: float = 1e-3


@dataclass(frozen=True)
class Budget:
    """Limits of one fit: the most steps and seconds, and the points of a step (None: all)."""

    steps: int = 1000
    seconds: float = 30.0
    points: int | None = None


def random_network(
    system: System, width: int = 256, depth: int = 4, bandwidth: float = 10.0, seed: int = 0
) -> tuple[System, Code]:
    """A network on Gaussian Fourier features for the same data, and its random weights as a code.

    bandwidth: standard deviation of the frequencies, in periods over the extent of the coordinates.
    As in the released notebook of arXiv:2006.10739, but linear at the end, around the middle of the
    values' range, where that has a sigmoid.
    """
    modality, generator = system.modality, Generator().manual_seed(seed)
    domain = system.render.domain(modality.coord_dim, modality.value_dim)
    field: Any = FourierMlp(
        *(domain.coord, domain.value, domain.direction),
        width=width,
        depth=depth,
        encoding=Fourier("gaussian", width, bandwidth / modality.extent),
        offset=(modality.low + modality.high) / 2,
    )
    other = system.with_family(Family(field, FlatWeights(field.slots, generator=generator)))
    return other, other.family.conditioner.origin(1).detach()


def psnr_against_time(
    system: System,
    data: Data,
    budget: Budget = Budget(),
    rates: Rates = Rates(),
    width: int = 256,
    seed: int = 0,
) -> dict[str, Curve]:
    """PSNR against seconds of optimisation, of four ways to find the field of a datum.

    ``encoder``: its code alone; ``codes``, ``weights``: refined from there, the encoder's seconds
    included; ``scratch``: a network of this width from random weights. Data (batch, channel, *axes)
    are fitted one at a time, and decoding them for the PSNR is not counted. Raises InputError where
    data are no grids, or signals have no codes.
    """
    if data.coords is not None or data.cameras is not None:
        raise InputError("time: fits are compared on data that are grids, and this run's are not.")
    if not system.family.has_code:
        raise InputError("time: this run's signals have no codes that could be refined.")
    found: dict[str, list[Curve]] = {}
    steps = measured_steps(budget.steps)
    singles = (data.part([i]).as_float() for i in range(len(data)))
    for index, datum in enumerate(track(singles, "fitting", len(data), "data")):
        signal = system.modality.encoding(datum).to(system.device)
        if not index:  # warm up, so that the first datum is not slower
            for start in starts_of(system, signal, rates, width, seed).values():
                fit_curve(start, signal, datum, Budget(1, math.inf, budget.points), [0])
        for name, start in starts_of(system, signal, rates, width, seed + index).items():
            own = replace(budget, steps=0) if name == "encoder" else budget
            found.setdefault(name, []).append(fit_curve(start, signal, datum, own, steps))
    return {name: mean_curve(curves) for name, curves in found.items()}


def starts_of(
    system: System, signal: Signal, rates: Rates, width: int, seed: int
) -> dict[str, Start]:
    """Where each of the four fits of one datum begins."""
    synchronize(system.device)
    began = time.perf_counter()
    code = system.encode_signal(signal)
    synchronize(system.device)
    took = time.perf_counter() - began
    of_codes, relative = choose_rate("codes", system.family, rates.codes)
    return {
        "encoder": Start(system, code, 1.0, took),
        "codes": Start(system, code, of_codes, took, relative),
        "weights": Start(*system.unfold(code), rates.weights, took),
        "scratch": Start(*random_network(system, width, seed=seed), rates.scratch, 0.0),
    }


def fit_curve(
    start: Start, signal: Signal, datum: Data, budget: Budget, steps: Sequence[int]
) -> Curve:
    """The curve of one datum (1, channel, *axes), measured after those of ``steps`` that the
    budget reaches.
    """
    curve = Curve([], [], [])

    def measure(at: Step) -> bool:
        if at.step and at.seconds > budget.seconds:
            return True
        if at.step in steps:
            curve.steps.append(at.step)
            curve.seconds.append(start.seconds + at.seconds)
            made = start.system.predict_at(at.code, datum).tensor
            ratio = FIDELITY[start.system.modality.fidelity]
            curve.psnr.append(ratio(made, datum.tensor).item())
        return False

    points, relative = budget.points, start.relative
    descent = Fit(
        budget.steps, start.rate, keep="last", points=points, draw="anew", relative=relative
    )
    parts = (start.system.family, start.system.render, start.system.loss_at(signal))
    descent.refine(start.code, signal, *parts, on_step=measure)
    return curve


def measured_steps(steps: int, count: int = 32) -> list[int]:
    """About ``count`` steps from 0 to the last, at growing distances."""
    grown = {round((steps + 1) ** (i / count)) - 1 for i in range(count + 1)}
    return sorted(grown | {0, steps})


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean of the curves of several data, up to the last step that all of them reached."""
    reached = min(len(curve.steps) for curve in curves)
    mean = lambda rows: [sum(column) / len(column) for column in zip(*rows, strict=True)]
    return Curve(
        curves[0].steps[:reached],
        mean([curve.seconds[:reached] for curve in curves]),
        mean([curve.psnr[:reached] for curve in curves]),
    )


def as_json(
    curves: Mapping[str, Curve], budget: Budget, rates: Rates, width: int
) -> dict[str, Any]:
    """The content of ``time.json``: the curves of ``psnr_against_time``, and its arguments."""
    unsaid = {"codes": f"{RATES['codes']} of the root mean square, of weights {RATES['weights']}"}
    told = asdict(rates) | (unsaid if rates.codes is None else {})
    about = {"points": budget.points, "rates": told, "width": width}
    return about | {"curves": {name: curve._asdict() for name, curve in curves.items()}}
