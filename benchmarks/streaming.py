"""Large sets of images: start, memory and pace of the rows that no memory holds.

    python benchmarks/streaming.py FOLDER --out benchmarks/results/streaming.json

Makes 100,000 JPEG files of 512 x 512 pixels in the folder, which are kept for another run, and
trains each row on them for a few steps: the first one twice, with an empty cache, and then, as the
others, with what it holds. A few files are then encoded and evaluated. Each command is a process of
its own.

What is limited is the memory that a process holds for itself: RLIMIT_DATA refuses private writable
memory beyond it as it is asked for, and the sum over a command's processes (RssAnon and RssShmem)
is looked at ten times a second. RLIMIT_AS would count the reserved addresses of threads and whole
mapped files, and peak resident memory counts pages of files, which the system takes back.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fieldloom.engine import device as devices

SIZE, CLASS, DRAWN = 512, 1000, 2000
"""Pixels of a side of the files; files of a class, each of which is a folder; pictures that are
drawn."""

ROWS = {"laginr:ffhq512": [60000, 10000], "laginr:ffhq1024": [60000, 10000],
        "laginr:imagenet256": [90000, 10000],
        "ipc:ffhq512": [60000, 10000], "ipc:ffhq1024": [60000, 10000]}  # fmt: skip
"""Recipes, and how many of 100,000 files they train on and test."""


def draw_jpeg(seed: int, number: int) -> bytes:
    """A few random colours, interpolated: a small file."""
    draw = np.random.default_rng([seed, number])
    few = draw.integers(0, 256, (*draw.integers(3, 9, 2), 3), np.uint8)
    image = Image.fromarray(few).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=60)
    return content.getvalue()


def change_contrast(jpeg: bytes, factor: float) -> bytes:
    """The picture with other contrast: the quantisation tables of its header, times a factor."""
    content, place = bytearray(jpeg), 0
    while (place := content.find(b"\xff\xdb\x00\x43", place)) >= 0:  # a table of 64 bytes
        table = np.frombuffer(content, np.uint8, 64, place + 5)
        content[place + 5 : place + 69] = np.clip(factor * table, 1, 255).astype(np.uint8).tobytes()
        place += 69
    return bytes(content)


def make_images(folder: Path, count: int, seed: int) -> None:
    """``count`` files in folders of ``CLASS``; those that are there are kept.

    ``DRAWN`` pictures are drawn, the others are these with other contrast, so that no two files
    are alike and all are made in a minute of one core.
    """
    drawn: list[bytes] = []
    for number in range(count):
        path = folder / f"{number // CLASS:04d}" / f"{number:07d}.jpg"
        if number % CLASS == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
        if len(drawn) < min(DRAWN, count):
            drawn.append(draw_jpeg(seed, number))
        if not path.exists():
            factor = 1 - 0.7 * (number // DRAWN) * DRAWN / count
            path.write_bytes(change_contrast(drawn[number % DRAWN], factor))


def processes_below(process: int) -> Iterator[int]:
    """A process and all that it has started."""
    yield process
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        for child in task.read_text().split():
            yield from processes_below(int(child))


def private_memory(process: int) -> int:
    """Bytes that a process and those below it hold, without pages of files."""
    total = 0
    for one in processes_below(process):
        try:
            lines = Path(f"/proc/{one}/status").read_text().splitlines()
        except OSError:  # it has ended
            continue
        named = (line.split() for line in lines if line.startswith(("RssAnon", "RssShmem")))
        total += sum(int(words[1]) << 10 for words in named)
    return total


def watch(words: Sequence[str], cache: Path, limit: int, log: Path | None) -> dict[str, Any]:
    """Run a command of fieldloom: its peak, its seconds and, by a run's log, those of a step.

    Raises RuntimeError where it fails, or holds more than the limit.
    """
    command = [sys.executable, "-m", "fieldloom", *words]
    around = os.environ | {"FIELDLOOM_CACHE": str(cache)}
    refuse = partial(resource.setrlimit, resource.RLIMIT_DATA, (limit, limit))
    reached = 0.0  # the end of the first step
    with tempfile.TemporaryFile("w+") as said:
        began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        child = subprocess.Popen(command, env=around, stdout=said, stderr=said, preexec_fn=refuse)
        peak = 0
        while child.poll() is None:
            try:
                peak = max(peak, private_memory(child.pid))
            except OSError:  # it ends just now
                continue
            if peak > limit:
                child.kill()
            if log is not None and not reached and log.exists() and log.read_text():
                reached = time.monotonic() - began
            time.sleep(0.1)
        seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        said.seek(0)
        text = said.read()
    if child.returncode:
        raise RuntimeError(f"{' '.join(words)}: peak {peak / 1e9:.2f} GB, ended with "
                           f"{child.returncode}: {text[-800:]}")  # fmt: skip
    found: dict[str, Any] = {
        "command": f"fieldloom {' '.join(words)}",
        "peak_gb": round(peak / 1e9, 2),
        "seconds": round(seconds, 1),
        "processor_seconds": round(
            after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1
        ),
    }
    if log is not None:
        each = json.loads(log.read_text().splitlines()[-1])["seconds_a_step"]
        found["seconds_a_batch"] = round(each, 1)
        found["seconds_to_start"] = round(reached - each, 1)
    print(json.dumps(found), flush=True)
    return found


def measure_row(
    row: str, split: Sequence[int], arguments: argparse.Namespace, where: Path
) -> dict[str, Any]:
    """One row: trained from the start, encoded and evaluated, all within the limit."""
    cache, limit = where / "cache", int(arguments.limit * 1e9)
    short = row.replace(":", "-")
    settings = [f"train.field.steps={arguments.steps}", "train.field.log_every=1",
                f"source.split={list(split)}", *arguments.set]  # fmt: skip
    changes = [word for one in settings for word in ("--set", one)]
    found = {}
    for turn in ("start",) if cache.exists() else ("first start", "start"):
        run = where / f"{short}-{turn.split()[0]}"
        words = ["train", row, "--source", str(arguments.folder), "--run", str(run)]
        words += ["--stage", "field", "--device", "cpu", *changes]
        found[turn] = watch(words, cache, limit, run / "log.jsonl")
        found[turn]["command"] = found[turn]["command"].replace(str(where), "RUNS")
    found |= measure_verbs(str(where / f"{short}-start"), arguments, cache, limit)
    for one in found.values():
        for path, name in ((where, "RUNS"), (arguments.folder, "FOLDER")):
            one["command"] = one["command"].replace(str(path), name)
    return found


def measure_verbs(
    run: str, arguments: argparse.Namespace, cache: Path, limit: int
) -> dict[str, Any]:
    """``encode`` and ``evaluate`` of so many of the files."""
    found, files = {}, sorted((arguments.folder / "0000").glob("*.jpg"))
    for verb, count in {"encode": arguments.encoded, "evaluate": arguments.evaluated}.items():
        few = Path(f"{run}-{verb}d")
        few.mkdir()
        for file in files[:count]:
            shutil.copy(file, few)
        words = [verb, run, "--source", str(few), "--out", f"{run}-{verb}", "--device", "cpu"]
        found[verb] = watch(words, cache, limit, None) | {"files": count}
    return found


def rows_in(path: Path | None) -> dict[str, Any]:
    """What was measured before of other rows."""
    found: dict[str, Any] = json.loads(path.read_text()) if path and path.exists() else {}
    return dict(found.get("rows", {}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of the files, which are made and kept")
    parser.add_argument("--count", type=int, default=100_000, help="files")
    parser.add_argument("--limit", type=float, default=24, help="GB of a command")
    parser.add_argument("--steps", type=int, default=1, help="of training")
    parser.add_argument("--set", action="append", default=[], help="a setting of the rows")
    parser.add_argument("--rows", nargs="*", default=[*ROWS], choices=[*ROWS])
    parser.add_argument("--encoded", type=int, default=4, help="files that each row encodes")
    parser.add_argument("--evaluated", type=int, default=1, help="files that each row evaluates")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    make_images(arguments.folder, arguments.count, arguments.seed)
    files = [x.stat().st_size for x in arguments.folder.rglob("*.jpg")]
    found: dict[str, Any] = {
        "command": "python benchmarks/streaming.py FOLDER " + " ".join(sys.argv[2:]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": devices.environment(torch.device("cpu")),
        "seed": arguments.seed,
        "files": {"count": len(files), "bytes": sum(files), "pixels": [SIZE, SIZE]},
        "limit_gb": arguments.limit,
        "rows": rows_in(arguments.out),
    }
    with tempfile.TemporaryDirectory() as where:
        for row in arguments.rows:
            split = [n * arguments.count // 100_000 for n in ROWS[row]]
            found["rows"][row] = measure_row(row, split, arguments, Path(where))
            if arguments.out is not None:
                arguments.out.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
