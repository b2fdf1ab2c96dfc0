"""Large sets of images: the first start, later ones, batches a second, and a million names.

    python benchmarks/reading.py --out benchmarks/results/reading.json

A folder of generated JPEGs is opened without an index and with one; batches at random are decoded
by one and by two threads, by two processes, and read from the cache of decoded images and from
memory, in turns. Starts are seconds of this process's processor for 10,000 files, which other
programs do not change; batches a second are the median of the rounds, and their ratios are what
counts. The memory is that of the names, classes and index of 1.3 million files that are not there.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image

from fieldloom.atomic import write_text
from fieldloom.engine import device as devices
from fieldloom.modalities import Grid
from fieldloom.modalities.sources import SOURCES, folders, images, index
from fieldloom.modalities.sources.decoding import decode_image
from fieldloom.modalities.sources.formats import open_image
from fieldloom.modalities.sources.images import load_images
from fieldloom.modalities.sources.paths import Each

GRID = Grid(size=128)
STORED = (192, 160)
BATCH = 64
NAMES = 1_300_000
"""As many as ImageNet's."""


def write_pictures(root: Path, count: int) -> None:
    """Smooth random JPEGs of ``STORED`` in folders of ten classes."""
    draw = np.random.default_rng(0)
    for i in range(count):
        folder = root / f"class{i % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(draw.integers(0, 256, (24, 20, 3), np.uint8))
        small.resize(STORED, Image.Resampling.BICUBIC).save(folder / f"{i:06d}.jpg")


def processor(work: Callable[[], object]) -> float:
    """Seconds of this process's processor, all threads, that some work takes."""
    began = time.process_time()
    work()
    return time.process_time() - began


def decode_file(file: Path) -> np.ndarray:
    """One image in a process of its own, decoded as the streamed set decodes it."""
    with open_image(file, str(file)) as image:
        return decode_image(image, GRID)


def measure_starts(root: Path, count: int) -> dict[str, float]:
    """Seconds of the processor for 10,000 files."""
    opened = lambda **options: SOURCES["folder"](GRID, str(root), **options)
    each = 10_000 / count
    found = {"first index": each * processor(opened)}
    found["second start"] = each * processor(opened)
    found["fingerprint from the index"] = each * processor(opened().facts)
    pixels = lambda: opened().facts({"fingerprint": "of decoded images"})
    found["fingerprint of decoded images"] = each * processor(pixels)
    found["decoding once"] = each * processor(lambda: opened(cache="decoded"))
    return found


def measure_batches(root: Path, rounds: int, many: int) -> dict[str, float]:
    """Batches a second of each way of reading, the median of the rounds."""
    streamed = SOURCES["folder"](GRID, str(root)).data.values
    cached = SOURCES["folder"](GRID, str(root), cache="decoded").data.values
    files = folders.find_files(root, str(root), {".jpg"}, "images").files
    memory = cached.read(slice(None))

    with ProcessPoolExecutor(2, get_context("forkserver")) as pool:

        def processes(which: torch.Tensor) -> object:
            own = [files[i] for i in which.tolist()]
            return np.stack(list(pool.map(decode_file, own, chunksize=BATCH // 4)))

        ways = {
            "1 thread": replace(streamed, threads=1).read,
            "2 threads": replace(streamed, threads=2).read,
            "2 processes": processes,
            "cache, 1 thread": replace(cached, threads=1).read,
            "memory": lambda which: memory[which],
        }
        processes(torch.arange(BATCH))  # they start
        found: dict[str, list[float]] = {way: [] for way in ways}
        draw = torch.Generator().manual_seed(0)
        for _ in range(rounds):
            chosen = [torch.randint(len(files), (BATCH,), generator=draw) for _ in range(many)]
            for way, read in ways.items():
                began = time.monotonic()
                for which in chosen:
                    read(which)
                found[way].append(many / (time.monotonic() - began))
    return {way: median(rates) for way, rates in found.items()}


def measure_names(count: int) -> dict[str, float]:
    """MB that the names, the classes and the index of so many files take, and the peak."""
    cpu, root = torch.device("cpu"), Path("set").absolute()
    before, walk = devices.held_memory(cpu), folders.walk
    devices.forget_peak(cpu)
    folders.walk = lambda root: (
        (root / f"n{i % 1000:08d}" / f"n{i % 1000:08d}_{i:07d}.jpg", "") for i in range(count)
    )
    try:
        with TemporaryDirectory() as folder:
            found = folders.find_files(Path(folder), folder, {".jpg"}, "images").classify(None)
    finally:
        folders.walk = walk
    held = {"names and classes": devices.held_memory(cpu) - before}
    look_at = index.Making.look_at

    def look_at_nothing(making: index.Making, left: np.ndarray, look: object) -> None:
        making.rows["readable"], making.rows["kind"] = True, index.KINDS.index("colours")
        making.held[:] = making.changed = True

    index.Making.look_at = look_at_nothing
    try:
        for _ in range(2):  # the second time they are known
            values, _, _ = load_images(
                found.names, lambda i: b"", GRID, "bicubic", False,
                stamps=Each(found.files, str), place=str(root),
            )  # fmt: skip
    finally:
        index.Making.look_at = look_at
    assert len(values.numbers) == count
    held["with a streamed set"] = devices.held_memory(cpu) - before
    held["peak"] = devices.peak_memory(cpu) - before
    return {name: size / 1e6 for name, size in held.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", help="the file that keeps the figures")
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--names", type=int, default=NAMES)
    given = parser.parse_args()
    images.DECODED = 0  # every set is a large one
    with TemporaryDirectory() as folder:
        os.environ["FIELDLOOM_CACHE"] = f"{folder}/cache"
        names = measure_names(given.names)
        root = Path(folder) / "set"
        write_pictures(root, given.files)
        starts = measure_starts(root, given.files)
        batches = measure_batches(root, given.rounds, many=8)
    result = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": devices.environment(torch.device("cpu")),
        "files": given.files,
        "stored": list(STORED),
        "decoded": list(GRID.size),
        "processor seconds for 10,000 files": starts,
        f"batches of {BATCH} a second": batches,
        f"MB of {given.names:,} names": names,
    }
    text = json.dumps(result, indent=1)
    print(text)
    if given.out:
        write_text(text + "\n", given.out)


if __name__ == "__main__":
    main()
