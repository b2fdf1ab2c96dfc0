"""The renderers without a grid: values as they are, light fields, volume rendering."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import lru_cache
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from fieldloom import memory
from fieldloom.constants import place
from fieldloom.errors import InputError
from fieldloom.portion import batch_size
from fieldloom.types import RAY, Coords, Domain, Function, Values, draw_uniform


@runtime_checkable
class Renderer(Protocol):
    """A map from a function to observations; it never sees the network behind the function.

    ``evaluations``: how often the function is evaluated for one observation.
    ``stochastic``: whether samples are drawn at random while gradients are recorded.
    """

    evaluations: int
    stochastic: bool

    def domain(self, coord_dim: int, value_dim: int) -> Domain:
        """The dimensions of the field that observations of these dimensions need."""
        ...

    def deterministic(self) -> Renderer:
        """The same renderer without randomness, for encoding outside training."""
        ...

    def __call__(
        self, function: Function, coords: Coords, generator: Generator | None = None
    ) -> Values: ...


@runtime_checkable
class Looking(Protocol):
    """A renderer of one function that keeps what it has seen of it, as ``occupancy`` does.

    So a step of training lets it look first, differs from one that was recorded, and is of a family
    without codes.
    """

    def look(self, function: Function) -> None: ...


class Direct:
    """An observation is the field's value at its coordinates: images, audio, shapes, maps."""

    evaluations = 1
    stochastic = False

    def domain(self, coord_dim: int, value_dim: int) -> Domain:
        return Domain(coord_dim, 0, value_dim)

    def deterministic(self) -> Direct:
        return self

    def __call__(
        self, function: Function, coords: Coords, generator: Generator | None = None
    ) -> Values:
        return function(coords)


class Plucker:
    """A light field: the colour of a ray (origin | direction) is the field's value at the ray.

    The field sees the Pluecker coordinates [d, o x d] of the unit direction d, which do not depend
    on the position of the origin on the ray (arXiv:2106.02634, eq. 1).
    """

    evaluations = 1
    stochastic = False

    def domain(self, coord_dim: int, value_dim: int) -> Domain:
        check_rays(coord_dim, "plucker")
        return Domain(RAY, 0, value_dim)

    def deterministic(self) -> Plucker:
        return self

    def __call__(
        self, function: Function, coords: Coords, generator: Generator | None = None
    ) -> Values:
        return function(plucker(coords))


def plucker(rays: Coords) -> Coords:
    """Pluecker coordinates: (..., 6) origin | direction -> (..., 6) unit direction | moment."""
    origin, direction = rays.split(3, -1)
    unit = F.normalize(direction, dim=-1)
    return torch.cat([unit, torch.linalg.cross(origin, unit)], -1)


def check_rays(coord_dim: int, name: str) -> None:
    """Raise InputError where coordinates are no rays, which the renderer of this name needs."""
    if coord_dim != RAY:
        raise InputError(
            f"renderer '{name}' needs rays (origin | direction), as the modality 'views' gives; "
            f"coordinates of {coord_dim} numbers are none: take renderer 'direct'."
        )


# -- volume rendering, from the samples of a ray to its colour


def sample_evenly(near: float, far: float, count: int, rays: Coords) -> Tensor:
    """Evenly spaced parameters t of every ray, ``count`` of them, both ends included.

    rays (batch, rays, 6) -> (batch, rays, count), an expanded view of one row.
    """
    t = place(_parameters(near, far, count), rays.device, rays.dtype)
    return t.expand(*rays.shape[:2], -1)


@lru_cache(maxsize=64)
def _parameters(near: float, far: float, count: int) -> Tensor:
    """Evenly spaced parameters, both ends included: (count,) float64."""
    return near + (far - near) * torch.linspace(0, 1, count, dtype=torch.float64, device="cpu")


def sample_stratified(t: Tensor, generator: Generator | None = None) -> Tensor:
    """Stratified samples: a uniform draw from the bin of each sample (arXiv:2003.08934, eq. 2).

    t (..., samples), ascending and evenly spaced; bins as ``bin_edges`` gives them. Returns
    (..., samples), ascending.
    """
    edges = bin_edges(t)
    lower, upper = edges[..., :-1], edges[..., 1:]
    return lower + (upper - lower) * draw_uniform(t.shape, generator, t.device).to(t)


def bin_edges(t: Tensor) -> Tensor:
    """Bins of samples: both ends, and midpoints; (..., samples) -> (..., samples + 1)."""
    middle = (t[..., 1:] + t[..., :-1]) / 2
    return torch.cat([t[..., :1], middle, t[..., -1:]], -1)


def blur_weights(weights: Tensor) -> Tensor:
    """Weights widened by a 2-tap max and a 2-tap mean filter, plus 0.01: (..., samples).

    Source: arXiv:2103.13415, section 3.1.
    """
    padded = F.pad(weights, (1, 1))
    larger = torch.maximum(padded[..., 1:], padded[..., :-1])
    return (larger[..., 1:] + larger[..., :-1]) / 2 + 0.01


def sample_pdf(
    t: Tensor,
    weights: Tensor,
    count: int,
    random: bool = False,
    generator: Generator | None = None,
) -> Tensor:
    """``count`` samples of t from the piecewise constant density of the weights.

    t, weights (..., samples): each weight is not negative and covers the bin of its sample
    (``bin_edges``). random: whether samples are drawn, from the generator or torch's default;
    otherwise they are evenly spaced quantiles. Returns (..., count), ascending.
    Source: arXiv:2003.08934, section 5.2 (inverse transform sampling).
    """
    edges = bin_edges(t)
    density = weights + 1e-5  # so that an empty ray is sampled evenly
    cdf = F.pad(density.cumsum(-1), (1, 0))
    cdf = cdf / cdf[..., -1:]
    if random:
        u = draw_uniform((*t.shape[:-1], count), generator, t.device).to(t).sort(-1).values
    else:
        u = ((torch.arange(count, dtype=torch.float64) + 0.5) / count).to(t)
        u = u.expand(*t.shape[:-1], -1)
    right = torch.searchsorted(cdf, u.contiguous(), right=True).clamp(1, cdf.shape[-1] - 1)
    low, high = cdf.gather(-1, right - 1), cdf.gather(-1, right)
    fraction = (u - low) / (high - low).clamp_min(1e-12)
    lower, upper = edges.gather(-1, right - 1), edges.gather(-1, right)
    return lower + fraction * (upper - lower)


Density = Literal["elu", "relu", "softplus", "exp", "softplus-10"]
DENSITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "elu": lambda raw: (F.elu(raw, alpha=0.1) + 0.1).clamp(0, 10),
    "relu": torch.relu,
    "softplus": lambda raw: F.softplus(raw - 1),
    "exp": torch.exp,
    "softplus-10": lambda raw: 10 * F.softplus(raw - 3),
}
"""Activations from raw values to densities, which are not negative: elementwise, any shape."""


def interval_lengths(t: Tensor, last: float | Literal["step"]) -> Tensor:
    """Lengths of the intervals after each sample: delta_k = t_(k+1) - t_k, (..., samples).

    last: the length of the last interval; ``step``: the mean of the others.
    """
    delta = t.diff(dim=-1)
    end = delta.mean(-1, keepdim=True) if last == "step" else last
    return torch.cat([delta, torch.zeros_like(t[..., :1]) + end], -1)


def transmittance(alpha: Tensor, bounded: bool = False) -> Tensor:
    """T_k = prod_(j<k) (1 - alpha_j + 1e-10): the fraction of light that reaches k.

    alpha (..., samples), opacities in [0, 1] -> (..., samples).
    bounded: whether factors are clamped to at most 1.
    """
    passing = 1 - alpha + 1e-10
    if bounded:
        passing = passing.clamp(max=1)
    return torch.cat([torch.ones_like(passing[..., :1]), passing[..., :-1]], -1).cumprod(-1)


class Rendered(NamedTuple):
    """Results of rays: colour (..., 3), depth (...), opacity (...), weights (..., samples)."""

    colour: Tensor
    depth: Tensor
    opacity: Tensor
    weights: Tensor


def composite(
    colour: Tensor,
    density: Tensor,
    t: Tensor,
    delta: Tensor,
    background: float | None = None,
    bounded: bool = False,
) -> Rendered:
    """Alpha compositing of the samples of a ray (arXiv:2003.08934, eq. 3).

    alpha_k = 1 - exp(-density_k delta_k), w_k = T_k alpha_k,
    colour = sum w_k c_k + (1 - sum w_k) background, depth = sum w_k t_k, opacity = sum w_k

    colour (..., samples, channels); density (not negative), t and delta (``interval_lengths``)
    (..., samples). background: None adds nothing. bounded: see ``transmittance``.
    """
    alpha = 1 - torch.exp(-density * delta)
    weights = alpha * transmittance(alpha, bounded)
    opacity = weights.sum(-1)
    seen = (weights.unsqueeze(-1) * colour).sum(-2)
    if background is not None:
        seen = seen + (1 - opacity).unsqueeze(-1) * background
    return Rendered(seen, (weights * t).sum(-1), opacity, weights)


class Volume:
    """Emission and absorption along rays, by quadrature (arXiv:2003.08934, eqs. 1 to 3).

    A ray is origin | direction, its points are origin + t * direction, t from near to far; the
    direction need not be a unit vector. The field maps points (and, with ``directions``, unit
    directions) to raw colours and a raw density.

    near, far:  ends of the rays, in the unit of the data's cameras.
    samples:    samples of the first pass, evenly spaced in t, both ends included; with a generator,
                or in training (``jitter``), they are stratified samples (eq. 2 there).
    fine:       further samples of a second pass, by importance: quantiles of the first pass's
                weights, widened by one sample (arXiv:2103.13415, section 3.1), since a surface lies
                anywhere before the sample that meets it. The second pass evaluates all samples.
    background: ``white`` (the largest value of ``range``) or ``black`` (the smallest), weighted by
                the remaining transmittance; ``none`` adds nothing.
    range:      of colours: ``signed`` is [-1, 1], ``unit`` [0, 1].
    colour:     activation of raw colours: ``identity`` (mNIF), or ``sigmoid`` scaled to ``range``.
    density:    activation of raw densities: ``elu``, min(max(ELU(x, 0.1) + 0.1, 0), 10) (Functa,
                mNIF), ``relu``, ``softplus`` of x - 1, ``exp``, or ``softplus-10``, 10 softplus(x -
                3), which begins thin and is soon opaque.
    intervals:  unit of the distances between samples: ``length`` in space, or ``t`` (TransINR, IPC,
                whose directions are longer than 1).
    last:       the length of the last interval: 1e10 (mNIF), 1e-3 (Functa, IPC), or ``step``, the
                mean of the others.
    bounded:    whether factors of the transmittance are clamped to at most 1 (Functa).
    scale:      points are divided by it before the field sees them.
    directions: whether the field sees unit directions.
    jitter:     whether training uses stratified samples.
    pieces:     points evaluated at a time without gradients; with a generator it also decides which
                ray gets which draw.
    unit_length: the length of 1 in the rays' coordinates, in the unit of the data's cameras
                (``Modality.unit_length``).
    """

    def __init__(
        self,
        near: float,
        far: float,
        samples: int = 32,
        fine: int = 0,
        background: Literal["white", "black", "none"] = "white",
        range: Literal["signed", "unit"] = "signed",
        colour: Literal["identity", "sigmoid"] = "identity",
        density: Density = "elu",
        intervals: Literal["length", "t"] = "length",
        last: float | Literal["step"] = 1e10,
        bounded: bool = False,
        scale: float = 1.0,
        directions: bool = False,
        jitter: bool = False,
        pieces: int = 1 << 18,
        unit_length: float = 1.0,
    ) -> None:
        if not 0 <= near < far:
            raise InputError(f"renderer: near = {near}, far = {far}: 0 <= near < far.")
        if samples < 2 or fine < 0 or scale <= 0 or pieces < 1:
            raise InputError(
                f"renderer: samples = {samples}, fine = {fine}, scale = {scale}: at least 2 "
                "samples, none negative."
            )
        if unit_length <= 0:
            raise InputError(f"renderer: unit_length = {unit_length:g}: above 0.")
        if last != "step" and last <= 0:
            raise InputError(f"renderer.last = {last:g}: 'step', or a length above 0.")
        memory.require(2 * memory.FLOAT * (samples + fine))
        self.near, self.far = near / unit_length, far / unit_length
        self.samples, self.fine, self.unit_length = samples, fine, unit_length
        self.low, self.high = (-1.0, 1.0) if range == "signed" else (0.0, 1.0)
        self.background = {"white": self.high, "black": self.low, "none": None}[background]
        self.colour, self.density, self.last, self.bounded = colour, density, last, bounded
        self.scale, self.directions, self.pieces = scale, directions, pieces
        self.stochastic, self.by_length = jitter, intervals == "length"
        self.evaluations = samples + (samples + fine if fine else 0)

    def domain(self, coord_dim: int, value_dim: int) -> Domain:
        check_rays(coord_dim, "volume")
        return Domain(3, 3 if self.directions else 0, value_dim + 1)

    def deterministic(self) -> Volume:
        if not self.stochastic:
            return self
        same = copy.copy(self)
        same.stochastic = False
        return same

    def __call__(
        self, function: Function, coords: Coords, generator: Generator | None = None
    ) -> Values:
        """Colours (batch, rays, 3) of rays (batch, rays, 6)."""
        return self._in_pieces(function, coords, generator).colour

    def depth(self, function: Function, coords: Coords) -> Values:
        """Expected distance t along each ray, and ``far`` for empty rays: (batch, rays, 1)."""
        seen = self._in_pieces(function, coords, None)
        return (seen.depth + (1 - seen.opacity) * self.far).unsqueeze(-1)

    def shade(self, t: Tensor, rays: Coords) -> Tensor:
        """t (batch, rays, n) as shades of grey: 0 at ``near``, 1 at ``far``."""
        return (t - self.near) / (self.far - self.near)

    def _in_pieces(self, function: Function, rays: Coords, generator: Generator | None) -> Rendered:
        """Render all rays at once with gradients, or in pieces of ``pieces`` points without."""
        if torch.is_grad_enabled():
            return self.march(function, rays, generator)
        size = max(1, self.pieces // (batch_size(len(rays)) * (self.samples + self.fine)))
        parts = [self.march(function, part, generator) for part in rays.split(size, 1)]
        return Rendered(*(torch.cat(found, 1) for found in zip(*parts, strict=True)))

    def march(
        self, function: Function, rays: Coords, generator: Generator | None = None
    ) -> Rendered:
        """Render rays (batch, rays, 6) by one pass, or by a coarse and a fine pass."""
        origin, direction = rays.split(3, -1)
        t = self.ray_samples(rays, generator)
        seen = self._pass(function, origin, direction, t)
        if self.fine == 0:
            return seen
        weights = blur_weights(seen.weights.detach())
        t = t.expand(
            *weights.shape[:2], -1
        )  # samples of rays that several codes share differ from here on
        fine = sample_pdf(t, weights, self.fine, self._random(generator), generator)
        t = torch.cat([t, fine], -1).sort(-1).values
        return self._pass(function, origin, direction, t)

    def _random(self, generator: Generator | None) -> bool:
        return generator is not None or (self.stochastic and torch.is_grad_enabled())

    def ray_samples(self, rays: Coords, generator: Generator | None = None) -> Tensor:
        """The parameters t of the first pass: (batch, rays, samples)."""
        t = sample_evenly(self.near, self.far, self.samples, rays)
        return sample_stratified(t, generator) if self._random(generator) else t

    def _pass(self, function: Function, origin: Tensor, direction: Tensor, t: Tensor) -> Rendered:
        points = (origin.unsqueeze(-2) + t.unsqueeze(-1) * direction.unsqueeze(-2)) / self.scale
        raw = self.evaluate(function, points, direction)
        length = direction.norm(dim=-1, keepdim=True)
        return self.composite_raw(raw, t, length if self.by_length else torch.ones_like(length))

    def evaluate(self, function: Function, points: Tensor, direction: Tensor) -> Tensor:
        """The field's raw values at points (batch, rays, samples, 3) of rays (batch, rays, 3)."""
        if self.directions:
            unit = F.normalize(direction, dim=-1).unsqueeze(-2).expand_as(points)
            points = torch.cat([points, unit], -1)
        return function(points.flatten(1, 2)).unflatten(1, points.shape[1:3])

    def activate(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Colours (..., colour) and densities (...) of the field's raw values."""
        colour, density = raw[..., :-1], DENSITIES[self.density](raw[..., -1])
        if self.colour == "sigmoid":
            colour = self.low + (self.high - self.low) * colour.sigmoid()
        return colour, density

    def composite_raw(self, raw: Tensor, t: Tensor, length: Tensor) -> Rendered:
        """Composite the field's raw values.

        raw (..., samples, colour + 1), t (..., samples), length of the directions (..., 1).
        """
        colour, density = self.activate(raw)
        delta = interval_lengths(t, self.last) * length
        return composite(colour, density, t, delta, self.background, self.bounded)
