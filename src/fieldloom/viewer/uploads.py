"""Files that are dropped on the page: received within bounds, and reconstructed as jobs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load as read_tensors
from torch import Tensor

from fieldloom.errors import printable, shorten
from fieldloom.executors.children import python_path
from fieldloom.modalities.sources import AUDIO, IMAGES, MESHES, VIDEOS
from fieldloom.permit import Permit
from fieldloom.system import System
from fieldloom.viewer.reconstructing import ANSWER, CODE, ORIGINAL
from fieldloom.viewer.refusals import Refused, explain

PROGRAM = "from fieldloom.viewer.reconstructing import main; main()"
JOBS, WAITING = 256, 16
"""Jobs that are remembered, and those that may wait or run at a time."""
PICTURES = 64
"""Originals that are kept."""
POLL = 0.1

ACCEPTED = {
    "images": {*IMAGES, ".npy"},
    "video": {*VIDEOS, ".gif", ".npy"},
    "audio": {*AUDIO, ".npy"},
    "shapes": {*MESHES, ".binvox", ".npy"},
}
"""Kind of data -> suffixes of files that hold one datum; a scene is a folder."""


def accepted(system: System) -> list[str]:
    """The suffixes of files that a run can reconstruct."""
    if not system.encodes or not system.family.has_code:
        return []
    return sorted(ACCEPTED.get(system.modality.kind, ()))


def check_name(name: str, suffixes: list[str]) -> str:
    """The suffix of a file's name; nothing else of it is used. Raises Refused for others."""
    suffix = Path(name.replace("\\", "/")).suffix.lower() if "\0" not in name else ""
    if not suffixes:
        raise Refused(409, "this run reconstructs no files.")
    if suffix not in suffixes:
        kind = f"'{shorten(name, 60)}' is no such file" if name else "the file has no name"
        raise Refused(415, f"{kind}: this run takes {', '.join(suffixes)}.")
    return suffix


class Limits(NamedTuple):
    """Of an upload: bytes, and seconds that it may take to arrive, and again to be computed."""

    bytes: int
    seconds: int | float


class Found(NamedTuple):
    """What a process has found for a file; ``Reconstructed`` as it comes back."""

    code: Tensor
    metric: str
    value: float
    signals: int
    picture: bytes | None


@dataclass
class Job:
    """A file that is reconstructed. state: waiting, running, done, failed or cancelled."""

    id: str
    name: str
    state: str = "waiting"
    sentence: str = "it waits for another file."
    result: dict[str, Any] | None = None
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    def describe(self) -> dict[str, Any]:
        state = "running" if self.state == "waiting" else self.state
        return {"job": self.id, "state": state, "sentence": self.sentence, "result": self.result}


class Uploads:
    """The jobs of a viewer, of which one runs at a time, and pictures of the originals."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.jobs, self.pictures = OrderedDict[str, Job](), OrderedDict[str, bytes]()
        self.begun, self.drawn = 0, 0
        self.one = asyncio.Lock()

    def begin(
        self,
        name: str,
        suffix: str,
        content: bytes,
        asked: dict[str, Any],
        finish: Callable[[Found, str], dict[str, Any]],
    ) -> Job:
        """Begin a job. asked: as of ``ask``. finish: makes the result of what is found, given the
        name of the original's picture."""
        going = [job for job in self.jobs.values() if job.state in ("waiting", "running")]
        if len(going) >= WAITING:
            raise Refused(429, f"{len(going)} files are waiting already: cancel one, or wait.")
        self.begun += 1
        job = Job(f"j{self.begun}", shorten(printable(name), 60))
        self.jobs[job.id] = job
        while len(self.jobs) > JOBS:
            self.jobs.popitem(last=False)
        job.task = asyncio.create_task(self._run(job, suffix, content, asked, finish))
        return job

    def find(self, id: str) -> Job:
        if (job := self.jobs.get(id)) is None:
            raise Refused(404, "there is no such job.")
        return job

    def cancel(self, id: str) -> Job:
        job = self.find(id)
        if job.state in ("waiting", "running"):
            job.state, job.sentence = "cancelled", "it was cancelled."
            if job.task is not None:
                job.task.cancel()
        return job

    def keep_picture(self, content: bytes | None) -> str | None:
        """The name of a picture that is kept; None where there is none."""
        if content is None:
            return None
        self.drawn += 1
        self.pictures[f"u{self.drawn}"] = content
        while len(self.pictures) > PICTURES:
            self.pictures.popitem(last=False)
        return f"u{self.drawn}"

    async def _run(
        self,
        job: Job,
        suffix: str,
        content: bytes,
        asked: dict[str, Any],
        finish: Callable[[Found, str], dict[str, Any]],
    ) -> None:
        try:
            async with self.one:
                job.state, job.sentence = "running", "it is being read and encoded."
                found = await reconstruct(job, suffix, content, asked, self.limits.seconds)
            picture = self.keep_picture(found.picture)
            job.result = finish(found, picture or "")
            more = f"; it is the first of {found.signals} in the file" if found.signals > 1 else ""
            job.state = "done"
            job.sentence = f"{found.metric.upper()} {found.value:.2f} dB{more}."
        except asyncio.CancelledError:
            job.state, job.sentence = "cancelled", "it was cancelled."
        except Exception as error:
            job.state, job.sentence = "failed", explain(error)[1]

    async def close(self) -> None:
        """End all jobs, and wait until their files are removed."""
        for id in self.jobs:
            self.cancel(id)
        going = [job.task for job in self.jobs.values() if job.task is not None]
        await asyncio.gather(*going, return_exceptions=True)


async def reconstruct(
    job: Job, suffix: str, content: bytes, asked: dict[str, Any], seconds: int | float
) -> Found:
    """What a process finds for a file, which is on the disk meanwhile alone.

    Raises Refused for what is wrong with it, or where it takes longer. The process ends with it.
    """
    with tempfile.TemporaryDirectory(prefix="fieldloom-view-") as folder:
        path = Path(folder) / f"upload{suffix}"
        await asyncio.to_thread(path.write_bytes, content)
        given = json.dumps(asked | {"path": str(path)})
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, given],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": python_path()},
            start_new_session=True,
        )
        try:
            until = time.monotonic() + seconds
            while process.poll() is None:
                if time.monotonic() > until:
                    raise Refused(408, f"it took longer than {seconds:g} s (--upload-seconds).")
                await asyncio.sleep(POLL)
        finally:
            end(process)
        return await asyncio.to_thread(read_found, Path(folder), str(path), job.name)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process, and those that it has started."""
    if process.poll() is None:
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()


def read_found(folder: Path, path: str, name: str) -> Found:
    """What a process has written. Raises Refused with why it found nothing."""
    try:
        answer = json.loads((folder / ANSWER).read_text("utf-8"))
    except (OSError, ValueError):
        raise Refused(
            422,
            f"'{name}' ended the process that read it: it is damaged, or needs more memory than "
            "there is.",
        ) from None
    if "error" in answer:
        raise Refused(422, answer["error"].replace(path, name))
    code = read_tensors((folder / CODE).read_bytes())["code"]
    picture = (folder / ORIGINAL).read_bytes() if (folder / ORIGINAL).is_file() else None
    return Found(code, answer["name"], answer["value"], answer["signals"], picture)


def ask(run: Path, device: str, permit: Permit) -> dict[str, Any]:
    """What a process needs to know to reconstruct a file by a run."""
    trust = list(permit.trust)
    return {"run": str(run), "device": device, "trust": trust, "large": permit.large}
