"""Principal directions of a run's codes: along which its training data differ most."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from fieldloom.codes.files import open_codes
from fieldloom.engine.layout import CODES
from fieldloom.engine.run import Run
from fieldloom.errors import InputError
from fieldloom.modalities.modality import spread
from fieldloom.modalities.sources import Source
from fieldloom.system import System
from fieldloom.types import Code

SIGNALS, NUMBERS = 1000, 1 << 25
"""Training codes that directions are found from, and the numbers of all of them."""
FEWEST = 8
SLIDERS = 16
"""Directions that are found."""


class Principal(NamedTuple):
    """mean: of the codes; steps: a standard deviation along each direction, the largest first;
    shares: of the variance."""

    mean: Float[Tensor, "tokens width"]
    steps: Float[Tensor, "directions tokens width"]
    shares: Float[Tensor, " directions"]

    def move(self, base: Code | None, amounts: list[float]) -> Code:
        """A code (1, tokens, width) so many standard deviations from another; None: the mean."""
        start = self.mean[None] if base is None else base
        along = torch.tensor(amounts, dtype=self.steps.dtype).view(-1, 1, 1)
        return start + (along * self.steps[: len(amounts)]).sum(0)


def find_principal(codes: Code) -> Principal:
    """The principal directions of codes (n, tokens, width), at least 2."""
    flat = codes.flatten(1).double()
    mean = flat.mean(0)
    centred = flat - mean
    variances, left = torch.linalg.eigh(
        centred @ centred.mT / (len(flat) - 1)
    )  # (n, n): n is small
    variances, left = variances.flip(0).clamp_min(0), left.flip(1)
    kept = min(SLIDERS, codes[0].numel(), len(codes) - 1)
    steps = left[:, :kept].mT @ centred / (len(flat) - 1) ** 0.5
    total = variances.sum().clamp_min(1e-30)
    steps = steps.unflatten(1, codes.shape[1:]).to(codes.dtype)
    mean = mean.view(codes.shape[1:]).to(codes.dtype)
    return Principal(mean, steps, (variances[:kept] / total).float())


class Directions:
    """The directions of a run, found a piece of work at a time, so that others may come between."""

    def __init__(self) -> None:
        self.found: Principal | None = None
        self.codes: list[Tensor] = []
        self.places: list[int] | None = None
        self.fault = ""

    def count(self, run: Run, system: System) -> int:
        """How many directions there are; 0 where there are no training codes to find them from."""
        if self.found is not None:
            return len(self.found.steps)
        if not system.family.has_code or not (run.has_codes or system.encodes):
            return 0
        some = min(count_codes(system), max(1, system.settings.signals))
        numbers = system.family.code_shape[0] * system.family.code_shape[1]
        return min(SLIDERS, numbers, some - 1) if some > FEWEST else 0

    def advance(self, run: Run, system: System, source: Source | None) -> bool:
        """Do a piece of the work; whether all is done.

        source: whose training data are encoded where the run stores no codes. Raises InputError
        where there is nothing to find directions from.
        """
        if self.found is not None:
            return True
        if not self.codes and (stored := read_stored(run, system)) is not None:
            self.found = find_principal(stored)
            return True
        if source is None:
            raise InputError("the run stores no codes, and its data cannot be read.")
        if self.places is None:
            self.places = spread(len(source.train), count_codes(system))
        rest = self.places[sum(map(len, self.codes)) :]
        if rest:
            data = source.read(source.train[rest[:PIECE]])
            self.codes.append(system.encode(data).cpu())
            return False
        self.found, self.codes = find_principal(torch.cat(self.codes)), []
        return True

    def describe(self) -> dict[str, Any]:
        assert self.found is not None
        return {"share": self.found.shares.tolist()}


PIECE = 16
"""Data that are encoded at a time."""


def count_codes(system: System) -> int:
    """The most codes that are looked at."""
    numbers = system.family.code_shape[0] * system.family.code_shape[1]
    return min(SIGNALS, max(FEWEST, NUMBERS // max(1, numbers)))


def read_stored(run: Run, system: System, which: Tensor | None = None) -> Code | None:
    """Codes of training data that the run stores, float32; None where it stores none of them.

    which: places in the training part (n,); None: as many as directions are found from, evenly
    spaced.
    """
    signals = system.settings.signals
    wanted = torch.tensor(spread(signals, count_codes(system))) if which is None else which
    kept = system.encoder.stored_codes(wanted.to(system.device), system.family)
    if kept is not None:
        return kept.detach().cpu()
    if not run.has_codes:
        return None
    try:
        held = open_codes(run.folder / CODES, system)
    except InputError:  # of weights of before, while the field is trained on
        return None
    if which is None:
        return held[spread(len(held), count_codes(system))]
    if len(held) != signals:  # some failed: the others are elsewhere
        return None
    return held[which]
