"""Where a run comes from: its command, commit, machine and time; and what to type next."""

from __future__ import annotations

import os
import shlex
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, NamedTuple

from fieldloom.engine.provenance import changed_settings
from fieldloom.engine.run import Run
from fieldloom.errors import InputError
from fieldloom.evaluation import Result
from fieldloom.fitting import kind_of, next_command
from fieldloom.report.questions import lacks_samples
from fieldloom.report.words import things
from fieldloom.system import System


class Origin(NamedTuple):
    """Where a run comes from, as far as its files say.

    folder:  of the run itself; None of a system that was never saved. command: that trained it.
    seconds: of training. changed: key -> value, where its recipe differs from the row of its name.
    """

    folder: Run | None
    command: str | None
    commit: str | None
    machine: str
    versions: str
    seconds: float | None
    date: str
    changed: Mapping[str, Any] | None


def find_origin(run: Run, system: System, seconds: float | None) -> Origin:
    """Where the run of a report comes from. run: the folder of the report, which may lie in the
    run's own. seconds: the duration of training, if it is known better than by the log.
    """
    home = next((x for x in (run, Run(run.folder.parent)) if x.exists), None)
    about = _environment_of(home) if home else {}
    versions = about.get("versions")
    named = versions.items() if isinstance(versions, dict) else ()
    machine = [about.get("processor"), about.get("device"), about.get("system")]
    threads = about.get("threads")
    if isinstance(threads, int):
        machine.insert(2, f"{threads} thread{'s' if threads != 1 else ''}")
    return Origin(
        home,
        _command(about.get("command")),
        about["commit"] if isinstance(about.get("commit"), str) else None,
        ", ".join(dict.fromkeys(str(x) for x in machine if x)),
        ", ".join(f"{name} {version}" for name, version in named),
        training_seconds(home.read_log()) if home and seconds is None else seconds,
        datetime.now(UTC).isoformat(timespec="seconds"),
        changed_settings(system.recipe),
    )


def _environment_of(run: Run) -> dict[str, Any]:
    """Where a run was trained; nothing, and a warning, where its file is damaged."""
    try:
        return run.read_environment()
    except InputError as error:
        warnings.warn(f"{error} The report does not say where it was trained.", stacklevel=2)
        return {}


def _command(words: Any) -> str | None:
    """The command line that trained a run; None where a script of one's own did."""
    if not isinstance(words, list) or not all(isinstance(x, str) for x in words):
        return None
    return " ".join(map(quote_for_shell, ["fieldloom", *words])) if words[:1] in COMMANDS else None


def quote_for_shell(word: str) -> str:
    """A word of a command line; one that cannot be printed by its bytes, as bash reads them."""
    if word.isprintable():
        return shlex.quote(word)
    plain = lambda byte: 32 <= byte < 127 and byte not in b"'\\"
    inner = (chr(x) if plain(x) else f"\\x{x:02x}" for x in os.fsencode(word))
    return f"$'{''.join(inner)}'"


COMMANDS = (["train"], ["fit"], ["demo"])


def training_seconds(log: Sequence[Mapping[str, Any]]) -> float | None:
    """Seconds of all steps by the pace in a run's log; None where it has none."""
    stages = dict.fromkeys(line["stage"] for line in log)
    total = 0.0
    for stage in stages:
        lines = [{"step": 0}, *(line for line in log if line["stage"] == stage)]
        for before, line in pairwise(lines):
            total += (line["step"] - before["step"]) * (line.get("seconds_a_step") or 0)
    return total or None


def next_commands(origin: Origin, system: System, result: Result) -> list[tuple[str, str]]:
    """What to type next, and what it does: exact lines, with the run's folder."""
    if origin.folder is None:
        return []
    folder = str(origin.folder.folder)
    folder = f"./{folder}" if folder.startswith("-") else folder
    run, kind = quote_for_shell(folder), kind_of(system.modality)
    one, many = things(system)
    larger = f"--resolution {'x'.join(str(4 * n) for n in system.modality.shape())}"
    drawn = larger if system.modality.kind == "images" else ""
    lines = []
    if system.unfinished is not None:
        lines.append((f"train --resume --run {run}", "Go on training"))
    if system.generates and not lacks_samples(system, result):
        count = len(result.codes if result.sample_codes is None else result.sample_codes)
        own = (system.settings.evaluation.samples or 0) > count  # as of the demo, judged quickly
        more = "" if own else f" --set evaluate.samples={4 * count}"
        what = "Draw samples, four times as large" if drawn else "Draw samples"
        lines += [
            (f"sample {run} --count 16 {drawn}".strip(), what),
            (f"evaluate {run}{more}", "Measure more, for surer figures"),
        ]
    if system.family.has_code and system.encodes:
        lines.append((f"reconstruct {run} --count 16", f"Encode {many} and decode them again"))
        lines.append((f"interpolate {run} --from 0 --to 1", f"Go from one {one} to another"))
    elif system.generates:
        lines.append((f"interpolate {run} --sample --from 0 --to 1", "Go from sample to sample"))
    elif kind is not None:
        _, _, options = next_command(kind, "RUN").partition(" RUN ")
        lines.append((f"render {run} {options}", "Draw more of it"))
    lines.append(("fit FILE", "Fit one file of your own"))
    return [(f"fieldloom {line}", what) for line, what in lines]
