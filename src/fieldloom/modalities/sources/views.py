"""Posed images: the common part of their readers, and the reader of packed files.

All readers return uint8 values (n, views, 3, height, width), and a camera for each view, whose
pose is in the file's coordinates, and whose intrinsics are in pixels of the resized images.

Images are composited on a background, then resized, and never cropped: where the modality has other
proportions, fx and fy differ, and every ray stays correct. Those of a distorting lens become those
of a pinhole camera in the same step. EXIF orientations are ignored, since cameras refer to the
pixels as they are stored, but where only the turned image has the proportions of its camera.

A single scene may stand anywhere, in any unit: its cameras suggest ``modality.frame``, in which the
field sees it. Scenes of a set stay in their common frame.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from torch import Tensor

from fieldloom.errors import InputError, quote, quote_path
from fieldloom.geometry.cameras import Size, check_pose
from fieldloom.geometry.distortion import Lens, fit_pinhole, sample_lens
from fieldloom.modalities.sources.cameras import (
    NO_DEPTHS,
    Bounds,
    Box,
    Depths,
    describe_depth,
    describe_domain,
    describe_frame,
    suggest_settings,
)
from fieldloom.modalities.sources.decoding import (
    ORIENTATION,
    one_large_at_a_time,
    to_eight_bits,
    upright_size,
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
from fieldloom.modalities.sources.numbers import Range
from fieldloom.modalities.sources.pixels import Scales
from fieldloom.modalities.sources.source import Limit, Source, Split, choose, make_source
from fieldloom.modalities.sources.summary import (
    Summary,
    count_things,
    describe_size,
    list_names,
)
from fieldloom.modalities.sources.survey import survey_images
from fieldloom.modalities.views import Views
from fieldloom.permit import NOTHING, Permit
from fieldloom.progress import BRIEF, track
from fieldloom.types import Cameras

Background = Literal["white", "black"]
Frame = Literal["cameras", "file"]
Every = Annotated[int, Field(ge=2)] | None
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
    lenses: the lens of each camera, None of a pinhole; () where all are pinholes.
    bounds: None where the file does not know them.
    bounds_from: what they were taken from, in words; "" where the file says them.
    box:    in which the scene lies; None where the file does not know it.
    part:   which part of the scene these are, in words; "" where it has none.
    tested: how many of the views, the last ones, are the test part of a file that has one.
    outside, missing: names of images that belong to no part, and of those that are not there.
    told:   what else the summary says.
    """

    name: str
    images: Sequence[NamedImage]
    sizes: Sequence[tuple[float, float]]
    c2w: Tensor
    intrinsics: Tensor
    lenses: Sequence[Lens | None] = ()
    bounds: Bounds | None = None
    bounds_from: str = ""
    box: Box | None = None
    part: str = ""
    tested: int = 0
    outside: Sequence[str] = ()
    missing: Sequence[str] = ()
    told: Mapping[str, str] = field(default_factory=dict)

    def select(self, which: Sequence[int]) -> Scene:
        """The same scene of some of its views, in this order."""
        own = lambda items: [items[i] for i in which] if items else ()
        return replace(
            self,
            images=own(self.images),
            sizes=own(self.sizes),
            c2w=self.c2w[list(which)],
            intrinsics=self.intrinsics[list(which)],
            lenses=own(self.lenses),
        )


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
    hold_out: Every = None,
    depths: Depths = NO_DEPTHS,
    permit: Permit = NOTHING,
) -> Source:
    """An ``.npz`` of encoded images: view v of object j is image views * j + v.

    Arrays: ``data`` (bytes), ``offsets`` (n * views + 1), ``c2w`` (n, views, 4, 4), or (views, 4,
    4) of one object, OpenGL; ``focal`` in pixels, ``height``, ``width``; if known ``near`` and
    ``far``, or ``camera_radius`` around objects of a diagonal of 1.
    label: name of the array of labels, one for each object.
    views: the number of views of each object that are used, the first ones.
    frame, hold_out, suggest, depths: as of ``read_transforms``. range: the numbers that become 0
    and 1.
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
        cameras = poses, one.expand(each, 4)
        return Scene(f"object {j} of {name}", images, sizes, *cameras, bounds=bounds)

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
        hold_out=hold_out,
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
    hold_out: int | None = None,
    depths: Depths = NO_DEPTHS,
) -> Source:
    """Check the cameras and read the images of scenes, as a Source. given: ``source.range``.

    Raises InputError for scenes of too few views, and for cameras that do not fit their images.
    """
    if modality.channels != 3:
        raise InputError(f"modality.channels = {modality.channels}: posed images have 3.")
    if any(scene.tested for scene in scenes):
        views = None  # readers have taken the first ones of those that are not the test part
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
    missing = [name for scene in scenes for name in scene.missing]
    if missing:
        count = count_things(len(missing) + sum(counts), "view")
        first = list_names(missing)
        warnings.warn(
            f"skipped {len(missing)} of {count}, whose images are missing: {first}", stacklevel=2
        )
    single = len(scenes) == 1
    order, held, division = _hold_out(scenes, each, hold_out)
    if held and suggest and modality.held not in (0, held):
        raise InputError(
            f"modality.held = {modality.held}, and source.hold_out = {hold_out} holds out {held} "
            f"of {each} views: set modality.held to 0, or leave source.hold_out out."
        )
    scenes = [scene.select(order) for scene in scenes]
    pinholes, undistorted = _fit_pinholes(scenes)
    c2w = torch.stack([scene.c2w for scene in scenes])
    pairs = zip(pinholes, scenes, strict=True)
    intrinsics = torch.stack([_resize(one, scene.sizes, modality.size) for one, scene in pairs])
    bounds = [scene.bounds for scene in scenes]
    fit_frame = single and suggest and frame == "cameras" and modality.frame is None
    suggests = suggest_settings(
        c2w, intrinsics, modality.size, bounds, path, fit_frame, depths, scenes[0].box
    )
    data, sizes, told = _read_views(scenes, pinholes, modality.size, background, large, given)
    taken = {
        "size": _describe_views(each, modality.size, sizes),
        **told,
        **undistorted,
        **({"part": scenes[0].part} if scenes[0].part else {}),
        **division,
        **scenes[0].told,
    }
    if held and suggest:
        suggests["modality"]["held"] = held
    if suggest:
        guessed = "guessed from the cameras" if None in bounds else scenes[0].bounds_from
        taken["depth"] = describe_depth(suggests["renderer"], guessed, depths)
    own = modality.frame or suggests["modality"].get("frame")
    if own is not None:
        taken["frame"] = describe_frame(own)
    taken |= describe_domain(c2w, intrinsics, modality.size, suggests["renderer"], own, depths)
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
        summary=Summary(
            "scene", taken=taken, passed_over={"in no part": outside, "missing": missing}
        ),
    )


def _hold_out(
    scenes: Sequence[Scene], each: int, every: int | None
) -> tuple[Sequence[int], int, dict[str, str]]:
    """The order of the first views, those that are held out last; how many these are; what is said.

    They are the test part of a file that has one, or else every ``every``-th view, the first among
    them (as arXiv:1905.00889 does). Raises InputError where scenes have test parts of other sizes.
    """
    order = range(each)
    tests = {scene.tested for scene in scenes}
    if every is None:
        return order, 0, {}
    if len(tests) > 1:
        raise InputError(
            f"source.hold_out: the test parts of the scenes have from {min(tests)} to {max(tests)} "
            "views, and all need as many: leave it out, and set source.part."
        )
    (tested,) = tests
    if tested:
        held = f"{count_things(tested, 'view')} of the test part held out"
        return order, tested, {"held": held + _say_trained(scenes, order, tested)}
    if each < 2:
        return order, 0, {"held": "too few views to hold any out"}
    last = order[::every]
    seen = [i for i in order if i not in last]
    both = _say_trained(scenes, [*seen, *last], len(last))
    return [*seen, *last], len(last), {"held": f"{len(last)} held out, one in {every}{both}"}


def _say_trained(scenes: Sequence[Scene], order: Sequence[int], held: int) -> str:
    """How many images of views that are held out, the last ones, are among the others, too."""
    both = 0
    for scene in scenes:
        names = [scene.images[i][0] for i in order]
        trained = set(names[:-held])
        both += sum(name in trained for name in names[-held:])
    return f", {both} of them also trained on" if both else ""


def _fit_pinholes(scenes: Sequence[Scene]) -> tuple[list[Tensor], dict[str, str]]:
    """Intrinsics (views, 4) of pinhole cameras that see what the lenses of each scene show.

    Also what is said of it. Raises InputError for a lens that cannot be undone.
    """
    found: dict[tuple[Any, ...], tuple[Tensor, float]] = {}

    def fit(scene: Scene, number: int) -> Tensor:
        own, size = scene.intrinsics[number], scene.sizes[number]
        lens = scene.lenses[number] if scene.lenses else None
        if lens is None:
            return own
        key = (lens, size, *own.tolist())
        if key not in found:
            found[key] = fit_pinhole(own, lens, size, scene.images[number][0])
        return found[key][0]

    fitted = [torch.stack([fit(scene, i) for i in range(len(scene.images))]) for scene in scenes]
    if not found:
        return fitted, {}
    shares = sorted(share for _, share in found.values())
    kept = " to ".join(dict.fromkeys(f"{100 * share:.0f}" for share in (shares[0], shares[-1])))
    return fitted, {"lens": f"lens distortion undone, with {kept} % of each image kept"}


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
    pinholes: Sequence[Tensor],
    size: Size,
    background: Background,
    large: bool,
    given: Range,
) -> tuple[Tensor, list[Size], dict[str, str]]:
    """The images of all scenes, read in parallel: uint8 (n, views, 3, height, width).

    Also the size that each is stored in, and what is said of their numbers. pinholes: intrinsics
    of the cameras that the images become, in pixels of ``Scene.sizes``. given: ``source.range``.
    """
    data = np.empty((len(scenes), len(scenes[0].images), 3, *size), np.uint8)

    def read(index: tuple[int, int]) -> tuple[Size, str]:
        scene, number = scenes[index[0]], index[1]
        (name, file), full = scene.images[number], scene.sizes[number]
        with open_image(file, name, large) as image, one_large_at_a_time(image):
            stored, upright = (image.height, image.width), upright_size(image)
            turned = not _agree(stored, full) and _agree(upright, full)
            stored = upright if turned else stored
            _check_proportions(name, stored, full)
            asks = image.getexif().get(ORIENTATION, 1) in range(2, 9)
            picture = _composite(image, background, survey.scales, turned)
            lens = scene.lenses[number] if scene.lenses else None
            if lens is None:
                data[index] = _resize_image(picture, size)
            else:
                pair = pinholes[index[0]][number], scene.intrinsics[number]
                data[index] = _undistort(picture, size, full, *pair, lens)
            return stored, TURNED if turned else NOT_TURNED if asks else ""

    indices, sizes, turns = list(np.ndindex(*data.shape[:2])), list[Size](), list[str]()
    named = [scenes[i].images[v] for i, v in indices]
    survey = survey_images([name for name, _ in named], lambda i: named[i][1], large, given)
    with ThreadPoolExecutor() as pool:
        for stored, turn in track(
            pool.map(read, indices), "reading views", len(indices), "images", BRIEF
        ):
            sizes.append(stored)
            turns.append(turn)
    words = [f"{turns.count(kind):,} {kind}" for kind in (TURNED, NOT_TURNED) if kind in turns]
    exif = {"turned": ", ".join(words)} if words else {}
    return torch.from_numpy(data), sizes, survey.describe() | exif


TURNED = "turned by EXIF, as their cameras are"
NOT_TURNED = "not turned by EXIF, since cameras are of the pixels as they are stored"


def _agree(stored: Size, full: tuple[float, float]) -> bool:
    """Whether an image may be a copy of the image (height, width) that its camera is of."""
    height, width = full
    # A smaller copy is rounded to whole pixels; anything further off was cropped.
    return abs(stored[0] / height - stored[1] / width) <= 1 / min(height, width)


def _check_proportions(name: str, stored: Size, full: tuple[float, float]) -> None:
    """Raise InputError where an image cannot be a copy of the image that its camera is of."""
    if not _agree(stored, full):
        raise InputError(
            f"{name} is {stored[0]} x {stored[1]} pixels, where its camera is of {full[0]:g} x "
            f"{full[1]:g} (height x width): the proportions must agree."
        )


def _composite(
    image: Image.Image, background: Background, scales: Scales, turned: bool
) -> Image.Image:
    """An image, of straight alpha if any, as RGB. turned: by its EXIF orientation."""
    image = to_eight_bits(image, scales, turned)
    if "A" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        # On the background first: averaging the colours of transparent pixels would leave a rim.
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
    return image.convert("RGB")


def _resize_image(image: Image.Image, size: Size) -> NDArray[np.uint8]:
    """An RGB image as uint8 (3, height, width), resized by areas."""
    if image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.BOX)
    return np.asarray(image).transpose(2, 0, 1)


def _undistort(
    image: Image.Image,
    size: Size,
    full: tuple[float, float],
    pinhole: Tensor,
    intrinsics: Tensor,
    lens: Lens,
) -> NDArray[np.uint8]:
    """What a pinhole camera sees of a lens's image: uint8 (3, height, width), by areas."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()
    seen = sample_lens(pixels, size, full, pinhole, intrinsics, lens)
    return seen.round().clamp(0, 255).to(torch.uint8).numpy()


def _resize(intrinsics: Tensor, sizes: Sequence[tuple[float, float]], size: Size) -> Tensor:
    """Intrinsics (views, 4) in pixels of images of one size, each from its own."""
    full = intrinsics.new_tensor(sizes).flip(1).repeat(1, 2)  # width, height, twice
    return intrinsics * (full.new_tensor([*size[::-1]] * 2) / full)


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


def check_any_there(where: Path, missing: Sequence[Path], count: int) -> None:
    """Raise InputError where none of the images of a scene's ``count`` frames is there."""
    if len(missing) == count:
        check_missing(where, missing, count)


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
