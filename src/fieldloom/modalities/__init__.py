"""Modalities: what a datum is, and how it is observed; and sources of data."""

from functools import partial

from fieldloom.modalities.grid import Grid
from fieldloom.modalities.modality import Modality
from fieldloom.modalities.shapes import Points, Voxels
from fieldloom.modalities.views import Views

MODALITIES = {
    "image": partial(Grid, axes=2, channels=3),
    "audio": partial(Grid, axes=1, channels=1),
    "video": partial(Grid, axes=3, channels=3),
    "voxel": Voxels,
    "points": Points,
    "views": Views,
    "sphere": partial(Grid, axes=2, channels=1, sphere=True),
}

__all__ = ["MODALITIES", "Grid", "Modality", "Points", "Views", "Voxels"]
