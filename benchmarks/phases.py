r"""How fast the layers of SIRENs oscillate after training: what holds runs at the mean datum.

    python benchmarks/phases.py RUNS/decide-plateau/*-seed*/run \
        --out benchmarks/results/plateau-phases.json

A row is the field of a run's mean code, after training ("NAME") and before it ("NAME, start"): of
each hidden layer the standard deviation of its phases w0 (W h + b) over the grid, in radians, mean
over units. A SIREN starts with about 1 in each but the first (arXiv:2006.09661, section 3.2); a
deep layer of several radians gives what looks like noise.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

from fieldloom import System, atomic, load
from fieldloom.assembly import assemble
from fieldloom.engine import device as devices
from fieldloom.fields.mlp import Siren


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    systems = {run.parent.name: load(run, "cpu") for run in asked.runs}
    started = {f"{name}, start": assemble(own.recipe) for name, own in systems.items()}
    found = {
        "command": "python benchmarks/phases.py RUNS/decide-plateau/*-seed*/run "
        f"--out benchmarks/results/{asked.out.name}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": devices.environment(torch.device("cpu")),
        "rows": [
            {"row": name} | measure_layers(system) for name, system in (systems | started).items()
        ],
    }
    atomic.write_text(json.dumps(found, indent=2) + "\n", asked.out)


def measure_layers(system: System) -> dict[str, float]:
    return {f"layer {i + 1}": x for i, x in enumerate(measure_phases(system).tolist())}


@torch.no_grad()
def measure_phases(system: System) -> Tensor:
    """Radians, of each hidden layer of the mean code's field: (layers,)."""
    field, code = system.family.field, system.family.conditioner.origin(1)
    if not isinstance(field, Siren):
        raise TypeError("phases are measured of fields that are SIRENs.")
    weights, found = system.family.conditioner(code), []
    h = system.modality.grid().expand(1, -1, -1)
    for i, w0 in enumerate(field.frequencies[:-1]):
        phase = w0 * (h @ weights[f"{i}.weight"] + weights[f"{i}.bias"][:, None])
        found.append(phase.std(1).mean())
        h = phase.sin()
    return torch.stack(found)


if __name__ == "__main__":
    main()
