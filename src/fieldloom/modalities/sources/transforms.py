"""Scenes of Blender, instant-ngp and nerfstudio: images with a ``transforms.json``."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from fieldloom.errors import InputError, quote, quote_path, shorten
from fieldloom.geometry.cameras import opengl_from_opencv
from fieldloom.geometry.distortion import Lens
from fieldloom.modalities.sources.cameras import NO_DEPTHS, Depths
from fieldloom.modalities.sources.files import find_path
from fieldloom.modalities.sources.folders import list_folder
from fieldloom.modalities.sources.numbers import Range
from fieldloom.modalities.sources.pictures import Background, FullSize, NamedImage, stored_size
from fieldloom.modalities.sources.scenes import (
    Every,
    Frame,
    Scene,
    check_any_there,
    locate_image,
    scenes_to_source,
)
from fieldloom.modalities.sources.source import Limit, Source, Split
from fieldloom.modalities.sources.summary import count_things
from fieldloom.modalities.sources.transforms_file import (
    OTHER_LENSES,
    PARTS,
    Part,
    TransformsFile,
    View,
    read_file,
)
from fieldloom.modalities.views import Views
from fieldloom.permit import NOTHING, Permit
from fieldloom.progress import BRIEF, track

Convention = Literal["opengl", "opencv"]

MODELS = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE")
"""Names of nerfstudio's and COLMAP's models whose coefficients are those of ``Lens``."""
LONE = "transforms.json"
"""The file of a scene that has one file alone."""
SUFFIXES = ("", ".png", ".jpg", ".jpeg", ".webp")
"""Suffixes that are tried after a ``file_path``."""


class PosedFile(NamedTuple):
    """A frame's image, whether it is there, and the frame's keys merged over its file's.

    shared: whether its focal length is that of the whole file, in pixels.
    beside: whether the image was found beside the file, by its name alone.
    """

    path: Path
    exists: bool
    keys: Mapping[str, Any]
    shared: bool
    beside: bool


def read_transforms(
    modality: Views,
    path: str,
    part: Part = "train",
    convention: Convention = "opengl",
    views: Limit = None,
    background: Background = "white",
    split: Split = (0.9, 0.1),
    shuffle: bool = True,
    limit: Limit = None,
    frame: Frame = "cameras",
    suggest: bool = True,
    range: Range = None,
    hold_out: Every = None,
    depths: Depths = NO_DEPTHS,
    permit: Permit = NOTHING,
) -> Source:
    """A scene of Blender, instant-ngp or nerfstudio, or a folder of such scenes.

    A scene is a folder with ``transforms.json``, or with ``transforms_train.json`` and the like,
    or one such file. Frames keep the file's order. Masks and depths are not read.
    part:       which of the files, or of the lists ``train_filenames``, ``val_filenames`` and
                ``test_filenames`` of a lone ``transforms.json``, which is ``train`` without them.
                ``all`` is train, val and test, in this order. Frames in no list are passed over.
    convention: ``opencv`` poses (y down, looking along z) become OpenGL's.
    views:      the number of views of each scene that are used, the first ones.
    range:      the numbers that become 0 and 1 (see ``numbers``).
    frame:      of a single scene. ``cameras``: its cameras suggest ``modality.frame``, so that it
                may stand anywhere, in any unit. ``file``: the field sees the file's coordinates, as
                it does those of a set.
    suggest:    whether a recipe is completed by what the cameras suggest. That of a run is complete
                already: its ``modality.frame`` holds for other data of its scene, too.
    hold_out:   every how-manieth view is held out, instead of ``modality.held``; where ``part`` is
                ``train`` and the file has a test part (or else a val part), that is held out. Views
                that are held out come last. None: ``modality.held`` decides.
    depths:     near and far of the recipe's renderer, which hold instead of the scene's.
    Images may differ in size; those of a distorting lens become those of a pinhole camera. Frames
    whose images are missing are skipped, with a warning. An image outside the folder of its file
    raises InputError.
    Source: the layouts of NeRF's synthetic scenes (arXiv:2003.08934), of instant-ngp
    (arXiv:2201.05989) and of nerfstudio (arXiv:2302.04264).
    """
    root = find_path(path)
    within = lambda: [f for f in list_folder(root) if f.is_dir() and _holds_scene(f)]
    folders = [root] if _holds_scene(root) else within()
    if not folders:
        raise InputError(
            f"source.path = {quote_path(path)} holds no transforms.json: no scene is there."
        )
    folders, scenes = folders[:limit], []
    for folder in track(folders, "reading cameras", len(folders), "scenes", BRIEF):
        scenes.append(
            _read_scene(folder, part, convention, views, permit.large, hold_out is not None)
        )
    return scenes_to_source(
        modality,
        scenes,
        path,
        views=views,
        background=background,
        split=split,
        shuffle=shuffle,
        frame=frame,
        suggest=suggest,
        permit=permit,
        given=range,
        hold_out=hold_out,
        depths=depths,
    )


def _holds_scene(folder: Path) -> bool:
    return folder.suffix == ".json" if folder.is_file() else any(folder.glob("transforms*.json"))


def _read_scene(
    root: Path, part: Part, convention: Convention, views: int | None, large: bool, apart: bool
) -> Scene:
    """One scene: frames of all its files of this part. apart: and of its test part, if any."""
    frames = _find_frames(root, part)
    chosen, told = frames.posed[:views], dict(frames.told)
    test = _find_test_part(root) if apart and part == "train" and frames.part else None
    tested = [] if test is None else test.posed
    posed = [*chosen, *tested]
    images: list[NamedImage] = [(quote_path(one.path), one.path) for one in posed]
    cameras = [_parse_camera(one, image, large) for one, image in zip(posed, images, strict=True)]
    sizes = [one.size for one in cameras]
    _check_shared_focal(root, posed, sizes)
    c2w = torch.tensor([one.keys["transform_matrix"] for one in posed], dtype=torch.float64)
    near, far = posed[0].keys.get("near"), posed[0].keys.get("far")
    if (near is None) != (far is None):
        raise InputError(f"{quote_path(root)} has one of near and far: give both, or neither.")
    used = {one.path for one in posed}
    return Scene(
        quote_path(root),
        images,
        sizes,
        opengl_from_opencv(c2w) if convention == "opencv" else c2w,
        torch.stack([one.intrinsics for one in cameras]),
        lenses=[one.lens for one in cameras],
        bounds=None if near is None or far is None else (near, far),
        part=f"part {part}" if frames.part else "",
        tested=len(tested),
        outside=[name for name, path in frames.outside.items() if path not in used],
        missing=[*frames.missing, *(test.missing if test else ())],
        told=told,
    )


class Frames(NamedTuple):
    """Frames of a part of a scene.

    part: whether the scene has parts. outside: names of frames in no part, and their paths.
    missing: names of frames whose images are not there. told: what the summary says.
    """

    posed: Sequence[PosedFile]
    part: bool
    outside: Mapping[str, Path]
    missing: Sequence[str]
    told: Mapping[str, str]


def _find_frames(root: Path, part: Part) -> Frames:
    """The frames of all files of a part. Raises InputError where no image is there."""
    posed: list[PosedFile] = []
    outside: dict[str, Path] = {}
    told: dict[str, str] = {}
    parted = False
    for file in _files_of_part(root, part):
        scene = read_file(file)
        chosen, others = _choose_views(file, scene, part)
        outside |= {view.file_path: locate_image(file, view.file_path) for view in others}
        posed += [_find_posed(file, scene, view) for view in chosen]
        parted = parted or bool(scene.names_of_parts()) or (root.is_dir() and file.name != LONE)
        if (scene.aabb_scale or 0) > 1:
            told["around"] = f"aabb_scale = {scene.aabb_scale:g}"
        if any(view.mask_path for view in chosen):
            told["masks"] = "masks not read"
    if not posed:
        raise InputError(f"{quote_path(root)} has no frames: a scene has at least one image.")
    beside = [one.path for one in posed if one.beside]
    if len(set(beside)) < len(beside):
        raise InputError(
            f"{quote_path(root)} lacks images of its frames, several of which have the name of one "
            f"beside it, {quote_path(next(p for p in beside if beside.count(p) > 1))}."
        )
    if beside:
        told["place"] = f"{count_things(len(beside), 'image')} found by name alone"
    missing = [one.path for one in posed if not one.exists]
    check_any_there(root, missing, len(posed))
    there = [one for one in posed if one.exists]
    return Frames(there, parted, outside, [path.name for path in missing], told)


def _find_test_part(root: Path) -> Frames | None:
    """The test part of a scene, or else its val part; None where it has neither."""
    for part in ("test", "val"):
        try:
            found = _find_frames(root, part)
        except NoPart:
            continue
        return found
    return None


class NoPart(InputError):
    """A scene has no such part."""


def _files_of_part(root: Path, part: Part) -> list[Path]:
    if root.is_file():
        return [root]
    wanted = PARTS if part == "all" else (part,)
    files = [f for p in wanted if (f := root / f"transforms_{p}.json").is_file()]
    if not files and (root / LONE).is_file():
        files = [root / LONE]
    if not files:
        there = ", ".join(sorted(f.name for f in root.glob("transforms*.json")))
        raise NoPart(f"source.part = '{part}': {quote_path(root)} has only {shorten(there)}.")
    return files


def _choose_views(
    file: Path, scene: TransformsFile, part: Part
) -> tuple[Sequence[View], Sequence[View]]:
    """The frames of a part, and those that are in none.

    Raises InputError where the file lists no frames of this part, and for names that it lists, but
    has no frame of.
    """
    lists = scene.names_of_parts()
    if not lists:
        if file.name == LONE and part not in ("train", "all"):
            raise NoPart(
                f"source.part = '{part}': {quote_path(file.parent)} has only {file.name}, which "
                f"has no {part}_filenames."
            )
        return scene.frames, []
    places = [locate_image(file, view.file_path) for view in scene.frames]
    known, chosen, others = set(places), dict[int, View](), dict(enumerate(scene.frames))
    for name, names in lists.items():
        listed = {locate_image(file, one): one for one in names}
        lost = [one for place, one in listed.items() if place not in known]
        if lost:
            raise InputError(
                f"{quote_path(file)} lists {quote(lost[0])} in {name}_filenames, which is the "
                "'file_path' of no frame."
            )
        for i, place in enumerate(places):
            if place in listed:
                others.pop(i, None)
                if part in (name, "all"):
                    chosen.setdefault(i, scene.frames[i])
    if not chosen:
        there = ", ".join(f"{name}_filenames" for name, names in lists.items() if names)
        raise NoPart(
            f"source.part = '{part}': {quote_path(file)} lists frames in {there or 'no part'} only."
        )
    return list(chosen.values()), list(others.values())


def _find_posed(file: Path, scene: TransformsFile, view: View) -> PosedFile:
    """The image of a frame, with the keys of its file and its own."""
    found = locate_image(file, view.file_path)
    # learnit's ShapeNet has all images beside its file, whatever the folder in their names.
    tried = [
        folder / f"{found.name}{suffix}"
        for folder in dict.fromkeys((found.parent, file.parent))
        for suffix in SUFFIXES
    ]
    there = [image for image in tried if os.path.isfile(image)]
    whole = {"frames", "aabb_scale", *(f"{part}_filenames" for part in PARTS)}
    own = view.model_dump(exclude_none=True)
    keys = scene.model_dump(exclude=whole, exclude_none=True) | own
    image, shared = (there or tried)[0], "fl_x" not in own
    return PosedFile(image, bool(there), keys, shared, beside=image.parent != found.parent)


class ParsedCamera(NamedTuple):
    """fx, fy, cx, cy in pixels of an image, its (height, width), and its lens, None of a pinhole.

    The size is ``w`` and ``h``, of which the stored image may be a smaller copy, or else its own.
    """

    intrinsics: Tensor
    size: FullSize
    lens: Lens | None


def _parse_camera(posed: PosedFile, image: NamedImage, large: bool) -> ParsedCamera:
    """The camera of a frame. Raises InputError where it is none of ``MODELS``."""
    name, keys = image[0], posed.keys
    lens = _parse_lens(name, keys)
    stored = (0, 0) if {"h", "w"} <= keys.keys() else stored_size(image, large)
    height, width = keys.get("h", float(stored[0])), keys.get("w", float(stored[1]))
    if min(height, width) < 1:
        raise InputError(
            f"the camera of {name} has h = {height:g}, w = {width:g}: both are at least 1."
        )
    fx = keys.get("fl_x", _focal_length(keys.get("camera_angle_x"), width))
    if fx is None:
        raise InputError(f"the frame of {name} has no focal length: fl_x or camera_angle_x.")
    fy = keys.get("fl_y", _focal_length(keys.get("camera_angle_y"), height) or fx)
    numbers = [fx, fy, keys.get("cx", width / 2), keys.get("cy", height / 2)]
    return ParsedCamera(torch.tensor(numbers, dtype=torch.float64), (height, width), lens)


def _parse_lens(name: str, keys: Mapping[str, Any]) -> Lens | None:
    """The lens of a frame: Brown's of k1 ... k3, p1, p2, or the fisheye of k1 ... k4."""
    other = [key for key in OTHER_LENSES if key in keys and keys[key] is not False]
    model = keys.get("camera_model", "PINHOLE")
    if model not in MODELS or other:
        key = other[0] if other else "camera_model"
        raise InputError(
            f"the frame of {name} has {key} = {shorten(str(keys[key]))}: undistort the images to a "
            f"pinhole camera first, or take one of {', '.join(MODELS)}."
        )
    k1, k2, k3, k4, p1, p2 = (keys.get(key, 0.0) for key in ("k1", "k2", "k3", "k4", "p1", "p2"))
    fisheye = model == "OPENCV_FISHEYE" or bool(keys.get("is_fisheye"))
    unused = ("p1", "p2", "k5", "k6") if fisheye else ("k4", "k5", "k6")
    wrong = [key for key in unused if keys.get(key)]
    if wrong:
        raise InputError(
            f"the frame of {name} has {wrong[0]} = {keys[wrong[0]]:g}, which "
            f"{'a fisheye' if fisheye else 'a camera that is no fisheye'} does not have."
        )
    lens = Lens((k1, k2, k3, k4), fisheye=True) if fisheye else Lens((k1, k2, k3), (p1, p2))
    return None if lens.straight else lens


def _check_shared_focal(root: Path, posed: Sequence[PosedFile], sizes: Sequence[FullSize]) -> None:
    """Raise InputError where images of several sizes share a focal length in pixels.

    Without ``w`` and ``h`` nothing tells which of them it is of.
    """
    first: FullSize | None = None
    for one, size in zip(posed, sizes, strict=True):
        if not one.shared or "fl_x" not in one.keys or {"h", "w"} <= one.keys.keys():
            continue
        if first is not None and size != first:
            raise InputError(
                f"{quote_path(root)} has one fl_x for images of several sizes, of which "
                f"{quote_path(one.path)} is {size[0]:g} x {size[1]:g} and another {first[0]:g} x "
                f"{first[1]:g} pixels: give w and h with it, or each frame its own."
            )
        first = size


def _focal_length(angle: float | None, extent: float) -> float | None:
    """Focal length in pixels, from a field of view in radians and an extent in pixels."""
    return None if angle is None else extent / (2 * math.tan(angle / 2) or math.nan)
