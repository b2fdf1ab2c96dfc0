"""Which reader gives which kind of data, and the sentence for data of another kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fieldloom.errors import InputError, call_fit, call_inspect, call_train, quote_path, set_key
from fieldloom.modalities.sources.archives import is_pattern
from fieldloom.modalities.sources.files import find_path, is_address, locate
from fieldloom.registry import list_offered

SCENES = ("transforms", "colmap", "nsvf", "srn", "multiview")
"""Readers of posed images."""

GIVES: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("folder", "packed", "tar", "digits", "skimage", "huggingface", "image",
                     "glyphs"), frozenset({"images"})),
    "video": frozenset({"video"}),
    "audio": frozenset({"audio"}),
    "array": frozenset({"images", "audio", "video", "shapes"}),
    **dict.fromkeys(("voxels", "meshes"), frozenset({"shapes"})),
    **dict.fromkeys(SCENES, frozenset({"views"})),
}  # fmt: skip
"""Reader -> the kinds of data (``Modality.kind``) that it gives; others may give any."""

OF = {
    "images": "images",
    "audio": "sounds",
    "video": "videos",
    "shapes": "shapes",
    "views": "scenes",
}
"""Kind of data -> what a recipe takes, in words; those of other kinds may come from any reader."""


def can_give(reader: str, kind: str) -> bool:
    """Whether a reader may give data of this kind (``Modality.kind``)."""
    return kind not in OF or kind in GIVES.get(reader, {kind})


PLACE = {
    "folder": "FOLDER",
    "packed": "FILE.npz",
    "tar": "SHARDS",
    "array": "FILE.npy",
    "image": "IMAGE",
    "video": "VIDEO",
    "audio": "SOUND",
    "voxels": "FILE.npz",
    "meshes": "MESHES",
    "huggingface": "NAME",
    "multiview": "FILE.npz",
    **dict.fromkeys(("transforms", "colmap", "nsvf", "srn"), "SCENE"),
}
"""Reader that needs a path -> what is to be given, in a word."""


def check_path(spec: Mapping[str, Any]) -> None:
    """Raise InputError where a source that needs a path has none, or has a path for its name."""
    reader = spec.get("name")
    if not isinstance(reader, str):
        return
    if reader in PLACE and "path" not in spec:
        fix = set_key("source.path", PLACE[reader])
        raise InputError(f"source '{reader}' needs a path: {fix}.")
    if reader not in GIVES and ":" not in reader and reader not in list_offered().get("source", {}):
        try:
            find_path(reader)
        except InputError:
            return  # the registry raises the error
        fix = set_key("source.path", reader)
        raise InputError(f"source {quote_path(reader)} is no reader, but a path: {fix}.")


def describe_data(reader: str, path: str) -> str:
    """What lies at a path, by the reader that it is for: ``a mesh``, ``a folder of images``."""
    folder = locate(path).is_dir() or is_address(path)
    words = {
        "tar": "a set of tar archives" if folder or is_pattern(path) else "a tar archive",
        "folder": "a folder of images" if folder else "an image",
        "packed": "a file of packed images",
        "image": "an image",
        "video": "a video",
        "audio": "a sound",
        "array": "a file of arrays" if path.endswith(".npz") else "an array",
        "voxels": "a folder of voxels" if folder else "a file of voxels",
        "meshes": "a folder of meshes" if folder else "a mesh",
        "multiview": "a file of posed images",
    }
    scene = "a scene" if reader in SCENES else f"data of the source '{reader}'"
    return words.get(reader, scene)


def check_kind(spec: Mapping[str, Any], kind: str, recipe: str | None = None) -> None:
    """Raise InputError where a reader gives no data of this kind, with the line that is right.

    spec: of a source. kind: ``Modality.kind``. recipe: the name of the recipe, for the message;
    None: that of a run.
    """
    reader, path = spec.get("name"), spec.get("path")
    if not isinstance(reader, str) or can_give(reader, kind):
        return
    whose = "this run" if recipe is None else f"the recipe '{recipe}'" if recipe else "the recipe"
    of = OF.get(kind, kind)
    if not isinstance(path, str):
        gives = " or ".join(OF[one] for one in sorted(GIVES[reader]))
        raise InputError(f"source '{reader}' reads {gives}, and {whose} takes {of}.")
    raise InputError(
        f"{quote_path(path)} is {describe_data(reader, path)}, and {whose} takes {of}"
        f"{'' if recipe is None else f': {suggest(reader, path)}'}."
    )


SETS = {
    **dict.fromkeys(("folder", "packed", "tar"), "mnif:faces64"),
    **dict.fromkeys(("voxels", "meshes"), "mnif:chairs32"),
    **dict.fromkeys(SCENES, "mnif:multiview128"),
}
"""Reader -> a recipe that learns a set of its data."""


def suggest(reader: str, path: str) -> str:
    """What to do with data at a path, by the reader that they are for."""
    folder = locate(path).is_dir() or is_address(path)
    alone = f"{call_fit(path)} fits it alone"
    if reader in ("video", "audio", "image") or (reader == "folder" and not folder):
        return alone
    if reader not in SETS:
        return f"{call_inspect(path)} shows what is there"
    sets = ("folder", "packed", "tar", "voxels", "multiview")
    if reader in sets or (reader == "meshes" and folder):
        return f"{call_train(SETS[reader], path)} learns a set of them"
    return f"{alone}, {call_train(SETS[reader], 'FOLDER')} learns a folder of them"


def refuse_scene(reader: str, path: str, recipe: str, other: str) -> InputError:
    """The error for a scene that is given to a recipe of images. other: what would read it."""
    return InputError(
        f"{quote_path(path)} is {describe_data(reader, path)}, and the recipe '{recipe}' takes "
        f"images: {suggest(reader, path)}; {set_key('source.name', other)} takes its pictures as "
        "images of a set."
    )
