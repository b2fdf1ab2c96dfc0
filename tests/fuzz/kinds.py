"""Kinds of hostile input: each writes a case into a folder, and returns the command to try on it.

A case's folder is the command's current one; beside it lies ``../beside``, which none may touch.
"""

from __future__ import annotations

import json
import os
import shutil
import tomllib
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from importlib import resources
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
from numpy.random import Generator
from typer.models import OptionInfo

from fieldloom import cli, recipe
from fieldloom.cli.options import ALLOWANCES

from . import damage
from .damage import chance, one
from .good import DIGITS, VIEWS, Good

Kind = Callable[[Good, Path, Generator], list[str]]

TINY = [
    "mnif:tiny",
    "weights:tiny",
    "functa:tiny",
    "gem:tiny",
    "transinr:tiny",
    "weights:tiny-graph",
]
SHORT = ["train.field.steps=2", "train.prior.steps=2"]
QUICK = [*SHORT, "source.split=[40,10]"]
FIELD = ["train.field.steps=1", "field.depth=3", "field.tiling.tiles=[4,4,1]", "field.width=8"]


def set_(*overrides: str) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]


RUN = [
    ["info", "run"],
    ["sample", "run", "--count", "1"],
    ["encode", "run"],
    ["decode", "run", "run/codes.safetensors"],
    ["decode", "run", "run/encoded"],
    ["reconstruct", "run", "--count", "2"],
    ["render", "run"],
    ["interpolate", "run", "--steps", "2"],
    ["evaluate", "run", "--set", "evaluate.samples=8"],
    ["ceiling", "run", "--count", "2"],
    ["analyse", "judge", "run", "--count", "2", "--points", "16"],
    ["analyse", "curves", "run"],
    ["analyse", "influence", "run", "--count", "1", "--tokens", "1"],
    ["train", "mnif:tiny", "--run", "new", "--stage", "prior", "--fields", "run", *set_(*DIGITS)],
]
"""Commands on a run, small ones."""


def new(path: str, *more: str) -> list[str]:
    """A training on data at a path, a short one."""
    return ["train", "mnif:tiny", "--run", "new", *set_(*SHORT, *more, f"source.path={path}")]


def copied(good: Good, where: Path, name: str) -> None:
    shutil.copytree(good.runs[name], where / "run")


def files(where: Path, found: dict[str, bytes]) -> None:
    for name, content in found.items():
        path = where / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


# -- recipes and their overrides


def table(name: str) -> dict[str, Any]:
    """A bundled recipe's variant, as a tree."""
    found = recipe.load(name)
    found.pop("recipe")
    return recipe.merge(found, recipe.merge({}, recipe.parse_override("train.field.steps=2")))


def recipes(good: Good, where: Path, draw: Generator) -> list[str]:
    if chance(draw, 0.2):
        stem, _, variant = one(draw, TINY).partition(":")
        whole = (resources.files("fieldloom") / "recipes" / f"{stem}.toml").read_bytes()
        (where / "own.toml").write_bytes(damage.text(whole, draw))
        return ["train", f"own.toml:{variant}", "--run", "new"]
    (where / "own.toml").write_bytes(damage.toml_of(damage.tree(table(one(draw, TINY)), draw)))
    return ["train", "own.toml", "--run", "new"]


RAW = (
    "", ":", "[", "{}", "[]", "[[]]", "{a=1}", "{name='os:system',command='touch called'}",
    "'evil:Evil'", "evil:Evil", "os:system", "[" * 2000 + "]" * 2000,
    "{a=" * 500 + "1" + "}" * 500, "9" * 5000, "0x" + "f" * 3000, "1e400", "nan", "inf", "-inf",
    "true", "1979-05-27T07:32:00Z", "'\\u0000'", '"""', "x\ny = 1", "1 # no", "[1,'a',{}]",
    "{name='none'}", "none", "'none'", "-1", "0", "0.5", "3", "1000000000", "1000000000000",
    "1e18", "'[/nope]'", "\x1b[31m", "\udcff", "siren", "=", "a.b=c",
    "huggingface", "inception",
)  # fmt: skip
"""Values of ``--set``."""


NUMERIC = (
    "-1", "0", "1", "2", "7", "0.5", "1e-30", "1e30", "-0.0", "nan", "inf", "1000000000",
    "1000000000000", "9223372036854775807", "18446744073709551616", "[0,0]", "[1,2,3]",
)  # fmt: skip


def paths_of(tree: Any, root: str = "") -> list[str]:
    """The dotted names of a recipe."""
    found = []
    for key, child in tree.items():
        found.append(f"{root}{key}")
        if isinstance(child, dict):
            found += paths_of(child, f"{root}{key}.")
    return found


def override(draw: Generator, known: list[str]) -> str:
    key = one(draw, known)
    if chance(draw, 0.25):
        key = one(
            draw, [f"{key}s", f"{key}.x", f"{key}.name", key[1:], key.replace(".", ".."), "seed"]
        )
    if chance(draw, 0.05):
        key = one(
            draw, ["", ".", "a" * 3000, "[/nope]", "a." * 3000 + "b", "\x1b[31m", "known.signals"]
        )
    return f"{key}={one(draw, NUMERIC if chance(draw, 0.4) else RAW)}"


def overrides(good: Good, where: Path, draw: Generator) -> list[str]:
    if chance(draw, 0.2):
        copied(good, where, one(draw, ["digits", "shapes"]))
        known = [
            f"evaluate.{key}" for key in ("metrics", "samples", "detector", "points", "steps", "x")
        ]
        return ["evaluate", "run", *set_(override(draw, ["evaluate", *known]))]
    name = one(draw, TINY)
    known = paths_of(recipe.load(name))
    some = [override(draw, known) for _ in range(draw.integers(1, 3))]
    return ["train", name, "--run", "new", *set_(*QUICK, *some)]


# -- arguments

WORDS = (
    "0", "-1", "1", "2", "3", "1.5", "nan", "inf", "-inf", "1e400", "9" * 30, "9" * 5000,
    "1000000000000", "", " ", "[/nope]", "[bold]x", "\x1b[31m", "\udcff", "😀", "None", "[]",
    "x" * 5000, "two\nlines", "../nope", "..", "/dev/null/x", "run/model.safetensors",
    "run/codes.safetensors", "run/recipe.toml", "run", "x" * 300 + ".png", "a.xyz", "8x8", "0x0",
    "8x8x8x8x8", "99999x99999", "1,0,0,1", "nan,0,1,1", "0,0,1", "os:system", "evil:Evil", "os",
    "png", "npy", "glb", ".", "run/recipe.toml:tiny", "mnif:nope",
)  # fmt: skip
BUSY = {"demo", "cost"}
"""Verbs that take minutes, or start processes."""


ANALYSES = (cli.influence, cli.curves, cli.support, cli.time, cli.judge)


def verbs() -> dict[tuple[str, ...], dict[str, Any]]:
    """Words of each verb -> its options: how each is written, and the type of its value."""
    found = {(name,): options(verb) for name, verb in cli.VERBS.items() if name not in BUSY}
    return found | {("analyse", verb.__name__): options(verb) for verb in ANALYSES}


def options(verb: Callable[..., None]) -> dict[str, Any]:
    found = {}
    for name, hint in (get_type_hints(verb, include_extras=True) | ALLOWANCES).items():
        told = getattr(hint, "__metadata__", [None])[0]
        if isinstance(told, OptionInfo) and name not in ("large", "network"):  # they allow it
            named = [one for one in (told.default, *(told.param_decls or ())) if type(one) is str]
            found[(named or [f"--{name.replace('_', '-')}"])[0]] = hint.__origin__
    return found


def arguments(good: Good, where: Path, draw: Generator) -> list[str]:
    copied(good, where, one(draw, ["digits", "digits", "shapes", "views", "weights", "sound"]))
    known = verbs()
    verb = one(draw, list(known))
    usual = {tuple(words[: len(verb)]): words for words in RUN}
    words = list(usual.get(verb, [*verb, "run"]))
    if verb == ("train",):
        words = ["train", "mnif:tiny", *set_(*QUICK)]
    if verb == ("list",):
        words = ["list"]
    if verb == ("analyse", "time"):
        words += ["--steps", "2", "--count", "1", "--seconds", "1"]
    for _ in range(draw.integers(1, 3)):
        option = one(draw, list(known[verb]))
        words.append(option)
        if known[verb][option] is not bool:
            fits = fitting(known[verb][option]) if chance(draw, 0.6) else WORDS
            words.append(one(draw, fits))
    if chance(draw, 0.3):
        words[int(draw.integers(len(words)))] = one(draw, WORDS)
    if chance(draw, 0.1):
        words.insert(
            int(draw.integers(len(words))), one(draw, [*WORDS, "--nope", "-x", "--", "--help"])
        )
    return words


def fitting(kind: Any) -> Sequence[str]:
    """Words that are of a type: only sense can refuse them."""
    kinds = {kind, *get_args(kind)}
    if float in kinds:
        return ["0", "0.5", "-1", "1e-300", "1e300", "nan", "inf"]
    if int in kinds:
        return ["0", "1", "2", "3", "1000000000", str(2**62), str(2**64), "9" * 30]
    enums = [one for one in kinds if isinstance(one, type) and issubclass(one, Enum)]
    return list(enums[0]) if enums else WORDS


# -- run folders


def runs(good: Good, where: Path, draw: Generator) -> list[str]:
    name = one(draw, [*good.runs, "digits", "digits"])
    copied(good, where, name)
    run = where / "run"
    there = sorted(path for path in run.rglob("*") if path.is_file())
    for at in draw.permutation(len(there))[: draw.integers(1, 3)]:
        broken(good, there[at], draw)
    command = one(draw, RUN)
    if name.startswith("half") or chance(draw, 0.2):
        told = good.runs[name] / "recipe.toml"
        of = tomllib.loads(told.read_text()).get("recipe", "mnif:tiny")
        command = ["train", of, "--run", "run", "--resume"]
    return list(command)


def broken(good: Good, file: Path, draw: Generator) -> None:
    """A file of a run, damaged, lost, or another one in its place."""
    if chance(draw, 0.2):
        return replaced(good, file, draw)
    content, suffix = file.read_bytes(), file.suffix
    how: dict[str, damage.Damage] = {
        ".safetensors": damage.tensors,
        ".json": damage.json_,
        ".jsonl": damage.jsonl,
        ".toml": recipe_of_run,
    }
    file.write_bytes(how.get(suffix, damage.bytes_)(content, draw))


def recipe_of_run(content: bytes, draw: Generator) -> bytes:
    if chance(draw, 0.2):
        return damage.text(content, draw)
    return damage.toml_of(damage.tree(tomllib.loads(content.decode()), draw))


def replaced(good: Good, file: Path, draw: Generator) -> None:
    """Nothing, a folder, a link, or another file in a file's place."""
    others = [p for p in good.runs[one(draw, list(good.runs))].rglob("*") if p.is_file()]
    file.unlink()
    match draw.integers(5):
        case 1:
            file.mkdir()
        case 2:
            targets = [
                "../../beside/codes.safetensors",
                "../../beside",
                "/dev/null",
                file.name,
                "nope",
            ]
            os.symlink(one(draw, targets), file)
        case 3:
            shutil.copyfile(one(draw, sorted(others)), file)
        case 4:
            alike = sorted(p for p in others if p.suffix == file.suffix)
            if alike:
                shutil.copyfile(one(draw, alike), file)


def manifests(good: Good, where: Path, draw: Generator) -> list[str]:
    """A job of codes whose manifest, or the row of a shard, lies."""
    name = one(draw, ["digits", "half-coded"])
    copied(good, where, name)
    folder = where / "run" / ("encoded" if name == "digits" else "codes")
    path = one(draw, sorted(folder.glob("*.json")))
    path.write_bytes(damage.json_(path.read_bytes(), draw))
    if chance(draw, 0.3):
        broken(good, one(draw, sorted(folder.glob("*.safetensors"))), draw)
    if name == "half-coded":
        return ["train", "mnif:tiny", "--run", "run", "--resume"]
    whole = ["encode", "run", "--out", "run/encoded.safetensors"]
    return list(
        one(
            draw,
            [
                ["encode", "run"],
                ["decode", "run", "run/encoded", "--count", "1"],
                ["jobs", "run/encoded"],
                whole,
            ],
        )
    )


OUT = {
    "sample": ["sampled.png"],
    "encode": ["encoded", "encoded/manifest.json", "encoded/00000.safetensors"],
    "decode": ["decoded", "decoded/0000.png"],
    "reconstruct": ["reconstructions", "reconstructions/0000.png"],
    "render": ["rendered.png", "orbit.gif"],
    "interpolate": ["interpolation-0-1.gif"],
    "evaluate": ["report.json", "report.html", "samples.png", "live.html"],
    "ceiling": ["ceiling.json"],
    "analyse": ["judge.png", "judge.json", "influence.png", "learning-curves.png"],
    "train": ["log.jsonl", "codes", "state.safetensors", "model.safetensors", "codes.safetensors"],
}
"""Names that verbs write in a run."""


def denormalize(good: Good, where: Path, draw: Generator) -> list[str]:
    """Links, and names in a manifest, that lead out of the run."""
    words = list(one(draw, [*RUN[1:-1], ["train", "mnif:tiny", "--run", "run", "--resume"]]))
    train = words[0] == "train"
    name = one(draw, ["half-coded", "half-trained"]) if train else one(draw, ["digits", "shapes"])
    copied(good, where, name)
    beside = where.parent / "beside"
    if words[0] == "encode" and chance(draw, 0.5):
        words += ["--out", "run/encoded.safetensors"]
    if chance(draw, 0.3) and (folder := where / "run" / ("codes" if train else "encoded")).is_dir():
        told = json.loads((folder / "manifest.json").read_text())
        told["shards"] = [{"count": 16, "failed": {}}]
        for shard in told["shards"]:
            path = one(draw, ["../../../beside/codes.safetensors", f"{beside}/codes.safetensors"])
            shard["file"] = path
        whole = where / "run" / "encoded.safetensors.shards"
        (folder / "manifest.json").write_text(json.dumps(told))
        if folder.name == "encoded" and chance(draw, 0.5):
            shutil.copytree(folder, whole)
        return words
    for name in one(draw, [OUT[words[0]], [one(draw, OUT[words[0]])]]):
        path = where / "run" / name
        if path.parent.is_symlink():
            continue
        path.parent.mkdir(exist_ok=True)
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        to = beside if "." not in name else beside / one(draw, ["codes.safetensors", "new"])
        os.symlink(one(draw, [str(to), os.path.relpath(to, path.parent)]), path)
    return words


def codes(good: Good, where: Path, draw: Generator) -> list[str]:
    """Files of codes that are decoded."""
    name = one(draw, ["digits", "weights", "shapes"])
    copied(good, where, name)
    if name == "weights" and chance(draw, 0.7):
        content = good.files["codes.hdf5"]
        (where / "c.hdf5").write_bytes(
            hdf5(draw) if chance(draw, 0.5) else damage.bytes_(content, draw)
        )
        return ["decode", "run", "c.hdf5", "--count", "1"]
    of = one(draw, [name, name, "digits", "weights"])
    content = (good.runs[of] / "codes.safetensors").read_bytes()
    (where / "c.safetensors").write_bytes(damage.tensors(content, draw))
    return ["decode", "run", "c.safetensors", "--count", "1"]


def hdf5(draw: Generator) -> bytes:
    """A file of fields whose members are of other kinds."""
    import io

    import h5py

    file = io.BytesIO()
    with h5py.File(file, "w") as open_file:
        for key in ("params", "param_config", "labels"):
            match draw.integers(8):
                case 0:
                    open_file.create_group(key)
                case 1:
                    open_file[key] = h5py.SoftLink(one(draw, ["/nope", f"/{key}"]))
                case 2:
                    open_file[key] = h5py.ExternalLink("../beside/w.hdf5", "/params")
                case 3:
                    open_file[key] = h5py.Empty(one(draw, ["f", "S10"]))
                case 4:
                    told = damage.json_of(damage.tree([["a", [2, 3]]], draw)).replace(b"\x00", b"")
                    open_file[key] = np.array([told], object).astype(h5py.string_dtype())
                case 5:
                    kinds = ["f4", ">f8", "f2", "i8", "?", "c8", "S3"]
                    open_file[key] = np.ones((3, 4)).astype(one(draw, kinds))
                case 6:
                    open_file[key] = one(draw, [1.0, "text", np.nan])
    return file.getvalue()


# -- data files


def arrays(good: Good, where: Path, draw: Generator) -> list[str]:
    kind = one(draw, ["pictures", "split", "packed", "bits", "cells"])
    found = good.arrays[kind]
    path = "data.npz"
    if len(found) == 1 and chance(draw, 0.5):
        path = "data.npy"
        (where / path).write_bytes(damage.npy(next(iter(found.values())), draw))
    else:
        (where / path).write_bytes(damage.npz(found, draw))
    shapes = kind in ("bits", "cells")
    if shapes or chance(draw, 0.6):
        return read(good, where, "shapes" if shapes else "digits", path, draw)
    more = one(draw, [[], ["source.label=label"], ["source.key=x"], ["source.range=[0,255]"]])
    name = {"packed": "packed"}.get(kind, one(draw, ["array", "array", "voxels", "folder"]))
    return new(path, f"source.name={name}", *more)


def read(good: Good, where: Path, name: str, path: str, draw: Generator) -> list[str]:
    """A command that reads data at a path, with a run of their kind."""
    copied(good, where, name)
    verbs = [
        ["encode", "run", "--source", path, "--out", "o.safetensors"],
        ["reconstruct", "run", "--source", path, "--count", "1", "--out", "o"],
        ["evaluate", "run", "--source", path, "--out", "o"],
        ["render", "run", "--source", path, "--frames", "2", "--out", "o.png"],
    ]
    return list(one(draw, [verbs[0], *verbs]))


def meshes(good: Good, where: Path, draw: Generator) -> list[str]:
    if chance(draw, 0.3):
        (where / "data.npz").write_bytes(damage.npz(good.arrays["meshes"], draw))
        return read(good, where, "shapes", "data.npz", draw)
    kinds = [f for f in good.files if f.startswith(("mesh.", "ascii.", "shape."))]
    name = one(draw, kinds)
    how = (
        damage.text if name in ("mesh.obj", "mesh.off", "ascii.stl", "ascii.ply") else damage.bytes_
    )
    (where / name).write_bytes(how(good.files[name], draw))
    if chance(draw, 0.2):  # the bytes of one format by the name of another
        name = Path(shutil.move(where / name, where / one(draw, kinds))).name
    return read(good, where, "shapes", name, draw)


def pictures(good: Good, where: Path, draw: Generator) -> list[str]:
    kinds = [f for f in good.files if f.startswith("picture.")]
    name = one(draw, kinds)
    content = damage.bytes_(good.files[name], draw)
    if chance(draw, 0.2):
        name = one(draw, kinds)
    if chance(draw, 0.3):
        files(where, {f"data/{name}": content, "data/good.png": good.files["picture.png"]})
        name = "data"
    else:
        (where / name).write_bytes(content)
    if chance(draw, 0.5):
        return read(good, where, "digits", name, draw)
    if name == "data" and chance(draw, 0.5):
        return new("data", "source.name=folder", "source.split=[1.0,0.0]")
    return fitted(one(draw, ["image", "video"]), name)


def sounds(good: Good, where: Path, draw: Generator) -> list[str]:
    kinds = [f for f in good.files if f.startswith("sound.")]
    name = one(draw, kinds)
    content = damage.bytes_(good.files[name], draw)
    name = one(draw, kinds) if chance(draw, 0.2) else name
    (where / name).write_bytes(content)
    more = one(draw, [[], ["source.offset=0.01"], ["source.seconds=0.02"], ["modality.size=100"]])
    return fitted("audio", name, *more)


def fitted(variant: str, path: str, *more: str) -> list[str]:
    """A field of one datum, fitted in a step."""
    words = set_(*FIELD, f"source.path={path}", *more)
    return ["train", f"loe:{variant}", "--run", "new", *words]


def films(good: Good, where: Path, draw: Generator) -> list[str]:
    kinds = [f for f in good.files if f.startswith("film.")]
    name = one(draw, kinds)
    content = damage.bytes_(good.files[name], draw)
    name = one(draw, kinds) if chance(draw, 0.2) else name
    (where / name).write_bytes(content)
    more = one(draw, [[], ["source.frames.start=1"], ["modality.size=[2,8,8]"]])
    return fitted("video", name, *more)


def scenes(good: Good, where: Path, draw: Generator) -> list[str]:
    kind = one(draw, ["packed", "scene", "scene", "object"])
    if kind == "packed":
        (where / "data.npz").write_bytes(damage.npz(good.arrays["views"], draw))
        if chance(draw, 0.5):
            return read(good, where, "views", "data.npz", draw)
        return seen("multiview", "data.npz")
    found = damaged(good.folders[kind], draw)
    if kind == "scene" and chance(draw, 0.6):
        name = "transforms.json"
        found[name] = damage.json_(good.folders[kind][name], draw)
    if chance(draw, 0.1):
        found.pop(one(draw, sorted(found)))
    files(where, {f"data/{name}": content for name, content in found.items()})
    path = "data/transforms.json" if kind == "scene" and chance(draw, 0.3) else "data"
    if chance(draw, 0.5):
        return read(good, where, "views", path, draw)
    return seen({"scene": "transforms", "object": "srn"}[kind], path)


def damaged(folder: Mapping[str, bytes], draw: Generator) -> dict[str, bytes]:
    """The files of a folder, of which one or two are damaged."""
    found = dict(folder)
    for _ in range(draw.integers(1, 3)):
        name = one(draw, sorted(found))
        how = {".json": damage.json_, ".txt": damage.text}.get(Path(name).suffix, damage.bytes_)
        found[name] = how(folder[name], draw)
    return found


LAYOUTS = {"model": "colmap", "texts": "colmap", "nsvf": "nsvf", "set": "transforms"}
"""Scenes of other layouts -> the source that reads them."""


def models(good: Good, where: Path, draw: Generator) -> list[str]:
    """Scenes of other layouts, in which files about cameras are damaged, or lost."""
    kind = one(draw, list(LAYOUTS))
    whole = good.folders[kind]
    told = {name: content for name, content in whole.items() if not name.endswith(".png")}
    found = whole | damaged(told if chance(draw, 0.9) else whole, draw)
    if chance(draw, 0.1):
        found.pop(one(draw, sorted(found)))
    files(where, {f"data/{name}": content for name, content in found.items()})
    if chance(draw, 0.3):
        return read(good, where, "views", "data", draw)
    more = one(draw, [[], ["source.hold_out=2", "modality.held=0"], ["source.frame=file"]])
    return [*seen(LAYOUTS[kind], "data"), *set_(*more)]


def seen(name: str, path: str) -> list[str]:
    """A training on views at a path, a short one."""
    source = [*VIEWS, f"source.name={name}", f"source.path={path}", "source.split=[1.0,0.0]"]
    source += ["renderer.near=1.0", "renderer.far=2.2"]
    return ["train", "mnif:multiview128", "--run", "new", "--stage", "field", *set_(*source)]


MAY_LAST = {"recipes", "overrides", "arguments", "runs"}
"""Kinds that may ask for long work, which is then asked to stop."""

KINDS: dict[str, Kind] = {
    "recipes": recipes,
    "overrides": overrides,
    "arguments": arguments,
    "runs": runs,
    "manifests": manifests,
    "denormalize": denormalize,
    "codes": codes,
    "arrays": arrays,
    "meshes": meshes,
    "pictures": pictures,
    "sounds": sounds,
    "films": films,
    "scenes": scenes,
    "models": models,
}
