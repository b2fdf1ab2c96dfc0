"""Mapped safetensors: what the library of that name wrote, and hostile headers."""

import json
import os

import pytest
import torch
from safetensors.torch import save_file

from fieldloom.codes.mapped import DTYPES, map_tensors
from refusals import little_memory, refused


def test_tensors_are_those_that_were_written(tmp_path):
    tensors = {name: torch.arange(24).view(2, 3, 4).to(dtype) for name, dtype in DTYPES.items()} | {
        "empty": torch.zeros(0, 5),
        "one": torch.tensor(3.0),
    }
    save_file(tensors, tmp_path / "a.safetensors", {"by": "someone"})
    file = map_tensors(tmp_path / "a.safetensors")
    assert file.tensors.keys() == tensors.keys()
    assert all(torch.equal(file.tensors[name], x) for name, x in tensors.items())
    assert file.metadata == {"by": "someone"}


def entry(first: object, last: object, shape: object = (2,), dtype: object = "F32") -> dict:
    return {"dtype": dtype, "shape": list(shape) if isinstance(shape, tuple) else shape,
            "data_offsets": [first, last]}  # fmt: skip


def write_raw(path, header: object, room: int = 8, length: int | None = None):
    told = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(told) if length is None else length
    path.write_bytes(size.to_bytes(8, "little") + told + bytes(room))
    return path


HOSTILE = {
    "longer than the file": ({}, {"length": 1 << 40}),
    "the largest length": ({}, {"length": (1 << 64) - 1}),
    "no JSON": (b"{", {}),
    "deep JSON": (b"[" * 100000, {}),
    "no table": ([1], {}),
    "a table of numbers": ({"codes": 3}, {}),
    "an unknown type": ({"codes": entry(0, 8, dtype="C64")}, {}),
    "a type that is a list": ({"codes": entry(0, 8, dtype=[])}, {}),
    "a shape that is too large": ({"codes": entry(0, 8, (1 << 40,))}, {}),
    "a shape that overflows": ({"codes": entry(0, 8, (1 << 62, 1 << 62))}, {}),
    "a negative shape": ({"codes": entry(0, 8, (-1, -2))}, {}),
    "a shape of fractions": ({"codes": entry(0, 8, (2.0,))}, {}),
    "no shape": ({"codes": entry(0, 8, None)}, {}),
    "offsets beyond the end": ({"codes": entry(0, 1 << 41, (1 << 39,))}, {}),
    "offsets backwards": ({"codes": entry(8, 0)}, {}),
    "offsets that overlap": ({"a": entry(0, 8), "b": entry(4, 12)}, {"room": 12}),
    "a gap": ({"a": entry(0, 8), "b": entry(12, 20)}, {"room": 20}),
    "bytes after the end": ({"a": entry(0, 8)}, {"room": 16}),
    "cut off": ({"a": entry(0, 8)}, {"room": 7}),
    "offsets of truths": ({"a": entry(False, 8)}, {}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers(tmp_path, name):
    header, how = HOSTILE[name]
    with little_memory(1 << 22):
        refused("is no safetensors file", map_tensors, write_raw(tmp_path / "a", header, **how))


def test_no_files(tmp_path):
    for name, content in (("empty", b""), ("short", b"abc")):
        (tmp_path / name).write_bytes(content)
        refused("shorter than its header", map_tensors, tmp_path / name)
    refused("does not exist", map_tensors, tmp_path / "nowhere")
    refused("no file", map_tensors, tmp_path)
    os.mkfifo(tmp_path / "pipe")
    refused("no file", map_tensors, tmp_path / "pipe")
