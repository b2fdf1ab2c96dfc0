"""What a verb works on: a trained run, its data or a path's, classes by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldloom.cli.options import Device, permit
from fieldloom.errors import InputError, shorten

if TYPE_CHECKING:
    from torch import Tensor

    from fieldloom.modalities.sources import Source
    from fieldloom.system import System
    from fieldloom.types import Data


def opened(run: str, device: Device) -> System:
    from fieldloom.engine.run import Run

    return Run(run).read_system(device.value, permit())


def source_of(system: System, path: str | None) -> Source:
    """The run's own source, or a path's data, all of them to test on.

    Raises InputError where the run's own data are not those that it was trained on.
    """
    from fieldloom.assembly import open_source
    from fieldloom.modalities.sources import SOURCES, spec_of
    from fieldloom.preparation import check_same
    from fieldloom.registry import hints_of

    if path is None:
        source = open_source(system.recipe, system.modality, system.permit)
        check_same(system.recipe, source.facts())
        return source
    own = system.recipe.get("source", {})
    own = {"name": own} if isinstance(own, str) else own
    spec = spec_of(path, own.get("name"))
    if own.get("name") == spec["name"]:  # read as in training
        spec = own | spec
        for key in ("limit", "key", "label", "prefix"):
            spec.pop(key, None)
    trained = system.recipe.get("known", {}).get("filter", "none")
    readers: Mapping[str, Any] = SOURCES
    if trained != "none" and "filter" in hints_of(readers[spec["name"]]):
        spec["filter"] = trained
    return open_source({"source": spec}, system.modality, system.permit)


def part_of(system: System, path: str | None) -> tuple[Source, Tensor]:
    """The run's source with the indices of its test part, or a path's with all of them."""
    source = source_of(system, path)
    return source, source.test if path is None and len(source.test) else source.train


def data_of(system: System, path: str | None) -> Data:
    """The test part of the run's source, or all data at a path."""
    source, indices = part_of(system, path)
    return source.read(indices)


HDF5 = (".hdf5", ".h5")
"""How files of fit-a-nef's layout end."""


def codes_of(system: System, path: str) -> Tensor:
    """Codes that ``encode`` wrote, in any of its formats: a folder of shards, or a file."""
    from fieldloom.codes import bulk, nef
    from fieldloom.engine.provenance import fingerprint_weights
    from fieldloom.engine.tensors import read_tensors

    where, made_with, mine = Path(path), None, ""
    if not where.exists():
        raise InputError(f"'{path}' does not exist: give what encode wrote.")
    if where.is_dir():
        codes, made_with = bulk.read(where).codes, bulk.made_with(where)
        mine = bulk.fingerprint(system)
    elif where.suffix.lower() in HDF5:
        codes, _ = nef.read(where, system.family, system.permit)
    else:
        tensors, _, told = read_tensors(where)
        made_with, mine = told.get("weights"), fingerprint_weights(system)
        if "codes" not in tensors:
            there = shorten(", ".join(sorted(tensors))) or "nothing"
            raise InputError(f"'{path}' holds no codes: it has {there}.")
        codes = tensors["codes"]
    if made_with is not None and made_with != mine:
        raise InputError(
            f"the codes in '{path}' were found with other weights than this run's: decode them "
            "with the run that encoded them."
        )
    if tuple(codes.shape[1:]) != system.family.code_shape:
        raise InputError(
            f"the codes in '{path}' are {tuple(codes.shape[1:])} each: this run's are "
            f"{system.family.code_shape}."
        )
    if not codes.is_floating_point():
        raise InputError(f"the codes in '{path}' are {codes.dtype}: codes are floating-point.")
    return codes.float()
