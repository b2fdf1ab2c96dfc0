"""Codes of Functa (arXiv:2201.12204), with the network that they modulate, from a packed ``.npz``.

    modulation            (signals, width): the latent codes
    psnr, labels          (signals,), where there are any
    .../w, .../b          the network's parameters, by the names of the released code (Haiku)

Released files are called ``.npz``, but are pickles, which can run code and are never read here:
docs/codes.md shows how they are turned into arrays where they are trusted. Source of the names:
github.com/google-deepmind/functa.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from fieldloom.conditioners import Shift
from fieldloom.engine.loop import load_weights
from fieldloom.errors import InputError, quote_path
from fieldloom.fields import Siren
from fieldloom.modalities.grid import Placement
from fieldloom.modalities.sources.files import Archive, load_array, read_npz
from fieldloom.system import System
from fieldloom.types import Code

LAYER = re.compile(r"(?:.*/)?modulated_siren_layer(?:_(\d+))?/linear/([wb])")
PROJECT = re.compile(r".*latent_to_modulation/.*/linear_(\d+)/([wb])")
RATES = re.compile(r"(?:.*/)?meta_sgd_lrs")
KINDS = {"w": "weight", "b": "bias"}


def take_functa(path: Path, system: System) -> tuple[Code, dict[str, Tensor]]:
    """Load the network of a file into a system. Returns its codes, and what stands beside them.

    Codes are (signals, 1, width); beside them are ``errors``, the squared errors of the PSNRs, and
    ``labels``. Raises InputError where the file is no such one, or the system is not of this kind:
    a SIREN whose hidden layers are shifted, plus 0.5, at pixel centres (row, column) in [0, 1],
    with values in [0, 1].
    """
    check_functa(system)
    file = open_arrays(path)
    codes = read_rows(file, "modulation", 2)
    parameters = read_parameters(file)
    load_weights(system, system.state_dict() | parameters, quote_path(path))
    if codes.shape[1:] != system.family.code_shape[1:]:
        raise InputError(
            f"the codes in {quote_path(path)} are {tuple(codes.shape[1:])} each: this recipe's are "
            f"{system.family.code_shape}."
        )
    beside = {}
    if "psnr" in file:
        beside["errors"] = 10 ** (-read_rows(file, "psnr", 1) / 10)
    if "labels" in file:
        beside["labels"] = torch.from_numpy(load_array(file, "labels", "integers", (1,))).long()
    if any(len(rows) != len(codes) for rows in beside.values()):
        raise InputError(
            f"{quote_path(path)}: its psnr and labels must be one for each of {len(codes)} codes."
        )
    return codes[:, None], beside


def check_functa(system: System) -> None:
    """Raise InputError where a system is not of functa's kind."""
    family, space = system.family, system.modality
    if not isinstance(family.conditioner, Shift) or not isinstance(family.field, Siren):
        raise InputError("codes of functa need field 'siren' and conditioner 'shift': functa:...")
    centres = Placement("centre", 0.0, 1.0)
    placed = getattr(space, "placement", centres) == centres
    if not placed or (space.low, space.high) != (0.0, 1.0) or family.field.offset != 0.5:
        raise InputError(
            "functa's fields take pixel centres in [0, 1], (row, column), and give values in "
            "[0, 1] as their last layer plus 0.5: the recipe has other modality.coords, "
            "modality.range or field.offset (functa:celebahq64 has these)."
        )


def open_arrays(path: Path) -> Archive:
    """The arrays of a file. Raises InputError for a pickle, as the released files are."""
    try:
        with path.open("rb") as file:
            pickled = file.read(1) == b"\x80"
    except OSError as error:
        raise InputError(f"{quote_path(path)} cannot be read: {error.strerror}.") from None
    if pickled:
        raise InputError(
            f"{quote_path(path)} is a pickle, which can run code and is not read: docs/codes.md "
            "shows how released files of functa are turned into arrays where they are trusted."
        )
    return read_npz(path)


def read_rows(file: Archive, name: str, axes: int) -> Tensor:
    return torch.from_numpy(load_array(file, name, axes=(axes,))).float()


def read_parameters(file: Archive) -> dict[str, Tensor]:
    """The network's parameters by the names that a system has. Raises InputError without any."""
    found = {}
    for name in file.names or ():
        if layer := LAYER.fullmatch(name):
            own = f"family.conditioner.base.{int(layer[1] or 0)}.{KINDS[layer[2]]}"
            found[own] = read_rows(file, name, 2 if layer[2] == "w" else 1)[None]
        elif project := PROJECT.fullmatch(name):
            if project[1] != "0":
                raise InputError(
                    f"{quote_path(file.path)}: its map from codes to shifts has hidden layers, and "
                    "conditioner 'shift' is one linear map, as functa's released networks."
                )
            own = f"family.conditioner.project.{KINDS[project[2]]}"
            rows = read_rows(file, name, 2 if project[2] == "w" else 1)
            found[own] = rows.mT.contiguous() if project[2] == "w" else rows
        elif RATES.fullmatch(name):
            found["encoder.rates"] = read_rows(file, name, 1)
    if not any(name.startswith("family") for name in found):
        raise InputError(
            f"{quote_path(file.path)} has no parameters of functa's network, without which its "
            "codes are no pictures: docs/codes.md shows how both come into one file."
        )
    return found
