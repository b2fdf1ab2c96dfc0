"""What a section is told, and its results: written part by part, so that nothing is done twice."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Result = dict[str, Any]

UNFINISHED = ("running", "stopped", "failed", "absent")
"""States of a part that a later call does again; else it is ``done``."""


class Absent(Exception):
    """What a part needs is not there, in a sentence: a file of data, a device's ability."""


class Stopped(Exception):
    """A part was stopped by a signal, and a later call can go on with it."""


class DeviceLost(Exception):
    """The device answers no more: what is left of the section needs another process."""


@dataclass(frozen=True)
class Plan:
    """What a section is told.

    seconds: until it is stopped. size: ``long``, ``short``, or on a CPU ``tiny``. data, vectors:
    folders. work: a folder for runs. out: the folder of the results. call: the number of this call
    of the command, by its time.
    """

    device: str
    seconds: float
    size: str
    data: str
    vectors: str
    work: str
    out: str
    call: float

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Plan:
        return Plan(**json.loads(text))

    def data_file(self, name: str) -> Path:
        """A file of the data. Raises Absent where there is none."""
        path = Path(self.data) / name
        if not path.is_file():
            raise Absent(f"there is no {name} in '{self.data}': give --data FOLDER.")
        return path


def read_json(path: Path) -> Any:
    """The content of a JSON file; {} where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write_json(content: Any, path: Path) -> None:
    """Write a JSON file as a whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(part, path)


class Parts:
    """The parts of a section by name: {"state", "seconds", "result" | "why"}, kept in one file.

    A part that ended its process (``running``, by the same call) counts as failed; one that an
    earlier call left is done again.
    """

    def __init__(self, path: Path, call: float) -> None:
        self.path, self.call = path, call
        self.all: dict[str, Result] = read_json(path)
        for part in self.all.values():
            if part["state"] == "running" and part["call"] == call:
                part |= {"state": "failed", "why": "it ended the process."}

    def result(self, name: str) -> Result | None:
        """What a part that is done has found; None where it is not done."""
        part = self.all.get(name, {})
        return part["result"] if part.get("state") == "done" else None

    def do(self, name: str, work: Callable[[], Result]) -> Result | None:
        """Do a part, unless it is done or failed in this call; an error is written, not raised.

        Raises Stopped where a signal stopped it, and DeviceLost where the device answers no more.
        """
        known = self.all.get(name)
        tried = known is not None and known["call"] == self.call and known["state"] != "stopped"
        if known is not None and (tried or known["state"] not in UNFINISHED):
            return self.result(name)
        self._write(name, {"state": "running", "call": self.call})
        began = time.monotonic()
        taken = lambda: {"call": self.call, "seconds": round(time.monotonic() - began, 2)}
        try:
            found = work()
        except Absent as absent:
            self._write(name, {"state": "absent", "why": str(absent)} | taken())
        except (KeyboardInterrupt, Stopped) as stop:
            self._write(name, {"state": "stopped", "why": str(stop)} | taken())
            raise Stopped(str(stop)) from None
        except Exception as error:
            lines = "".join(traceback.format_exception(error)).splitlines()
            why = f"{type(error).__name__}: {error}"
            print("\n".join(lines), flush=True)
            failed = {"state": "failed", "why": why[:2000], "where": lines[-12:]}
            self._write(name, failed | taken())
            if not answers():
                raise DeviceLost(why) from None
        else:
            self._write(name, {"state": "done", "result": found} | taken())
        print(f"  {name}: {self.all[name]['state']}, {self.all[name]['seconds']} s", flush=True)
        return self.result(name)

    def _write(self, name: str, part: Result) -> None:
        self.all[name] = part
        write_json(self.all, self.path)


def answers() -> bool:
    """Whether the accelerator still works after an error (one of its own stays until the end)."""
    import torch

    try:
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
    except RuntimeError:
        return False
    return True
