"""Scenes of COLMAP: a sparse model, in binary or in text, and the images that it is of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fieldloom.errors import InputError, quote_path, shorten
from fieldloom.geometry.cameras import Poses, opengl_from_opencv, project_points
from fieldloom.modalities.sources.cameras import NO_DEPTHS, Bounds, Box, Depths
from fieldloom.modalities.sources.colmap_files import read_cameras, read_images, read_points
from fieldloom.modalities.sources.files import find_path, name_path
from fieldloom.modalities.sources.folders import list_folder
from fieldloom.modalities.sources.numbers import Range
from fieldloom.modalities.sources.pictures import Background, FullSize
from fieldloom.modalities.sources.scenes import (
    FARTHEST,
    Every,
    Frame,
    Scene,
    check_any_there,
    locate_image,
    scenes_to_source,
)
from fieldloom.modalities.sources.source import Limit, Source, Split
from fieldloom.modalities.sources.summary import count_things
from fieldloom.modalities.views import Views
from fieldloom.permit import NOTHING, Permit
from fieldloom.progress import BRIEF, track

PLACES = ("sparse/0", "sparse", "colmap/sparse/0", "colmap/sparse", "")
"""Folders of a scene where its model is looked for."""
SUFFIXES = (".bin", ".txt")
POINTS = 20_000
"""Points that are looked at, evenly spaced among all, for depths and the box."""
USUAL = 0.001, 0.999
"""Quantiles of the points' depths in a view that near and far are taken from."""
INNER = 0.01, 0.99
"""Quantiles of the points' coordinates along each axis that the box is taken from."""
MARGIN = 0.1
"""By how much near, far and the box are widened, relative to themselves."""


def read_colmap(
    modality: Views,
    path: str,
    images: str | None = None,
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
    """A scene with a model of COLMAP, or a folder of such scenes.

    The model (``cameras``, ``images`` and perhaps ``points3D``, all ``.bin`` or all ``.txt``) lies
    in ``sparse/0``, ``sparse``, ``colmap/sparse/0`` or the folder itself. Views are in the order of
    their images' names. The points tell near, far and the box that the scene lies in. Images may be
    of distorting lenses, and missing, as of ``read_transforms``.
    images: the folder of the images beside ``sparse``: ``images_4`` holds copies of a quarter of
            the size. None: ``images``, or else the first of ``images_2``, ``images_4`` ...
    views: the number of views of each scene that are used, the first ones.
    frame, hold_out, suggest, depths: as of ``read_transforms``. range: the numbers that become 0
    and 1.
    """
    root = find_path(path)
    folders = [root] if _find_model(root) else [f for f in list_folder(root) if _find_model(f)]
    if not folders:
        raise InputError(
            f"{name_path(path)} holds no model of COLMAP: sparse/0 with cameras and "
            "images, .bin or .txt."
        )
    folders, scenes = folders[:limit], []
    for folder in track(folders, "reading cameras", len(folders), "scenes", BRIEF):
        scenes.append(_read_scene(folder, images, views, permit))
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


def _find_model(root: Path) -> tuple[Path, str] | None:
    """The folder of a scene's model and the suffix of its files, if it has one."""
    for place in PLACES:
        for suffix in SUFFIXES:
            if all((root / place / f"{name}{suffix}").is_file() for name in ("cameras", "images")):
                return root / place, suffix
    return None


def _read_scene(root: Path, images: str | None, views: int | None, permit: Permit) -> Scene:
    found = _find_model(root)
    assert found is not None  # ``read_colmap`` has looked
    folder, suffix = found
    cameras = read_cameras(folder / f"cameras{suffix}", permit)
    posed = read_images(folder / f"images{suffix}", permit)
    if not posed:
        raise InputError(f"{quote_path(folder)} has no images: a scene has at least one.")
    lost = [one for one in posed if one.camera not in cameras]
    if lost:
        raise InputError(
            f"{quote_path(folder / f'images{suffix}')} has the camera {lost[0].camera}, which "
            f"cameras{suffix} does not have."
        )
    place, told = _find_images(root, images)
    files = [locate_image(place / "images", one.name) for one in posed]
    missing = [file for file in files if not file.is_file()]
    check_any_there(place, missing, len(files))
    pairs = [(one, file) for one, file in zip(posed, files, strict=True) if file.is_file()]
    pairs = pairs[:views]
    own = [cameras[one.camera] for one, _ in pairs]
    c2w = _to_opengl([one.pose for one, _ in pairs])
    intrinsics = torch.tensor([one.intrinsics for one in own], dtype=torch.float64)
    file = folder / f"points3D{suffix}"
    points = read_points(file, permit) if file.is_file() else torch.zeros(0, 3).double()
    at = points[(points.abs() <= FARTHEST).all(1)]  # NaN is not
    bounds = _bounds_of_points(at, c2w, intrinsics, [one.size for one in own])
    box = _box_of_points(at) if bounds else None
    if box is not None:
        told["box"] = f"box of {count_things(len(points), 'point')}"
    models = sum(_find_model(one) is not None for one in _numbered(folder))
    if models > 1:
        told["model"] = f"model {folder.name} of {models}"
    return Scene(
        quote_path(root),
        [(quote_path(file), file) for _, file in pairs],
        [one.size for one in own],
        c2w,
        intrinsics,
        lenses=[one.lens for one in own],
        bounds=bounds,
        bounds_from="from the points",
        box=box,
        missing=[file.name for file in missing],
        told=told,
    )


def _numbered(folder: Path) -> list[Path]:
    """The folders of models beside this one, which COLMAP numbers; none where it has no number."""
    return [f for f in list_folder(folder.parent) if f.is_dir()] if folder.name.isdigit() else []


def _find_images(root: Path, images: str | None) -> tuple[Path, dict[str, str]]:
    """The folder of a scene's images, and what is said of it. The path may be the model's own."""
    found = _find_model(root)
    inside = found is not None and found[0] == root
    for base in (root, *root.parents[:2]) if inside else (root,):
        copies = sorted(base.glob("images_*"), key=lambda f: (len(f.name), f.name))
        for folder in [base / images] if images else [base / "images", *copies]:
            if folder.is_dir():
                plain = folder.name == "images"
                return folder, {} if plain else {"images": f"images of {shorten(folder.name, 40)}"}
    raise InputError(
        f"{quote_path(root)} has no folder '{shorten(images or 'images')}' of the images that its "
        "model is of: set source.images to its name."
    )


def _to_opengl(poses: Sequence[Sequence[float]]) -> Poses:
    """Camera-to-world (views, 4, 4) of OpenGL from world-to-camera quaternions, translations."""
    numbers = torch.tensor(poses, dtype=torch.float64)
    quaternion, translation = numbers[:, :4], numbers[:, 4:]
    w, x, y, z = (quaternion / quaternion.norm(dim=1, keepdim=True)).unbind(1)
    rotation = torch.stack([
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ], 1).unflatten(1, (3, 3))  # fmt: skip
    back = rotation.mT
    c2w = torch.eye(4, dtype=torch.float64).repeat(len(numbers), 1, 1)
    c2w[:, :3, :3] = back
    c2w[:, :3, 3] = -(back @ translation.unsqueeze(-1)).squeeze(-1)
    return opengl_from_opencv(c2w)


def _bounds_of_points(
    points: Tensor, c2w: Poses, intrinsics: Tensor, sizes: Sequence[FullSize]
) -> Bounds | None:
    """Depths between which nearly all points lie that a view shows; None without such points."""
    some = points[:: 1 + len(points) // POINTS]
    ends = []
    for pose, own, (height, width) in zip(c2w, intrinsics, sizes, strict=True):
        pixel, depth = project_points(some, pose, own)
        shown = (pixel > 0).all(1) & (pixel < pixel.new_tensor([width, height])).all(1)
        seen = depth[shown & (depth > 0)]
        if len(seen):
            ends.append(seen.quantile(seen.new_tensor(USUAL)))
    if not ends:
        return None
    low, high = torch.stack(ends).unbind(1)
    return float(low.min()) * (1 - MARGIN), float(high.max()) * (1 + MARGIN)


def _box_of_points(points: Tensor) -> Box:
    """The box in which nearly all points lie."""
    some = points[:: 1 + len(points) // POINTS]
    low, high = some.quantile(some.new_tensor(INNER), 0)
    margin = MARGIN * (high - low) / 2
    corners = [(low - margin).tolist(), (high + margin).tolist()]
    (a, b, c), (d, e, f) = corners
    return (a, b, c), (d, e, f)
