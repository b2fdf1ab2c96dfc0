"""Sources of data. Every reader is a function ``(modality, ...) -> Source``.

Arguments that mean the same in all of them:

path: where the data lie: a file or a folder.
split: fractions of the data that are the training and the test part, or numbers of data.
shuffle: whether the parts are drawn at random, always the same for all seeds; otherwise the first
    data are the training part.
limit: the number of data that are used, of each class the same.
filter: with which images are resized.
label_depth: the class is the folder so many levels below ``path``; 0: there are none.
background: the colour behind transparent pixels.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from fieldloom.modalities.sources.archives import PACKED_TARS, SUFFIX, is_pattern
from fieldloom.modalities.sources.arrays import read_array, read_digits
from fieldloom.modalities.sources.audio import SUFFIXES as AUDIO
from fieldloom.modalities.sources.audio import read_audio
from fieldloom.modalities.sources.colmap import read_colmap
from fieldloom.modalities.sources.files import find_path, is_address, read_npz
from fieldloom.modalities.sources.folders import list_folder, walk
from fieldloom.modalities.sources.fonts import SUFFIXES as FONTS
from fieldloom.modalities.sources.glyphs import read_glyphs
from fieldloom.modalities.sources.hub import read_huggingface
from fieldloom.modalities.sources.image import read_image
from fieldloom.modalities.sources.images import SUFFIXES as IMAGES
from fieldloom.modalities.sources.images import (
    find_prefixes,
    read_bundled,
    read_folder,
    read_packed,
)
from fieldloom.modalities.sources.meshes import SUFFIXES as MESHES
from fieldloom.modalities.sources.meshes import read_meshes
from fieldloom.modalities.sources.multiview import read_multiview
from fieldloom.modalities.sources.nsvf import read_nsvf
from fieldloom.modalities.sources.remote import check_address, peek
from fieldloom.modalities.sources.shards import read_tar
from fieldloom.modalities.sources.source import Source, divide
from fieldloom.modalities.sources.srn import read_srn
from fieldloom.modalities.sources.transforms import read_transforms
from fieldloom.modalities.sources.video import SUFFIXES as VIDEOS
from fieldloom.modalities.sources.video import read_video
from fieldloom.modalities.sources.voxels import read_voxels
from fieldloom.permit import NOTHING, Permit

SOURCES = {
    "folder": read_folder,
    "packed": read_packed,
    "tar": read_tar,
    "array": read_array,
    "digits": read_digits,
    "skimage": read_bundled,
    "glyphs": read_glyphs,
    "huggingface": read_huggingface,
    "image": read_image,
    "video": read_video,
    "audio": read_audio,
    "voxels": read_voxels,
    "meshes": read_meshes,
    "multiview": read_multiview,
    "transforms": read_transforms,
    "srn": read_srn,
    "nsvf": read_nsvf,
    "colmap": read_colmap,
}


WITHOUT_A_PATH = ("digits", "skimage", "glyphs")
"""Sources of data that come with packages."""

SINGLE = {"image", "video", "audio"}
"""Sources of a single datum, which have no split."""


def spec_of(
    path: str, own: str | None = None, named: str | None = None, permit: Permit = NOTHING
) -> dict[str, Any]:
    """The settings of a source for a user's path, by the files there: all data, in their order.

    It may be an image or a folder of images, tar archives, a video, an audio file, packed images
    or views, arrays, voxels, meshes, a scene or a folder of scenes; images and archives also behind
    an address. Of a folder that holds several kinds the first of scenes, meshes, voxels, images,
    archives is taken, and the summary tells what is passed over.
    own: the name of a run's source, which is preferred where it reads such a path, too: ``image``
    one image, ``video`` a folder of frames or a GIF, ``audio`` the audio of a video.
    named: the source that the user names, whatever the files are.
    """
    kinds = readers_at(path, permit)
    name = own if own in kinds else kinds[0]
    found = None if is_address(path) or is_pattern(path) else find_path(path)
    if found and "folder" in kinds and (own == "video" or (own == "image" and found.is_file())):
        name = own
    if name == "video" and own == "audio":
        name = own
    name = named or name
    whole = {} if name in SINGLE else {"split": [1.0, 0.0], "shuffle": False}
    return {"name": name, "path": path} | whole


def readers_at(path: str, permit: Permit = NOTHING) -> list[str]:
    """The sources that read what lies at a user's path or address, the first choice first.

    Raises InputError where nothing is there, Refused where the user must allow to look.
    """
    if is_address(path):
        check_address(path, permit)
    if is_pattern(path):
        return ["tar"]
    if not is_address(path):
        return readers_of(find_path(path))
    ends = tuple(name.lower() for name in peek(path, permit))
    there = {
        "folder": any(name.endswith(tuple(IMAGES)) for name in ends),
        "tar": any(name.endswith((SUFFIX, *PACKED_TARS)) for name in ends),
    }
    return [kind for kind, held in there.items() if held] or ["folder"]


def readers_of(found: Path) -> list[str]:
    """The sources that read a file or a folder, the first choice first."""
    return _kinds_of_folder(found) if found.is_dir() else [_kind_of_file(found)]


def _kind_of_file(found: Path) -> str:
    suffix = found.suffix.lower()
    if found.name.lower().endswith((SUFFIX, *PACKED_TARS)):
        return "tar"
    if suffix in MESHES:
        return "meshes"
    if suffix == ".binvox":
        return "voxels"
    if suffix in FONTS:
        return "glyphs"
    if suffix == ".npz" and found.is_file():
        file = read_npz(found)
        for needed, kind in PACKED.items():
            if all(name in file for name in needed):
                return kind
        if find_prefixes(file):
            return "packed"
    if suffix in (".npz", ".npy"):
        return "array"
    if suffix == ".json":
        return "transforms"
    if suffix in VIDEOS or suffix in AUDIO:
        return "video" if suffix in VIDEOS else "audio"
    return "folder"


def _kinds_of_folder(found: Path) -> list[str]:
    """The sources that read a folder, the first choice first; hidden files do not count."""
    folders = [found, *(folder for folder in list_folder(found) if folder.is_dir())]
    scenes = [
        kind
        for pattern, kind in SCENES.items()
        if any(next(folder.glob(pattern), None) for folder in folders)
    ]
    files = (file for file, reason in walk(found) if not reason)
    names = {file.name.lower() for file in islice(files, LOOKED_AT)}
    inside = {Path(name).suffix for name in names}
    there = {
        "meshes": inside & MESHES,
        "voxels": ".binvox" in inside,
        "folder": inside & IMAGES,
        "tar": any(name.endswith((SUFFIX, *PACKED_TARS)) for name in names),
        "glyphs": inside & FONTS,
    }
    return [*scenes, *(kind for kind, held in there.items() if held)] or ["folder"]


LOOKED_AT = 10_000
"""Files of a folder by which its kind is found."""

PACKED = {
    ("offsets", "c2w"): "multiview",
    ("bits", "shape"): "voxels",
    ("verts", "faces"): "meshes",
}
"""Arrays in an ``.npz`` -> the source that reads it; ``find_prefixes`` finds packed images."""

SCENES = {
    "transforms*.json": "transforms",
    "sparse/0/cameras.*": "colmap",
    "sparse/cameras.*": "colmap",
    "colmap/sparse/0/cameras.*": "colmap",
    "colmap/sparse/cameras.*": "colmap",
    "points3D.bin": "colmap",
    "points3D.txt": "colmap",
    "pose/0_*.txt": "nsvf",
    "pose/*.txt": "srn",
}
"""Files in a folder, or in its sub-folders -> the source that reads the folder."""

__all__ = ["IMAGES", "SOURCES", "Source", "divide", "readers_at", "readers_of", "spec_of"]
