"""Codes that a training begins with: of another program, or of a run that had more data."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fieldloom.codecs.codec import moments
from fieldloom.codes.files import HDF5, open_codes
from fieldloom.codes.functa import take_functa
from fieldloom.codes.index import find_jobs
from fieldloom.codes.stored import StoredCodes
from fieldloom.conditioners import FlatWeights
from fieldloom.engine.run import Run
from fieldloom.errors import InputError, name_argument, quote_path
from fieldloom.progress import announce
from fieldloom.system import System

NPZ = ".npz"


class Given(NamedTuple):
    """Codes (signals, tokens, width), and columns beside them: places, errors, labels."""

    codes: Tensor | StoredCodes
    beside: dict[str, Tensor]


def are_codes(path: str | Path) -> bool:
    """Whether this is a file, or a folder of jobs, and no run."""
    where = Path(path)
    return where.is_file() or (where.is_dir() and not Run(where).exists and bool(find_jobs(where)))


def open_given(system: System, fields: str | Path | None, codes: str | Path | None) -> Given | None:
    """The codes that a training of a system begins with; None where it finds its own.

    fields: another run, or codes that are fields by themselves, whose weights the system gets.
    codes: those that the run found, of whatever data. Raises InputError where they do not fit.
    """
    if codes is not None:
        if fields is None or are_codes(fields):
            raise InputError(
                f"{name_argument('codes')} needs {name_argument('fields')}: the run whose field "
                "these codes belong to."
            )
        return Given(open_codes(codes, Run(fields).read_system("cpu", system.permit)), {})
    if fields is None or not are_codes(fields):
        return None
    if Path(fields).suffix.lower() == NPZ:
        return Given(*take_functa(Path(fields), system))
    return Given(take_fields(Path(fields), system), {})


def take_fields(path: Path, system: System) -> StoredCodes:
    """Codes that are all weights of fields; the start of a system's fits becomes their mean."""
    own = system.family.conditioner
    if not isinstance(own, FlatWeights) or set(own.layout or ()) != set(own.slots):
        raise InputError(
            f"the codes in {quote_path(path)} are no fields without the weights that they belong "
            f"to: {name_argument('fields')} names the run that found them, "
            f"{name_argument('codes')} the codes; codes alone are fields where the conditioner is "
            "'flat-weights'."
        )
    found = open_codes(path, system if path.suffix.lower() in HDF5 else None)
    if found.code_shape != system.family.code_shape:
        raise InputError(
            f"the fields in {quote_path(path)} have {found.code_shape} weights each, (tokens, "
            f"width): this recipe's have {system.family.code_shape}."
        )
    with torch.no_grad():
        own.start.copy_(moments(found)[1][None])
    return found


def read_labels(given: Given, system: System) -> Tensor | None:
    """The class of each code, where the prior has classes and the codes have labels.

    Raises InputError for labels that are none of the classes.
    """
    classes = 0 if system.prior is None else system.prior.classes
    labels = column(given, "labels")
    if not classes:
        return None
    if labels is None:
        announce("the codes have no classes beside them: the prior learns none.")
        return None
    wrong = labels[(labels < 0) | (labels >= classes)]
    if len(wrong):
        raise InputError(
            f"the codes are of a class {int(wrong[0])}, and the data have {classes}: 0 to "
            f"{classes - 1}."
        )
    return labels.long()


def column(given: Given, name: str) -> Tensor | None:
    """What stands beside codes; None where there is nothing of that name."""
    if isinstance(given.codes, StoredCodes) and name in given.codes.names:
        return given.codes.read(slice(None), name)
    return given.beside.get(name)


def remember(codes: StoredCodes) -> dict[str, Any]:
    """What a run notes of codes that stay where they are."""
    path = str(codes.path.absolute())
    return {"path": path, "count": len(codes), "fingerprint": codes.fingerprint()}


def reopen(told: dict[str, Any], system: System) -> Given:
    """The codes that a run has noted. Raises InputError where they are gone, or are others now."""
    path = Path(str(told.get("path")))
    if not path.exists():
        raise InputError(
            f"the codes that the run is trained on, {quote_path(path)}, are no longer there: put "
            "them back to go on."
        )
    codes = open_codes(path, system if path.suffix.lower() in HDF5 else None)
    if (len(codes), codes.fingerprint()) != (told.get("count"), told.get("fingerprint")):
        raise InputError(
            f"the codes in {quote_path(path)} are others than the run was begun with: other codes "
            f"need a run of their own ({name_argument('run')})."
        )
    return Given(codes, {})
