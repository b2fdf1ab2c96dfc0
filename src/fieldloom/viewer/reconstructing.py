"""One's own file, encoded and decoded by a run: in a process of its own, which can be ended.

A file of a stranger may crash a decoder, or take any time and memory; the viewer goes on.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save

from fieldloom import atomic, export
from fieldloom.engine.run import load
from fieldloom.errors import InputError
from fieldloom.inputs import source_of
from fieldloom.launching import end_with_input
from fieldloom.metrics.paired import FIDELITY
from fieldloom.progress import silence
from fieldloom.system import System
from fieldloom.types import Code
from fieldloom.viewer.drawing import Pixels, fit_into
from fieldloom.viewer.refusals import explain

SIDE = 1024
"""Pixels of the longer side of the original's picture, at most."""
CODE, ORIGINAL, ANSWER = "code.safetensors", "original.png", "answer.json"


class Reconstructed(NamedTuple):
    """code: (1, tokens, width); decibels: PSNR, of sound SNR, at all points of the datum; original:
    its picture; signals: of the data in the file, of which this is the first."""

    code: Code
    decibels: float
    original: Pixels | None
    signals: int


def reconstruct_file(system: System, path: Path) -> Reconstructed:
    """The code of the first datum in a file. Raises InputError for what is no such data."""
    source = source_of(system, path, quiet=True)
    places = torch.cat([source.train, source.test]).sort().values
    if not len(places):
        raise InputError(f"'{path}' holds no data.")
    datum = source.read(places[:1])
    code = system.encode(datum).cpu()
    if not bool(code.isfinite().all()):
        raise InputError("the code that is found for this file holds numbers that are not finite.")
    made = system.predict_at(code, datum).tensor
    ratio = FIDELITY[system.modality.fidelity]
    decibels = float(ratio(made.flatten(1)[:, None], datum.tensor.flatten(1)[:, None]))
    tiles = system.modality.tiles(datum, 1)
    original = fit_into(next(iter(tiles.values())), SIDE) if tiles else None
    return Reconstructed(code, decibels, original, len(places))


def main() -> None:
    """Reconstruct a file as the viewer asks for it, and write what is found beside the file."""
    asked: dict[str, Any] = json.loads(sys.argv[1])
    end_with_input()
    silence()
    warnings.simplefilter("ignore")
    path = Path(asked["path"])
    try:
        allowed = {"trust": asked["trust"], "network": False, "large": asked["large"]}
        system = load(asked["run"], asked["device"], **allowed)
        found = reconstruct_file(system, path)
        answer = {
            "name": system.modality.fidelity,
            "value": found.decibels,
            "signals": found.signals,
        }
        atomic.write_bytes(save({"code": found.code.contiguous()}), path.with_name(CODE))
        if found.original is not None:
            atomic.write_bytes(export.png_bytes(found.original), path.with_name(ORIGINAL))
    except Exception as error:  # a broken file may raise anything
        answer = {"error": explain(error)[1]}
    atomic.write_text(json.dumps(answer), path.with_name(ANSWER))
