"""Renderers turn a field into observations. They receive a function, never a network."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from fieldloom import memory
from fieldloom.errors import InputError
from fieldloom.types import RAY, Coords, Domain, Function, Values


@runtime_checkable
class Renderer(Protocol):
    """From a function to observations.

    ``evaluations``: how often the function is evaluated for one observation.
    ``stochastic``: whether it draws samples at random while gradients are kept.
    """

    evaluations: int
    stochastic: bool

    def domain(self, coord_dim: int, value_dim: int) -> Domain:
        """What the field must map, for observations of these dimensions."""
        ...

    def deterministic(self) -> Renderer:
        """The same renderer without randomness: for codes that are found outside training."""
        ...

    def __call__(
        self, function: Function, coords: Coords, generator: Generator | None = None
    ) -> Values: ...


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

    The field sees the Pluecker coordinates [d, o x d] of the unit direction d, which are the same
    wherever on the ray its origin lies (arXiv:2106.02634, eq. 1).
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
    """(..., 6) origin | direction -> (..., 6) unit direction | moment."""
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
    """``count`` parameters t of every ray at equal steps, both ends included.

    rays (batch, rays, 6) -> (batch, rays, count), a view of one row.
    """
    steps = torch.linspace(0, 1, count, dtype=torch.float64)
    t = (near + (far - near) * steps).to(rays)
    return t.expand(*rays.shape[:2], -1)


def sample_stratified(t: Tensor, generator: Generator | None = None) -> Tensor:
    """One uniform draw from the stratum of each sample (arXiv:2003.08934, eq. 2).

    t (..., samples), ascending, is even; a stratum ends in the middle between two samples, and the
    first and the last at the ends of the ray. Returns (..., samples), ascending.
    """
    edges = bin_edges(t)
    lower, upper = edges[..., :-1], edges[..., 1:]
    return lower + (upper - lower) * _uniform(t.shape, t, generator)


def bin_edges(t: Tensor) -> Tensor:
    """The ends and the middles between samples (..., samples) -> (..., samples + 1)."""
    middle = (t[..., 1:] + t[..., :-1]) / 2
    return torch.cat([t[..., :1], middle, t[..., -1:]], -1)


def blur_weights(weights: Tensor) -> Tensor:
    """Each weight the mean of two maxima with its neighbours, and 0.01: (..., samples).

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

    t, weights (..., samples): a weight, not negative, spreads over the bin of its sample
    (``bin_edges``). random: draws, from the generator or torch's own; otherwise the quantiles at
    equal steps of the distribution. Returns (..., count), ascending.
    Source: arXiv:2003.08934, section 5.2 (inverse transform sampling).
    """
    edges = bin_edges(t)
    density = weights + 1e-5  # so that an empty ray is sampled evenly
    cdf = F.pad(density.cumsum(-1), (1, 0))
    cdf = cdf / cdf[..., -1:]
    if random:
        u = _uniform((*t.shape[:-1], count), t, generator).sort(-1).values
    else:
        u = ((torch.arange(count, dtype=torch.float64) + 0.5) / count).to(t)
        u = u.expand(*t.shape[:-1], -1)
    right = torch.searchsorted(cdf, u.contiguous(), right=True).clamp(1, cdf.shape[-1] - 1)
    low, high = cdf.gather(-1, right - 1), cdf.gather(-1, right)
    fraction = (u - low) / (high - low).clamp_min(1e-12)
    lower, upper = edges.gather(-1, right - 1), edges.gather(-1, right)
    return lower + fraction * (upper - lower)


def _uniform(shape: tuple[int, ...], like: Tensor, generator: Generator | None) -> Tensor:
    device = generator.device if generator is not None else like.device
    return torch.rand(shape, generator=generator, device=device).to(like)


DENSITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "elu": lambda raw: (F.elu(raw, alpha=0.1) + 0.1).clamp(0, 10),
    "relu": torch.relu,
    "softplus": lambda raw: F.softplus(raw - 1),
    "exp": torch.exp,
}
"""Densities, never negative, from raw values: elementwise, any shape."""


def interval_lengths(t: Tensor, last: float | Literal["step"]) -> Tensor:
    """delta_k = t_(k+1) - t_k, and after the last sample ``last``, or the mean of the others.

    (..., samples) -> (..., samples)
    """
    delta = t.diff(dim=-1)
    end = delta.mean(-1, keepdim=True) if last == "step" else last
    return torch.cat([delta, torch.zeros_like(t[..., :1]) + end], -1)


def transmittance(alpha: Tensor, bounded: bool = False) -> Tensor:
    """T_k = prod_(j<k) (1 - alpha_j + 1e-10): how much light passes the samples before each.

    alpha (..., samples), opacities in [0, 1] -> (..., samples). bounded: no factor passes 1.
    """
    passing = 1 - alpha + 1e-10
    if bounded:
        passing = passing.clamp(max=1)
    return torch.cat([torch.ones_like(passing[..., :1]), passing[..., :-1]], -1).cumprod(-1)


class Rendered(NamedTuple):
    """What a ray saw: colour (..., 3), depth (...), opacity (...), weights (..., samples)."""

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

    A ray is origin | direction, its points origin + t * direction, t from near to far; the
    direction need not be a unit vector, distances are measured along it. The field maps points
    (and, with ``directions``, unit directions) to raw colours and a raw density.

    samples:    of the first pass, at equal steps of t, both ends included; with a generator, or in
                training (``jitter``), each is drawn from its own stratum instead (eq. 2 there).
    fine:       further samples of a second pass, by importance: at the quantiles of the first
                pass's weights, widened by one sample (arXiv:2103.13415, section 3.1), since a
                surface lies anywhere before the sample that meets it; it evaluates both.
    background: ``white`` (the largest value of a colour) or ``black`` (the smallest, in
                ``range``) behind what the ray leaves over; ``none`` adds nothing.
    range:      of colours: ``signed`` is [-1, 1], ``unit`` [0, 1].
    colour:     from raw to colour, ``identity`` (mNIF) or ``sigmoid``, which is taken to ``range``.
    density:    ``elu``: min(max(ELU(x, 0.1) + 0.1, 0), 10) (Functa, mNIF), ``relu``, ``softplus``
                of x - 1, or ``exp``.
    intervals:  what distances between samples are measured in: ``length``, or ``t`` (TransINR, IPC,
                whose rays' directions are longer than 1).
    last:       the length of the last interval: 1e10 (mNIF), 1e-3 (Functa, IPC), or ``step``, the
                mean of the others.
    bounded:    whether no factor of the transmittance passes 1 (Functa).
    scale:      points are divided by it before the field sees them.
    pieces:     points evaluated at a time where no gradient is kept; with a generator they decide
                which ray gets which draw.
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
        density: Literal["elu", "relu", "softplus", "exp"] = "elu",
        intervals: Literal["length", "t"] = "length",
        last: float | Literal["step"] = 1e10,
        bounded: bool = False,
        scale: float = 1.0,
        directions: bool = False,
        jitter: bool = False,
        pieces: int = 1 << 18,
    ) -> None:
        if not 0 <= near < far:
            raise InputError(f"renderer: near = {near}, far = {far}: 0 <= near < far.")
        if samples < 2 or fine < 0 or scale <= 0 or pieces < 1:
            raise InputError(
                f"renderer: samples = {samples}, fine = {fine}, scale = {scale}: at least 2 "
                "samples, none negative."
            )
        if last != "step" and last <= 0:
            raise InputError(f"renderer.last = {last:g}: 'step', or a length above 0.")
        memory.require(2 * memory.FLOAT * (samples + fine))
        self.near, self.far, self.samples, self.fine = near, far, samples, fine
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
        """Expected distance t along each ray, far where nothing is met: (batch, rays, 1)."""
        seen = self._in_pieces(function, coords, None)
        return (seen.depth + (1 - seen.opacity) * self.far).unsqueeze(-1)

    def _in_pieces(self, function: Function, rays: Coords, generator: Generator | None) -> Rendered:
        """All rays at once where a gradient is kept; otherwise so many as ``pieces`` allows."""
        if torch.is_grad_enabled():
            return self.march(function, rays, generator)
        size = max(1, self.pieces // (len(rays) * (self.samples + self.fine)))
        parts = [self.march(function, part, generator) for part in rays.split(size, 1)]
        return Rendered(*(torch.cat(found, 1) for found in zip(*parts, strict=True)))

    def march(
        self, function: Function, rays: Coords, generator: Generator | None = None
    ) -> Rendered:
        """One pass, or a coarse and a fine one."""
        origin, direction = rays.split(3, -1)
        t = self.ray_samples(rays, generator)
        seen = self._pass(function, origin, direction, t)
        if self.fine == 0:
            return seen
        weights = blur_weights(seen.weights.detach())
        t = t.expand(*weights.shape[:2], -1)  # rays shared by several codes part here
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
        if self.directions:
            unit = F.normalize(direction, dim=-1).unsqueeze(-2).expand_as(points)
            points = torch.cat([points, unit], -1)
        raw = function(points.flatten(1, 2)).unflatten(1, t.shape[1:])
        length = direction.norm(dim=-1, keepdim=True)
        return self.composite_raw(raw, t, length if self.by_length else torch.ones_like(length))

    def composite_raw(self, raw: Tensor, t: Tensor, length: Tensor) -> Rendered:
        """What rays see, of the field's raw values.

        raw (..., samples, colour + 1), t (..., samples), length (..., 1) of the directions.
        """
        colour, density = raw[..., :-1], DENSITIES[self.density](raw[..., -1])
        if self.colour == "sigmoid":
            colour = self.low + (self.high - self.low) * colour.sigmoid()
        delta = interval_lengths(t, self.last) * length
        return composite(colour, density, t, delta, self.background, self.bounded)


RENDERERS = {"direct": Direct, "plucker": Plucker, "volume": Volume}
