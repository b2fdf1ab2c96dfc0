"""The camera that a page begins with, in the coordinates of the field."""

from __future__ import annotations

import math
from typing import Any

import torch

from fieldloom.geometry.cameras import orbit
from fieldloom.modalities.shapes import Voxels
from fieldloom.modalities.views import Views

APART, TILT, FOCAL = 2.6, 0.5, 1.1
"""Of shapes: the distance in spans of the box, the elevation in radians, the focal length in
widths of the image."""


def describe_box(modality: Voxels) -> dict[str, Any]:
    """What ``Orbit`` of the page's script reads, around the box of a shape."""
    low, span = modality.placement.low, modality.placement.high - modality.placement.low
    return {
        "centre": [low + span / 2] * 3,
        "axes": find_axes(modality.up),
        "radius": APART * span,
        "elevation": TILT,
        "focal": FOCAL,
    }


def describe_orbit(modality: Views) -> dict[str, Any]:
    """The same, around the centre of a scene."""
    cameras = modality.place(modality.cameras(4))
    eye, back = cameras.c2w[0, :3, 3].double(), cameras.c2w[0, :3, 2].double()
    opposite = cameras.c2w[2, :3, 3].double()
    tilt = math.radians(modality.elevation)
    radius = float((eye - opposite).norm()) / 2 / math.cos(tilt)
    return {
        "centre": (eye - radius * back).tolist(),
        "axes": find_axes(modality.up),
        "radius": radius,
        "elevation": tilt,
        "focal": modality.focal,
    }


def find_axes(up: Any) -> list[list[float]]:
    """Two axes of the ground, and up, as ``orbit`` has them."""
    eyes = orbit(4, 1.0, 0.0, up)[:2, :3, 3].double()
    axes = [*eyes, torch.linalg.cross(eyes[0], eyes[1])]
    return [axis.tolist() for axis in axes]
