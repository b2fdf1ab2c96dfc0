"""What fuzzing has found: a name, and what writes the case into a folder and gives its command."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from . import damage, kinds
from .good import Good

Found = Callable[[Good, Path], list[str]]
ENCODE = ["encode", "run", "--out", "o.safetensors", "--source"]


# -- files of data


def data(run: str, name: str, content: bytes | Callable[[Good], bytes]) -> Found:
    """A file that is encoded with a run."""

    def write(good: Good, where: Path) -> list[str]:
        kinds.copied(good, where, run)
        (where / name).write_bytes(content if isinstance(content, bytes) else content(good))
        return [*ENCODE, name]

    return write


def npz(run: str, of: str, **changed: Any) -> Found:
    """A good ``.npz`` with other members: arrays, bytes, or None for one that is not there."""

    def content(good: Good) -> bytes:
        held = {f"{key}.npy": damage.npy_of(value) for key, value in good.arrays[of].items()}
        for key, value in changed.items():
            held.pop(f"{key}.npy", None)
            if value is not None:
                raw = isinstance(value, bytes)
                held[f"{key}.npy"] = value if raw else damage.npy_of(np.asarray(value))
        return zipped(held)

    return data(run, "data.npz", content)


def zipped(members: Mapping[str, bytes], kind: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", kind) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return file.getvalue()


def npy_head(text: str) -> bytes:
    line = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(line)) + line


def torn(kind: int, at: int) -> bytes:
    """A zip file with a wrong byte in what is compressed."""
    raw = bytearray(zipped({"x.npy": damage.npy_of(np.arange(512) % 7)}, kind))
    raw[at] ^= 0xFF
    return bytes(raw)


def marked(place: int, number: int) -> bytes:
    """A zip file whose directory and member say another flag or method."""
    raw = bytearray(zipped({"x.npy": damage.npy_of(np.zeros((2, 8, 8), np.uint8))}))
    for at, shift in ((raw.find(b"PK\x03\x04"), 0), (raw.find(b"PK\x01\x02"), 2)):
        raw[at + shift + place] = number
    return bytes(raw)


def png(width: int, height: int) -> bytes:
    """A small file that says that it is a picture of so many pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        told = struct.pack(">I", len(body)) + name + body
        return told + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width + 1) * 8), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def hdf5(fill: Callable[[Any], None]) -> Found:
    def write(good: Good, where: Path) -> list[str]:
        kinds.copied(good, where, "weights")
        with h5py.File(where / "c.hdf5", "w") as file:
            fill(file)
        return ["decode", "run", "c.hdf5", "--count", "1"]

    return write


def looped(file: Any) -> None:
    file["param_config"] = ["[]"]
    file["params"] = np.zeros((1, 3), np.float32)
    file["labels"] = h5py.SoftLink("/labels")


def empty(file: Any) -> None:
    file["param_config"] = h5py.Empty("S10")
    file["params"] = h5py.Empty("f")


def scene(**changed: Any) -> Found:
    """A ``transforms.json`` with other keys."""

    def write(good: Good, where: Path) -> list[str]:
        files = dict(good.folders["scene"])
        told = json.loads(files["transforms.json"]) | changed
        files["transforms.json"] = damage.json_of(told)
        kinds.files(where, {f"data/{name}": content for name, content in files.items()})
        return kinds.seen("transforms", "data")

    return write


def lone(variant: str, name: str, content: bytes | Callable[[Good], bytes]) -> Found:
    """A file of one datum, to which a field is fitted."""

    def write(good: Good, where: Path) -> list[str]:
        (where / name).write_bytes(content if isinstance(content, bytes) else content(good))
        return kinds.fitted(variant, name)

    return write


def samples(good: Good) -> bytes:
    """A TIFF that says it has 64 samples a pixel."""
    told = b"\x15\x01\x03\x00\x01\x00\x00\x00"
    return good.files["picture.tif"].replace(told + b"\x03", told + b"\x40")


def no_text(good: Good) -> bytes:
    return good.files["film.mkv"].replace(b"Lavf", b"\x8bavf")


MANY = "9" * 5000
BINVOX = b"#binvox 1\ndim 1600 1600 1600\ntranslate 0 0 0\nscale 1\ndata\n" + b"\x00\xff" * (
    1600**3 // 255
) + bytes([0, 1600**3 % 255])  # fmt: skip

FILES: dict[str, Found] = {
    "a member that is no array": npz("digits", "pictures", x=b"text"),
    "no member": data("digits", "data.npz", zipped({})),
    "an array of objects": npz("digits", "split", x_train=np.array([None, 1])),
    "an array without axes": npz("digits", "split", x_train=np.float32(1)),
    "labels without axes": npz("digits", "split", y_train=np.int64(1)),
    "labels of objects": npz("digits", "split", y_train=np.array([damage.Payload()] * 6)),
    "parts of other shapes": npz("digits", "split", x_test=np.zeros((3, 4), np.float32)),
    "no data": npz("digits", "split", x_train=np.zeros((0, 8, 8)), x_test=np.zeros((0, 8, 8))),
    "no voxels": data("shapes", "x.npy", damage.npy_of(np.zeros((0, 12, 12, 12), np.uint8))),
    "no cells": data("shapes", "x.npy", damage.npy_of(np.zeros((2, 12, 0, 12), np.uint8))),
    "a header that ends": data("digits", "x.npy", npy_head("{'descr': '|u1', 'shape': (")),
    "a huge shape": data(
        "digits", "x.npy",
        npy_head("{'descr': '|u1', 'fortran_order': False, 'shape': (576000000000,)}"),
    ),
    "a shape that fits no word": data(
        "digits", "x.npy",
        npy_head(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({10**30},)}}"),
    ),
    "a pickle": data("digits", "x.npy", damage.npy_of(np.array([damage.Payload()] * 3))),
    "an encrypted member": data("digits", "x.npz", marked(6, 1)),
    "an unknown compression": data("digits", "x.npz", marked(8, 97)),
    "a wrong byte, stored": data("digits", "x.npz", torn(zipfile.ZIP_STORED, 300)),
    "a wrong byte, deflated": data("digits", "x.npz", torn(zipfile.ZIP_DEFLATED, 60)),
    "a wrong byte, lzma": data("digits", "x.npz", torn(zipfile.ZIP_LZMA, 60)),
    "a wrong byte, bzip2": data("digits", "x.npz", torn(zipfile.ZIP_BZIP2, 60)),
    "offsets without axes": npz("digits", "packed", offsets=np.int64(3)),
    "offsets that are no whole numbers": npz("digits", "packed", offsets=np.linspace(0, 9, 7)),
    "no pictures": npz("digits", "packed", offsets=np.array([0])),
    "bytes that are no array": npz("digits", "packed", data=b"no"),
    "vertices without axes": npz("shapes", "meshes", verts=np.float32(1)),
    "vertices that are no array": npz("shapes", "meshes", verts=b"no"),
    "offsets of meshes without axes": npz("shapes", "meshes", vert_offsets=np.int64(1)),
    "offsets of meshes that are no whole numbers": npz(
        "shapes", "meshes", vert_offsets=np.linspace(0, 16, 3)
    ),
    "one offset missing": npz("shapes", "meshes", face_offsets=None),
    "categories without axes": npz("shapes", "meshes", category=np.int64(1)),
    "categories that are no array": npz("shapes", "meshes", category=b"no"),
    "a shape of voxels without axes": npz("shapes", "bits", shape=np.int64(12)),
    "voxels of a negative shape": npz("shapes", "bits", shape=np.array([-12, -12, 12])),
    "a name that is not printable": npz(
        "digits", "pictures", **{"x\x1b[31m\ny": np.zeros(3), "z": 1}
    ),
    "an ascii STL without numbers": data(
        "shapes", "a.stl", b"solid a\n facet normal x y z\n vertex\n"
    ),
    "a picture bomb": data("digits", "bomb.png", png(62_000, 62_000)),
    "one picture that is a bomb": lone("image", "bomb.png", png(62_000, 62_000)),
    "a picture of many samples": data("digits", "x.tif", samples),
    "a voxel bomb": data("shapes", "bomb.binvox", BINVOX),
    "a film whose tags are no text": lone("video", "film.mkv", no_text),
    "fields by a link to itself": hdf5(looped),
    "fields of empty sets": hdf5(empty),
    "an angle of many digits": scene(camera_angle_x=damage.LONG),
    "an angle of 10^400": scene(camera_angle_x=10**400),
    "a height that is a table": scene(h={str(i): i for i in range(500)}),
    "frames nested too deeply": scene(frames=damage.DEEP),
    "a pose beyond all numbers": scene(transform_matrix=[[10**400] * 4] * 4),
    "a camera model that is a list": scene(camera_model=["PINHOLE"]),
}  # fmt: skip


# -- runs


def run(name: str, file: str, change: Callable[[bytes], bytes], *words: str) -> Found:
    """A run with one file changed."""

    def write(good: Good, where: Path) -> list[str]:
        kinds.copied(good, where, name)
        path = where / "run" / file
        path.write_bytes(change(path.read_bytes() if path.exists() else b""))
        return list(words)

    return write


RESUME = ["train", "mnif:tiny", "--run", "run", "--resume"]


def headed(content: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    """A safetensors file with another header, and no checksum that would tell."""
    size = int.from_bytes(content[:8], "little")
    head = json.loads(content[8 : 8 + size])
    numbers = json.loads(head["__metadata__"]["fieldloom"])
    numbers.pop("checksum", None)
    head["__metadata__"]["fieldloom"] = json.dumps(numbers)
    change(head)
    line = json.dumps(head).encode()
    return len(line).to_bytes(8, "little") + line + content[8 + size :]


def told(content: bytes, found: Any) -> bytes:
    """A safetensors file with other metadata."""
    return headed(content, lambda head: head.update(__metadata__={"fieldloom": written(found)}))


def written(found: Any) -> str:
    return damage.json_of(found).decode()


def named(content: bytes, old: str, new: str) -> bytes:
    """A safetensors file in which a tensor has another name."""
    return headed(content, lambda head: head.update({new: head.pop(old)}))


def job(content: bytes, **changed: Any) -> bytes:
    """A manifest whose job or shards are another, or a shard's row (``file``, ``count``,
    ``failed``)."""
    found = json.loads(content)
    for key, value in changed.items():
        holder = found["job"] if key in found.get("job", {}) else found
        holder[key] = value
        if value is ...:
            del holder[key]
    return damage.json_of(found)


def manifest(**changed: Any) -> Found:
    words = ["decode", "run", "run/encoded", "--count", "1"]
    name = "00000" if changed.keys() & {"file", "count", "failed"} else "manifest"
    return run("digits", f"encoded/{name}.json", partial(job, **changed), *words)


def appended(line: bytes) -> Callable[[bytes], bytes]:
    return lambda content: content + line + b"\n"


def replaced(old: str, new: str) -> Callable[[bytes], bytes]:
    return lambda content: content.replace(old.encode(), new.encode(), 1)


def linked(path: str, to: str, *words: str) -> Found:
    """A run in which a path is a link to one beside it."""

    def write(good: Good, where: Path) -> list[str]:
        kinds.copied(good, where, "digits")
        os.symlink(where.parent / "beside" / to, where / "run" / path)
        return list(words)

    return write


def above(good: Good, where: Path) -> list[str]:
    """Data whose name would lead out of the run."""
    kinds.copied(good, where, "digits")
    (where / "x").mkdir()
    (where / "picture.png").write_bytes(good.files["picture.png"])
    return ["evaluate", "run", "--source", "x/.."]


RUNS: dict[str, Found] = {
    "a job that is a number": manifest(job=3),
    "a job of a number of signals that is text": manifest(signals="x"),
    "shards that are a table": manifest(shards={}),
    "a shard that is a number": manifest(shards=[1]),
    "a shard without its file": manifest(file=...),
    "a shard without failures": manifest(failed=...),
    "failures that are null": manifest(failed=None),
    "failures of no place": manifest(failed={"x": "y"}),
    "a file that is a list": manifest(file=[]),
    "a file out of the folder": manifest(file="../../../beside/codes.safetensors"),
    "a manifest too deep": manifest(worst=damage.DEEP),
    "a manifest of many digits": manifest(worst=damage.LONG),
    "a manifest that is no text": run(
        "digits", "encoded/manifest.json", lambda old: b"\xff" + old, "decode", "run", "run/encoded"
    ),
    "shards of no size": run(
        "half-coded", "codes/manifest.json", partial(job, shard="x"), *RESUME
    ),
    "another job of a long value": run(
        "half-coded", "codes/manifest.json", partial(job, data=[0] * 1000), *RESUME
    ),
    "shards that cannot grow": run(
        "half-coded", "codes/manifest.json", partial(job, shards={"0": {}}), *RESUME
    ),
    "a file that would be deleted": run(
        "digits", "encoded/00000.json",
        partial(job, file="../../../beside/codes.safetensors"),
        "encode", "run", "--out", "run/encoded", "--format", "shards",
    ),
    "a log that is no text": run("half-trained", "log.jsonl", appended(b"\xe8\x96"), *RESUME),
    "a line of the log that is a number": run("half-trained", "log.jsonl", appended(b"3"), *RESUME),
    "a line of the log of many digits": run(
        "digits", "log.jsonl", appended(f'{{"step": {MANY}}}'.encode()), "info", "run"
    ),
    "a line of the log without its stage": run(
        "digits", "log.jsonl", appended(b'{"psnr": 3}'), "evaluate", "run"
    ),
    "a PSNR that is text": run(
        "digits", "log.jsonl",
        appended(b'{"stage": "field", "step": 1, "seconds": 1, "psnr": "two\\nlines"}'),
        "analyse", "curves", "run",
    ),
    "metadata that are null": run(
        "digits", "model.safetensors", partial(told, found=None), "info", "run"
    ),
    "metadata that are a list": run(
        "digits", "model.safetensors", partial(told, found=[1]), "info", "run"
    ),
    "finished stages that are a number": run(
        "digits", "model.safetensors", partial(told, found={"finished": 3}), "info", "run"
    ),
    "metadata too deep": run(
        "digits", "model.safetensors", partial(told, found=damage.DEEP), "info", "run"
    ),
    "metadata of many digits": run(
        "digits", "codes.safetensors", partial(told, found=damage.LONG),
        "decode", "run", "run/codes.safetensors",
    ),
    "a state without its stage": run(
        "half-trained", "state.safetensors", partial(told, found={}), *RESUME
    ),
    "a state without its step": run(
        "half-trained", "state.safetensors", partial(told, found={"stage": "field"}), *RESUME
    ),
    "a state that is text": run(
        "half-trained", "state.safetensors", partial(told, found="stage"), *RESUME
    ),
    "an optimiser without its step": run(
        "half-trained", "state.safetensors",
        partial(named, old="optimizer/field/shared/0/step", new="optimizer/field/shared/0/x"),
        *RESUME,
    ),
    "codes without codes": run(
        "digits", "codes.safetensors", partial(named, old="codes", new="two\nlines"),
        "ceiling", "run", "--count", "2",
    ),
    "codes by an odd name": run(
        "digits", "codes.safetensors", partial(named, old="codes", new="two\nlines\x1b[31m"),
        "decode", "run", "run/codes.safetensors",
    ),
    "known without its keys": run(
        "digits", "recipe.toml", replaced("signals = ", "other = "), "info", "run"
    ),
    "a recipe's name with markup": run(
        "digits", "recipe.toml", replaced('"mnif:tiny"', '"[/nope]"'), "info", "run"
    ),
    "a recipe's name with escapes": run(
        "digits", "recipe.toml", replaced('"mnif:tiny"', '"\\u001b[31m"'), "info", "run"
    ),
    "a recipe that calls": run(
        "digits", "recipe.toml",
        replaced('"direct"', '{ name = "os:system", command = "touch called" }'),
        "info", "run",
    ),
    "a recipe that imports": run(
        "digits", "recipe.toml", replaced('"direct"', '"evil:Evil"'), "info", "run"
    ),
    "a recipe of many digits": run(
        "digits", "recipe.toml", lambda old: f"paper = {MANY}\n".encode(), "info", "run"
    ),
    "a recipe too deep": run(
        "digits", "recipe.toml", lambda old: b"paper = " + b"[" * 3000 + b"]" * 3000, "info", "run"
    ),
    "a folder that is a link": linked("decoded", "", "decode", "run", "run/codes.safetensors"),
    "reconstructions that are a link": linked("reconstructions", "", "reconstruct", "run"),
    "a report that is a link": linked("report.json", "manifest.json", "evaluate", "run"),
    "a source above": above,
    "codes out over the codes": run(
        "digits", "note", lambda old: b"", "encode", "run", "--out", "run/codes.safetensors"
    ),
    "codes out over the weights": run(
        "digits", "note", lambda old: b"", "encode", "run", "--out", "run/model.safetensors"
    ),
}  # fmt: skip


# -- words


def words(*command: str, of: str | None = None) -> Found:
    def write(good: Good, where: Path) -> list[str]:
        if of is not None:
            kinds.copied(good, where, of)
        return list(command)

    return write


def override(text: str, recipe: str = "mnif:tiny") -> Found:
    return words("train", recipe, "--run", "new", *kinds.set_(*kinds.QUICK, text))


WORDS: dict[str, Found] = {
    "a value too deep": override("field.width=" + "[" * 3000 + "]" * 3000),
    "a value of many digits": override(f"field.width={MANY}"),
    "a hexadecimal value of many digits": override("seed=0x" + "f" * 5000),
    "a part named by a colon": override("field=:"),
    "a part of another module": override("renderer=os:system"),
    "a key with escapes": override("field..\x1b[31m=1"),
    "a key of many letters": words(
        "evaluate", "run", "--set", "a" * 3000 + "=1", of="digits"
    ),
    "evaluate that is a number": words("evaluate", "run", "--set", "evaluate=3", of="digits"),
    "a rate beyond all numbers": override("train.field.optimizer.rate=1e400"),
    "a negative rate": override("train.field.optimizer.rate=-1.0"),
    "a rate that is no number": override("train.field.optimizer.rate=nan"),
    "a split beyond all numbers": override("source.split=[inf, 0]"),
    "a split that is no number": override("source.split=[0.5, nan]"),
    "a codec that is text": override("prior.codec=quantize", "weights:tiny"),
    "a ratio that is no number": override(
        "prior.denoiser={name='dit',width=8,depth=1,heads=2,ratio=nan}"
    ),
    "too many experts": override("conditioner.experts=1000000000"),
    "too deep": override("field.depth=1000000"),
    "too wide": override("field.width=1000000000000"),
    "too large a batch": override("train.field.batch=1000000000"),
    "too large pictures": override("modality.size=1000000000", "gem:tiny"),
    "too many steps of a prior": override("prior.steps=4000000000000"),
    "sizes that fit no word": override("field.width=9223372036854775807"),
    "too many points": words(
        "evaluate", "run", "--set", "evaluate.points=1000000000000", of="shapes"
    ),
    "too many samples": words(
        "evaluate", "run", "--set", "evaluate.samples=18446744073709551616", of="digits"
    ),
    "too many samples asked for": words("sample", "run", "--count", "1000000000000", of="digits"),
    "a resolution of twenty digits": words(
        "sample", "run", "--count", "1", "--resolution", "9" * 20, of="digits"
    ),
    "a resolution of many digits": words("sample", "run", "--resolution", MANY, of="digits"),
    "a resolution with escapes": words("sample", "run", "--resolution", "\x1b[31m", of="digits"),
    "views that fit no word": words(
        "analyse", "support", "run", "--views", "18446744073709551616", of="views"
    ),
    "frames that fit no word": words("render", "run", "--frames", str(2**62), of="views"),
    "a rate of fits that is no number": words(
        "analyse", "time", "run", "--count", "1", "--steps", "1", "--weight-rate", "nan",
        of="digits",
    ),
    "a name too long": words("info", "x" * 5000),
    "a file with escapes": words(
        "interpolate", "run", "--steps", "2", "--out", "\x1b[31m", of="digits"
    ),
    "no such verb": words("sampel", "run"),
    "no such option": words("sample", "run", "--cuont", "1", of="digits"),
    "no number": words("sample", "run", "--count", "many", of="digits"),
    "no argument": words("sample"),
    "pictures of scikit-image by another name": override(
        "source={name='skimage',images=['download_all']}"
    ),
    "a data set of the network": override("source={name='huggingface',path='mnist'}"),
}  # fmt: skip

FOUND: dict[str, Found] = FILES | RUNS | WORDS

OPEN: dict[str, str] = {}
"""What is not answered yet, and why."""
