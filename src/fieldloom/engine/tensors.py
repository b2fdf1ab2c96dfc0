"""Tensors and numbers in one safetensors file: checked sums, and what made it.

The metadata ``fieldloom`` are JSON: the numbers, beside them ``made_by`` (what made the file: name
-> fingerprint) and ``checksum`` (of all of these and the tensors). No pickle.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from fieldloom import export
from fieldloom.engine.schemas import Provenance, parse_json, validate_content
from fieldloom.errors import InputError, shorten


class Held(NamedTuple):
    """What such a file holds. made_by: empty in files of before, and of others."""

    tensors: dict[str, Tensor]
    numbers: dict[str, Any]
    made_by: dict[str, str]


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    numbers: Mapping[str, Any],
    made_by: Mapping[str, str] | None = None,
) -> Path:
    """Write a file beside its old self, then rename it. made_by: name -> fingerprint."""
    whole = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    told = json.loads(json.dumps(dict(numbers) | {"made_by": dict(made_by or {})}))  # as it is read
    told["checksum"] = checksum(whole, told)
    # one entry: several would come in any order, and equal files would differ
    return export.write(to_bytes(whole, {"fieldloom": json.dumps(told)}), path)


def read_tensors(path: Path) -> Held:
    """What ``write_tensors`` wrote. Raises InputError where it is missing or damaged."""
    if not path.is_file():
        raise InputError(f"'{path}' does not exist: the run has not come so far, or is no run.")
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get("fieldloom", "{}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        why = shorten(str(error))
        raise InputError(f"'{path}' is damaged and cannot be read: {why}.") from None
    numbers = parse_json(text, path)
    if not isinstance(numbers, dict):
        raise InputError(f"'{path}' is damaged: its metadata are no table.")
    said = numbers.pop("checksum", None)
    if said is not None and said != checksum(tensors, numbers):
        raise InputError(f"'{path}' is damaged: its content does not have the checksum it names.")
    made_by = validate_content(Provenance, numbers.pop("made_by", {}), path).root
    return Held(tensors, numbers, made_by)


def numbers_of(schema: type[BaseModel], held: Held, path: Path) -> Any:
    """The numbers of a file as its kind has them. Raises InputError."""
    return validate_content(schema, held.numbers, path)


def checksum(tensors: Mapping[str, Tensor], told: Mapping[str, Any]) -> str:
    """Of names, kinds, shapes and bytes of tensors, and of the metadata."""
    seen = hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=16)
    for name in sorted(tensors):
        digest(seen, name, tensors[name])
    return seen.hexdigest()


def digest(seen: Any, name: str, tensor: Tensor) -> None:
    """Let a hash see a tensor's name, kind, shape and bytes."""
    seen.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if flat.numel():
        seen.update(flat.view(torch.uint8).numpy().data)
