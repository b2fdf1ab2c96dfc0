"""Posed images: the common part of their readers, and the reader of packed files.

All readers return uint8 values (n, views, 3, height, width), and a camera for each view, whose
pose is in the file's coordinates, and whose intrinsics are in pixels of the resized images.

Images are composited on a background, then resized, and never cropped: where the modality has other
proportions, fx and fy differ, and every ray stays correct. EXIF orientations are ignored, since
cameras refer to the pixels as they are stored.

A single scene may stand anywhere, in any unit: its cameras suggest ``modality.frame``, in which the
field sees it. Scenes of a set stay in their common frame.
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

from fieldloom.errors import InputError, quote, quote_path
from fieldloom.geometry.cameras import Size, check_pose
from fieldloom.modalities.sources.cameras import (
    NO_DEPTHS,
    Bounds,
    Depths,
    describe_depth,
    describe_frame,
    suggest_settings,
)
from fieldloom.modalities.sources.decoding import one_large_at_a_time, to_eight_bits
from fieldloom.modalities.sources.files import (
    Archive,
    find_file,
    load_array,
    read_labels,
    read_npz,
    read_offsets,
)
from fieldloom.modalities.sources.formats import Encoded, open_image
from fieldloom.modalities.sources.numbers import Range
from fieldloom.modalities.sources.pixels import Scales
from fieldloom.modalities.sources.source import Limit, Source, Split, choose, make_source
from fieldloom.modalities.sources.summary import Summary, count_things, describe_size
from fieldloom.modalities.sources.survey import survey_images
from fieldloom.modalities.views import Views
from fieldloom.permit import NOTHING, Permit
from fieldloom.progress import BRIEF, track
from fieldloom.types import Cameras

Background = Literal["white", "black"]
Frame = Literal["cameras", "file"]
NamedImage = tuple[str, Encoded]
"""The name of an image, for messages, and its file or its bytes."""

FOCAL = (0.1, 100.0)
"""The range of focal lengths over the image's size; others are in a wrong unit."""
OBJECT_RADIUS = 0.5
"""Objects of packed files with a ``camera_radius`` lie in a ball of this radius."""
FARTHEST = 1e12
"""The largest coordinate of a camera: float64 still tells a ten-thousandth."""


@dataclass(frozen=True)
class Scene:
    """Images with a camera each: c2w (views, 4, 4), intrinsics (views, 4), all float64.

    sizes:  (height, width) of the image that each camera's intrinsics are of; the stored image may
            be a copy of another size, in the same proportions.
    bounds: None where the file does not know them.
    part:   which part of the scene these are, in words; "" where it has none.
    outside: names of images that belong to no part.
    """

    name: str
    images: Sequence[NamedImage]
    sizes: Sequence[tuple[float, float]]
    c2w: Tensor
    intrinsics: Tensor
    bounds: Bounds | None = None
    part: str = ""
    outside: Sequence[str] = ()


def read_multiview(
    modality: Views,
    path: str,
    label: str | None = None,
    views: Limit = None,
    background: Background = "white",
    split: Split = (0.9, 0.1),
    shuffle: bool = True,
    limit: Limit = None,
    frame: Frame = "cameras",
    suggest: bool = True,
    range: Range = None,
    depths: Depths = NO_DEPTHS,
    permit: Permit = NOTHING,
) -> Source:
    """An ``.npz`` of encoded images: view v of object j is image views * j + v.

    Arrays: ``data`` (bytes), ``offsets`` (n * views + 1), ``c2w`` (n, views, 4, 4), or (views, 4,
    4) of one object, OpenGL; ``focal`` in pixels, ``height``, ``width``; if known ``near`` and
    ``far``, or ``camera_radius`` around objects of a diagonal of 1.
    label: name of the array of labels, one for each object.
    views: the number of views of each object that are used, the first ones.
    frame, suggest, depths: as of ``read_transforms``. range: the numbers that become 0 and 1.
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
    bounds = _read_bounds(file)
    one = torch.tensor([focal, focal, width / 2, height / 2], dtype=torch.float64)

    def scene(j: int) -> Scene:
        images: list[NamedImage] = [
            (f"view {i - j * each} of object {j} of {name}", blobs[ends[i] : ends[i + 1]])
            for i in np.arange(j * each, (j + 1) * each)
        ]
        poses = torch.from_numpy(c2w[j].astype(np.float64))
        sizes = [(height, width)] * each
        return Scene(f"object {j} of {name}", images, sizes, poses, one.expand(each, 4), bounds)

    labels = None if label is None else read_labels(file, label, count, "objects")
    which = choose(limit or count, count, labels)
    scenes, labels = [scene(j) for j in which], labels and [labels[j] for j in which]
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
        large=permit.large,
        labels=labels,
        given=range,
        depths=depths,
    )


def scenes_to_source(
    modality: Views,
    scenes: Sequence[Scene],
    path: str,
    *,
    views: int | None,
    background: Background,
    split: Split,
    shuffle: bool,
    frame: Frame,
    suggest: bool,
    large: bool,
    labels: Sequence[Any] | None = None,
    given: Range = None,
    depths: Depths = NO_DEPTHS,
) -> Source:
    """Check the cameras and read the images of scenes, as a Source. given: ``source.range``.

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
        _check_positions(scene.c2w[:, :3, 3], names)
        _check_intrinsics(scene, names)
    single = len(scenes) == 1
    c2w = torch.stack([scene.c2w[:each] for scene in scenes])
    intrinsics = torch.stack([_resize(scene, modality.size)[:each] for scene in scenes])
    bounds = [scene.bounds for scene in scenes]
    fit_frame = single and suggest and frame == "cameras" and modality.frame is None
    suggests = suggest_settings(c2w, intrinsics, modality.size, bounds, path, fit_frame, depths)
    data, sizes, told = _read_views(scenes, each, modality.size, background, large, given)
    taken = {
        "size": _describe_views(each, modality.size, sizes),
        **told,
        **({"part": scenes[0].part} if scenes[0].part else {}),
    }
    if suggest:
        taken["depth"] = describe_depth(suggests["renderer"], None in bounds, depths)
    own = modality.frame or suggests["modality"].get("frame")
    if own is not None:
        taken["frame"] = describe_frame(own)
    outside = [name for scene in scenes for name in scene.outside]
    return make_source(
        data,
        labels,
        (1.0, 0.0) if single else split,
        shuffle,
        filter="box",
        # Far from the origin float32 lacks the digits that tell cameras apart.
        cameras=Cameras(c2w if single or modality.frame else c2w.float(), intrinsics.float()),
        suggests=suggests,
        summary=Summary("scene", taken=taken, passed_over={"in no part": outside}),
    )


def _describe_views(each: int, size: Size, sizes: Sequence[Size]) -> str:
    """``100 views of 128 x 128 (from 800 x 800)``. sizes: of the images as they are stored."""
    found = sorted(set(sizes), key=lambda x: (x[0] * x[1], x))
    told = f"{count_things(each, 'view')} of {describe_size(size)}"
    if found == [size]:
        return told
    ends = dict.fromkeys((found[0], found[-1]))
    return f"{told} (from {' to '.join(map(describe_size, ends))})"


def _read_views(
    scenes: Sequence[Scene],
    each: int,
    size: Size,
    background: Background,
    large: bool,
    given: Range,
) -> tuple[Tensor, list[Size], dict[str, str]]:
    """The first images of all scenes, read in parallel: uint8 (n, views, 3, height, width).

    Also the size that each is stored in, and what is said of their numbers. given:
    ``source.range``.
    """
    data = np.empty((len(scenes), each, 3, *size), np.uint8)

    def read(index: tuple[int, int]) -> Size:
        scene, number = scenes[index[0]], index[1]
        name, file = scene.images[number]
        with open_image(file, name, large) as image, one_large_at_a_time(image):
            stored = image.height, image.width
            _check_proportions(name, stored, scene.sizes[number])
            data[index] = _composite_and_resize(image, size, background, survey.scales)
            return stored

    indices, sizes = list(np.ndindex(len(scenes), each)), []
    named = [scenes[i].images[v] for i, v in indices]
    survey = survey_images([name for name, _ in named], lambda i: named[i][1], large, given)
    with ThreadPoolExecutor() as pool:
        for stored in track(
            pool.map(read, indices), "reading views", len(indices), "images", BRIEF
        ):
            sizes.append(stored)
    return torch.from_numpy(data), sizes, survey.describe()


def _check_proportions(name: str, stored: Size, full: tuple[float, float]) -> None:
    """Raise InputError where an image cannot be a copy of the image that its camera is of."""
    height, width = full
    # A smaller copy is rounded to whole pixels; anything further off was cropped.
    if abs(stored[0] / height - stored[1] / width) > 1 / min(height, width):
        raise InputError(
            f"{name} is {stored[0]} x {stored[1]} pixels, where its camera is of {height:g} x "
            f"{width:g} (height x width): the proportions must agree."
        )


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


def _resize(scene: Scene, size: Size) -> Tensor:
    """Intrinsics (views, 4) in pixels of images of one size, each from its own."""
    full = scene.intrinsics.new_tensor(scene.sizes).flip(1).repeat(1, 2)  # width, height, twice
    return scene.intrinsics * (full.new_tensor([*size[::-1]] * 2) / full)


def _check_positions(eye: Tensor, names: Sequence[str]) -> None:
    far = (eye.abs() > FARTHEST).any(1)
    if far.any():
        first = int(far.nonzero()[0])
        raise InputError(
            f"the camera of {names[first]} stands at {quote(eye[first].tolist())}: coordinates are "
            f"at most {FARTHEST:g}."
        )


def _check_intrinsics(scene: Scene, names: Sequence[str]) -> None:
    fraction = scene.intrinsics[:, :2] / scene.intrinsics.new_tensor(scene.sizes).flip(1)
    bad = ~((fraction > FOCAL[0]) & (fraction < FOCAL[1])).all(1)  # NaN is neither
    if bad.any():
        first = int(bad.nonzero()[0])
        (fx, fy), (height, width) = scene.intrinsics[first, :2].tolist(), scene.sizes[first]
        raise InputError(
            f"{names[first]} has the focal lengths {fx:g} and {fy:g}: they must be in pixels of "
            f"the full image, {height:g} x {width:g}."
        )
    if not scene.intrinsics.isfinite().all():
        raise InputError(f"{scene.name} has a principal point that is not finite.")


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


def _read_bounds(file: Archive) -> Bounds | None:
    """near and far as a packed file has them, or by its ``camera_radius``."""
    if "near" in file and "far" in file:
        return _read_scalar(file, "near"), _read_scalar(file, "far")
    if "camera_radius" not in file:
        return None
    radius = _read_scalar(file, "camera_radius")
    return max(0.0, radius - OBJECT_RADIUS), radius + OBJECT_RADIUS


def _read_scalar(file: Archive, key: str) -> float:
    array = load_array(file, key, axes=range(65))
    if array.size != 1:
        raise InputError(f"the array '{key}' of {quote_path(file.path)} must be one number.")
    return float(array.reshape(()))
