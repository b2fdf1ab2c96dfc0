"""A run as the viewer shows it: loaded again where its checkpoint changes, or why it is not."""

from __future__ import annotations

import hashlib
import inspect
import math
import shlex
import socket
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from fieldloom.engine.layout import MODEL, RECIPE, STATE
from fieldloom.engine.lock import find_writer
from fieldloom.engine.run import Run
from fieldloom.engine.schemas import parse_json, read_text
from fieldloom.errors import InputError, printable
from fieldloom.evaluation.metric_table import meaning_of
from fieldloom.inputs import source_of
from fieldloom.modalities.sources import Source
from fieldloom.permit import Permit
from fieldloom.progress import describe_seconds
from fieldloom.report.words import format_number
from fieldloom.settings import Settings, parse_settings
from fieldloom.system import System
from fieldloom.viewer.directions import Directions
from fieldloom.viewer.drawing import can_draw, describe_camera
from fieldloom.viewer.functions import Shown, show_field
from fieldloom.viewer.kept import Keep
from fieldloom.viewer.progress import LINES, Log, preview_version, seconds_left
from fieldloom.viewer.refusals import Refused, explain
from fieldloom.viewer.uploads import accepted

TRIES = 3
"""How often a run is read whose files change meanwhile."""


class Viewed:
    """A run that is viewed.

    id: by which a browser names it. system: with the weights of the newest checkpoint; None where
    there are none, or they cannot be read: ``fault`` says why. shown: what a browser needs to draw
    its functions; None where the server draws them, for ``reason``. source: its data, as soon as
    they are open; data_fault: why they are not.

    ``look`` and all that uses the system belong in the thread of the ``Worker``.
    """

    def __init__(self, id: str, path: Path, name: str, device: str, permit: Permit) -> None:
        self.id, self.name, self.run = id, name, Run(path)
        self.device, self.permit = device, permit
        self.system: System | None = None
        self.settings: Settings | None = None
        self.fault, self.version, self.reason = "", "", ""
        self.shown: Shown | None = None
        self.keep, self.log, self.directions = Keep(), Log(self.run), Directions()
        self.opening: Future[Source] | None = None
        self.data: list[Any] = []  # which they are

    # -- its weights

    def look(self) -> None:
        """Load the run, or load it again where its files are others than when it was last looked
        at."""
        for _ in range(TRIES):
            version = read_version(self.run)
            if version == self.version:
                return
            self.version = version
            try:
                self._load()
                self.fault = ""
            except Exception as error:  # whatever is wrong with one run, others are shown
                self.fault = explain(error)[1]
            if not self.fault or version == read_version(self.run):
                return

    def _load(self) -> None:
        self.settings = parse_settings(self.run.require().read_recipe())
        if not self.run.has_model and not (self.run.folder / STATE).is_file():
            self.system = self.shown = None
            return
        system = self.run.read_system(self.device, self.permit)
        try:
            shown, reason = show_field(system), ""
        except InputError as error:
            shown, reason = None, str(error).rstrip(".")
        self._leave_behind(system)
        self.system, self.shown, self.reason = system, shown, reason
        self.settings, self.directions = system.settings, Directions()
        if not system.family.has_code:  # a browser calls it c0
            self.keep = Keep()
            self.keep.add(system.as_code(None), printable(self.name))

    def _leave_behind(self, system: System) -> None:
        """Forget the codes and the data of before, where another run was trained in this folder."""
        kept = next(iter(self.keep.codes.values()), None)
        if kept is not None and tuple(kept.code.shape[1:]) != system.family.code_shape:
            self.keep.clear()
        settings, modality = system.settings, system.modality
        data = [settings.source, settings.seed, modality.shape(), modality.channels]
        if self.data != data:
            self.data, self.opening = data, None

    def require(self) -> System:
        """The system. Raises Refused, with the reason, where there is none."""
        if self.system is None:
            raise Refused(409, self.fault or NO_WEIGHTS)
        return self.system

    # -- its data

    @property
    def source(self) -> Source:
        """The run's own data. Raises Refused where they are not open, or cannot be read."""
        if self.opening is None or not self.opening.done():
            raise Refused(409, OPENING)
        if fault := self.data_fault:
            raise Refused(409, fault)
        return self.opening.result()

    @property
    def data_fault(self) -> str:
        """Why there are no data, or ""."""
        if self.opening is None or not self.opening.done():
            return OPENING
        if self.opening.cancelled():
            return "the viewer is closed."
        error = self.opening.exception()
        return "" if error is None else explain(error)[1]

    def open_data(self) -> Source:
        """Read the run's data; as it may take long, in another thread than that of the system."""
        return source_of(self.require(), quiet=True)

    # -- what is said of it

    def describe(self) -> dict[str, Any]:
        """The run for a browser; see docs/viewer.md."""
        state, sentence = self.describe_state()
        known: dict[str, Any] = {
            "id": self.id,
            "name": printable(self.name),
            "title": "" if self.settings is None else self.settings.title or "",
            "state": state,
            "sentence": sentence,
            "version": self.say_version(self.version),
            "figures": read_figures(self.run),
        }
        return NOTHING | known | ({} if self.system is None else self._describe_system(self.system))

    def _describe_system(self, system: System) -> dict[str, Any]:
        modality, drawn = system.modality, can_draw(system)
        draws = "browser" if self.shown is not None else "server" if drawn else "nothing"
        prior = system.prior
        opened = not self.data_fault
        return {
            "kind": modality.kind,
            "sphere": modality.areas(1) is not None,
            "codes": system.family.has_code,
            "encodes": system.encodes and system.family.has_code,
            "samples": system.generates and system.family.has_code,
            "classes": list(system.settings.names) if prior is not None and prior.classes else [],
            "guidance": default_guidance(system),
            "data": count_data(self.source) if opened else None,
            "data_error": self.data_fault,
            "directions": self.directions.count(self.run, system),
            "draws": draws,
            "reason": self.reason,
            "shape": list(modality.shape()),
            "channels": modality.channels,
            "camera": describe_camera(system),
            "accepts": accepted(system),
        }

    def describe_state(self) -> tuple[str, str]:
        """One of finished, training, unfinished, damaged, empty, and a sentence."""
        writer = find_writer(self.run.folder)
        if writer is not None:
            here = writer.host == socket.gethostname()
            rest = "" if here else f" It runs on {printable(writer.host)}, or was killed there."
            return "training", self.describe_training() + rest
        if self.fault:
            return "damaged", self.fault
        if self.system is None:
            return "empty", NO_WEIGHTS
        if self.system.unfinished is not None:
            return "unfinished", (
                f"its training stopped {self.system.unfinished.describe()}: fieldloom train "
                f"--resume --run {shlex.quote(printable(str(self.run.folder)))} goes on with it."
            )
        rest = "" if self.system.prior is None or self.system.generates else "; no prior yet"
        return "finished", f"trained: {', '.join(self.system.finished) or 'no stage'}{rest}."

    def describe_training(self) -> str:
        told = self.follow()
        where = f"stage '{told['stage']}', step {told['step']}" if told["stage"] else "beginning"
        of = f" of {told['steps']}" if told["steps"] else ""
        left = told["seconds_left"]
        rest = f", about {describe_seconds(left)} left" if left is not None else ""
        yet = (
            "" if self.system is not None else "; nothing can be drawn before its first checkpoint"
        )
        return f"training: {where}{of}{rest}{yet}."

    def follow(self) -> dict[str, Any]:
        """Where training stands, by the last line of the log."""
        lines = self.log.look()
        if not lines:
            return {"stage": None, "step": 0, "steps": None, "seconds_left": None}
        last = lines[-1]
        stage = None if self.settings is None else self.settings.stages.get(last["stage"])
        return {
            "stage": last["stage"],
            "step": last["step"],
            "steps": None if stage is None else stage.steps,
            "seconds_left": seconds_left(last, stage),
        }

    def describe_progress(self, after: int) -> dict[str, Any]:
        """Where training stands, and lines of the log from a number on, at most ``LINES``.

        All lines begin anew where there are fewer than that number: the log was written anew.
        """
        state, told, lines = self.describe_state()[0], self.follow(), self.log.lines
        first = after if after <= len(lines) else 0
        end = min(len(lines), first + LINES)
        left = told["seconds_left"] if state == "training" else None
        more = {"lines": lines[first:end], "next": end, "state": state, "seconds_left": left}
        version = self.say_version(read_version(self.run))
        seen = {"preview": preview_version(self.run), "log": self.log.begun, "version": version}
        return told | more | seen

    def say_version(self, files: str) -> str:
        """A text that differs where a browser should ask for the run again."""
        opened = self.opening is not None and self.opening.done()
        return f"{files}-data" if opened else files


OPENING = "its data are being opened."
NO_WEIGHTS = "its training has not come to a first checkpoint: there is nothing to draw yet."
NOTHING: dict[str, Any] = {
    "kind": "", "sphere": False, "codes": False, "encodes": False, "samples": False, "classes": [],
    "guidance": None, "data": None, "data_error": "", "directions": 0, "draws": "nothing",
    "reason": "", "shape": [], "channels": 0, "camera": None, "accepts": [],
}  # fmt: skip
"""What is said of a run without weights."""


def read_version(run: Run) -> str:
    """A text that differs where the files of a run's recipe or weights do."""
    told = []
    for name in (RECIPE, MODEL, STATE):
        try:
            found = (run.folder / name).stat()
            told.append(f"{name} {found.st_mtime_ns} {found.st_size} {found.st_ino}")
        except OSError:
            told.append(name)
    return hashlib.blake2b("\n".join(told).encode(), digest_size=8).hexdigest()


def name_runs(paths: Sequence[Path]) -> list[str]:
    """The names of the folders; of those with the same name, the paths."""
    names = [path.resolve().name for path in paths]
    return [
        name if names.count(name) == 1 else str(path)
        for name, path in zip(names, paths, strict=True)
    ]


def default_guidance(system: System) -> float | None:
    """The guidance that samples have where none is asked for; None of a prior that has none."""
    if system.prior is None or not system.prior.classes:
        return None
    option = inspect.signature(system.prior.draw).parameters.get("guidance")
    return None if option is None else float(option.default)


def count_data(source: Source) -> dict[str, int]:
    return {"count": len(source.test), "trained": len(source.train)}


def read_figures(run: Run) -> list[dict[str, Any]]:
    """The metrics of a run's report, [] where there is none."""
    path = run.folder / "report.json"
    if not path.is_file():
        return []
    try:
        content = parse_json(read_text(path), path)
    except InputError:
        return []
    listed = content.get("figures") if isinstance(content, dict) else None
    figures = listed if isinstance(listed, list) else []
    return [told for one in figures if (told := describe_figure(one)) is not None]


def describe_figure(figure: Any) -> dict[str, Any] | None:
    """A metric as a browser shows it; None for what is none."""
    if not isinstance(figure, dict) or not isinstance(figure.get("name"), str):
        return None
    value: Any = figure.get("value")
    name, meaning = figure["name"], meaning_of(figure["name"])
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    unit = f" {meaning.unit}" if meaning is not None and meaning.unit else ""
    better = {"higher": True, "lower": False}
    return {
        "name": name if meaning is None else meaning.label,
        "value": value if number else None,
        "text": f"{format_number(value)}{unit}" if number else "not finite",
        "meaning": "" if meaning is None else meaning.says,
        "higher_is_better": None if meaning is None else better.get(meaning.better),
        "chief": meaning is not None and meaning.chief,
    }
