"""A good value becomes a hostile one. ``draw`` decides everything: a seed gives it again."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tomli_w
from numpy.random import Generator
from numpy.typing import NDArray

Array = NDArray[Any]
Damage = Callable[[bytes, Generator], bytes]

TEXTS = (
    "", " ", ":", ".", "..", "/", "[/nope]", "[bold]", "\x1b[31mred\x1b[0m", "two\nlines", "\r",
    "\x00", "\u202egnp.exe", "\ud800", "😀" * 50, "x" * 5000, "%s%n{0}{x!r}",
    "../beside/codes.safetensors", "../beside", "/etc/passwd", "/dev/null", "os:system",
    "runpy:run_path", "evil:Evil", "evil", "builtins:eval", "subprocess:run", "none", "nan",
    "1e400", "0", "-1", "None", "true", "siren",
)  # fmt: skip
NUMBERS = (
    -1, 0, 1, 2, 3, 7, 0.5, -0.0, 1e-320, 1e30, 1e308, 10**9, 10**12, 10**18, 2**31, 2**63, 2**64,
    10**400, float("nan"), float("inf"), -float("inf"), -(10**9), True, False,
)  # fmt: skip
DEEP, LONG = "@deep@", "@long@"
"""Stand in trees for what writers do not write: very deep lists, very long numbers."""


class Payload:
    """What calls a program where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch called",)


def one(draw: Generator, items: Sequence[Any]) -> Any:
    return items[int(draw.integers(len(items)))]


def chance(draw: Generator, share: float) -> bool:
    return bool(draw.random() < share)


# -- bytes


def bytes_(good: bytes, draw: Generator) -> bytes:
    """One to three changes of a file's bytes; sometimes nothing is left of it."""
    if chance(draw, 0.05):
        return one(
            draw, [b"", b"\n", b"\x00" * 100, b"no", draw.bytes(2000), b"PK\x03\x04", b"GIF89a"]
        )
    data = bytearray(good)
    for _ in range(draw.integers(1, 4)):
        size = len(data)
        early = chance(draw, 0.5)  # headers are where lies matter
        at = int(draw.integers(0, max(1, min(size, 200) if early else size)))
        run = int(draw.integers(1, 17))
        match draw.integers(9):
            case 0 if size:
                data[at % size] ^= 1 << int(draw.integers(8))
            case 1 if size:
                data[at % size] = int(draw.integers(256))
            case 2:
                data[at : at + run] = draw.bytes(run)
            case 3:
                data[at:at] = draw.bytes(run)
            case 4:
                del data[at : at + run]
            case 5:
                del data[at:]
            case 6:
                number = one(draw, [0, 1, 255, 0x7FFFFFFF, 0xFFFFFFFF, 0x10000, 1 << 30])
                data[at : at + 4] = struct.pack(one(draw, ["<I", ">I"]), number)
            case 7:
                data[at:at] = data[at : at + 10 * run]
            case 8:
                data += one(draw, [b"\x00", draw.bytes(run), bytes(data[:100])])
    return bytes(data)


def text(good: bytes, draw: Generator) -> bytes:
    """A word or a number of a text file replaced; or its bytes."""
    words = good.split(b" ")
    if chance(draw, 0.3) or len(words) < 2:
        return bytes_(good, draw)
    for _ in range(draw.integers(1, 3)):
        other = one(draw, [*TEXTS, *map(str, NUMBERS), "9" * 5000, "1/0/0", "-5//"])
        words[int(draw.integers(len(words)))] = other.encode(errors="surrogatepass")
    return b" ".join(words)


# -- trees of JSON and TOML


def value(draw: Generator) -> Any:
    """Something that was not expected."""
    match draw.integers(8):
        case 0:
            return None
        case 1 | 2:
            return one(draw, TEXTS)
        case 3 | 4:
            return one(draw, NUMBERS)
        case 5:
            return one(
                draw, [[], {}, [[]], [{}], [None], [1, "a"], {"": 1}, {"name": None}, {"a": {}}]
            )
        case 6:
            return one(draw, [DEEP, LONG, [0] * 1000, {str(i): i for i in range(500)}])
        case _:
            name = one(
                draw, ["os:system", "runpy:run_path", "evil:Evil", "subprocess:call", "nope"]
            )
            return {"name": name, "command": "touch called", "path_name": "evil.py"}


def tree(good: Any, draw: Generator) -> Any:
    """One to three changes of a tree of tables and lists."""
    found = {"root": json.loads(json.dumps(good))}
    for _ in range(draw.integers(1, 4)):
        holder, key = one(draw, list(places(found)))
        old = holder[key]
        match draw.integers(9):
            case 0 if holder is not found:
                del holder[key]
            case 1 if isinstance(holder, dict) and holder is not found:
                holder[one(draw, [*TEXTS, f"{key}s"])] = holder.pop(key)
            case 2:
                holder[key] = [old]
            case 3:
                holder[key] = {one(draw, ["name", str(key), "x"]): old}
            case 4 | 5 | 8 if isinstance(old, int | float | str):
                holder[key] = alike(old, draw)
            case 6 if isinstance(old, dict):
                old[one(draw, [*TEXTS, "name", "path", "extra"])] = value(draw)
            case 7:
                other = one(draw, [place[at] for place, at in places(found)])
                holder[key] = json.loads(json.dumps(other))  # a copy: no circles
            case _:
                holder[key] = value(draw)
    return found["root"]


def alike(old: float | str, draw: Generator) -> Any:
    """Another value of the same type, which only sense can refuse."""
    if isinstance(old, str):
        return one(draw, TEXTS)
    if isinstance(old, bool):
        return not old
    return one(draw, [x for x in NUMBERS if type(x) is type(old)])


def places(node: Any) -> Any:
    """Every (holder, key) of a tree."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, child in list(items):
        yield node, key
        if isinstance(child, dict | list):
            yield from places(child)


def special(written: str) -> bytes:
    deep, long = "[" * 3000 + "]" * 3000, "9" * 5000
    written = written.replace(f'"{DEEP}"', deep).replace(f'"{LONG}"', long)
    return written.encode(errors="surrogatepass")


def json_of(found: Any) -> bytes:
    return special(json.dumps(found))


def toml_of(found: Any) -> bytes:
    """TOML knows no null: it is left out."""
    return special(tomli_w.dumps(told(found if isinstance(found, dict) else {"root": found})))


def told(node: Any) -> Any:
    if isinstance(node, dict):
        return {str(key): told(child) for key, child in node.items() if child is not None}
    if isinstance(node, list):
        return [told(child) for child in node if child is not None]
    return node


def json_(good: bytes, draw: Generator) -> bytes:
    """A JSON file: its tree, or its bytes."""
    if chance(draw, 0.2):
        return bytes_(good, draw)
    return json_of(tree(json.loads(good), draw))


def jsonl(good: bytes, draw: Generator) -> bytes:
    """A file of a JSON a line: some of them."""
    lines = good.splitlines()
    if chance(draw, 0.2) or not lines:
        return bytes_(good, draw)
    for _ in range(draw.integers(1, 4)):
        at = int(draw.integers(len(lines)))
        lines[at] = json_of(tree(json.loads(good.splitlines()[at]), draw))
    return b"\n".join(lines) + b"\n"


# -- arrays


def array(good: Array, draw: Generator) -> Array:
    """An array of another type, shape, or content."""
    for _ in range(draw.integers(1, 3)):
        with np.errstate(all="ignore"):
            good = _array(good, draw)
    return good


def _array(good: Array, draw: Generator) -> Array:
    size, number = good.size, good.dtype.kind in "uifb"
    match draw.integers(12):
        case 0 if number:
            kinds = [
                "f2",
                "f4",
                "f8",
                "i1",
                "i8",
                "u1",
                "u8",
                "?",
                "c8",
                ">f4",
                ">i8",
                "S3",
                "U4",
                "g",
            ]
            return good.astype(one(draw, kinds))
        case 1:
            payload = [Payload(), None, [1, 2], "x"]
            return np.array(payload * max(1, min(size, 8) // 4), dtype=object)
        case 2:
            return good.reshape(-1)[: int(draw.integers(size + 1))]
        case 3:
            return good[None] if chance(draw, 0.5) else good[..., None]
        case 4 if good.ndim:
            return good[: int(draw.integers(len(good) + 1))]
        case 5 if good.ndim:
            return np.take(good, [], axis=int(draw.integers(good.ndim)))
        case 6 if size:
            return good.reshape(-1)[:1].reshape(())
        case 7 if good.ndim > 1:
            return np.asfortranarray(good.transpose(draw.permutation(good.ndim)))
        case 8 if number and size:
            odd = one(draw, [np.nan, np.inf, -np.inf, 1e300, -1, 256, 2**40])
            good = good.astype(one(draw, [np.float32, np.float64, np.int64]))
            good.reshape(-1)[int(draw.integers(size))] = odd if good.dtype.kind == "f" else 2**40
            return good
        case 9 if number and size:
            return good.astype(np.float64) * one(draw, [-1, 0, 1e-300, 1e300, 1000.5])
        case 10:
            return np.zeros(3, [("a", "f4"), ("b", "O" if chance(draw, 0.3) else "i4")])
        case _ if good.ndim:
            return np.concatenate([good, good], axis=int(draw.integers(good.ndim)))
    return good


def npy_of(content: Array) -> bytes:
    file = io.BytesIO()
    np.save(file, content, allow_pickle=True)
    return file.getvalue()


def npy(good: Array, draw: Generator) -> bytes:
    """An ``.npy`` of a hostile array, or with a hostile header, or with other bytes."""
    if chance(draw, 0.5):
        return npy_of(array(good, draw))
    if chance(draw, 0.5):
        return bytes_(npy_of(good), draw)
    head = {"descr": np.lib.format.dtype_to_descr(good.dtype), "fortran_order": False}
    head = tree(head | {"shape": list(good.shape)}, draw)
    if isinstance(head, dict) and isinstance(head.get("shape"), list):
        head["shape"] = tuple(head["shape"])
    line = repr(head).encode(errors="replace") + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(line) % 65536) + line + good.tobytes()


# -- zip files of arrays


def npz_of(members: dict[str, Array]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **members)
    return file.getvalue()


def npz(good: dict[str, Array], draw: Generator) -> bytes:
    """An ``.npz`` of which members are hostile, missing, renamed, or no arrays; or a torn zip."""
    members = {f"{key}.npy": npy_of(content) for key, content in good.items()}
    for _ in range(draw.integers(1, 3)):
        key = one(draw, list(good))
        name = f"{key}.npy"
        match draw.integers(8):
            case 0 | 1 | 2:
                members[name] = npy(good[key], draw)
            case 3:
                members.pop(name, None)
            case 4:
                other = [*TEXTS, key, "../../x.npy", "/x.npy", f"{key}/", "x_train.npy", "data.npy"]
                members[one(draw, other).replace("\x00", "_")] = members.pop(name, b"")
            case 5:
                members[name] = one(draw, [b"", b"text", pickle.dumps(Payload()), b"\x93NUMPY"])
            case 6:
                members[one(draw, ["readme.txt", "more.npy", "labels", "x_test.npy"])] = b"no array"
            case 7:
                members[name] = npy_of(np.int64(one(draw, [-1, 0, 1, 2**40])))
    file = io.BytesIO()
    kind = one(
        draw, [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
    )
    with zipfile.ZipFile(file, "w", kind) as packed:
        for name, content in members.items():
            packed.writestr(name.encode(errors="replace").decode() or "_", content)
    whole = file.getvalue()
    if chance(draw, 0.1):  # it says that members are encrypted, or larger than they are
        at = whole.rfind(b"PK\x01\x02")
        place, number = one(
            draw, [(8, 1), (10, 99), (24, 0x7FFFFFFF), (20, 0xFFFFFF), (42, 1 << 20)]
        )
        size = 2 if place < 20 else 4
        whole = whole[: at + place] + number.to_bytes(size, "little") + whole[at + place + size :]
    return bytes_(whole, draw) if chance(draw, 0.2) else whole


# -- safetensors


def tensors(good: bytes, draw: Generator) -> bytes:
    """A safetensors file: its header, its metadata, its numbers, or its bytes."""
    if chance(draw, 0.2):
        return bytes_(good, draw)
    size = int.from_bytes(good[:8], "little")
    head, body = json.loads(good[8 : 8 + size]), good[8 + size :]
    told = json.loads(head.get("__metadata__", {}).get("fieldloom", "{}"))
    for key, often in {"checksum": 0.8, "made_by": 0.4}.items():  # or all would end there
        if chance(draw, often):
            told.pop(key, None)
    head["__metadata__"] = {"fieldloom": json.dumps(told)}
    match draw.integers(6):
        case 0 | 1:  # what fieldloom keeps in it
            changed = json_of(tree(told, draw)).decode(errors="replace")
            head["__metadata__"] = {"fieldloom": changed}
        case 2:
            head = tree(head, draw)
        case 3:  # other types and shapes, of the same numbers
            own = head[one(draw, [key for key in head if key != "__metadata__"])]
            begin, end = own["data_offsets"]
            kinds = {
                "F32": 4,
                "I32": 4,
                "F16": 2,
                "BF16": 2,
                "I64": 8,
                "F64": 8,
                "U8": 1,
                "BOOL": 1,
            }
            kind = one(draw, list(kinds))
            own["dtype"], own["shape"] = kind, [(end - begin) // kinds[kind]]
        case 4:  # no finite numbers, or huge ones
            own = head[one(draw, [key for key in head if key != "__metadata__"])]
            begin, end = own["data_offsets"]
            odd = one(draw, [b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\xff\xff\x7f\x7f"])
            body = body[:begin] + (odd * ((end - begin) // 4 + 1))[: end - begin] + body[end:]
        case 5:  # a tensor by another name
            key = one(draw, [key for key in head if key != "__metadata__"])
            own = head.pop(key)
            if chance(draw, 0.7):
                head[one(draw, [*TEXTS, f"{key}s", "codes", "labels", "places"])] = own
    line = json_of(head)
    line = line.replace(b"\xed\xa0\x80", b"?")
    return len(line).to_bytes(8, "little") + line + body
