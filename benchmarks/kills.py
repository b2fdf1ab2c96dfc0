"""Trainings that are killed, stopped, or meet a full disk, and what comes of them.

    python benchmarks/kills.py --out benchmarks/results/kills.json

A training of a tiny recipe is run once without a disturbance, and its changes of files are counted
(opened for writing, renamed, removed, made). Then it is run anew and ended: by SIGKILL before each
of these changes, by SIGKILL at random moments, by SIGTERM and SIGINT at random moments, and by "no
space left on device" at each opening for writing. After each the command is given again (with
``--resume`` where there is a recipe), until it ends well. What must come out: the very same weights
and codes, bit for bit; the same files, nothing left over; a sentence, never a traceback.

Each training is a forked process of one thread. Needs a system with fork (Linux, macOS).
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # forked processes may not inherit threads

import argparse
import errno
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from fieldloom import atomic, recipe, stopping
from fieldloom.engine import device as devices
from fieldloom.engine.run import Run
from fieldloom.engine.tensors import read_tensors
from fieldloom.errors import FieldloomError, Interrupted
from fieldloom.progress import track
from fieldloom.training import train

torch.set_num_threads(1)

SHORT = ["train.field.save_every=7", "train.prior.save_every=7", "source.split=[48, 16]"]
CASES = {
    "mnif:tiny": ["train.field.steps=12", "train.prior.steps=12", *SHORT],
    "weights:tiny": ["train.prior.steps=12", *SHORT],
    "hyperdiffusion:tiny": ["encoder.steps=30", "train.prior.steps=12", *SHORT],
    "weights:tiny of given fields": ["train.prior.steps=12", *SHORT],
    "mnif:tiny with more steps": ["train.field.steps=12", "train.prior.steps=12", *SHORT],
    "mnif:tiny ended early": ["train.field.steps=12", "train.prior.steps=12", *SHORT],
}
"""Training and diffusion; fits in shards; one long step; a run given the fields of another; a run
that was stopped within its field, and is given more steps, or is ended there before it goes on."""

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}


def watch(folder: Path, meet: Callable[[int, bool], None]) -> None:
    """Call ``meet(number, opened)`` before each change of a file under a folder, from 0 on."""
    seen = [0]
    inside = str(folder)

    def hook(event: str, given: tuple[Any, ...]) -> None:
        opened = event == "open" and isinstance(given[2], int) and bool(given[2] & WRITING)
        if not opened and event not in CHANGES:
            return
        if not isinstance(given[0], str | os.PathLike) or not str(given[0]).startswith(inside):
            return
        number, seen[0] = seen[0], seen[0] + 1
        meet(number, opened)

    sys.addaudithook(hook)


def run_in_fork(
    work: Callable[[], None], after: float | None = None, by: int = signal.SIGKILL
) -> int:
    """A piece of work in a process of its own; its wait status. after: seconds until a signal."""
    child = os.fork()
    if not child:
        try:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 2)
            stopping.end_by_signals()  # as the command line does
            work()
            os._exit(0)
        except (Interrupted, KeyboardInterrupt):
            os._exit(130)
        except FieldloomError:
            os._exit(2)
        except OSError as error:
            os._exit(3 if error.errno == errno.ENOSPC else 4)
        except BaseException:
            os._exit(4)  # what a person would see as a traceback
    if after is not None:
        time.sleep(after)
        os.kill(child, by)
    return os.waitpid(child, 0)[1]


def begin(name: str, folder: Path, giver: Path) -> None:
    """The command as a user gives it, for the first time or again."""
    own = recipe.load(name.partition(" ")[0], CASES[name])
    fields = giver if "given" in name else None
    if "more" in name:
        train(None, str(folder), resume=True, steps={"field": 17})
    elif "early" in name and not Run(folder).has_model:
        train(None, str(folder), finish=True)
        train(None, str(folder), resume=True)
    elif Run(folder).exists:
        train(None, str(folder), resume=True)
    else:
        train(own, str(folder), fields=fields)


def lay_out(name: str, folder: Path, begun: Path) -> None:
    """The folder as it is before the command: empty, or the run that was stopped."""
    shutil.rmtree(folder, ignore_errors=True)
    if "more" in name or "early" in name:
        shutil.copytree(begun, folder)


def outcome(folder: Path) -> dict[str, Any]:
    """What a run came to: its tensors, the steps of its log, the names of all its files."""
    tensors = {}
    for name in ("model.safetensors", "codes.safetensors"):
        held = read_tensors(folder / name)
        tensors |= {f"{name}/{key}": x for key, x in held.tensors.items()}
    log = [(line["stage"], line["step"], line["loss"]) for line in Run(folder).read_log()]
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    return {"tensors": tensors, "log": log, "names": names}


def differs(one: dict[str, Any], other: dict[str, Any]) -> str | None:
    """In what two outcomes differ; None where they are the same."""
    if one["names"] != other["names"]:
        return f"files: {sorted(set(one['names']) ^ set(other['names']))}"
    if one["log"] != other["log"]:
        return "log"
    tensors, others = one["tensors"], other["tensors"]
    if tensors.keys() != others.keys():
        return "names of tensors"
    wrong = [name for name, x in tensors.items() if not torch.equal(x, others[name])]
    return f"tensors: {wrong[0]}" if wrong else None


def disturb(name: str, folder: Path, giver: Path, how: str, at: float, by: int) -> int:
    """Train, and be ended: ``kill`` or ``full`` at a change of a file, ``moment`` after seconds."""

    def work() -> None:
        def meet(number: int, opened: bool) -> None:
            if number != at:
                return
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "full" and opened:
                raise OSError(errno.ENOSPC, "No space left on device")

        if how != "moment":
            watch(folder, meet)
        begin(name, folder, giver)

    return run_in_fork(work, at if how == "moment" else None, by)


def try_once(
    name: str, where: Path, giver: Path, expected: dict[str, Any], how: str, at: float, by: int
) -> tuple[str, str | None]:
    """One disturbed training, gone on with: how it ended at first, and what was wrong, if any."""
    folder = where / "run"
    lay_out(name, folder, where / "begun")
    status = disturb(name, folder, giver, how, at, by)
    if os.WIFSIGNALED(status):
        ended = signal.Signals(os.WTERMSIG(status)).name
    else:
        ended = {0: "finished", 2: "a sentence", 3: "a full disk", 4: "a traceback",
                 130: "stopped"}[os.WEXITSTATUS(status)]  # fmt: skip
    if ended == "a traceback":
        return ended, "a traceback"
    left = len([x for x in folder.rglob(".*") if x.name != ".lock"]) if folder.exists() else 0
    again = run_in_fork(lambda: begin(name, folder, giver))
    if again:
        return ended, f"the command given again ends with {os.waitstatus_to_exitcode(again)}"
    wrong = differs(expected, outcome(folder))
    return f"{ended}, {left} hidden files left" if left else ended, wrong


KINDS = {
    "killed": ("SIGKILL",),
    "full disk": ("full: a full disk", "full: a sentence"),
    "stopped by a signal": ("stopped", "SIGTERM", "SIGINT"),
    "finished before": ("finished",),
}


def table(cases: dict[str, Any]) -> str:
    """The cases as a Markdown table, as docs/reliability.md has it."""
    head = ["training", "changes of files", "ended", *KINDS, "same run in the end"]
    rows = [head, ["---"] * len(head)]
    for name, case in cases.items():
        ways = case["how they ended"].items()
        ended = [sum(n for way, n in ways if any(x in way for x in of)) for of in KINDS.values()]
        same = case["went on to the very same run"]
        rows.append([f"`{name}`", case["changes of files"], case["endings"], *ended, same])
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


def train_until(own: recipe.Recipe, folder: Path, step: int) -> None:
    """Train, and stop after a step, as by Ctrl-C."""
    asked = stopping.stop_requested
    stopping.stop_requested = lambda: len(Run(folder).read_log()) >= step
    with suppress(Interrupted):
        train(recipe.merge(own, {"train": {"field": {"log_every": 1}}}), str(folder))
    stopping.stop_requested = asked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100, help="at random moments, all cases")
    parser.add_argument("--signals", type=int, default=40, help="SIGTERM and SIGINT, likewise")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=list(CASES), nargs="*")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    draw = random.Random(given.seed)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        where = Path(place)
        os.environ["FIELDLOOM_CACHE"] = str(where / "cache")
        giver = where / "giver"
        train(recipe.load("weights:tiny", CASES["weights:tiny"]), str(giver))
        own = recipe.load("mnif:tiny", CASES["mnif:tiny"])
        train_until(own, where / "begun", 8)
        for name in given.only or CASES:
            straight, count = where / "straight", where / "count"
            lay_out(name, straight, where / "begun")

            def counted(name: str = name, straight: Path = straight, count: Path = count) -> None:
                total = [0, 0]
                watch(straight, lambda number, opened: total.__setitem__(slice(2), [
                    number + 1, total[1] + opened]))  # fmt: skip
                begin(name, straight, giver)
                count.write_text(json.dumps(total))

            began = time.monotonic()
            assert run_in_fork(counted) == 0
            took = time.monotonic() - began
            expected, changes = outcome(straight), json.loads(count.read_text())[0]
            share = len(CASES)
            jobs = [("kill", float(at), signal.SIGKILL) for at in range(changes)]
            jobs += [("full", float(at), signal.SIGKILL) for at in range(changes)]
            for by in [signal.SIGKILL] * (given.kills // share):
                jobs.append(("moment", draw.uniform(0, took), by))
            for _ in range(given.signals // share):
                by = draw.choice([signal.SIGTERM, signal.SIGINT])
                jobs.append(("moment", draw.uniform(0, took), by))
            ends: Counter[str] = Counter()
            wrong: list[str] = []
            for how, at, by in track(jobs, name, len(jobs), "endings"):
                ended, what = try_once(name, where, giver, expected, how, at, by)
                ends[f"{how}: {ended}"] += 1
                if what is not None:
                    wrong.append(f"{how} at {at:g} by {by.name}, {ended}: {what}")
            found[name] = {
                "changes of files": changes,
                "endings": len(jobs),
                "how they ended": dict(sorted(ends.items())),
                "went on to the very same run": len(jobs) - len(wrong),
                "wrong": wrong,
            }
            print(name, json.dumps(found[name], indent=2), flush=True)
    content = {
        "command": sys.argv,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": given.seed,
        "environment": devices.environment(torch.device("cpu")),
        "cases": found,
    }
    print(table(found))
    if given.out is not None:
        atomic.write_text(json.dumps(content, indent=2) + "\n", given.out)


if __name__ == "__main__":
    main()
