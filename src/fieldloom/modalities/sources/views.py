"""Posed images: the common part of their readers, and the reader of packed files.

All readers return uint8 values (n, views, 3, height, width), and a camera for each view, whose
intrinsics are in pixels of the resized images.

Images are composited on a background, then resized, and never cropped: where the modality has other
proportions, fx and fy differ, and every ray stays correct. EXIF orientations are ignored, since
cameras refer to the pixels as they are stored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fieldloom.errors import InputError, quote_path
from fieldloom.geometry.cameras import Size, check_pose, focus, resize_intrinsics
from fieldloom.modalities.sources.decoding import (
    Scales,
    one_large_at_a_time,
    survey_images,
    to_eight_bits,
)
from fieldloom.modalities.sources.files import (
    Archive,
    find_file,
    load_array,
    read_labels,
    read_npz,
    read_offsets,
)
from fieldloom.modalities.sources.formats import Encoded, open_image
from fieldloom.modalities.sources.source import Limit, Source, Split, choose, make_source
from fieldloom.modalities.views import Views
from fieldloom.permit import NOTHING, Permit
from fieldloom.progress import track
from fieldloom.types import Cameras

Background = Literal["white", "black"]
NamedImage = tuple[str, Encoded]
"""The name of an image, for messages, and its file or its bytes."""
Bounds = tuple[float, float]
"""The nearest and the farthest depth of a scene."""

FOCAL = (0.1, 100.0)
"""The range of focal lengths over the image's size; others are in a wrong unit."""
DEPTHS = (0.5, 1.5)
"""Default depths of a scene, relative to the distance of its focus: 2 to 6 for the cameras of
NeRF's synthetic scenes, at 4."""
OBJECT_RADIUS = 0.5
"""Objects of packed files with a ``camera_radius`` lie in a ball of this radius."""


@dataclass(frozen=True)
class Scene:
    """Images, all (height, width) = ``size``, with c2w (views, 4, 4), intrinsics (views, 4)."""

    name: str
    size: Size
    images: Sequence[NamedImage]
    c2w: Tensor
    intrinsics: Tensor
    bounds: Bounds | None = None


def read_multiview(
    modality: Views,
    path: str,
    label: str | None = None,
    views: Limit = None,
    background: Background = "white",
    split: Split = (0.9, 0.1),
    shuffle: bool = True,
    limit: Limit = None,
    permit: Permit = NOTHING,
) -> Source:
    """An ``.npz`` of encoded images: view v of object j is image views * j + v.

    Arrays: ``data`` (bytes), ``offsets`` (n * views + 1), ``c2w`` (n, views, 4, 4), or (views, 4,
    4) of one object, OpenGL; ``focal`` in pixels, ``height``, ``width``; if known ``near`` and
    ``far``, or ``camera_radius`` around objects of a diagonal of 1.
    label: name of the array of labels, one for each object.
    views: the number of views of each object that are used, the first ones.
    """
    file, name = read_npz(find_file(path)), quote_path(path)
    blobs = load_array(file, "data", "bytes", axes=(1,), large=permit.large)
    ends = read_offsets(file, "offsets", len(blobs), "bytes")
    c2w = load_array(file, "c2w", axes=(3, 4), large=permit.large)
    focal, height, width = (_read_scalar(file, key) for key in ("focal", "height", "width"))
    c2w = c2w[None] if c2w.ndim == 3 else c2w
    count, each = c2w.shape[:2]
    if c2w.shape[2:] != (4, 4) or not c2w.size or len(ends) != count * each + 1:
        raise InputError(
            f"{name} has {len(ends) - 1} images and poses of the shape {c2w.shape}: they "
            "must be (objects, views, 4, 4), one an image."
        )
    if not (1 <= height < math.inf and 1 <= width < math.inf):
        raise InputError(f"{name} has height = {height:g}, width = {width:g}: from 1 on, finite.")
    bounds = None
    if "near" in file and "far" in file:
        bounds = _read_scalar(file, "near"), _read_scalar(file, "far")
    elif "camera_radius" in file:
        radius = _read_scalar(file, "camera_radius")
        bounds = max(0.0, radius - OBJECT_RADIUS), radius + OBJECT_RADIUS
    one = torch.tensor([focal, focal, width / 2, height / 2], dtype=torch.float64)

    def scene(j: int) -> Scene:
        images: list[NamedImage] = [
            (f"view {v} of object {j} of {name}", blobs[ends[i] : ends[i + 1]])
            for v, i in enumerate(range(j * each, (j + 1) * each))
        ]
        poses = torch.from_numpy(c2w[j].astype(np.float64))
        size = int(height), int(width)
        return Scene(f"object {j} of {name}", size, images, poses, one.expand(each, 4), bounds)

    labels = None if label is None else read_labels(file, label, count, "objects")
    which = choose(limit or count, count, labels)
    scenes, labels = [scene(j) for j in which], labels and [labels[j] for j in which]
    return scenes_to_source(
        modality, scenes, path, labels, views, background, split, shuffle, permit.large
    )


def scenes_to_source(
    modality: Views,
    scenes: Sequence[Scene],
    path: str,
    labels: Sequence[Any] | None,
    views: int | None,
    background: Background,
    split: Split,
    shuffle: bool,
    large: bool,
) -> Source:
    """Check the cameras and read the images of scenes, as a Source.

    Raises InputError for scenes of too few views, and for cameras that do not fit their images.
    """
    if modality.channels != 3:
        raise InputError(f"modality.channels = {modality.channels}: posed images have 3.")
    counts = [len(scene.images) for scene in scenes]
    each, most = min(counts), max(counts)
    if (views or most) > each:
        few = scenes[counts.index(each)].name
        asked = f"source.views = {views}" if views else f"others have {most}, and all need as many"
        raise InputError(f"{few} has {each} views: {asked}; set source.views to {each} or less.")
    each = views or each
    for scene in scenes:
        names = [name for name, _ in scene.images]
        check_pose(scene.c2w, names)
        _check_intrinsics(scene, names)
    c2w = torch.stack([scene.c2w[:each] for scene in scenes])
    intrinsics = torch.stack(
        [resize_intrinsics(scene.intrinsics[:each], scene.size, modality.size) for scene in scenes]
    )
    return make_source(
        _read_views(scenes, each, modality.size, background, large),
        labels,
        (1.0, 0.0) if len(scenes) == 1 else split,
        shuffle,
        filter="box",
        cameras=Cameras(c2w.float(), intrinsics.float()),
        suggests=_suggest(c2w, intrinsics, modality.size, [scene.bounds for scene in scenes], path),
    )


def _read_views(
    scenes: Sequence[Scene], each: int, size: Size, background: Background, large: bool
) -> Tensor:
    """The first images of all scenes, read in parallel: uint8 (n, views, 3, height, width)."""
    data = np.empty((len(scenes), each, 3, *size), np.uint8)

    def read(index: tuple[int, int]) -> None:
        scene, (name, file) = scenes[index[0]], scenes[index[0]].images[index[1]]
        with open_image(file, name, large) as image, one_large_at_a_time(image):
            if image.size != scene.size[::-1]:
                raise InputError(
                    f"{name} is {image.height} x {image.width} pixels, where its scene has "
                    f"{scene.size[0]} x {scene.size[1]}: all images of a scene have one size."
                )
            data[index] = _composite_and_resize(image, size, background, scales)

    indices = list(np.ndindex(len(scenes), each))
    named = [scenes[i].images[v] for i, v in indices]
    scales = survey_images([name for name, _ in named], lambda i: named[i][1], large).scales
    with ThreadPoolExecutor() as pool:
        for _ in track(pool.map(read, indices), "reading views", len(indices), "images"):
            pass
    return torch.from_numpy(data)


def _composite_and_resize(
    image: Image.Image, size: Size, background: Background, scales: Scales
) -> NDArray[np.uint8]:
    """An image, of straight alpha if any -> uint8 (3, height, width), resized by areas."""
    image = to_eight_bits(image, scales, turned=False)
    if "A" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        # On the background first: averaging the colours of transparent pixels would leave a rim.
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
    image = image.convert("RGB")
    if image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.BOX)
    return np.asarray(image).transpose(2, 0, 1)


def _check_intrinsics(scene: Scene, names: Sequence[str]) -> None:
    height, width = scene.size
    fraction = scene.intrinsics[:, :2] / scene.intrinsics.new_tensor([width, height])
    bad = ~((fraction > FOCAL[0]) & (fraction < FOCAL[1])).all(1)  # NaN is neither
    if bad.any():
        first = int(bad.nonzero()[0])
        fx, fy = scene.intrinsics[first, :2].tolist()
        raise InputError(
            f"{names[first]} has the focal lengths {fx:g} and {fy:g}: they must be in pixels of "
            f"the full image, {height} x {width}."
        )
    if not scene.intrinsics.isfinite().all():
        raise InputError(f"{scene.name} has a principal point that is not finite.")


def _suggest(
    c2w: Tensor, intrinsics: Tensor, size: Size, bounds: Sequence[Bounds | None], path: str
) -> dict[str, dict[str, Any]]:
    """Sections of a recipe that cameras suggest: depths of the scene, and a similar orbit.

    near, far: from the files, or else 0.5 and 1.5 times the depth of the cameras' focus point;
    there are none where that point is not in front of every camera.
    up: the world axis closest to the mean upward direction of the images.
    """
    depths = [pair for pair in bounds if pair is not None]
    if len(depths) < len(bounds):
        point = focus(c2w).unsqueeze(-2)
        depth = ((c2w[..., :3, 3] - point) * c2w[..., :3, 2]).sum(-1)
        depths = [(DEPTHS[0] * float(depth.min()), DEPTHS[1] * float(depth.max()))]
        depths = depths if float(depth.min()) > 0 else []
    renderer = {}
    if depths:
        near, far = min(pair[0] for pair in depths), max(pair[1] for pair in depths)
        if not 0 <= near < far < math.inf:
            raise InputError(
                f"{quote_path(path)} has near = {near:g}, far = {far:g}: 0 <= near < far."
            )
        renderer = {"near": round(near, 5), "far": round(far, 5)}
    modality = {
        "radius": round(float(c2w[..., :3, 3].norm(dim=-1).median()), 5),
        "focal": round(float(intrinsics[..., 0].median()) / size[1], 5),
        "up": int(c2w[..., :3, 1].flatten(0, -2).mean(0).abs().argmax()),
    }
    return {"renderer": renderer, "modality": modality}


def check_missing(where: Path, missing: Sequence[Path], count: int) -> None:
    """Raise InputError where files of a scene's ``count`` frames are missing."""
    if missing:
        raise InputError(
            f"{quote_path(where)} lacks {len(missing)} of the files of its {count} frames; the "
            f"first is {quote_path(missing[0])}."
        )


def stored_size(named: NamedImage, large: bool) -> Size:
    """(height, width) of an image as it is stored."""
    name, file = named
    with open_image(file, name, large) as image:
        return image.height, image.width


def _read_scalar(file: Archive, key: str) -> float:
    array = load_array(file, key, axes=range(65))
    if array.size != 1:
        raise InputError(f"the array '{key}' of {quote_path(file.path)} must be one number.")
    return float(array.reshape(()))
