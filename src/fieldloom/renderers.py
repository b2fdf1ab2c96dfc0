"""Renderers turn a field into observations. They receive a function, never a network."""

from __future__ import annotations

import copy
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from fieldloom import memory
from fieldloom.errors import InputError
from fieldloom.types import Coords, Domain, Function, Values


@runtime_checkable
class Renderer(Protocol):
    """``evaluations``: how often a field is evaluated for one observation."""

    evaluations: int

    def domain(self, coord_dim: int, value_dim: int) -> Domain:
        """What the field must map, for observations of these dimensions."""
        ...

    def __call__(
        self, function: Function, coords: Coords, generator: Generator | None = None
    ) -> Values: ...


class Direct:
    """An observation is the field's value at its coordinates: images, sound, shapes, maps."""

    evaluations = 1

    def domain(self, coord_dim: int, value_dim: int) -> Domain:
        return Domain(coord_dim, 0, value_dim)

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

    def domain(self, coord_dim: int, value_dim: int) -> Domain:
        _rays(coord_dim, "plucker")
        return Domain(6, 0, value_dim)

    def __call__(
        self, function: Function, coords: Coords, generator: Generator | None = None
    ) -> Values:
        return function(plucker(coords))


def plucker(rays: Coords) -> Coords:
    """(..., 6) origin | direction -> (..., 6) unit direction | moment."""
    origin, direction = rays.split(3, -1)
    unit = F.normalize(direction, dim=-1)
    return torch.cat([unit, torch.linalg.cross(origin, unit)], -1)


class Rendered(NamedTuple):
    """What a ray saw: colour (..., 3), depth (...), opacity (...), weights (..., samples)."""

    colour: Tensor
    depth: Tensor
    opacity: Tensor
    weights: Tensor


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
        self.background = {"white": self.high, "black": self.low, "none": 0.0}[background]
        self.colour, self.density, self.last, self.bounded = colour, density, last, bounded
        self.scale, self.directions, self.jitter, self.pieces = scale, directions, jitter, pieces
        self.measured = intervals == "length"
        self.opaque = background == "none"
        self.evaluations = samples + (samples + fine if fine else 0)

    def domain(self, coord_dim: int, value_dim: int) -> Domain:
        _rays(coord_dim, "volume")
        return Domain(3, 3 if self.directions else 0, value_dim + 1)

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
        t = self.strata(rays, generator)
        seen = self._pass(function, origin, direction, t)
        if self.fine == 0:
            return seen
        weights = widened(seen.weights.detach())
        t = t.expand(*weights.shape[:2], -1)  # rays shared by several codes part here
        drawn = quantiles(t, weights, self.fine, self._random(generator), generator)
        t = torch.cat([t, drawn], -1).sort(-1).values
        return self._pass(function, origin, direction, t)

    def _random(self, generator: Generator | None) -> bool:
        return generator is not None or (self.jitter and torch.is_grad_enabled())

    def strata(self, rays: Coords, generator: Generator | None = None) -> Tensor:
        """The parameters t of the first pass: (batch, rays, samples)."""
        steps = torch.linspace(0, 1, self.samples, dtype=torch.float64)
        t = (self.near + (self.far - self.near) * steps).to(rays)
        t = t.expand(*rays.shape[:2], -1)
        if not self._random(generator):
            return t
        middle = (t[..., 1:] + t[..., :-1]) / 2
        lower = torch.cat([t[..., :1], middle], -1)
        upper = torch.cat([middle, t[..., -1:]], -1)
        where = generator.device if generator is not None else rays.device
        drawn = torch.rand(t.shape, generator=generator, device=where).to(t)
        return lower + (upper - lower) * drawn

    def _pass(self, function: Function, origin: Tensor, direction: Tensor, t: Tensor) -> Rendered:
        points = (origin.unsqueeze(-2) + t.unsqueeze(-1) * direction.unsqueeze(-2)) / self.scale
        if self.directions:
            unit = F.normalize(direction, dim=-1).unsqueeze(-2).expand_as(points)
            points = torch.cat([points, unit], -1)
        raw = function(points.flatten(1, 2)).unflatten(1, t.shape[1:])
        length = direction.norm(dim=-1, keepdim=True)
        return self.composite(raw, t, length if self.measured else torch.ones_like(length))

    def composite(self, raw: Tensor, t: Tensor, length: Tensor) -> Rendered:
        """Raw values (..., samples, colour + 1) at t (..., samples) along rays of this length.

        alpha_k = 1 - exp(-density_k delta_k), T_k = prod_(j<k) (1 - alpha_j + 1e-10),
        colour = sum T_k alpha_k c_k + (1 - sum T_k alpha_k) background
        """
        density = self.activate(raw[..., -1])
        delta = t.diff(dim=-1)
        end = delta.mean(-1, keepdim=True) if self.last == "step" else self.last
        ending = torch.zeros_like(t[..., :1]) + end
        delta = torch.cat([delta, ending], -1) * length
        alpha = 1 - torch.exp(-density * delta)
        left = 1 - alpha + 1e-10
        if self.bounded:
            left = left.clamp(max=1)
        passed = torch.cat([torch.ones_like(left[..., :1]), left[..., :-1]], -1).cumprod(-1)
        weights = alpha * passed
        colour = raw[..., :-1]
        if self.colour == "sigmoid":
            colour = self.low + (self.high - self.low) * colour.sigmoid()
        opacity = weights.sum(-1)
        seen = (weights.unsqueeze(-1) * colour).sum(-2)
        if not self.opaque:
            seen = seen + (1 - opacity).unsqueeze(-1) * self.background
        return Rendered(seen, (weights * t).sum(-1), opacity, weights)

    def activate(self, raw: Tensor) -> Tensor:
        """Densities from raw values, never negative."""
        if self.density == "elu":
            return (F.elu(raw, alpha=0.1) + 0.1).clamp(0, 10)
        if self.density == "relu":
            return raw.relu()
        return F.softplus(raw - 1) if self.density == "softplus" else raw.exp()


def still(render: Renderer) -> Renderer:
    """The renderer without chance: for codes that are found outside training."""
    if not getattr(render, "jitter", False):
        return render
    same = copy.copy(render)
    same.jitter = False  # type: ignore[attr-defined]
    return same


def widened(weights: Tensor) -> Tensor:
    """Each weight the mean of two maxima with its neighbours, and a little: (..., samples)."""
    near = F.pad(weights, (1, 1))
    larger = torch.maximum(near[..., 1:], near[..., :-1])
    return (larger[..., 1:] + larger[..., :-1]) / 2 + 0.01


def quantiles(
    t: Tensor, weights: Tensor, count: int, random: bool, generator: Generator | None
) -> Tensor:
    """``count`` draws of t by the piecewise constant density of the weights (NeRF, section 5.2).

    t, weights (..., samples); each weight spreads over the stretch between the middles around its
    sample. At equal steps of the distribution, or at random ones. Returns (..., count), ascending.
    """
    middle = (t[..., 1:] + t[..., :-1]) / 2
    edges = torch.cat([t[..., :1], middle, t[..., -1:]], -1)
    density = weights + 1e-5  # so that an empty ray is sampled evenly
    summed = F.pad(density.cumsum(-1), (1, 0))
    summed = summed / summed[..., -1:]
    if random:
        where = generator.device if generator is not None else t.device
        u = torch.rand(*t.shape[:-1], count, generator=generator, device=where).to(t)
        u = u.sort(-1).values
    else:
        u = ((torch.arange(count, dtype=torch.float64) + 0.5) / count).to(t)
        u = u.expand(*t.shape[:-1], -1)
    right = torch.searchsorted(summed, u.contiguous(), right=True).clamp(1, summed.shape[-1] - 1)
    pick = lambda x, at: x.gather(-1, at)
    low, high = pick(summed, right - 1), pick(summed, right)
    fraction = (u - low) / (high - low).clamp_min(1e-12)
    return pick(edges, right - 1) + fraction * (pick(edges, right) - pick(edges, right - 1))


def _rays(coord_dim: int, name: str) -> None:
    if coord_dim != 6:
        raise InputError(
            f"renderer '{name}' needs rays (origin | direction), as the modality 'views' gives; "
            f"coordinates of {coord_dim} numbers are none: take renderer 'direct'."
        )


RENDERERS = {"direct": Direct, "plucker": Plucker, "volume": Volume}
