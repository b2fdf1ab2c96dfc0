"""Codes read from their shards: memory, batches a second, and what opening a folder takes.

    python benchmarks/codes.py --out benchmarks/results/codes.json

A million codes of 64 numbers (256 MB) are written once, in shards, and read by processes of their
own: batches of random codes from the files, from all codes in memory, and from files of which few
may stay mapped; through torch's DataLoader; and the pass that whitening takes. Seconds are of the
processor, memory is the process's peak beyond what importing takes. Then folders of many shards are
opened, by their rows and by their index.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from fieldloom.codecs.codec import moments
from fieldloom.codes import index, jobs
from fieldloom.codes.dataset import CodeDataset
from fieldloom.codes.files import open_codes
from fieldloom.codes.stored import StoredCodes
from fieldloom.engine.schemas import Job, Shard
from fieldloom.engine.tensors import write_tensors
from fieldloom.process import tune_process

FEW = 1 << 26
"""Bytes of files that stay mapped, where few may."""


def write_shards(folder: Path, count: int, width: int, shard: int) -> None:
    """A finished job of random codes."""
    job = Job(signals=count, shard=shard, worst=None, data="", places="", system="")
    folder.mkdir(parents=True)
    jobs.begin(folder, job, {})
    for number in range(jobs.count_shards(job)):
        places = torch.arange(number * shard, min(count, (number + 1) * shard))
        codes = torch.randn(len(places), 1, width)
        path = jobs.shard_path(folder, number)
        write_tensors(path, {"codes": codes, "places": places, "errors": codes[:, 0, 0]}, {})
        row = Shard(count=len(places), failed={}, hash=jobs.hash_file(path))
        jobs.write_row(folder, number, row)


def write_rows(folder: Path, shards: int) -> None:
    """A job of so many shards of ten codes, of which all rows and the first file are there."""
    write_shards(folder, 10, 4, 10)
    content = jobs.row_of(folder, 0).read_text()
    for number in range(1, shards):
        jobs.row_of(folder, number).write_text(content)
    manifest = json.loads((folder / jobs.MANIFEST).read_text())
    manifest["job"]["signals"] = 10 * shards
    (folder / jobs.MANIFEST).write_text(json.dumps(manifest))


def peak() -> int:
    """The most bytes that this process had in memory since ``forget_peak``."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def apart(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a measure says in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measured, (measure,))


def measured(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    torch.set_num_threads(1)
    tune_process()  # as the command line does: large blocks go back to the system
    forget_peak()
    before = peak()
    found = measure()
    return found | {"memory_mb": round((peak() - before) / 1e6, 1)}


@contextmanager
def seconds_into(found: dict[str, Any], name: str) -> Iterator[None]:
    began = time.process_time()
    yield
    found[name] = time.process_time() - began


def read_batches(
    folder: Path, batch: int, batches: int, mapped: int | None = None, whole: bool = False
) -> dict[str, Any]:
    """Random batches, after all files were read once.

    mapped: bytes that stay mapped; whole: whether all codes are in memory.
    """
    found: dict[str, Any] = {}
    stored: Any = open_codes(folder)
    if mapped is not None:
        stored = StoredCodes(stored.path, stored.parts, mapped)
    with seconds_into(found, "first_pass_s"):
        for _ in stored.pieces():
            pass
    held = stored[:] if whole else stored
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(0, len(held), (batches, batch), generator=generator)
    with seconds_into(found, "s"):
        for indices in drawn:
            held[indices]
    found["batches_per_s"] = round(batches / found.pop("s"), 1)
    return found | {"first_pass_s": round(found["first_pass_s"], 3)}


def read_loader(folder: Path, batch: int) -> dict[str, Any]:
    """One shuffled pass by torch's loader, in this process."""
    found: dict[str, Any] = {}
    loader = DataLoader(CodeDataset(open_codes(folder)), batch, shuffle=True)
    with seconds_into(found, "s"):
        count = sum(1 for _ in loader)
    return {"batches_per_s": round(count / found["s"], 1)}


def read_statistics(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with seconds_into(found, "s"):
        moments(open_codes(folder))
    return {"s": round(found["s"], 3)}


def open_folder(folder: Path) -> dict[str, Any]:
    """Opened by its rows, which writes the index, and by the index."""
    found: dict[str, Any] = {}
    for name in ("rows_s", "index_s"):
        with seconds_into(found, name):
            open_codes(folder)
    size = (folder / index.INDEX).stat().st_size if (folder / index.INDEX).exists() else 0
    return {name: round(value, 4) for name, value in found.items()} | {"index_bytes": size}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=1_000_000, help="codes")
    parser.add_argument("--width", type=int, default=64, help="numbers of a code")
    parser.add_argument("--shard", type=int, default=10_000, help="codes of a shard")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--batches", type=int, default=1000)
    parser.add_argument("--shards", type=int, nargs="*", default=[1000, 10_000, 100_000])
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(prefix="codes-") as name:
        folder = Path(name) / "codes"
        write_shards(folder, asked.count, asked.width, asked.shard)
        batches = partial(read_batches, folder, asked.batch, asked.batches)
        reading = {
            "files": apart(batches),
            "files_few_mapped": apart(partial(batches, mapped=FEW)),
            "memory": apart(partial(batches, whole=True)),
            "loader": apart(partial(read_loader, folder, asked.batch)),
            "statistics": apart(partial(read_statistics, folder)),
        }
        opening = {}
        for count in asked.shards:
            write_rows(Path(name) / str(count), count)
            opening[str(count)] = apart(partial(open_folder, Path(name) / str(count)))
    found = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "torch": torch.__version__,
        "asked": {k: v for k, v in vars(asked).items() if k != "out"},
        "few_mapped_mb": FEW / 1e6,
        "reading": reading,
        "opening": opening,
    }
    print(json.dumps(found, indent=1))
    if asked.out is not None:
        asked.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
