"""Posed images of objects, packed in one file."""

from __future__ import annotations

import math

import numpy as np
import torch

from fieldloom.errors import InputError, quote_path
from fieldloom.modalities.sources.cameras import NO_DEPTHS, Bounds, Depths
from fieldloom.modalities.sources.files import (
    Archive,
    find_file,
    load_array,
    read_labels,
    read_npz,
    read_offsets,
)
from fieldloom.modalities.sources.numbers import Range
from fieldloom.modalities.sources.pictures import Background, NamedImage
from fieldloom.modalities.sources.scenes import Every, Frame, Scene, scenes_to_source
from fieldloom.modalities.sources.source import Limit, Source, Split, choose
from fieldloom.modalities.views import Views
from fieldloom.permit import NOTHING, Permit

OBJECT_RADIUS = 0.5
"""Objects of packed files with a ``camera_radius`` lie in a ball of this radius."""


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
        permit=permit,
        labels=labels,
        given=range,
        hold_out=hold_out,
        depths=depths,
    )


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
