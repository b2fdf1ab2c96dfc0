"""Codes as files: a folder of shards, one safetensors file, or the HDF5 of other projects."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from torch import Tensor

from fieldloom.codes import bulk, nef
from fieldloom.codes.index import made_by_weights, map_file, open_shards
from fieldloom.codes.jobs import BESIDE
from fieldloom.codes.stored import StoredCodes
from fieldloom.engine.provenance import fingerprint_weights
from fieldloom.engine.run import Run
from fieldloom.engine.tensors import read_tensors, write_tensors
from fieldloom.errors import InputError, is_command, name_argument, quote_path
from fieldloom.modalities.sources import Source
from fieldloom.system import System
from fieldloom.types import Code

Format = Literal["shards", "safetensors", "hdf5"]
HDF5 = (".hdf5", ".h5")
"""Suffixes of files in fit-a-nef's layout."""


def encode_into(
    system: System,
    source: Source,
    indices: Tensor,
    path: str | Path,
    format: Format | None = None,
    worst: float = math.inf,
    *,
    shard: int | None = None,
    executor: str = "local",
    workers: int | None = None,
    origin: bulk.Origin | None = None,
) -> bulk.EncodedJob:
    """Encode data of a source into a folder or a file; resumes a job that was stopped.

    indices: (signals,) of the data, in the order of the result. format: None: by ``format_of``.
    worst, shard, executor, workers, origin: as of ``bulk.encode``. Until a file is complete, its
    shards are in ``shards_of(path, format)``; several commands may share a folder of shards, but
    one alone makes a file. Raises InputError, before the work, for HDF5 of a system whose
    codes are not all the weights of plain layers; and what ``bulk.encode`` raises.
    """
    path = Path(path)
    format = format_of(path) if format is None else format
    check_code_format(system, format)
    folder = shards_of(path, format)
    found = bulk.encode(
        system,
        source,
        indices,
        folder,
        shard,
        worst,
        executor=executor,
        workers=workers,
        origin=origin,
        shared=format == "shards",
    )
    if format == "shards":
        return found
    extras = {"places": found.indices, "errors": found.errors}
    if source.labels is not None:
        extras["labels"] = source.labels[found.indices]
    if format == "hdf5":
        nef.write(path, system.family, found.codes, extras)
    else:
        made_by = {"verb": "encode", "weights": fingerprint_weights(system)}
        write_tensors(path, {"codes": found.codes, **extras}, {"failed": found.failed}, made_by)
    bulk.remove(folder)
    return found


def check_code_format(system: System, format: Format) -> None:
    """Raise InputError where a system's codes cannot be kept in a format."""
    if format == "hdf5":
        nef.check_family(system.family)


def format_of(path: Path) -> Format:
    """The format of a path: a folder of shards without a suffix, else one file by its suffix."""
    if not path.suffix:
        return "shards"
    return "hdf5" if path.suffix.lower() in HDF5 else "safetensors"


def shards_of(path: Path, format: Format) -> Path:
    """The folder of the shards that such a file is made from; for shards the path itself."""
    return path if format == "shards" else path.with_name(f"{path.name}{BESIDE}")


def is_begun(path: Path, format: Format) -> bool:
    """Whether a job of codes has begun there."""
    return (shards_of(path, format) / bulk.MANIFEST).is_file()


def is_encoded(path: Path) -> bool:
    """Whether a file is one that ``encode_into`` wrote."""
    try:
        return read_tensors(path).made_by.get("verb") == "encode"
    except InputError:
        return False


def open_codes(
    path: str | Path, system: System | str | Path | None = None, verify: bool = True
) -> StoredCodes:
    """Codes in files, which are read as far as they are asked for.

    path: what ``encode`` wrote (a folder of shards, or one file), a folder of such folders, which
    are one set then, or a run's ``codes.safetensors``. system: whose codes they must be, or the
    folder of its run; HDF5 needs it, since its order of numbers follows from the field. verify:
    whether each file is compared with its hash when it is first opened.

    Raises InputError where there are none, they are not finished, or are another system's.
    """
    if not isinstance(path, str | Path):
        raise InputError(f"path: a {type(path).__name__} where that of codes is needed.")
    where = Path(path)
    if isinstance(system, str | Path):
        system = Run(system).read_system("cpu")
    if not where.exists():
        raise InputError(f"{quote_path(where)} does not exist: give what encode wrote.")
    if where.is_dir():
        shards = open_shards(where)
        found = StoredCodes(where, shards, verify=verify)
        made_by = {shards.manifest(i).job.system for i in range(len(shards.folders))}
        mine = "" if system is None else bulk.fingerprint_system(system)
    elif where.suffix.lower() in HDF5:
        if system is None:
            raise InputError(
                f"{quote_path(where)} is HDF5, in which the order of a code's numbers follows from "
                f"the field: give the {name_argument('run') if is_command() else 'system'}, too."
            )
        found = StoredCodes(where, nef.open_fields(where, system.family, system.permit))
        found.system = system
        return found
    else:
        found = map_file(where, verify=verify)
        made_by = made_by_weights(where)
        mine = "" if system is None else fingerprint_weights(system)
    if system is not None:
        if made_by - {mine}:
            raise InputError(
                f"the codes in '{path}' were found with other weights than this run's: decode them "
                "with the run that encoded them."
            )
        if found.code_shape != system.family.code_shape:
            raise InputError(
                f"the codes in '{path}' are {found.code_shape} each: this run's are "
                f"{system.family.code_shape}."
            )
    found.system = system
    return found


def read_codes(path: str | Path, system: System) -> Code:
    """All codes (signals, tokens, width) that ``encode_into`` wrote, in any of its formats.

    Raises InputError where there are none, or they are another system's.
    """
    return open_codes(path, system)[:]
