"""Weights of fields in the layout of fit-a-nef and Neural Field Arena: HDF5, one row a field.

    params        float32 (fields, numbers): layer by layer, a bias before its kernel (in, out)
    param_config  one string, JSON: [[name, shape], ...] in that order
    labels ...    further datasets of numbers, one row a field

Source: github.com/samuelepapa/fit-a-nef (arXiv:2312.10531). Their images' first coordinate is the
column, ours the row: ``modality.coords.order`` states it. Needs h5py: the extra ``hdf5``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import torch
from pydantic import NonNegativeInt, TypeAdapter
from torch import Tensor

from fieldloom import atomic
from fieldloom.codes.jobs import hash_file
from fieldloom.conditioners import FlatWeights
from fieldloom.errors import InputError, quote, quote_path, shorten
from fieldloom.family import Family
from fieldloom.fields import Siren
from fieldloom.modalities.sources.files import Refused, check_size
from fieldloom.permit import NOTHING, Permit
from fieldloom.types import Code, layer_of

KEYS = ("params", "param_config")
"""Datasets that hold the fields; all others are extras, as labels."""

HEAP = b"GCOL\1\0\0\0"
"""The first bytes of a heap of strings in HDF5."""

UNPACKED = 1 << 28
"""Bytes of a small file's datasets, which may be compressed; weights hardly are."""

LAYOUT = TypeAdapter(list[tuple[str, tuple[NonNegativeInt, ...]]])
"""What ``param_config`` holds: the name and the shape of each tensor."""


def check_family(family: Family) -> None:
    """Raise InputError where a family's codes cannot be kept as such a file."""
    import_h5py()
    name_tensors(family)


def write(path: Path, family: Family, codes: Code, extras: Mapping[str, Tensor]) -> Path:
    """Write codes of fields as such a file. extras: further datasets, as ``labels``, by rows.

    Raises InputError where codes are not all the weights of plain layers.
    """
    names, flat = name_tensors(family), flat_weights_of(family)
    weights = {slot: w.detach().float().cpu() for slot, w in flat.unpack(codes).items()}
    layout = [[name, list(weights[slot].shape[1:])] for name, slot in names.items()]
    params = torch.cat([weights[slot].flatten(1) for slot in names.values()], 1)
    h5py = import_h5py()

    def fill(file: Any) -> None:
        with h5py.File(file.name, "w") as open_file:  # HDF5 reads what it writes
            open_file["params"] = params.numpy()
            config = open_file.create_dataset("param_config", (1,), h5py.string_dtype())
            config[0] = json.dumps(layout)
            for key, rows in extras.items():
                open_file[key] = rows.detach().cpu().numpy()

    return atomic.write_atomically(path, fill)


@dataclass(frozen=True)
class FieldsFile:
    """The fields of such a file as codes (fields, tokens, width) of a family, for ``StoredCodes``.

    order: (tokens, width), the place of each number of a code among those of a field, from 1 on; 0
    is padding. extras: datasets of numbers with one row a field. The file is opened anew for each
    reading, so that no process inherits one that is open.
    """

    path: Path
    order: Tensor
    counts: Tensor
    extras: frozenset[str]

    size = 0

    @property
    def names(self) -> frozenset[str]:
        return self.extras & {"labels", "places", "errors"} | {"codes"}

    def open(self, number: int, verify: bool) -> FieldsFile:
        return self

    def read(self, name: str, rows: slice | Tensor) -> Tensor:
        """The codes, or an extra, of some fields. Raises InputError where they cannot be read."""
        key = "params" if name == "codes" else name
        different, which = rows, slice(None)
        if isinstance(rows, Tensor):  # HDF5 takes each row once, in ascending order
            different, which = rows.unique(return_inverse=True)
            different = different.numpy()
        try:
            with import_h5py().File(self.path, "r") as file:
                found = read_numbers(file[key], different)
        except Exception as error:  # HDF5 fails in many ways on a broken file
            why = shorten(str(error))
            raise InputError(f"{quote_path(self.path)} cannot be read: {why}.") from None
        found = found[which]
        if name != "codes":
            return found
        padded = torch.nn.functional.pad(found.float(), (1, 0))
        return padded[:, self.order.flatten()].unflatten(1, self.order.shape)

    def fingerprint(self) -> str:
        return hash_file(self.path)


def read(path: Path, family: Family, permit: Permit = NOTHING) -> tuple[Code, dict[str, Tensor]]:
    """All fields of such a file as codes (fields, tokens, width) of a family, and its extras."""
    file = open_fields(path, family, permit)
    return file.read("codes", slice(None)), {
        name: file.read(name, slice(None)) for name in sorted(file.extras)
    }


def open_fields(path: Path, family: Family, permit: Permit = NOTHING) -> FieldsFile:
    """The fields of such a file as codes of a family.

    Extras are datasets of numbers with one row a field. Other content is not read, nor are links
    and data in other files. Raises InputError where the file is not of this layout, or its fields
    are not of this family.
    """
    names, flat = name_tensors(family), flat_weights_of(family)
    h5py, name = import_h5py(), quote_path(path)
    try:
        check_heaps(path)
        with h5py.File(path, "r") as file:
            held = {key: own for key in file if (own := own_dataset(file, key)) is not None}
            if missing := [key for key in KEYS if key not in held]:
                raise ValueError(f"it has no dataset '{missing[0]}' of its own")
            has = dict(LAYOUT.validate_json(first_text(held["param_config"], path), strict=True))
            size = sum(own.size * own.dtype.itemsize for own in held.values())
            check_size(name, size, "bytes", max(UNPACKED, 4 * path.stat().st_size), permit.large)
            shape = held["params"].shape
            if held["params"].dtype.kind not in "biuf" or len(shape) != 2 or not shape[0]:
                raise ValueError("'params' is no matrix of numbers with a row a field")
            extras = frozenset(
                key
                for key, own in held.items()
                if key not in KEYS and own.dtype.kind in "biuf" and own.shape[:1] == shape[:1]
            )
    except (Refused, MemoryError):
        raise
    except Exception as error:  # HDF5 fails in many ways on a broken file
        raise InputError(f"{name} is no HDF5 file of fields: {shorten(str(error))}.") from None
    needs = {name: flat.slots[slot].shape for name, slot in names.items()}
    if has != needs:
        wrong = next(n for n in [*needs, *has] if has.get(n) != needs.get(n))
        raise InputError(
            f"{name} holds other fields than this run's: '{shorten(wrong)}' is "
            f"{quote(has.get(wrong, 'missing'))}, not {needs.get(wrong, 'in it')}."
        )
    sizes = [math.prod(own) for own in has.values()]
    if shape[1] != sum(sizes):
        raise InputError(
            f"{name}: 'params' has {shape[1]} numbers a field, not the {sum(sizes)} of "
            "'param_config'."
        )
    places = dict(
        zip(
            has,
            torch.arange(1.0, shape[1] + 1, dtype=torch.float64)[None].split(sizes, 1),
            strict=True,
        )
    )
    order = flat.pack({slot: places[key].unflatten(1, needs[key]) for key, slot in names.items()})
    return FieldsFile(path, order[0].long(), torch.tensor([shape[0]]), extras)


def check_heaps(path: Path) -> None:
    """Raise ValueError where a heap of strings has an object without a size.

    HDF5 itself would loop over such a heap for ever. A heap is ``GCOL``, a version, its size (8
    bytes), and objects: 2 bytes of a number, 0 where the rest is free, 6 of others, 8 of a size,
    and content.
    """
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        number = lambda first, count: int.from_bytes(content[first : first + count], "little")
        start = content.find(HEAP)
        while start >= 0:
            at, end = start + 16, min(start + number(start + 8, 8), len(content))
            while at + 16 <= end:
                size = number(at + 8, 8)
                step = 16 + -(-size // 8) * 8 if number(at, 2) else size
                if step < 16:
                    raise ValueError("a heap of its texts has no end")
                at += step
            start = content.find(HEAP, start + 1)


def first_text(held: Any, path: Path) -> str:
    """The first text of a dataset. Raises ValueError for one that is longer than its file."""
    offset = held.id.get_offset()
    if held.dtype.kind == "O" and offset is not None:
        with path.open("rb") as file:  # HDF5 allocates whatever length the file states
            file.seek(offset)
            if int.from_bytes(file.read(4), "little") > path.stat().st_size:
                raise ValueError("its text is longer than the file")
    return held.asstr()[0]


def own_dataset(file: Any, key: str) -> Any:
    """A dataset whose data are in this file; None for groups, links and data in other files."""
    h5py = import_h5py()
    if not isinstance(file.get(key, getlink=True), h5py.HardLink):
        return None
    own = file[key]
    if not isinstance(own, h5py.Dataset) or own.is_virtual or own.external or own.shape is None:
        return None
    return own


def read_numbers(held: Any, which: Any) -> Tensor:
    """Numbers of a dataset, of any shape."""
    content = held[which]
    return torch.as_tensor(content.astype(content.dtype.newbyteorder("="), copy=False))


def name_tensors(family: Family) -> dict[str, str]:
    """The name of each tensor in such a file -> our slot, in the file's order."""
    flat = flat_weights_of(family)
    assert flat.layout is not None
    layers = list(dict.fromkeys(layer_of(slot) for slot in flat.layout))
    if set(flat.layout) != set(flat.slots) or any(
        slot not in (f"{layer_of(slot)}.bias", f"{layer_of(slot)}.weight") or len(own.shape) > 2
        for slot, own in flat.layout.items()
    ):
        raise InputError("HDF5 of fields: all slots must be weights and biases of plain layers.")
    names = {}
    for number, layer in enumerate(layers):
        theirs = f"Dense_{number}"
        if isinstance(family.field, Siren):
            last = number == len(layers) - 1
            theirs = "output_linear" if last else f"kernel_net_{number}.linear"
        for own, name in (("bias", "bias"), ("weight", "kernel")):
            if f"{layer}.{own}" in flat.layout:
                names[f"{theirs}.{name}"] = f"{layer}.{own}"
    return names


def flat_weights_of(family: Family) -> FlatWeights:
    if not isinstance(family.conditioner, FlatWeights):
        raise InputError("HDF5 of fields needs conditioner 'flat-weights': codes that are weights.")
    return family.conditioner


def import_h5py() -> Any:
    """h5py. Raises InputError where it is not installed."""
    try:
        import h5py
    except ImportError:
        raise InputError("HDF5 needs h5py: pip install 'fieldloom[hdf5]'.") from None
    return h5py
