"""Everything that counts, measured and trained on the accelerator at hand, by one command.

    python benchmarks/accelerator.py --minutes 2 --data FOLDER --out short
    python benchmarks/accelerator.py --minutes 8 --data FOLDER --out long

Sections run one after another, the most valuable first, each in a process of its own and within its
share of the minutes; time that one leaves goes to the others. Results are written as they come;
given again, the command goes on with what is not done. ``--out`` holds results.json, log.txt,
profiles.txt and sheets of samples: at most eight files of at most 16 MiB. What only a later call
needs, and the trained runs, lie beside it in OUT.work.

A machine without a network: ``--pack FOLDER`` gathers source, data, vectors and wheels that such a
machine may lack (never torch); there, FOLDER/benchmarks/accelerator.py is started.
docs/accelerators.md says more.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import importlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from accelerator_sections import packing
from accelerator_sections.goals import judge, table
from accelerator_sections.parts import (
    UNFINISHED,
    DeviceLost,
    Parts,
    Plan,
    Stopped,
    read_json,
    write_json,
)

HERE = Path(__file__).resolve().parent
PACKED = HERE.parent / "vectors"
VECTORS = PACKED if PACKED.is_dir() else HERE.parent / "tests" / "data" / "vectors"


class Section(NamedTuple):
    """name; its share of the minutes; ``module:function`` that does it.

    longest: the share of its own time that one of its parts may take.
    """

    name: str
    share: float
    work: str
    longest: float = 1.0


SECTIONS = [
    Section("right", 0.22, "right:run", 0.6),
    Section("speed", 0.22, "speed:run", 0.4),
    Section("mnif S of faces", 0.20, "training:mnif_faces"),
    Section("laginr of faces", 0.12, "training:laginr_faces"),
    Section("ipc of faces", 0.10, "training:ipc_faces"),
    Section("mnif of chairs, gain 1", 0.04, "training:chairs"),
    Section("mnif of chairs, gain sqrt(M)", 0.04, "training:chairs_sqrt"),
    Section("profiles", 0.06, "profiles:run", 0.6),
]
"""In the order of their value."""

SHORT = 240.0
"""Seconds below which sizes are those of the short pass."""
GRACE = 6.0
"""Seconds from SIGTERM to SIGKILL: a training writes its checkpoint."""
FILES, LARGEST = 8, 16 << 20
"""The most files of ``--out``, and their largest size."""
RESULTS = ("results.json", "log.txt", "profiles.txt")
"""The files of ``--out``, apart from sheets of samples."""
LOST = 3
"""The exit status of a section whose device answers no more."""


def parse() -> argparse.Namespace:
    names = [section.name for section in SECTIONS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--device", default="auto", help="auto, cuda, cpu or mps")
    parser.add_argument("--data", type=Path, default=HERE.parent / "data")
    parser.add_argument("--vectors", type=Path, default=VECTORS)
    parser.add_argument("--sections", nargs="+", choices=names, default=names)
    parser.add_argument("--out", type=Path, default=Path("accelerator"))
    parser.add_argument("--work", type=Path, help="for runs; default: OUT.work")
    parser.add_argument("--packed", type=Path, help="a folder that --pack made")
    parser.add_argument("--pack", type=Path, help="make a folder for a machine without a network")
    parser.add_argument("--python", default="3.12", help="of the machine that --pack is for")
    parser.add_argument("--platform", default="manylinux_2_28_x86_64", help="of that machine")
    parser.add_argument("--section", help=argparse.SUPPRESS)  # this process is one section
    parser.add_argument("--plan", help=argparse.SUPPRESS)
    return parser.parse_args()


Keep = Callable[[], dict[str, Any]]
"""Writes results.json with all that is known by now, and returns it."""


# One section, in a process of its own.


def run_section(name: str, plan: Plan) -> int:
    """Do a section, part by part; the exit status."""
    end_with_parent()
    signal.signal(signal.SIGTERM, interrupt)
    from fieldloom.process import tune_process

    tune_process()  # as the command line does: before torch is imported
    from fieldloom.engine import device as devices

    if devices.pick(plan.device).type == "cpu":
        plan = replace(plan, size="tiny")
    section = next(section for section in SECTIONS if section.name == name)
    module, _, function = section.work.partition(":")
    work = getattr(importlib.import_module(f"accelerator_sections.{module}"), function)
    parts = Parts(parts_file(Path(plan.work), name), plan.call)
    try:
        work(plan, parts)
        parts.do("end", lambda: {})
    except Stopped:
        return 0
    except DeviceLost:
        return LOST
    return 0


def interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt("stopped by a signal")


def end_with_parent() -> None:
    """Let this process be killed when the one that started it ends, where the system can."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def parts_file(work: Path, name: str) -> Path:
    return work / f"{name}.json"


# All sections.


def run_all(args: argparse.Namespace) -> None:
    began = time.time()
    args.out = args.out if args.out.name else args.out.resolve()  # "." has no name
    work = args.work or args.out.with_name(args.out.name + ".work")
    check_asked(args, work)
    places = [str(path) for path in (args.data, args.vectors, work, args.out)]
    size = size_of(args.minutes)
    asked = [section for section in SECTIONS if section.name in args.sections]
    end, environment = time.monotonic() + 60 * args.minutes, child_environment(args, work)
    keep = partial(write_results, args, work, began)
    try:
        for i, section in enumerate(asked):
            left = end - time.monotonic()
            seconds = left * section.share / sum(later.share for later in asked[i:])
            plan = Plan(args.device, seconds, size, *places, call=began)
            if seconds > 1 and not is_done(work, section.name):
                watch(section, plan, environment, args.out / "log.txt", keep)
            keep()
    except KeyboardInterrupt:
        print("stopped: the same command goes on from here.")
    results = keep()
    print("\n".join(table(results["goals"])))
    check_files(args.out)
    if results["unfinished"]:
        print(f"not done: {', '.join(results['unfinished'])}; the same command goes on with it.")
    else:
        print(f"all is done; the trained runs are in '{work / 'runs'}'.")


def check_asked(args: argparse.Namespace, work: Path) -> None:
    """Make the folders. Raises SystemExit where the minutes would be spent in vain."""
    if not 0 < args.minutes < math.inf:
        raise SystemExit(f"--minutes {args.minutes:g}: above 0, and finite.")
    try:
        for folder in (args.out, work):
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise SystemExit(f"'{folder}' cannot hold results: {error.strerror}.") from None
    others = [path.name for path in args.out.iterdir() if not is_result(path)]
    if others:
        raise SystemExit(f"'{args.out}' holds other files, such as '{others[0]}': take another.")
    before = None
    with contextlib.suppress(ValueError):  # a file that is cut short is written anew
        before = read_json(args.out / "results.json").get("minutes")
    if before is not None and size_of(before) != size_of(args.minutes):
        raise SystemExit(
            f"'{args.out}' holds a {size_of(before)} pass (--minutes {before:g}), and this one is "
            f"{size_of(args.minutes)}: give another --out, such as "
            f"{args.out.name}-{size_of(args.minutes)}."
        )


def size_of(minutes: float) -> str:
    """Whether a pass of so many minutes is ``short`` or ``long``."""
    return "short" if 60 * minutes < SHORT else "long"


def is_result(path: Path) -> bool:
    """Whether this command writes such a file, or the system does (hidden ones)."""
    own = path.name.removesuffix(".part") in RESULTS or path.suffix == ".png"
    return own or path.name.startswith(".")


def watch(section: Section, plan: Plan, environment: dict[str, str], log: Path, keep: Keep) -> None:
    """Run a section in a process of its own until it ends, or its time does.

    One that ended badly is begun again while there is time: what it has done stays done, and the
    part that it died of is not tried again. keep: is called whenever a part has ended.
    """
    end, path = time.monotonic() + plan.seconds, parts_file(Path(plan.work), section.name)
    print(f"{section.name}: {plan.seconds:.0f} s", flush=True)
    words = [sys.executable, str(Path(__file__).resolve()), "--section", section.name]
    tried: int | None = None
    with log.open("a", encoding="utf-8") as lines:
        while end - time.monotonic() > 1 and failures(path, plan.call) != tried:
            tried = failures(path, plan.call)
            own = replace(plan, seconds=end - time.monotonic())
            lines.write(f"-- {section.name}, {own.seconds:.0f} s\n")
            lines.flush()
            process = subprocess.Popen(
                [*words, "--plan", own.to_json()], env=environment, stdout=lines, stderr=lines
            )
            status = end_in_time(process, own, path, section.longest * plan.seconds, keep)
            lines.write(f"-- ended with status {status}\n")
            if status == 0:
                break
            print(f"  ended with status {status}: '{log}' says why.")
    for name, part in read_json(path).items():
        if part["state"] != "done":
            print(f"  {name}: {part['state']}: {part.get('why', '')[:200]}")


def failures(path: Path, call: float) -> int:
    """How many parts have failed in this call, or were running when their process ended."""
    parts = [part for part in read_json(path).values() if part["call"] == call]
    return sum(part["state"] in ("failed", "running") for part in parts)


def end_in_time(
    process: subprocess.Popen[bytes],
    plan: Plan,
    path: Path,
    longest: float,
    keep: Callable[[], Any],
) -> int:
    """The status of a section's process; 0 too where it was stopped because its time was over.

    longest: seconds that one part may take; LOST where it took more, and counts as failed.
    """
    end, seen, since = time.monotonic() + plan.seconds - GRACE / 2, "", time.monotonic()
    try:
        while process.poll() is None:
            time.sleep(0.1)
            text = path.read_text(encoding="utf-8") if path.is_file() else ""
            if text != seen:
                seen, since = text, time.monotonic()
                keep()
            if time.monotonic() > end:
                stop(process)
                return 0
            if time.monotonic() - since > longest:
                stop(process)
                fail_running(path, plan.call, f"it took more than {longest:.0f} s.")
                return LOST
        return process.returncode
    except KeyboardInterrupt:
        stop(process)
        raise


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process: by SIGTERM, or else by SIGKILL."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
        process.wait(GRACE)
    process.kill()
    process.wait()


def fail_running(path: Path, call: float, why: str) -> None:
    """Let the part that was running when its process was stopped count as failed."""
    parts = read_json(path)
    for part in parts.values():
        if part["state"] in ("running", "stopped") and part["call"] == call:
            part |= {"state": "failed", "why": why}
    write_json(parts, path)


def is_done(work: Path, name: str) -> bool:
    """Whether a section was finished by an earlier call, and nothing in it has failed."""
    parts = read_json(parts_file(work, name))
    ended = parts.get("end", {}).get("state") == "done"
    return ended and not any(part["state"] in UNFINISHED for part in parts.values())


def child_environment(args: argparse.Namespace, work: Path) -> dict[str, str]:
    """The environment of a section's process: where packages lie that the machine lacks."""
    packed = args.packed or (HERE.parent if (HERE.parent / "wheels").is_dir() else None)
    paths = [str(HERE.parent / "src"), str(HERE)]
    if packed is not None:
        paths.append(str(packing.install_missing(packed / "wheels", work / "packages")))
    before = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths + ([before] if before else []))}


def write_results(args: argparse.Namespace, work: Path, began: float) -> dict[str, Any]:
    """results.json: all that is known by now."""
    sections = {s.name: read_json(parts_file(work, s.name)) for s in SECTIONS}
    sections = {name: parts for name, parts in sections.items() if parts}
    unfinished = [s.name for s in SECTIONS if s.name in args.sections and not is_done(work, s.name)]
    goals = judge(sections)
    results = {
        "command": "python " + " ".join(sys.argv),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
        "minutes": args.minutes,
        "unfinished": unfinished,
        "goals": goals,
        "sections": sections,
    }
    write_json(results, args.out / "results.json")
    return results


def check_files(out: Path) -> None:
    """Say which files there are; cut the log where it is too long. Raises SystemExit otherwise."""
    log = out / "log.txt"
    if log.is_file() and log.stat().st_size > LARGEST:
        log.write_bytes(log.read_bytes()[-LARGEST // 2 :])
    files = sorted(path for path in out.rglob("*") if path.is_file())
    large = [path.name for path in files if path.stat().st_size > LARGEST]
    print(f"{out}: " + ", ".join(f"{p.name} ({p.stat().st_size:,} bytes)" for p in files))
    if len(files) > FILES or large:
        raise SystemExit(f"'{out}' holds {len(files)} files, and too large ones: {large}.")


def main() -> None:
    args = parse()
    if args.section:
        sys.exit(run_section(args.section, Plan.from_json(args.plan)))
    if args.pack:
        packing.pack(args.pack, args.python, args.platform, args.data, args.vectors)
        return
    signal.signal(signal.SIGTERM, interrupt)
    run_all(args)


if __name__ == "__main__":
    main()
