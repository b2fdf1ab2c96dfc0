"""The files of decoded data that a shard writes, one a datum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from fieldloom import stopping
from fieldloom.codes.shards import clip, digests_of, files_at
from fieldloom.drawing.files import check_file_format, write_datum
from fieldloom.errors import FieldloomError, InputError, Interrupted, escape_bytes
from fieldloom.executors.work import name_of
from fieldloom.modalities.modality import Resolution
from fieldloom.system import System
from fieldloom.types import Code

EFFORT, MOST = 1 << 31, 512
"""The most points that the data of a shard are decoded at (minutes on a CPU), and the most data."""


@dataclass(frozen=True)
class Files:
    """How decoded data are written: resolution, format and project as of ``drawing.write_data``."""

    resolution: Resolution | None = None
    format: str | None = None
    project: int = 0

    def check(self, system: System) -> None:
        """Raise InputError, before the work, for what the system's data do not have."""
        check_file_format(system, self.format, self.project)
        system.check_memory(1, self.resolution, system.modality.cameras())

    def suffix(self, system: System) -> str:
        return system.modality.formats[0] if self.format is None else f".{self.format}"

    def options(self, system: System) -> dict[str, str]:
        """What makes a job with such files the same as another."""
        return {
            "resolution": repr(self.resolution),
            "format": self.suffix(system),
            "project": str(self.project),
        }

    def shard_size(self, system: System) -> int:
        """The number of data that are decoded in minutes on a CPU."""
        cameras = system.modality.cameras()
        points = math.prod(system.modality.shape(self.resolution)) * system.render.evaluations
        return clip(EFFORT / (points * (1 if cameras is None else cameras.count)), 1, MOST)


def write_files(
    system: System,
    codes: Code,
    folder: Path,
    number: int,
    places: Sequence[int],
    files: Files,
    frames: Tensor | None = None,
) -> tuple[list[int], Tensor, dict[int, str]]:
    """Decode the codes of a shard, and write a file for each.

    places: the numbers of these data, which name the files. frames: of shapes, centre and scale of
    the originals (batch, 4). Returns the rows that were written, the hashes of their files, and
    place -> why there is none. Raises Interrupted where the user asks to stop: the shard is written
    anew.
    """
    if (folder / name_of(number)).is_symlink():
        raise InputError(f"'{folder / name_of(number)}' is a link: remove it.")
    written, failed = list[int](), dict[int, str]()
    paths = files_at(folder, number, places, files.suffix(system))
    for i, (place, path) in enumerate(zip(places, paths, strict=True)):
        if stopping.stop_requested():
            raise Interrupted(f"stopped within shard {number + 1}, which begins anew")
        frame = None if frames is None else frames[i]
        why = None
        if not codes[i].isfinite().all():
            why = "its code is no finite number"
        else:
            try:
                code, form = codes[i : i + 1], (files.resolution, files.project, frame)
                if write_datum(system, code, path, *form) is None:
                    why = "it has no surface"
            except (FieldloomError, ValueError, ArithmeticError) as error:
                why = escape_bytes(str(error).rstrip("."))[:1000]
        if why is None:
            written.append(i)
        else:
            path.unlink(missing_ok=True)
            failed[place] = why
    return written, digests_of([paths[i] for i in written]), failed
