"""How long verbs take to start, as ratios to ``import torch`` in the same run.

    python benchmarks/start.py --out benchmarks/results/start.json

Each is a process of its own, in turns, and the median counts. Verbs that answer without torch
(``--help``, ``list``, ``info``) are timed whole. Others are called twice in one process, on a tiny
run; what the second call takes is their own work, and all that came before the end of the first
call, less that, is their start: the interpreter, imports, and what torch does only once.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

RUN = "RUN"
QUICK = {
    "--version": ["--version"],
    "--help": ["--help"],
    "list": ["list"],
    "info": ["info", RUN],
}
"""At most ``MOST`` seconds each."""
WORKING = {
    "encode": ["encode", RUN, "--out", "NEW.safetensors"],
    "reconstruct": ["reconstruct", RUN, "--out", "NEW"],
    "sample": ["sample", RUN, "--out", "NEW"],
    "interpolate": ["interpolate", RUN, "--out", "NEW"],
    "cost": ["cost", "mnif:tiny"],
    "evaluate": ["evaluate", RUN, "--out", "NEW"],
    "train": ["train", "mnif:tiny", "--run", "NEW"],
}
"""At most ``RATIO`` times ``import torch``."""
MOST, RATIO = 0.5, 1.3

TWICE = """
import json, sys, time
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from fieldloom.cli import app

def call(words):
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        app(words, standalone_mode=False)

call(json.loads(sys.argv[1]))
ended = time.time()
call(json.loads(sys.argv[2]))
print(ended - float(sys.argv[3]) - (time.time() - ended))
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--verbs", nargs="*", default=list(WORKING))
    asked = parser.parse_args()
    with TemporaryDirectory() as folder:
        found = measure(Path(folder), asked.repeats, asked.verbs)
    text = json.dumps(found, indent=1)
    print(text)
    if asked.out:
        asked.out.write_text(text + "\n")


def measure(folder: Path, repeats: int, verbs: list[str]) -> dict[str, object]:
    """Medians in seconds and ratios to ``import torch``, of everything in turns."""
    run = folder / "run"
    program("-m", "fieldloom", "train", "mnif:tiny", "--run", str(run))
    seconds: dict[str, list[float]] = {}
    for turn in range(repeats):
        taken = {"import torch": timed("-c", "import torch")}
        taken["import fieldloom"] = timed("-c", "import fieldloom")
        for name, words in QUICK.items():
            taken[name] = timed("-m", "fieldloom", *fill(words, run, folder / "none"))
        for name in verbs:
            ways = (fill(WORKING[name], run, folder / f"{name}{turn}{i}") for i in "ab")
            calls = [json.dumps(words) for words in ways]
            taken[name] = float(program("-c", TWICE, *calls, str(time.time())))
        for name, value in taken.items():
            seconds.setdefault(name, []).append(value)
    middle = {name: median(values) for name, values in seconds.items()}
    torch_alone = middle["import torch"]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
        "repeats": repeats,
        "seconds": {name: round(value, 3) for name, value in middle.items()},
        "over import torch": {n: round(x / torch_alone, 2) for n, x in middle.items()},
        "aims": {"quick, seconds": MOST, "working, over import torch": RATIO},
        "missed": [n for n in QUICK if middle[n] > MOST]
        + [n for n in verbs if middle[n] > RATIO * torch_alone],
    }


def fill(words: list[str], run: Path, new: Path) -> list[str]:
    """A verb's words with the run, and what it writes, in their places."""
    return [str(run) if word == RUN else word.replace("NEW", str(new)) for word in words]


def timed(*words: str) -> float:
    began = time.perf_counter()
    program(*words)
    return time.perf_counter() - began


def program(*words: str) -> str:
    """What Python prints. Raises RuntimeError with its errors where it fails."""
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


if __name__ == "__main__":
    main()
