"""Posed images: scenes and their cameras, whatever the layout of their files.

All readers return uint8 values (n, views, 3, height, width), and a camera for each view, whose
pose is in the file's coordinates, and whose intrinsics are in pixels of the resized images.

A single scene may stand anywhere, in any unit: its cameras suggest ``modality.frame``, in which the
field sees it. Scenes of a set stay in their common frame.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from fieldloom.errors import InputError, quote, quote_path
from fieldloom.geometry.cameras import Size, check_pose
from fieldloom.geometry.distortion import Lens, fit_pinhole
from fieldloom.modalities.sources.cameras import (
    NO_DEPTHS,
    Bounds,
    Box,
    Depths,
    describe_depth,
    describe_domain,
    describe_frame,
    place_box,
    suggest_contraction,
    suggest_settings,
)
from fieldloom.modalities.sources.files import resolve_inside
from fieldloom.modalities.sources.numbers import Range
from fieldloom.modalities.sources.pictures import (
    Background,
    FullSize,
    NamedImage,
    Shot,
    read_pictures,
)
from fieldloom.modalities.sources.source import Source, Split, make_source
from fieldloom.modalities.sources.splits import Parts
from fieldloom.modalities.sources.summary import (
    Summary,
    count_things,
    describe_size,
    list_names,
)
from fieldloom.modalities.views import Views
from fieldloom.permit import Permit
from fieldloom.types import Cameras

Frame = Literal["cameras", "file"]
Every = Annotated[int, Field(ge=0)] | None

FOCAL = (0.1, 100.0)
"""The range of focal lengths over the image's size; others are in a wrong unit."""
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
    told:   what else the summary says; ``around``: why a background lies all around.
    """

    name: str
    images: Sequence[NamedImage]
    sizes: Sequence[FullSize]
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

    def shots(self, pinholes: Tensor) -> list[Shot]:
        """Its images with their cameras. pinholes: intrinsics of those that they become."""
        lenses = self.lenses or [None] * len(self.images)
        own = zip(self.images, self.sizes, self.intrinsics, lenses, pinholes, strict=True)
        return [Shot(*one) for one in own]


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
    permit: Permit,
    labels: Sequence[Any] | None = None,
    given: Range = None,
    hold_out: int | None = None,
    depths: Depths = NO_DEPTHS,
    parts: Parts | None = None,
) -> Source:
    """Check the cameras and read the images of scenes, as a Source.

    given: ``source.range``. parts: of the scenes, where a file divides them.

    Raises InputError for scenes of too few views, and for cameras that do not fit their images.
    """
    if modality.channels != 3:
        raise InputError(f"modality.channels = {modality.channels}: posed images have 3.")
    each = _count_views(scenes, views)
    for scene in scenes:
        _check_cameras(scene)
    missing = [name for scene in scenes for name in scene.missing]
    if missing:
        count = count_things(len(missing) + sum(len(scene.images) for scene in scenes), "view")
        first = list_names(missing)
        warnings.warn(
            f"skipped {len(missing)} of {count}, whose images are missing: {first}", stacklevel=2
        )
    single = len(scenes) == 1
    order, held, division = _hold_out(scenes, each, hold_out)
    if held and suggest and modality.held not in (0, held):
        raise InputError(
            f"modality.held = {modality.held}, and source.hold_out = {hold_out} holds out {held} "
            f"of {each} views: set one of them to 0."
        )
    size = modality.size
    if suggest and modality.longest is not None:
        size = _fit_size(scenes[0].sizes[0], modality.longest)
    scenes = [scene.select(order) for scene in scenes]
    pinholes, undistorted = _fit_pinholes(scenes)
    c2w = torch.stack([scene.c2w for scene in scenes])
    pairs = zip(pinholes, scenes, strict=True)
    intrinsics = torch.stack([_resize(one, scene.sizes, size) for one, scene in pairs])
    bounds = [scene.bounds for scene in scenes]
    fit_frame = single and suggest and frame == "cameras" and modality.frame is None
    suggests = suggest_settings(
        c2w, intrinsics, size, bounds, path, fit_frame, depths, scenes[0].box
    )
    shots = [shot for scene, own in zip(scenes, pinholes, strict=True) for shot in scene.shots(own)]
    flat, sizes, told = read_pictures(shots, size, background, permit, given)
    data = flat.unflatten(0, (len(scenes), each))
    also = dict(scenes[0].told)
    around = also.pop("around", "")
    space = suggest_contraction(suggests, modality.frame, depths, around, flat)
    if space or around:
        also = {"space": space or f"{around} not used"} | also
    taken = {
        "size": _describe_views(each, size, sizes),
        **told,
        **undistorted,
        **({"part": scenes[0].part} if scenes[0].part else {}),
        **division,
        **also,
    }
    if size != modality.size:
        suggests["modality"]["size"] = size
    if held and suggest:
        suggests["modality"]["held"] = held
    if suggest:
        guessed = "guessed from the cameras" if None in bounds else scenes[0].bounds_from
        guessed = "of contracted space" if space else guessed
        taken["depth"] = describe_depth(suggests["renderer"], guessed, depths)
    own = modality.frame or suggests["modality"].get("frame")
    if own is not None:
        taken["frame"] = describe_frame(own)
    if single and suggest and scenes[0].box is not None:
        suggests["modality"]["box"] = place_box(scenes[0].box, own)
    if not space:
        taken |= describe_domain(c2w, intrinsics, size, suggests["renderer"], own, depths)
    outside = [name for scene in scenes for name in scene.outside]
    if parts:
        outside, missing = [*parts.outside, *outside], [*parts.missing, *missing]
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
        parts=parts and parts.parts,
        parted=f"{parts.name}'s" if parts else "the folders",
    )


def _count_views(scenes: Sequence[Scene], views: int | None) -> int:
    """How many views of each scene are used. Raises InputError where some have too few.

    views: ``source.views``; None: all.
    """
    if any(scene.tested for scene in scenes):
        views = None  # readers have taken the first ones of those that are not the test part
    counts = [len(scene.images) for scene in scenes]
    each, most = min(counts), max(counts)
    if (views or most) > each:
        few = scenes[counts.index(each)].name
        asked = f"source.views = {views}" if views else f"others have {most}, and all need as many"
        raise InputError(f"{few} has {each} views: {asked}; set source.views to {each} or less.")
    return views or each


def _hold_out(
    scenes: Sequence[Scene], each: int, every: int | None
) -> tuple[Sequence[int], int, dict[str, str]]:
    """The order of the first views, those that are held out last; how many these are; what is said.

    They are the test part of a file that has one, or else every ``every``-th view, the first among
    them (as arXiv:1905.00889 does). Raises InputError where scenes have test parts of other sizes.
    """
    order = range(each)
    tests = {scene.tested for scene in scenes}
    if every == 1:
        raise InputError("source.hold_out = 1 leaves nothing to train on: 2 or more, or 0.")
    if not every:
        return order, 0, {}
    if len(tests) > 1:
        raise InputError(
            f"source.hold_out: the test parts of the scenes have from {min(tests)} to {max(tests)} "
            "views, and all need as many: set it to 0, and source.part."
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


def order_of_file(views: int, held: int, every: Any) -> Sequence[int]:
    """Where the views of a file are, in its order, among views whose ``held`` last ones are every
    ``every``-th of them; as they are, where this is not how they were held out."""
    last = range(views)[::every] if isinstance(every, int) and every > 1 else ()
    if len(last) != held:
        return range(views)
    moved = [*(i for i in range(views) if i not in last), *last]
    return sorted(range(views), key=moved.__getitem__)


def _say_trained(scenes: Sequence[Scene], order: Sequence[int], held: int) -> str:
    """How many images of views that are held out, the last ones, are among the others, too."""
    both = 0
    for scene in scenes:
        names = [scene.images[i][0] for i in order]
        trained = set(names[:-held])
        both += sum(name in trained for name in names[-held:])
    return f", {both} of them also trained on" if both else ""


def _fit_size(full: FullSize, longest: int) -> Size:
    """(height, width) in the proportions of an image, at most ``longest``, and never enlarged."""
    factor = min(1.0, longest / max(full))
    height, width = (max(1, round(side * factor)) for side in full)
    return height, width


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


def _resize(intrinsics: Tensor, sizes: Sequence[FullSize], size: Size) -> Tensor:
    """Intrinsics (views, 4) in pixels of images of one size, each from its own."""
    full = intrinsics.new_tensor(sizes).flip(1).repeat(1, 2)  # width, height, twice
    return intrinsics * (full.new_tensor([*size[::-1]] * 2) / full)


def _check_cameras(scene: Scene) -> None:
    """Raise InputError for cameras that do not fit their images, or stand nowhere."""
    names = [name for name, _ in scene.images]
    check_pose(scene.c2w, names)
    eye = scene.c2w[:, :3, 3]
    far = (eye.abs() > FARTHEST).any(1)
    if far.any():
        first = int(far.nonzero()[0])
        raise InputError(
            f"the camera of {names[first]} stands at {quote(eye[first].tolist())}: coordinates are "
            f"at most {FARTHEST:g}."
        )
    _check_intrinsics(scene, names)


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


def locate_image(file: Path, name: str) -> Path:
    """The path of an image that ``file`` names, within its folder.

    Names are also written with backslashes, by programs on Windows. Raises Refused for paths
    outside the folder.
    """
    plain = resolve_inside(file, name)
    if "\\" not in name or os.path.exists(plain):
        return plain
    return resolve_inside(file, name.replace("\\", "/"))


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
