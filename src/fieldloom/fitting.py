"""One signal of one's own: which recipe suits it, and its data as a file that the recipe reads."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fieldloom.errors import InputError, is_command, quote, quote_path, shorten, unknown
from fieldloom.modalities import Modality
from fieldloom.modalities.sources import SCENES, spec_of
from fieldloom.modalities.sources.decoding import to_grey_or_rgb
from fieldloom.modalities.sources.files import (
    array_name,
    find_similar,
    is_empty_folder,
    load_array,
    locate,
    read_npz,
)
from fieldloom.modalities.sources.formats import HEIC, count_frames, open_image
from fieldloom.modalities.sources.kinds import SETS, suggest
from fieldloom.recipe import Recipe

Kind = Literal["image", "video", "audio", "mesh", "scene", "sphere"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""What a signal may be; ``fit:KIND`` is its recipe."""

MINUTES: Mapping[Kind, float] = {
    "image": 1.0,
    "video": 2.0,
    "audio": 1.0,
    "mesh": 1.0,
    "scene": 10.0,
    "sphere": 1.0,
}
"""How long a fit trains where nothing else is asked for."""

AXES: Mapping[Kind, int] = {"audio": 1, "image": 2, "sphere": 2, "video": 3}
"""Kinds of signals on regular grids -> their axes, that of channels not among them."""
COLOURS = (1, 3, 4)
"""Numbers of channels of a picture: grey, RGB, RGB with alpha."""
VOICES = tuple(range(1, 9))
"""Numbers of channels of a sound in an array."""
SOUNDS = ("i1", "i2", "f2", "f4", "f8")
"""Types whose full range is a sound's; wider integers are mostly 16 bits in 32 or 64."""

KIND_OF_SOURCE: Mapping[str, Kind] = {
    "video": "video",
    "audio": "audio",
    "meshes": "mesh",
    **dict.fromkeys(("transforms", "colmap", "nsvf", "srn", "multiview"), "scene"),
}
"""The source that reads a file or a folder -> the kind of its signal."""
ANIMATED = ("GIF", "PNG", "WEBP", "AVIF", "FLI")
"""Formats of images whose frames are those of a video; pages of a TIFF are not."""
GREY = ("1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
"""Pillow's modes without colour."""

EVERY = 8
"""Of how many views of a scene one is held out, where its files do not say which."""

NAMED = {
    "image": "an image",
    "video": "a video",
    "audio": "a sound",
    "mesh": "a mesh",
    "scene": "a scene",
    "sphere": "a map of the sphere",
}
"""Kinds in words."""
KNOWN = (
    "an image, a video (MP4, GIF ...), a sound (WAV, FLAC, MP3 ...), a mesh (OBJ, PLY, STL, OFF, "
    "GLB), a scene (a folder with transforms.json, of COLMAP, or in NSVF's layout) or an array "
    "(.npy, .npz)"
)
"""What is recognised, in words."""
EMPTY, UNKNOWN = "an empty folder", "of no kind that is known, or damaged"
"""What no recipe takes, in words."""
DATA = {"array": "data.npy", "mesh": "data.npz"}
"""The file of a signal that was given in memory, in the folder of its run."""


@dataclass(frozen=True)
class Choice:
    """The recipe of a signal: ``fit:KIND``, with these sections over it. words: what was seen."""

    kind: Kind
    words: str
    sections: Recipe

    @property
    def recipe(self) -> str:
        return f"fit:{self.kind}"


# -- files and folders


def choose(path: str | Path, kind: str | None = None) -> Choice:
    """The recipe for the file or the folder at a path, by what is in it.

    kind: what it is taken for, instead of what it looks like. Raises InputError for what does not
    exist, is not recognised, or holds several signals.
    """
    asked, file = check_kind(kind), locate(str(path))
    if not str(path) or not _exists(file):
        raise InputError(
            f"{quote_path(path)} does not exist, or cannot be seen{find_similar(str(path))}."
        )
    spec = spec_of(str(path), own=asked)
    if spec["name"] == "array":
        return _choose_array(file, str(path), asked)
    seen, words = _look(file, spec["name"])
    if seen is None and asked is None:
        hopeless = words in (EMPTY, UNKNOWN) or spec["name"] not in SETS
        sets = "" if hopeless else f"; {suggest(spec['name'], str(path))}"
        raise InputError(f"{quote_path(path)} is {words}: fit takes {KNOWN}{sets}.")
    chosen = asked or seen
    assert chosen is not None
    sections: Recipe = {"source": {"path": str(path)}}
    if chosen in AXES:
        sections["source"]["name"] = "image" if chosen == "sphere" else chosen
        sections["modality"] = {"channels": _count_channels(file, chosen)}
    elif KIND_OF_SOURCE.get(spec["name"]) == chosen == "scene":
        sections["source"] = spec | {"hold_out": EVERY}
    return Choice(chosen, words if asked is None else f"taken for {NAMED[asked]}", sections)


def check_kind(kind: str | None) -> Kind | None:
    """The kind. Raises InputError for one that there is not."""
    if kind is not None and kind not in KINDS:
        raise unknown("kind of signal", str(kind), KINDS)
    return kind


def _exists(file: Path) -> bool:
    try:
        return file.exists()
    except (OSError, ValueError):  # too long, or without permission
        return False


def _look(file: Path, source: str) -> tuple[Kind | None, str]:
    """The kind of a signal, None where it is none, and what was seen, in words.

    source: the name of the source that would read it.
    """
    if is_empty_folder(file):
        return None, EMPTY
    if file.is_dir() and source not in KIND_OF_SOURCE:
        frames = "--as video" if is_command() else 'kind="video"'
        each = "--executor local" if is_command() else "fieldloom.fit_files"
        told = f"{frames} takes its images as frames, {each} fits each file by itself"
        return None, f"a folder without a scene ({told})"
    if file.is_dir() and source == "meshes":
        return None, "a folder of meshes, of which one is fitted"
    if _holds_many(file, source):
        return None, "a set of many scenes"
    if source in KIND_OF_SOURCE:
        return KIND_OF_SOURCE[source], NAMED[KIND_OF_SOURCE[source]]
    if source != "folder":
        return None, "a set of many signals"
    with file.open("rb") as stream:
        if stream.read(12)[4:] in HEIC:
            return "image", NAMED["image"]  # its reader says what to do
    try:
        with open_image(file, quote_path(file), large=True) as image:
            if image.format in ANIMATED and count_frames(image) > 1:
                return "video", f"a video ({image.format} of several frames)"
    except InputError:
        return None, UNKNOWN
    return "image", NAMED["image"]


def _holds_many(file: Path, source: str) -> bool:
    """Whether a file or a folder of scenes holds more than one."""
    if source == "multiview":
        cameras = load_array(read_npz(file), "c2w").shape
        return len(cameras) == 4 and cameras[0] > 1
    if not file.is_dir():
        return False
    holds = lambda folder: any(next(folder.glob(pattern), None) for pattern in SCENES)
    found = [folder for folder in file.iterdir() if folder.is_dir() and holds(folder)]
    return not holds(file) and len(found) > 1


def _count_channels(file: Path, kind: Kind) -> int:
    """The channels that a file's signal is fitted with; those of colour where it cannot tell."""
    if kind == "audio":
        import soundfile

        try:
            return int(soundfile.info(str(file)).channels)
        except (OSError, RuntimeError):  # FFmpeg reads it, and takes the mean of its channels
            return 1
    try:
        with open_image(file, quote_path(file), large=True) as image:
            return 1 if image.mode in GREY else 3
    except (InputError, OSError):  # a video, or a folder of frames
        return 3


# -- arrays


class Layout(NamedTuple):
    """How an array is read. channels: which of its axes they are; None: it has none.

    size: samples of the other axes, in their order.
    """

    kind: Kind
    channels: int | None
    size: tuple[int, ...]


def find_layout(shape: Sequence[int], kind: Kind | None = None) -> Layout:
    """The layout of an array of one signal.

    Without a kind: one axis is a sound; two are a grey image; three an image where the first or the
    last is 1, 3 or 4 channels, else a grey video; four are a video, (frames, height, width,
    channels) or (frames, channels, height, width), and of one frame an image. Raises InputError
    for other shapes, and where channels could be first as well as last.
    """
    shape, first, chosen = tuple(shape), 0, kind
    what = f"an array of the shape {quote(shape)}"
    if not shape or min(shape) < 1:
        raise InputError(f"{what} holds no signal.")
    if len(shape) == 4 and shape[0] == 1 and kind in (None, "image", "sphere"):
        shape, first, chosen = shape[1:], 1, kind or "image"
    if chosen is None:
        coloured = len(shape) == 3 and (shape[0] in COLOURS or shape[-1] in COLOURS)
        kinds: dict[int, Kind] = {1: "audio", 2: "image", 3: "image" if coloured else "video"}
        chosen = kinds.get(len(shape), "video")
    if chosen not in AXES:
        raise InputError(
            f"{what} is no {chosen}: give a file, or an object with vertices and faces."
        )
    axes = AXES[chosen]
    if len(shape) == axes:
        return Layout(chosen, None, shape)
    counts = VOICES if chosen == "audio" else COLOURS
    ends = (1 if chosen == "video" else 0, axes)  # frames come first in any case
    found = [i for i in ends if len(shape) == axes + 1 and shape[i] in counts]
    if len(found) > 1:
        raise InputError(
            f"{what} is {NAMED[chosen]} whose channels may be first or last, which is not certain: "
            "pad it, or give it as a file of that kind."
        )
    if not found:
        raise InputError(
            f"{what} is not {NAMED[chosen]}: that has {axes} axes, or one more of "
            f"{'1 to 8' if chosen == 'audio' else '1, 3 or 4'} channels, first or last"
            f"{' (after the frames, or last)' if chosen == 'video' else ''}."
        )
    size = tuple(n for i, n in enumerate(shape) if i != found[0])
    return Layout(chosen, found[0] + first, size)


def _sections(layout: Layout, shape: Sequence[int], dtype: np.dtype[Any], path: str) -> Recipe:
    """The recipe's sections for an array in a file."""
    channels = 1 if layout.channels is None else shape[layout.channels]
    source: dict[str, Any] = {"name": "array", "path": path}
    if layout.kind == "audio" and dtype in SOUNDS:  # around silence
        low, high = (-1, 1) if dtype.kind == "f" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        source["range"] = [float(low), float(high)]
    if channels == 4 and layout.kind != "audio":  # alpha, which the source puts on white
        channels = 3
    return {"source": source, "modality": {"size": list(layout.size), "channels": channels}}


def _describe(layout: Layout, shape: Sequence[int]) -> str:
    """What an array is taken for, in words."""
    where = "" if layout.channels is None else f", channels {_place(layout, len(shape))}"
    return f"{NAMED[layout.kind]} by its shape {' x '.join(map(str, shape))}{where}"


def _place(layout: Layout, axes: int) -> str:
    return "last" if layout.channels == axes - 1 else f"on axis {layout.channels}"


def _choose_array(file: Path, path: str, kind: Kind | None) -> Choice:
    """The recipe for a file of one array. Raises InputError for one of several."""
    archive = read_npz(file)
    if archive.names is not None and len(archive.names) != 1:
        names = shorten(", ".join(archive.names))
        found = f"several arrays ({names}): save the one to fit as .npy" if names else "no array"
        raise InputError(f"{quote_path(path)} holds {found}.")
    array = load_array(archive, array_name(archive, None, None))
    layout = find_layout(array.shape, kind)
    if layout.kind == "video" and layout.channels == 1:
        raise InputError(
            f"{quote_path(path)} has frames with their channels first, {quote(array.shape)}: save "
            "it with its channels last."
        )
    sections = _sections(layout, array.shape, array.dtype, path)
    return Choice(layout.kind, _describe(layout, array.shape), sections)


# -- what is in memory


def keep(signal: Any, folder: Path, kind: str | None = None) -> Choice:
    """The recipe for a signal in memory, which is written into a file of the folder.

    signal: a picture of Pillow, an array, a tensor, or what has ``vertices`` and ``faces``. Raises
    InputError for anything else, and as ``find_layout`` does.
    """
    asked = check_kind(kind)
    if hasattr(signal, "vertices") and hasattr(signal, "faces"):
        return _keep_mesh(signal, folder, asked)
    array = _as_array(signal)
    layout = find_layout(array.shape, asked)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / DATA["array"]
    sections = _sections(layout, array.shape, array.dtype, str(path))
    words, where = _describe(layout, array.shape), layout.channels
    size = tuple(array.shape[where : where + 1]) if where is not None else (1,)
    array = array if where is None else np.moveaxis(array, where, 0)
    np.save(path, array.reshape(1, *size, *layout.size), allow_pickle=False)
    return Choice(layout.kind, words, sections)


def _as_array(signal: Any) -> NDArray[Any]:
    """The numbers of a picture, an array or a tensor. Raises InputError for anything else."""
    if isinstance(signal, Image.Image):
        return np.asarray(to_grey_or_rgb(signal, 1 if signal.mode in GREY else 3))
    array = _numbers_of(signal) if isinstance(signal, Tensor) else signal
    name = f"a {type(array).__name__}"
    if isinstance(array, np.ndarray) and not isinstance(array, np.ma.MaskedArray):
        if array.dtype.kind in "biuf":
            return array
        name = f"an array of {array.dtype}"
    raise InputError(
        f"fit: {name} where a path, a picture of Pillow, an array or a tensor of numbers, or a "
        "mesh with vertices and faces is needed."
    )


def _numbers_of(tensor: Tensor) -> NDArray[Any] | Tensor:
    """A tensor as an array; as it is where it has none: sparse, quantised, or without values."""
    try:
        tensor = tensor.detach().cpu()
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    except (RuntimeError, TypeError):
        return tensor


def _keep_mesh(mesh: Any, folder: Path, kind: Kind | None) -> Choice:
    if kind not in (None, "mesh"):
        raise InputError(f"fit: an object with vertices and faces is a mesh, not {NAMED[kind]}.")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / DATA["mesh"]
    try:
        vertices, faces = np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)
    except (TypeError, ValueError):
        raise InputError(
            "fit: the mesh's vertices or faces are no numbers of three columns."
        ) from None
    np.savez(path, verts=vertices, faces=faces)
    return Choice("mesh", NAMED["mesh"], {"source": {"path": str(path)}})


# -- what else a fit needs


def budget(
    kind: Kind, minutes: int | float | None, *changes: Mapping[str, Any]
) -> int | float | None:
    """The minutes of a fit; None where the user gives steps instead.

    changes: layers of a recipe that the user gives. Raises InputError for minutes beside steps.
    """
    stages = [change.get("train") for change in changes]
    fields = [stage.get("field") for stage in stages if isinstance(stage, Mapping)]
    given = any(isinstance(field, Mapping) and "steps" in field for field in fields)
    if given and minutes is not None:
        raise InputError("fit: minutes and steps are both given: minutes are a budget for steps.")
    return None if given else MINUTES[kind] if minutes is None else minutes


def kind_of(modality: Modality) -> Kind | None:
    """The kind of the signals of a trained system; None where ``fit`` has none of them."""
    if getattr(modality, "sphere", False):
        return "sphere"
    known: dict[str, Kind] = {
        "images": "image",
        "video": "video",
        "audio": "audio",
        "shapes": "mesh",
        "views": "scene",
    }
    return known.get(modality.kind)


def next_command(kind: str, run: str | Path) -> str:
    """What to type after a fit: the command that shows more of it."""
    part = {
        "image": "--window 0.4,0.4,0.6,0.6 --resolution 1024 --out zoom.png",
        "sphere": "--resolution 2048 --out large.png",
        "video": "--frame 0.5 --resolution 1024 --out frame.png",
        "audio": "--out sound.wav",
        "mesh": "--out turntable.gif",
        "scene": "--out orbit.mp4",
    }
    return f"fieldloom render {shlex.quote(str(run))} {part[kind]}"
