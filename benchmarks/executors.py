"""Executors of bulk jobs: what a shard costs beside its work, one worker and two, and kills.

    python benchmarks/executors.py --out benchmarks/results/executors.json

Needs Ray and submitit, and a machine of two cores that does nothing else (5 minutes): "busy" are
the seconds of all of its cores together. A field with fits of the test digits is encoded by each
executor, by one worker and by two, in turn. SLURM is submitit with tasks of this machine. Ray runs
before, with two cores, as a cluster would; its own start is measured apart. What a shard costs
beside its work is the time between the rows of shards that do nothing.

Then workers are killed by SIGKILL at random moments, the command is given again until the job is
done, and its shards are compared with those of an undisturbed job, byte for byte.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # of this process, as of each worker

import argparse
import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

import torch

import fieldloom
from fieldloom import recipe
from fieldloom.codes import jobs
from fieldloom.engine import device as devices
from fieldloom.engine.schemas import Shard
from fieldloom.errors import FieldloomError
from fieldloom.executors import claims, find_executor, ray, slurm
from fieldloom.executors.children import python_path
from fieldloom.executors.work import Work, numbers_in
from fieldloom.training import train

FITS = [
    "modality={ name = 'image', size = 8, channels = 1, range = 'unit' }",
    "field={ name = 'fourier-mlp', width = 8, depth = 3 }",
    "field.encoding={ features = 'octaves', count = 2 }",
    "conditioner=flat-weights",
    "loss=bce",
    "train.field.steps=1",
]

CELLS = [
    ("local", None),
    ("processes", 1),
    ("processes", 2),
    ("ray", 1),
    ("ray", 2),
    ("slurm", 1),
    ("slurm", 2),
]

MINUTE = 60.0
"""Seconds of a shard for which the overhead is worked out; a worker does ``TEN`` of them."""

TEN = 10

CLUSTER = """
import sys, ray
own, store = sys.argv[1:]
found = ray.init(num_cpus=2, object_store_memory=int(store), include_dashboard=False,
                 log_to_driver=False, logging_level="error", _temp_dir=own)
print(found.address_info["address"], flush=True)
sys.stdin.read()
"""


def make_run(folder: Path, steps: int) -> Path:
    """A run whose codes are fits of so many steps each."""
    fit = f"encoder={{ name = 'fit', steps = {steps}, points = 16, draw = 'anew', keep = 'last' }}"
    own = recipe.load("learned-init:tiny", [*FITS, fit])
    own["train"]["field"].pop("points")
    train({k: v for k, v in own.items() if k != "objective"}, str(folder), "field", "cpu")
    return folder


@contextmanager
def cluster() -> Iterator[float]:
    """A Ray of two cores on the loopback, by RAY_ADDRESS. Yields the seconds of its start."""
    began = time.monotonic()
    os.environ.update(ray.ALONE | {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": python_path()})
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as own:
        process = subprocess.Popen(
            [sys.executable, "-c", CLUSTER, own, str(ray.STORE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            os.environ["RAY_ADDRESS"] = process.stdout.readline().strip()
            yield time.monotonic() - began
        finally:
            process.stdin.close()
            process.wait()


def busy_seconds() -> float:
    """Seconds that the cores of this machine have worked, since it was started (proc(5))."""
    user, nice, system, _, _, *interrupts = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    )
    return (user + nice + system + sum(interrupts[:2])) / os.sysconf("SC_CLK_TCK")


def timed(folder: Path, call: Callable[[], Any]) -> dict[str, float]:
    """Seconds of a job: until its first shard is claimed, and in all; of the clock and of cores."""
    clock, busy, first, ended = time.monotonic(), busy_seconds(), [], Event()

    def watch() -> None:
        while not first and not ended.wait(0.01):
            if folder.is_dir() and any("claim" in name for name in os.listdir(folder)):
                first.append(time.monotonic() - clock)

    thread = Thread(target=watch)
    thread.start()
    try:
        call()
    finally:
        ended.set()
        thread.join()
    return {
        "start": round(first[0], 2) if first else float("nan"),
        "seconds": round(time.monotonic() - clock, 2),
        "busy_seconds": round(busy_seconds() - busy, 2),
    }


def overhead(where: Path, name: str, count: int) -> float:
    """Seconds a shard of its claim, row, and handing out, whose work is nothing, by one worker."""
    folder = where / f"nothing-{name}"
    folder.mkdir()
    start = partial(partial, jobs.write_row, folder, row=Shard(count=0, failed={}))
    find_executor(name)(Work(folder, count, start), None if name == "local" else 1)
    rows = [jobs.row_of(folder, number).stat().st_mtime for number in numbers_in(folder, ".json")]
    return (max(rows) - min(rows)) / (count - 1)


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


def encode(run: Path, folder: Path, shard: int, executor: str, workers: int | None) -> None:
    fieldloom.encode(str(run), folder, shard=shard, executor=executor, workers=workers)


def speeds(run: Path, where: Path, shard: int, rounds: int) -> dict[str, Any]:
    """Each executor in turn, so often; medians."""
    found: dict[str, list[dict[str, float]]] = {}
    for number in range(rounds):
        for executor, workers in CELLS:
            name = f"{executor} {workers}" if workers else executor
            folder = where / f"{name.replace(' ', '-')}-{number}"
            one = timed(folder, partial(encode, run, folder, shard, executor, workers))
            rows = [json.loads(path.read_text()) for path in folder.glob("[0-9]*.json")]
            one["seconds_in_shards"] = round(sum(row["seconds"] for row in rows), 2)
            one["fits_per_second"] = round(sum(row["count"] for row in rows) / one["seconds"], 2)
            assert shards(folder) == shards(where / "local-0"), name
            found.setdefault(name, []).append(one)
            print(name, one, flush=True)
    return {
        name: {key: round(statistics.median(one[key] for one in ones), 2) for key in ones[0]}
        | {"rounds": len(ones)}
        for name, ones in found.items()
    }


def kill_workers(
    run: Path, where: Path, shard: int, executor: str, count: int, seed: int
) -> dict[str, Any]:
    """Kill workers at random moments until there were so many kills, and compare."""
    draw, killed, commands, number = random.Random(seed), 0, 0, 0
    straight = shards(where / "local-0")
    while killed < count:
        folder, number, done = where / f"killed-{executor}-{number}", number + 1, False
        while not done:
            commands += 1
            ended: list[str] = []

            def call(ended: list[str] = ended, folder: Path = folder) -> None:
                try:
                    encode(run, folder, shard, executor, 2)
                except FieldloomError as error:
                    ended.append(str(error))

            thread = Thread(target=call)
            thread.start()
            while thread.is_alive():
                time.sleep(draw.uniform(0.0, 1.0))
                held = claims.read_holders(folder) if folder.is_dir() else {}
                victims = [claim.process for claim, lives in held.values() if lives]
                if victims and killed < count:
                    try:
                        os.kill(draw.choice(victims), signal.SIGKILL)
                    except ProcessLookupError:  # its shard was the last
                        continue
                    killed += 1
            thread.join()
            assert all("the same command goes on" in why for why in ended), ended
            done = not ended
        equal = shards(folder) == straight
        words = ("claim", "partial", "slurm", "error")
        left = [path.name for path in folder.iterdir() if any(word in path.name for word in words)]
        print(f"{executor}: {killed} kills, {commands} commands: equal {equal}, left over {left}")
        assert equal
        assert not left
    return {"kills": killed, "commands": commands, "jobs": number, "equal": True, "seed": seed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=500, help="of each fit")
    parser.add_argument("--shard", type=int, default=16, help="signals of a shard")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--empty", type=int, default=300, help="shards that do nothing")
    parser.add_argument("--kills", type=int, default=20, help="of each executor")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the results here as JSON")
    args = parser.parse_args()
    slurm.CLUSTER = "local"
    report: dict[str, Any] = {
        "command": "python " + " ".join(sys.argv),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": devices.environment(torch.device("cpu")),
        "steps": args.steps,
        "shard": args.shard,
    }
    with tempfile.TemporaryDirectory(prefix="executors-") as folder, cluster() as start:
        where = Path(folder)
        report["start_of_ray"] = round(start, 2)
        run = make_run(where / "run", args.steps)
        report["speed"] = speeds(run, where, args.shard, args.rounds)
        local = report["speed"]["local"]["seconds"]
        empty = {name: overhead(where, name, args.empty) for name in ("local", "processes", "ray")}
        report["seconds_of_an_empty_shard"] = {k: round(x, 5) for k, x in empty.items()}
        report["measured_share"] = {
            name: round(1 - local / (one["seconds"] * int(name[-1])), 4)
            for name, one in report["speed"].items()
            if name != "local"
        }
        report["arithmetic"] = {
            "of_a_shard_of_a_minute": {k: round(x / MINUTE, 6) for k, x in empty.items()},
            f"with_the_start_of_a_worker_of_{TEN}_such_shards": {
                k: round((x + report["speed"][f"{k} 1"]["start"] / TEN) / MINUTE, 5)
                for k, x in empty.items()
                if k != "local"
            },
        }
        print(json.dumps({k: v for k, v in report.items() if k not in ("environment", "speed")}))
        report["kills"] = {
            executor: kill_workers(run, where, args.shard, executor, args.kills, args.seed)
            for executor in ("processes", "ray", "slurm")
            if args.kills
        }
    if args.out:
        args.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
