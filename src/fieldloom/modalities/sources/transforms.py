"""Scenes of Blender, instant-ngp and nerfstudio: images with a ``transforms.json``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any, Literal, NamedTuple

import torch

from fieldloom.errors import InputError, quote, quote_path, shorten
from fieldloom.geometry.cameras import opengl_from_opencv
from fieldloom.modalities.sources.cameras import NO_DEPTHS, Depths
from fieldloom.modalities.sources.files import (
    find_path,
    name_path,
    refuse_outside,
    resolve_inside,
)
from fieldloom.modalities.sources.folders import list_folder
from fieldloom.modalities.sources.numbers import Range
from fieldloom.modalities.sources.pictures import Background, FullSize, NamedImage
from fieldloom.modalities.sources.scenes import (
    Every,
    Frame,
    Scene,
    check_any_there,
    locate_image,
    scenes_to_source,
)
from fieldloom.modalities.sources.source import Limit, Source, Split
from fieldloom.modalities.sources.splits import divide_by_file
from fieldloom.modalities.sources.summary import count_things
from fieldloom.modalities.sources.transforms_file import (
    PARTS,
    Part,
    Row,
    TransformsFile,
    View,
    parse_camera,
    read_file,
)
from fieldloom.modalities.views import Views
from fieldloom.permit import NOTHING, Permit
from fieldloom.progress import BRIEF, track

Convention = Literal["opengl", "opencv"]

LONE = "transforms.json"
"""The file of a scene that has one file alone."""
LAST = 4
"""How many of the last parts of a name of another disk are looked for."""
SUFFIXES = ("", ".png", ".jpg", ".jpeg", ".webp")
"""Suffixes that are tried after a ``file_path``."""


class PosedFile(NamedTuple):
    """A frame's image, whether it is there, and the frame's keys merged over its file's.

    shared: whether its focal length is that of the whole file, in pixels.
    beside: whether the image was looked for in the folder by its name alone.
    elsewhere: whether its name is one of another disk.
    """

    path: Path
    exists: bool
    pose: tuple[Row, ...]
    keys: Mapping[str, Any]
    shared: bool
    beside: bool
    elsewhere: bool


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
                that are held out come last. None or 0: ``modality.held`` decides.
    depths:     near and far of the recipe's renderer, which hold instead of the scene's.
    Images may differ in size; those of a distorting lens become those of a pinhole camera. Frames
    whose images are missing are skipped, with a warning. An image outside the folder of its file
    raises InputError.
    A file of lists, ``car_splits.json`` in or beside the folder ``cars``, divides its scenes, as
    folders named train and test divide images: not where ``split`` is of numbers, or [1.0, 0.0].
    Source: the layouts of NeRF's synthetic scenes (arXiv:2003.08934), of instant-ngp
    (arXiv:2201.05989), of nerfstudio (arXiv:2302.04264), and of learnit's ShapeNet
    (arXiv:2012.02189).
    """
    root = find_path(path)
    within = lambda: [f for f in list_folder(root) if f.is_dir() and _holds_scene(f)]
    folders = [root] if _holds_scene(root) else within()
    if not folders:
        raise InputError(f"{name_path(path)} holds no transforms.json: no scene is there.")
    parts = None if _holds_scene(root) else divide_by_file(root, folders, limit)
    folders, scenes = folders[:limit] if parts is None else list(parts.folders), []
    for folder in track(folders, "reading cameras", len(folders), "scenes", BRIEF):
        scenes.append(_read_scene(folder, part, convention, views, permit, bool(hold_out)))
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
        parts=parts,
    )


def _holds_scene(folder: Path) -> bool:
    return folder.suffix == ".json" if folder.is_file() else any(folder.glob("transforms*.json"))


def _read_scene(
    root: Path, part: Part, convention: Convention, views: int | None, permit: Permit, apart: bool
) -> Scene:
    """One scene: frames of all its files of this part. apart: and of its test part, if any."""
    frames = _find_frames(root, part, permit)
    chosen, told = frames.posed[:views], dict(frames.told)
    test = _find_test_part(root, permit) if apart and part == "train" and frames.part else None
    tested = [] if test is None else test.posed
    posed = [*chosen, *tested]
    images: list[NamedImage] = [(quote_path(one.path), one.path) for one in posed]
    cameras = [
        parse_camera(image, one.keys, permit.large)
        for one, image in zip(posed, images, strict=True)
    ]
    sizes = [one.size for one in cameras]
    _check_shared_focal(root, posed, sizes)
    c2w = torch.tensor([one.pose for one in posed], dtype=torch.float64)
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


def _find_frames(root: Path, part: Part, permit: Permit) -> Frames:
    """The frames of all files of a part. Raises InputError where no image is there."""
    posed: list[PosedFile] = []
    outside: dict[str, Path] = {}
    told: dict[str, str] = {}
    parted = False
    for file in _files_of_part(root, part):
        scene = read_file(file, permit)
        chosen, others = _choose_views(file, scene, part)
        outside |= {view.file_path: _places(file, view.file_path)[0] for view in others}
        found = [_find_posed(file, scene, view) for view in chosen]
        elsewhere = {
            one.file_path: own for one, own in zip(chosen, found, strict=True) if own.elsewhere
        }
        if elsewhere and not any(own.exists for own in elsewhere.values()):
            raise refuse_outside(file, next(iter(elsewhere)))
        posed += found
        parted = parted or bool(scene.names_of_parts()) or (root.is_dir() and file.name != LONE)
        if (scene.aabb_scale or 0) > 1:
            told["around"] = f"aabb_scale = {scene.aabb_scale:g}"
        elif scene.aabb_scale not in (None, 1):
            told["scale"] = f"aabb_scale = {scene.aabb_scale:g} not used, since it is below 1"
        if any(view.mask_path for view in chosen):
            told["masks"] = "masks not read"
    if not posed:
        raise InputError(f"{quote_path(root)} has no frames: a scene has at least one image.")
    beside = [one.path for one in posed if one.beside and one.exists]
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


def _find_test_part(root: Path, permit: Permit) -> Frames | None:
    """The test part of a scene, or else its val part; None where it has neither."""
    for part in ("test", "val"):
        try:
            found = _find_frames(root, part, permit)
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
    places = [_places(file, view.file_path)[0] for view in scene.frames]
    known, chosen, others = set(places), dict[int, View](), dict(enumerate(scene.frames))
    for name, names in lists.items():
        listed = {_places(file, one)[0]: one for one in names}
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
    elsewhere = _is_elsewhere(file, view.file_path)
    places = _places(file, view.file_path)
    tried = [p.with_name(f"{p.name}{suffix}") for p in places for suffix in SUFFIXES]
    there = [image for image in tried if os.path.isfile(image)]
    whole = {"frames", "aabb_scale", *(f"{part}_filenames" for part in PARTS)}
    own = view.model_dump(exclude_none=True)
    keys = scene.model_dump(exclude=whole, exclude_none=True) | own
    image, shared = (there or tried)[0], "fl_x" not in own
    beside = elsewhere or image.parent != places[0].parent
    return PosedFile(image, bool(there), view.pose, keys, shared, beside, elsewhere)


def _places(file: Path, name: str) -> list[Path]:
    """Where the image of a frame may lie, within the folder of its file, without a suffix.

    A name of another disk is looked for by its last parts. learnit's ShapeNet has all images beside
    its file, whatever the folder in their names.
    """
    if _is_elsewhere(file, name):
        parts = PureWindowsPath(name).parts[1:][-LAST:] or (os.pardir,)
        return [resolve_inside(file, "/".join(parts[i:])) for i in range(len(parts))]
    found = locate_image(file, name)
    return list(dict.fromkeys((found, file.parent / found.name)))


def _is_elsewhere(file: Path, name: str) -> bool:
    """Whether a name is absolute, of the disk of the program that wrote it, and not inside."""
    path = PureWindowsPath(name)  # which knows both kinds of slashes
    if not path.root or path.drive:
        return bool(path.drive)
    return not Path(name).is_relative_to(os.path.abspath(file.parent))


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
