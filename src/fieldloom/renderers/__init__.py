"""Renderers map a function to observations: values, colours of light fields, volume rendering."""

from typing import Any

from fieldloom.renderers.occupancy import Occupancy
from fieldloom.renderers.volume import (
    DENSITIES,
    Direct,
    Looking,
    Plucker,
    Rendered,
    Renderer,
    Volume,
    bin_edges,
    blur_weights,
    check_rays,
    composite,
    interval_lengths,
    plucker,
    sample_evenly,
    sample_pdf,
    sample_stratified,
    transmittance,
)

RENDERERS: dict[str, Any] = {
    "direct": Direct,
    "plucker": Plucker,
    "volume": Volume,
    "occupancy": Occupancy,
}

__all__ = [
    "DENSITIES",
    "RENDERERS",
    "Direct",
    "Looking",
    "Occupancy",
    "Plucker",
    "Rendered",
    "Renderer",
    "Volume",
    "bin_edges",
    "blur_weights",
    "check_rays",
    "composite",
    "interval_lengths",
    "plucker",
    "sample_evenly",
    "sample_pdf",
    "sample_stratified",
    "transmittance",
]
