"""Posed pictures: packed files, ``transforms.json`` folders, SRN-style folders.

All give data uint8 (n, views, 3, height, width), with ``meta``

c2w         (n, views, 4, 4) float32, OpenGL camera-to-world
intrinsics  (n, views, 4) float32, fx, fy, cx, cy in pixels of the resized pictures

Pictures are composited on a background, then resized, never cropped: where the modality has other
proportions, fx and fy part ways and every ray stays true. A turn noted in EXIF is not made, since
cameras belong to the pixels as they are stored.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fieldloom.errors import InputError
from fieldloom.geometry.cameras import Size, check_pose, focus, opengl_from_opencv, resized
from fieldloom.modalities.sources.source import (
    Limit,
    Source,
    Split,
    assemble,
    existing,
    member,
    read_npz,
)
from fieldloom.modalities.views import Views
from fieldloom.progress import track

Background = Literal["white", "black"]
Convention = Literal["opengl", "opencv"]
Part = Literal["train", "val", "test", "all"]
Picture = tuple[str, Callable[[], Image.Image]]
"""Its name, for messages, and how it is opened."""
Bounds = tuple[float, float]
"""The nearest and the farthest depth of anything to see."""

PARTS = ("train", "val", "test")
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
MODELS = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV")
"""Models that are a pinhole where all of ``DISTORTION`` are 0."""
SUFFIXES = ("", ".png", ".jpg", ".jpeg", ".webp")
"""What a ``file_path`` may lack."""
FOCAL = (0.1, 100.0)
"""A focal length out of this range, over the picture's size, is in some other unit."""
DEPTHS = (0.5, 1.5)
"""Where nothing else is known, a scene lies within so many times the distance to its focus: 2 to 6
for the cameras of NeRF's synthetic scenes, at 4."""
REACH = 0.5
"""Objects of packed files with a ``camera_radius`` lie in a ball of this radius."""


@dataclass(frozen=True)
class Scene:
    """Pictures, all (height, width) = ``size``, with c2w (views, 4, 4), intrinsics (views, 4)."""

    name: str
    size: Size
    pictures: Sequence[Picture]
    c2w: Tensor
    intrinsics: Tensor
    bounds: Bounds | None = None


def views_packed(
    modality: Views,
    path: str,
    label: str | None = None,
    views: Limit = None,
    background: Background = "white",
    split: Split = (0.9, 0.1),
    shuffle: bool = True,
    limit: Limit = None,
) -> Source:
    """An ``.npz`` of encoded pictures: view v of object j is picture views * j + v.

    Arrays: ``data`` (bytes), ``offsets`` (n * views + 1), ``c2w`` (n, views, 4, 4), or (views, 4,
    4) of one object, OpenGL; ``focal`` in pixels, ``height``, ``width``; if known ``near`` and
    ``far``, or ``camera_radius`` around objects of a diagonal of 1.
    label: the array of labels, one an object; views: the first so many of each object.
    """
    file = read_npz(existing(path))
    get = lambda key: member(file, key, path)
    blobs, offsets, c2w = get("data"), get("offsets"), get("c2w")
    focal, height, width = (_scalar(get(key), key, path) for key in ("focal", "height", "width"))
    c2w = c2w[None] if c2w.ndim == 3 else c2w
    shaped = c2w.ndim == 4 and c2w.shape[2:] == (4, 4) and c2w.size > 0
    if not shaped or offsets.shape != (math.prod(c2w.shape[:2]) + 1,):
        raise InputError(
            f"'{path}' has {offsets.size - 1} pictures and poses of the shape {c2w.shape}: they "
            "must be (objects, views, 4, 4), one a picture."
        )
    bounds = None
    if {"near", "far"} <= set(file):
        bounds = _scalar(get("near"), "near", path), _scalar(get("far"), "far", path)
    elif "camera_radius" in file:
        radius = _scalar(get("camera_radius"), "camera_radius", path)
        bounds = max(0.0, radius - REACH), radius + REACH
    count, each = c2w.shape[:2]
    one = torch.tensor([focal, focal, width / 2, height / 2], dtype=torch.float64)

    def scene(j: int) -> Scene:
        ends = offsets[j * each : (j + 1) * each + 1].tolist()
        pictures: list[Picture] = [
            (f"view {v} of object {j} of {path}", partial(_unpacked, blobs, ends[v], ends[v + 1]))
            for v in range(each)
        ]
        poses = torch.from_numpy(c2w[j]).double()
        size = int(height), int(width)
        return Scene(f"object {j} of {path}", size, pictures, poses, one.expand(each, 4), bounds)

    scenes = [scene(j) for j in range(min(count, limit or count))]
    labels = None if label is None else list(get(label))
    if labels is not None and len(labels) != count:
        raise InputError(f"source.label: '{path}' has {len(labels)} '{label}' for {count} objects.")
    labels = None if labels is None else labels[: len(scenes)]
    return _source(modality, scenes, path, labels, views, background, split, shuffle)


def transforms(
    modality: Views,
    path: str,
    part: Part = "train",
    convention: Convention = "opengl",
    views: Limit = None,
    background: Background = "white",
    split: Split = (0.9, 0.1),
    shuffle: bool = True,
    limit: Limit = None,
) -> Source:
    """A scene of Blender, instant-ngp or nerfstudio, or a folder of such scenes.

    A scene is a folder with ``transforms.json``, or with ``transforms_train.json`` and the like,
    or one such file. Frames keep the file's order. Masks and depths are not read.
    part:       which of the files; ``all`` is train, val and test, in this order. A lone
                ``transforms.json`` is ``train``.
    convention: ``opencv`` poses (y down, looking along z) become OpenGL's.
    views:      the first so many of each scene.
    Lens distortion raises InputError: only pinhole pictures have straight rays.
    """
    root = existing(path)
    folders = [root] if _described(root) else sorted(f for f in root.glob("*/") if _described(f))
    if not folders:
        raise InputError(f"source.path = '{path}' holds no transforms.json: no scene is there.")
    folders, scenes = folders[:limit], []
    for folder in track(folders, "reading cameras", len(folders), "scenes"):
        scenes.append(_transforms(folder, part, convention, views))
    return _source(modality, scenes, path, None, views, background, split, shuffle)


def srn(
    modality: Views,
    path: str,
    views: Limit = None,
    background: Background = "white",
    split: Split = (0.9, 0.1),
    shuffle: bool = True,
    limit: Limit = None,
) -> Source:
    """An object in the layout of SRN's ShapeNet cars and chairs, or a folder of such objects.

    An object is a folder with ``rgb/*.png``, ``pose/*.txt`` of the same names (16 numbers, OpenCV
    camera-to-world) and ``intrinsics.txt``: ``f cx cy 0`` first, ``height width`` last, perhaps
    with a ``1`` below it where the poses are world-to-camera. views: the first so many of each.
    Source: arXiv:1906.01618 and the layout of its data.
    """
    root = existing(path)
    here = lambda folder: (folder / "rgb").is_dir() or (folder / "intrinsics.txt").is_file()
    folders = [root] if here(root) else sorted(f for f in root.glob("*/") if here(f))
    if not folders:
        raise InputError(
            f"source.path = '{path}' holds no object: a folder with rgb, pose and intrinsics.txt."
        )
    folders, scenes = folders[:limit], []
    for folder in track(folders, "reading cameras", len(folders), "objects"):
        scenes.append(_srn(folder, views))
    return _source(modality, scenes, path, None, views, background, split, shuffle)


def _source(
    modality: Views,
    scenes: Sequence[Scene],
    path: str,
    labels: Sequence[Any] | None,
    views: int | None,
    background: Background,
    split: Split,
    shuffle: bool,
) -> Source:
    """Check the cameras, read the pictures."""
    if modality.channels != 3:
        raise InputError(f"modality.channels = {modality.channels}: posed pictures have 3.")
    counts = [len(scene.pictures) for scene in scenes]
    each, most = min(counts), max(counts)
    if (views or most) > each:
        few = scenes[counts.index(each)].name
        asked = f"source.views = {views}" if views else f"others have {most}, and all need as many"
        raise InputError(f"{few} has {each} views: {asked}; set source.views to {each} or less.")
    each = views or each
    for scene in scenes:
        names = [name for name, _ in scene.pictures]
        check_pose(scene.c2w, names)
        _check_intrinsics(scene, names)
    c2w = torch.stack([scene.c2w[:each] for scene in scenes])
    intrinsics = torch.stack(
        [resized(scene.intrinsics[:each], scene.size, modality.size) for scene in scenes]
    )
    return assemble(
        _decoded(scenes, each, modality.size, background),
        labels,
        (1.0, 0.0) if len(scenes) == 1 else split,
        shuffle,
        filter="box",
        meta={"c2w": c2w.float(), "intrinsics": intrinsics.float()},
        suggests=_suggests(
            c2w, intrinsics, modality.size, [scene.bounds for scene in scenes], path
        ),
    )


def _decoded(scenes: Sequence[Scene], each: int, size: Size, background: Background) -> Tensor:
    """The first pictures of all scenes, read in parallel: uint8 (n, views, 3, height, width)."""
    data = np.empty((len(scenes), each, 3, *size), np.uint8)

    def read(place: tuple[int, int]) -> None:
        scene, (name, open_image) = scenes[place[0]], scenes[place[0]].pictures[place[1]]
        with _opened(name, open_image) as image:
            if image.size != scene.size[::-1]:
                raise InputError(
                    f"{name} is {image.height} x {image.width} pixels, where its scene has "
                    f"{scene.size[0]} x {scene.size[1]}: all pictures of a scene have one size."
                )
            try:
                data[place] = _picture(image, size, background)
            except (OSError, SyntaxError, ValueError) as error:
                raise InputError(f"{name} cannot be read: {error}.") from None

    places = list(np.ndindex(len(scenes), each))
    with ThreadPoolExecutor() as pool:
        for _ in track(pool.map(read, places), "reading views", len(places), "pictures"):
            pass
    return torch.from_numpy(data)


def _picture(image: Image.Image, size: Size, background: Background) -> NDArray[np.uint8]:
    """A picture of 8 bits, of straight alpha if any -> uint8 (3, height, width), by areas."""
    if image.mode[0] in "IF":
        raise ValueError(f"it has numbers of the kind '{image.mode}', where 8 bits are right")
    if "A" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        # On the background first: an average of colours that nobody sees would leave a rim.
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
    image = image.convert("RGB")
    if image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.BOX)
    return np.asarray(image).transpose(2, 0, 1)


def _opened(name: str, open_image: Callable[[], Image.Image]) -> Image.Image:
    try:
        return open_image()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise InputError(f"{name} is no picture that can be read.") from None


def _unpacked(blobs: NDArray[np.uint8], start: int, end: int) -> Image.Image:
    return Image.open(io.BytesIO(blobs[start:end].tobytes()))


def _check_intrinsics(scene: Scene, names: Sequence[str]) -> None:
    height, width = scene.size
    share = scene.intrinsics[:, :2] / scene.intrinsics.new_tensor([width, height])
    bad = ~((share > FOCAL[0]) & (share < FOCAL[1])).all(1)  # NaN is neither
    if bad.any():
        first = int(bad.nonzero()[0])
        fx, fy = scene.intrinsics[first, :2].tolist()
        raise InputError(
            f"{names[first]} has the focal lengths {fx:g} and {fy:g}: they must be in pixels of "
            f"the full picture, {height} x {width}."
        )
    if not scene.intrinsics.isfinite().all():
        raise InputError(f"{scene.name} has a principal point that is not finite.")


def _suggests(
    c2w: Tensor, intrinsics: Tensor, size: Size, bounds: Sequence[Bounds | None], path: str
) -> dict[str, dict[str, Any]]:
    """What the cameras tell: depths of the scene, and an orbit like theirs.

    near, far: of the files; else half and one and a half of the depth of the cameras' focus point,
    and nothing where that is not before every camera.
    up: the world axis nearest to the mean upward direction of the pictures.
    """
    known = [pair for pair in bounds if pair is not None]
    if len(known) < len(bounds):
        point = focus(c2w).unsqueeze(-2)
        depth = ((c2w[..., :3, 3] - point) * c2w[..., :3, 2]).sum(-1)
        known = [(DEPTHS[0] * float(depth.min()), DEPTHS[1] * float(depth.max()))]
        known = known if float(depth.min()) > 0 else []
    renderer = {}
    if known:
        near, far = min(pair[0] for pair in known), max(pair[1] for pair in known)
        if not 0 <= near < far < math.inf:
            raise InputError(f"'{path}' has near = {near:g}, far = {far:g}: 0 <= near < far.")
        renderer = {"near": round(near, 5), "far": round(far, 5)}
    modality = {
        "radius": round(float(c2w[..., :3, 3].norm(dim=-1).median()), 5),
        "focal": round(float(intrinsics[..., 0].median()) / size[1], 5),
        "up": int(c2w[..., :3, 1].flatten(0, -2).mean(0).abs().argmax()),
    }
    return {"renderer": renderer, "modality": modality}


def _described(folder: Path) -> bool:
    return folder.suffix == ".json" if folder.is_file() else any(folder.glob("transforms*.json"))


def _transforms(root: Path, part: Part, convention: Convention, views: int | None) -> Scene:
    """One scene: frames of all its files of this part."""
    frames = [frame for file in _files(root, part) for frame in _frames(file)]
    if not frames:
        raise InputError(f"{root} has no frames: a scene has at least one picture.")
    found = [_file(file.parent, name) for file, name, _ in frames]
    _check_missing(root, [str(f) for f, isfile in found if not isfile], len(frames))
    frames = frames[:views]
    pictures: list[Picture] = [(str(f), partial(Image.open, f)) for f, _ in found[:views]]
    with _opened(*pictures[0]) as image:
        size = image.height, image.width
    names = [name for name, _ in pictures]
    c2w = torch.stack([_pose(frame[2], name) for frame, name in zip(frames, names, strict=True)])
    told = [_intrinsics(frame[2], size, name) for frame, name in zip(frames, names, strict=True)]
    return Scene(
        str(root),
        size,
        pictures,
        opengl_from_opencv(c2w) if convention == "opencv" else c2w,
        torch.stack(told),
        _bounds(frames[0][2], root),
    )


def _files(root: Path, part: Part) -> list[Path]:
    if root.is_file():
        return [root]
    wanted = PARTS if part == "all" else (part,)
    files = [f for p in wanted if (f := root / f"transforms_{p}.json").is_file()]
    lone = root / "transforms.json"
    if not files and lone.is_file() and part in ("train", "all"):
        files = [lone]
    if not files:
        there = ", ".join(sorted(f.name for f in root.glob("transforms*.json")))
        raise InputError(f"source.part = '{part}': {root} has only {there}.")
    return files


def _frames(file: Path) -> list[tuple[Path, str, Mapping[str, Any]]]:
    """(file, file_path, its keys over those of the whole file) of each frame."""
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} is no JSON that can be read: {error}.") from None
    frames = table.get("frames") if isinstance(table, dict) else None
    if not isinstance(frames, list):
        raise InputError(f"{file} has no list 'frames'.")
    shared = {key: value for key, value in table.items() if key != "frames"}
    found: list[tuple[Path, str, Mapping[str, Any]]] = []
    for i, frame in enumerate(frames):
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise InputError(f"frame {i} of {file} has no 'file_path'.")
        found.append((file, frame["file_path"], shared | frame))
    return found


def _file(folder: Path, name: str) -> tuple[Path, bool]:
    """The picture of a frame, and whether it is there."""
    for suffix in SUFFIXES:
        if (file := folder / f"{name}{suffix}").is_file():
            return file, True
    return folder / name, False


def _pose(keys: Mapping[str, Any], name: str) -> Tensor:
    try:
        matrix = np.asarray(keys["transform_matrix"], np.float64)
    except (KeyError, TypeError, ValueError):
        matrix = np.empty(0)
    if matrix.shape != (4, 4):
        raise InputError(f"the frame of {name} has no 'transform_matrix' of 4 x 4 numbers.")
    return torch.from_numpy(matrix)


def _intrinsics(keys: Mapping[str, Any], size: Size, name: str) -> Tensor:
    """fx, fy, cx, cy in pixels of the stored picture, (height, width) = ``size``.

    ``w`` and ``h`` say which size the keys belong to; a stored picture may be a smaller copy.
    """
    get = lambda key, default=None: _number(keys, key, name, default)
    model = keys.get("camera_model", "PINHOLE")
    if model not in MODELS or keys.get("is_fisheye"):
        key = "is_fisheye" if keys.get("is_fisheye") else "camera_model"
        raise InputError(
            f"the frame of {name} has {key} = {keys[key]}: undistort the pictures to a pinhole "
            "camera first."
        )
    bent = [key for key in DISTORTION if get(key, 0.0)]
    if bent:
        raise InputError(
            f"the frame of {name} has lens distortion {bent[0]} = {keys[bent[0]]}: undistort the "
            "pictures first, so that it is 0."
        )
    height, width = get("h", float(size[0])), get("w", float(size[1]))
    # A smaller copy is rounded to whole pixels; anything further off was cropped.
    if min(height, width) < 1 or abs(size[0] / height - size[1] / width) > 1 / min(height, width):
        raise InputError(
            f"{name} is {size[0]} x {size[1]} pixels, where its camera has h = {height:g}, w = "
            f"{width:g}: the proportions must agree."
        )
    fx = get("fl_x", _focal(get("camera_angle_x"), width))
    if fx is None:
        raise InputError(f"the frame of {name} has no focal length: fl_x or camera_angle_x.")
    fy = get("fl_y", _focal(get("camera_angle_y"), height) or fx)
    told = [fx, fy, get("cx", width / 2), get("cy", height / 2)]
    stored = torch.tensor([size[1] / width, size[0] / height] * 2, dtype=torch.float64)
    return torch.tensor(told, dtype=torch.float64) * stored


def _focal(angle: float | None, extent: float) -> float | None:
    """Pixels of focal length for a field of view in radians over so many pixels."""
    return None if angle is None else extent / (2 * math.tan(angle / 2) or math.nan)


def _number(keys: Mapping[str, Any], key: str, name: str, default: float | None) -> Any:
    value = keys.get(key)
    if value is None:
        return default
    if not isinstance(value, int | float):
        raise InputError(f"the frame of {name} has {key} = {value!r}, which is no number.")
    return float(value)


def _bounds(keys: Mapping[str, Any], root: Path) -> Bounds | None:
    near, far = (_number(keys, key, str(root), None) for key in ("near", "far"))
    return None if near is None or far is None else (near, far)


def _srn(folder: Path, views: int | None) -> Scene:
    """One object."""
    poses = {f.stem: f for f in (folder / "pose").glob("*.txt")}
    files = {f.stem: f for f in (folder / "rgb").glob("*.png")}
    stems = sorted(poses.keys() | files.keys())
    if not stems:
        raise InputError(f"{folder} has no frames: rgb/*.png with pose/*.txt of the same names.")
    missing = [
        str(folder / where / f"{stem}.{suffix}")
        for stem in stems
        for where, there, suffix in (("rgb", files, "png"), ("pose", poses, "txt"))
        if stem not in there
    ]
    _check_missing(folder, missing, len(stems))
    stems = stems[:views]
    pictures: list[Picture] = [(str(files[s]), partial(Image.open, files[s])) for s in stems]
    with _opened(*pictures[0]) as image:
        size = image.height, image.width
    table = folder / "intrinsics.txt"
    lines = _lines(table)
    sizes = [i for i, line in enumerate(lines) if len(line) == 2]
    if not sizes or len(lines[0]) not in (3, 4) or min(lines[sizes[-1]]) < 1:
        raise InputError(f"{table} must begin with 'f cx cy 0' and end with 'height width'.")
    focal, cx, cy = lines[0][:3]
    height, width = lines[sizes[-1]]
    full = torch.tensor([focal, focal, cx, cy], dtype=torch.float64)
    stored = torch.tensor([size[1] / width, size[0] / height] * 2, dtype=torch.float64)
    rows = [[x for line in _lines(poses[stem]) for x in line] for stem in stems]
    for stem, row in zip(stems, rows, strict=True):
        if len(row) != 16:
            raise InputError(f"{poses[stem]} has {len(row)} numbers: a pose is 4 x 4, 16 numbers.")
    c2w = torch.tensor(rows, dtype=torch.float64).unflatten(1, (4, 4))
    if any(line[0] for line in lines[sizes[-1] + 1 :]):
        check_pose(c2w, [str(poses[stem]) for stem in stems])
        c2w = torch.linalg.inv(c2w)
    intrinsics = (full * stored).expand(len(stems), 4)
    return Scene(str(folder), size, pictures, opengl_from_opencv(c2w), intrinsics)


def _lines(file: Path) -> list[list[float]]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        return [[float(x) for x in line.split()] for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise InputError(f"{file} is no file of numbers that can be read: {error}.") from None


def _check_missing(where: Path, missing: Sequence[str], count: int) -> None:
    if missing:
        raise InputError(
            f"{where} lacks {len(missing)} of the files of its {count} frames; the first is "
            f"{missing[0]}."
        )


def _scalar(array: NDArray[Any], key: str, path: str) -> float:
    if array.size != 1 or array.dtype.kind not in "uif":
        raise InputError(f"the array '{key}' of '{path}' must be one number.")
    return float(array.reshape(()))
