"""How far a bulk job is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fieldloom.cli.console import say

if TYPE_CHECKING:
    from fieldloom.codes.jobs import State

UNITS = {
    "encode": ("signals", "codes"),
    "decode": ("codes", "files"),
    "reconstruct": ("data", "files"),
    "sample": ("samples", "samples"),
    "fit": ("files", "fits"),
}
"""The verb of a job -> what it is given, and what it makes."""

MANY = 5
"""Failures and workers that are named, each."""


def jobs(
    folder: Annotated[
        Path, typer.Argument(help="What the job writes: a folder of shards, or encode's file.")
    ],
) -> None:
    """Say how far a bulk job is: what is done, what remains, what failed, and who computes."""
    from fieldloom.codes.jobs import folder_of, read_state

    for own in parts_of(folder_of(folder)):
        for line in describe(read_state(own)):
            say(line)


def parts_of(folder: Path) -> list[Path]:
    """The folder of a job, or those of the parts of an evaluation."""
    from fieldloom.codes.jobs import MANIFEST

    if (folder / MANIFEST).is_file():
        return [folder]
    places = [*folder.glob(f"*/{MANIFEST}"), *folder.glob(f"evaluated/*/{MANIFEST}")]
    parts = {place.parent for place in places}
    return sorted(parts, key=lambda part: (part / MANIFEST).stat().st_mtime) or [folder]


def describe(state: State) -> list[str]:
    """The lines that tell a job's state."""
    job, about = state.job, state.about
    part = f" ({job.options['part']})" if "part" in job.options else ""
    given, made = UNITS.get(job.kind, ("data", "data"))
    run = f" by '{about['run']}'" if about.get("run") else ""
    data = f" of '{about['source']}'" if about.get("source") else ""
    lines = [
        f"{job.kind}{part}: {job.signals} {given}{data}{run}, {state.shards} shards of {job.shard}",
        f"done: {state.done} shards, {state.codes} {made}; {state.left} shards are left",
    ]
    if state.failed:
        lines.append(f"{given} that failed: {state.failed}; the rows of their shards say why")
    if state.paused:
        lines.append(f"stopped within a shard: {state.paused}, which go on where they were")
    lines += [
        f"failed: shard {number:05d}, on {one.host}: {one.why}"
        for number, one in list(state.failures.items())[:MANY]
    ]
    if len(state.failures) > MANY:
        lines.append(f"failed: {len(state.failures) - MANY} more")
    for number, (claim, lives) in list(state.holders.items())[:MANY]:
        how = f"since {claim.since}" if lives else "which has ended: another takes the shard over"
        lines.append(f"shard {number:05d}: process {claim.process} on {claim.host}, {how}")
    if len(state.holders) > MANY:
        lines.append(f"{len(state.holders) - MANY} more shards are held by workers")
    if state.left and state.time_left is not None:
        many = "worker" if state.workers < 2 else "workers"
        pace = f"{state.seconds:.3g} s a shard, {max(1, state.workers)} {many}"
        now = "" if state.workers else "; no one computes: the same command goes on from here"
        lines.append(f"left: {describe_seconds(state.time_left)} ({pace}){now}")
    return lines


def describe_seconds(seconds: float) -> str:
    """A time as people say it."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"about {seconds / length:.1f} {unit}"
    return f"about {seconds:.0f} seconds"
