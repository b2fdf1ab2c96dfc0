"""Executors of bulk jobs: what a shard costs beside its work, workers on one machine, and kills.

    python benchmarks/executors.py --out benchmarks/results/executors.json

A field with fits of the test digits is encoded by one process and by one and two workers; seconds
are of the clock and of all processors together, with the start of each worker apart. Then workers
are killed by SIGKILL at random moments, the command is given again until the job is done, and its
shards are compared with those of an undisturbed job, byte for byte.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import torch

from fieldloom import recipe
from fieldloom.codes import bulk
from fieldloom.engine import device as devices
from fieldloom.engine.schemas import Shard
from fieldloom.errors import FieldloomError
from fieldloom.executors import claims, find_executor
from fieldloom.executors.work import Work
from fieldloom.training import train

FITS = [
    "modality={ name = 'image', size = 8, channels = 1, range = 'unit' }",
    "field={ name = 'fourier-mlp', width = 8, depth = 3, features = 'octaves', count = 2 }",
    "conditioner=flat-weights",
    "loss=bce",
    "train.field.steps=1",
]


def make_run(folder: Path, steps: int) -> Path:
    """A run whose codes are fits of so many steps each."""
    fit = f"encoder={{ name = 'fit', steps = {steps}, points = 16, draw = 'anew', keep = 'last' }}"
    own = recipe.load("learned-init:tiny", [*FITS, fit])
    own["train"]["field"].pop("points")
    train({k: v for k, v in own.items() if k != "objective"}, str(folder), "field", "cpu")
    return folder


def processor_seconds() -> float:
    """Of this process and of those that have ended."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(x.ru_utime + x.ru_stime for x in map(resource.getrusage, who))


def timed(call: Callable[[], Any]) -> dict[str, float]:
    clock, processor = time.monotonic(), processor_seconds()
    call()
    return {
        "seconds": round(time.monotonic() - clock, 2),
        "processor_seconds": round(processor_seconds() - processor, 2),
    }


def do_nothing(folder: Path, number: int) -> None:
    bulk.jobs.write_row(folder, number, Shard(count=0, failed={}))


def start_nothing(folder: Path) -> Callable[[int], None]:
    return partial(do_nothing, folder)


def overhead(where: Path, count: int) -> dict[str, float]:
    """Seconds a shard of a claim, a row and their listing, whose work is nothing."""
    folder = where / "nothing"
    folder.mkdir()
    work = Work(folder, count, partial(start_nothing, folder))
    found = timed(lambda: find_executor("local")(work, None))
    return {key: value / count for key, value in found.items()} | {"shards": count}


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


def encode(opened: Any, origin: bulk.Origin, folder: Path, size: int, workers: int) -> Any:
    executor = "processes" if workers else "local"
    how = {"executor": executor, "workers": workers or None, "origin": origin, "shared": True}
    return bulk.encode(*opened, folder, size, **how)


def speeds(opened: Any, origin: bulk.Origin, where: Path, size: int) -> dict[str, Any]:
    found: dict[str, Any] = {"signals": len(opened[2]), "shard": size}
    for workers in (0, 1, 2):
        folder = where / f"by-{workers}"
        name = f"processes {workers}" if workers else "local"
        found[name] = timed(lambda: encode(opened, origin, folder, size, workers))  # noqa: B023
        rows = [json.loads(x.read_text()) for x in folder.glob("[0-9]*.json")]
        found[name]["seconds_in_shards"] = round(sum(row["seconds"] for row in rows), 2)
        assert shards(folder) == shards(where / "by-0")
        print(name, found[name], flush=True)
    return found


def kills(
    opened: Any, origin: bulk.Origin, where: Path, size: int, count: int, seed: int
) -> dict[str, Any]:
    """Kill workers at random moments until there were so many kills, and compare."""
    draw, killed, commands, jobs, straight = random.Random(seed), 0, 0, 0, shards(where / "by-0")
    while killed < count:
        folder, jobs, done = where / f"killed-{jobs}", jobs + 1, False
        while not done:
            commands += 1
            ended: list[str] = []

            def call(ended: list[str] = ended, folder: Path = folder) -> None:
                try:
                    encode(opened, origin, folder, size, 2)
                except FieldloomError as error:
                    ended.append(str(error))

            thread = Thread(target=call)
            thread.start()
            while thread.is_alive():
                time.sleep(draw.uniform(0.0, 1.0))
                held = claims.read_holders(folder) if folder.is_dir() else {}
                victims = [claim.process for claim, lives in held.values() if lives]
                if victims and killed < count:
                    os.kill(draw.choice(victims), signal.SIGKILL)
                    killed += 1
            thread.join()
            assert not ended or "SIGKILL" in ended[0], ended
            done = not ended
        equal = shards(folder) == straight
        left = [x.name for x in folder.iterdir() if "claim" in x.name or "partial" in x.name]
        print(f"{killed} kills, {commands} commands: equal {equal}, left over {left}", flush=True)
        assert equal
        assert not left
    return {"kills": killed, "commands": commands, "jobs": jobs, "equal": True, "seed": seed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000, help="of each fit")
    parser.add_argument("--shard", type=int, default=16, help="signals of a shard")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the results here as JSON")
    args = parser.parse_args()
    report = {
        "command": "python " + " ".join(sys.argv),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": devices.environment(torch.device("cpu")),
        "steps": args.steps,
    }
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        report["overhead"] = overhead(where, 500)
        print("overhead", report["overhead"], flush=True)
        origin = bulk.Origin(str(make_run(where / "run", args.steps)), device="cpu")
        opened = origin.open()
        report["speed"] = speeds(opened, origin, where, args.shard)
        report["kills"] = kills(opened, origin, where, args.shard, args.kills, args.seed)
    if args.out:
        args.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
