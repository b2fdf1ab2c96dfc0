"""Two processes against one: steps per second of training, and how long a start takes.

    python benchmarks/processes.py --out benchmarks/results/processes.json

One recipe trains on generated pictures by one process of one thread, by one of two threads, and by
two of one thread each, in turns. The pace is that of the second half of the steps, as the log has
it. The three train the same run: their recipe has micro-batches of half a batch.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from fieldloom.engine import device as devices

ROWS = {
    "mnif:faces64": ["train.field.batch=16", "train.field.micro=8"],
    "laginr:faces64": ["train.field.batch=16", "train.field.micro=8"],
    "gasp:celebahq64": [
        "train.field.batch=16", "train.field.micro=8", "field.width=64", "objective.points=1024",
        "conditioner.hidden=[128, 256]", "objective.critic.layers=[[256, 9, 32], [64, 9], "
        "[64, 9, 64], [16, 9], [16, 9, 128], [4, 9], [1, 4, 1]]",
    ],
    "gem:celebahq64": [
        "train.field.batch=32", "train.field.micro=16", "field.width=128", "conditioner.width=256",
        "conditioner.hidden=[256, 256]",
    ],
}  # fmt: skip
"""Recipe -> its settings. A prior is not trained. The last two compare the signals of a batch."""

WAYS = {"1 process, 1 thread": (1, 1), "1 process, 2 threads": (1, 2), "2 processes": (2, 1)}
"""Name -> processes, and threads of each."""


def write_pictures(folder: Path, count: int = 64) -> Path:
    """Smooth random pictures of 64 x 64 as one array."""
    noise = np.random.default_rng(0).standard_normal((count, 64, 64, 3))
    waves = np.fft.fft2(noise, axes=(1, 2))
    steps = np.fft.fftfreq(64)
    waves /= (1e-3 + steps[:, None] ** 2 + steps**2)[None, ..., None]
    smooth = np.fft.ifft2(waves, axes=(1, 2)).real
    low, high = (f(smooth, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
    path = folder / "pictures.npy"
    np.save(path, ((smooth - low) / (high - low) * 255).astype(np.uint8))
    return path


def train(recipe: str, settings: list[str], way: tuple[int, int], data: Path, steps: int) -> dict:
    """Seconds of a step, those beside the steps, and the processor's seconds of all of it."""
    processes, threads = way
    run = data.parent / "run"
    every = steps // 2
    words = [
        "train", recipe, "--run", str(run), "--stage", "field",
        *(["--processes", str(processes)] if processes > 1 else []),
        "--set", "source.name=array", "--set", f"source.path={data}",
        "--set", f"train.field.steps={steps}", "--set", f"train.field.log_every={every}",
        "--set", "train.field.divided=true",
        *(x for setting in settings for x in ("--set", setting)),
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": str(threads * processes)}
    began, used = time.monotonic(), used_by_children()
    subprocess.run(
        [sys.executable, "-m", "fieldloom", *words], env=environment, check=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    took, used = time.monotonic() - began, used_by_children() - used
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    until = [line["step"] * line["seconds_a_step"] for line in lines]
    for path in run.iterdir():
        path.unlink()
    run.rmdir()
    step = (until[1] - until[0]) / (steps - every)
    return {"step": step, "rest": took - until[1], "processor": used}


def measure_work(recipe: str, settings: list[str], data: Path, steps: int) -> dict[str, Any]:
    """Processors' seconds of a step, of all processes together: what sharing adds to the work.

    It is that of many steps less that of few, which a machine that does other work changes little.
    """
    each = {}
    for name, way in WAYS.items():
        if way != (1, 2):
            few, many = (train(recipe, settings, way, data, n)["processor"] for n in (8, steps))
            each[name] = (many - few) / (steps - 8)
    return {"recipe": recipe, "settings": settings, "processor_seconds_a_step": each}


def used_by_children() -> float:
    """Seconds that processors have worked for processes of this one that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--recipes", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--busy", action="store_true", help="measure the processors' time alone")
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with TemporaryDirectory() as folder:
        data = write_pictures(Path(folder))
        for recipe, settings in ((name, ROWS[name]) for name in asked.recipes):
            if asked.busy:
                rows.append(measure_work(recipe, settings, data, asked.steps))
                print(recipe, rows[-1]["processor_seconds_a_step"], flush=True)
                continue
            found: dict[str, list[dict]] = {name: [] for name in WAYS}
            for _ in range(asked.rounds):
                for name, way in WAYS.items():
                    found[name].append(train(recipe, settings, way, data, asked.steps))
            step = {name: median(x["step"] for x in those) for name, those in found.items()}
            rest = {name: median(x["rest"] for x in those) for name, those in found.items()}
            alone = step["1 process, 1 thread"]
            ratios = {name: alone / one for name, one in step.items()}
            rows.append({"recipe": recipe, "settings": settings, "seconds_a_step": step,
                         "times_one_thread": ratios, "seconds_beside_the_steps": rest})  # fmt: skip
            print(recipe, {name: round(x, 2) for name, x in ratios.items()}, flush=True)
    about = {
        "command": ["python", "benchmarks/processes.py", *sys.argv[1:]],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": 0,
        "environment": devices.environment(devices.pick("cpu")),
    }
    asked.out.write_text(json.dumps(about | {"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
