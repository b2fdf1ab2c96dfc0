"""The memory of a table of a million codes, by how many processes share it: auto-decoding.

    python benchmarks/rows.py --out benchmarks/results/rows.json

Each process builds the table as training does, and takes some steps of Adam with averaged weights.
Held are the table, its gradient, both moments and the averages. Then the first process gathers a
checkpoint. Resident memory is that of this program above what it had before the table.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch

from fieldloom.conditioners.hyper import Hyper
from fieldloom.encoders import AutoDecode
from fieldloom.engine import device as devices
from fieldloom.engine.loop import Training
from fieldloom.engine.ranks import ALONE, Place, Word, find_place, free_port, joined
from fieldloom.engine.stage import Stage
from fieldloom.family import Family
from fieldloom.fields.mlp import Siren
from fieldloom.metrics.losses import mse
from fieldloom.objectives import Reconstruction
from fieldloom.renderers import Direct
from fieldloom.types import Batch, Signal

WIDTH, BATCH, STEPS = 64, 32, 3


def resident() -> int:
    """Bytes of this process that are in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def train(rows: int) -> dict:
    """Steps on a table of so many rows, by all processes; what this one holds."""
    place, cpu = find_place(), torch.device("cpu")
    torch.manual_seed(0)
    with contextlib.nullcontext(ALONE) if place is None else joined(place, cpu) as team:
        before = resident()
        field = Siren(2, 1, width=8, depth=2)
        family = Family(field, Hyper(field.slots, width=WIDTH, hidden=(8,)))
        encoder = AutoDecode((1, WIDTH), rows)
        stage = Stage(steps=STEPS, batch=BATCH, micro=BATCH // team.count, divided=True, ema=0.9)
        training = Training(Reconstruction(family, encoder, Direct(), mse), stage)
        training.divide_rows()
        coords = torch.rand(1, 16, 2).expand(BATCH, -1, -1)
        for step in range(STEPS):
            index = torch.randint(rows, (BATCH,), generator=torch.Generator().manual_seed(step))
            signal = Signal(coords, torch.rand(BATCH, 16, 1), index)
            if team.rank:
                team.hear()
            training.objective.train()
            training.advance(Batch(signal, signal), stage.micro or BATCH, 0, cpu)
        tensors = training._own_state()[0]
        gradient = encoder.table.grad
        held = sum(x.nbytes for x in tensors.values()) + (
            0 if gradient is None else gradient.nbytes
        )
        found = {"held_mb": held / 2**20, "resident_mb": (resident() - before) / 2**20}
        if team.rank:
            assert team.hear()[0] is Word.WHOLE
        del tensors
        whole = training.state()[0]
        found["resident_with_checkpoint_mb"] = (resident() - before) / 2**20
        if not team.rank:
            assert len(whole["model/encoder.table"]) == rows
        return found


def run(count: int, rows: int) -> list[dict]:
    """What each of so many processes holds."""
    place = Place(0, count, 0, "127.0.0.1", free_port())
    environments = [place._replace(rank=i, local=i).environment() for i in range(count)]
    jobs = [
        subprocess.Popen(
            [sys.executable, __file__, "--rows", str(rows), "--part"],
            env=os.environ | {"OMP_NUM_THREADS": "1"} | (own if count > 1 else {}),
            stdout=subprocess.PIPE, text=True,
        )
        for own in environments
    ]  # fmt: skip
    return [json.loads(job.communicate()[0]) for job in jobs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--part", action="store_true", help="be one of the processes")
    asked = parser.parse_args()
    if asked.part:
        print(json.dumps(train(asked.rows)))
        return
    rows = []
    for count in (1, 2, 4):
        found = run(count, asked.rows)
        rows.append({"processes": count, "each": found})
        print(count, [{name: round(x) for name, x in one.items()} for one in found], flush=True)
    about = {
        "command": ["python", "benchmarks/rows.py", *sys.argv[1:]],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": 0,
        "numbers_of_a_code": WIDTH,
        "rows_of_the_table": asked.rows,
        "environment": devices.environment(devices.pick("cpu")),
    }
    if asked.out is not None:
        asked.out.write_text(json.dumps(about | {"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
