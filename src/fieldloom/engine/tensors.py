"""Tensors and numbers in one safetensors file, with a checksum and its provenance.

The metadata entry ``fieldloom`` is JSON: the numbers, ``made_by`` (name -> fingerprint of what the
file was made from) and ``checksum`` (of all of these and the tensors). No pickle.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from fieldloom import atomic
from fieldloom.engine.schemas import Kind, Provenance, parse_json, validate_content
from fieldloom.errors import InputError, escape_bytes, shorten


class Held(NamedTuple):
    """The content of such a file. made_by: empty in files of old versions and other programs."""

    tensors: dict[str, Tensor]
    numbers: dict[str, Any]
    made_by: dict[str, str]


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    numbers: Mapping[str, Any],
    made_by: Mapping[str, str] | None = None,
) -> Path:
    """Write such a file atomically. made_by: name -> fingerprint."""
    whole = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    metadata = json.loads(json.dumps(dict(numbers) | {"made_by": dict(made_by or {})}))  # as read
    metadata["checksum"] = checksum(whole, metadata)
    # one entry: several would come in any order, and equal files would differ
    return atomic.write_bytes(to_bytes(whole, {"fieldloom": json.dumps(metadata)}), path)


def read_tensors(path: Path) -> Held:
    """What ``write_tensors`` wrote. Raises InputError where it is missing or damaged."""
    if not path.is_file():
        raise InputError(f"'{path}' does not exist: the run has not come so far, or is no run.")
    try:
        with _readable_name(path) as name, safe_open(name, "pt") as file:
            text = (file.metadata() or {}).get("fieldloom", "{}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        why = shorten(str(error))
        raise InputError(f"'{path}' is damaged and cannot be read: {why}.") from None
    numbers = parse_json(text, path)
    if not isinstance(numbers, dict):
        raise InputError(f"'{path}' is damaged: its metadata are no table.")
    expected = numbers.pop("checksum", None)
    if expected is not None and expected != checksum(tensors, numbers):
        raise InputError(f"'{path}' is damaged: its content does not have the checksum it names.")
    made_by = validate_content(Provenance, numbers.pop("made_by", {}), path).root
    return Held(tensors, numbers, made_by)


@contextmanager
def _readable_name(path: Path) -> Iterator[str]:
    """A name of a file that safetensors can open, which takes UTF-8 alone."""
    if escape_bytes(str(path)) == str(path):
        yield str(path)
        return
    with path.open("rb") as file:
        yield f"/dev/fd/{file.fileno()}"


def numbers_of(schema: type[Kind], held: Held, path: Path) -> Kind:
    """The numbers of a file, checked by the schema of its kind. Raises InputError."""
    return validate_content(schema, held.numbers, path)


def checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    """A hash of the names, dtypes, shapes and bytes of tensors, and of the metadata."""
    seen = hashlib.blake2b(json.dumps(metadata, sort_keys=True).encode(), digest_size=16)
    for name in sorted(tensors):
        digest(seen, name, tensors[name])
    return seen.hexdigest()


def digest(seen: Any, name: str, tensor: Tensor) -> None:
    """Update a hash with a tensor's name, dtype, shape and bytes."""
    seen.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if flat.numel():
        seen.update(flat.view(torch.uint8).numpy().data)
