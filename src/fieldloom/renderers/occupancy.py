"""Volume rendering whose samples lie where a grid of densities expects something to be seen."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from fieldloom import memory
from fieldloom.errors import InputError
from fieldloom.geometry.contraction import Contraction, contract, expand
from fieldloom.renderers.volume import Density, Rendered, Volume, composite
from fieldloom.types import Coords, Function, Values, draw_uniform

UNKNOWN = -1.0
"""The density of cells where nobody has looked yet: they may hold anything."""
PRIME = 2654435761
"""How far apart the cells of a look are, one after another: no cell is among them twice."""
OPAQUE = 3.0
"""The largest density that the grid knows, times a cell's length: what is denser is no more opaque,
and would let the part of a cell that it fills hide what is behind the rest."""
SKY = 1e10
"""The length of the last interval of contracted space: what is behind everything is opaque."""


class Occupancy(Volume, nn.Module):
    """Volume rendering of one scene, whose empty space, and what is hidden, costs nothing.

    A grid over the field's domain keeps the mean density of each of its cells, of random looks into
    it (arXiv:2201.05989, appendix E.2, keeps the largest, which hides too much here). Each ray is
    cut into bins; the grid says how much of the light each bin would take, by the quadrature of
    ``volume``, and so where the field is evaluated: samples lie at even steps of the cumulative sum
    of these weights, as the proposals of arXiv:2111.12077 do, which here need no network. Bins in
    empty cells get none. A sample stands for all that is not empty in its step, so that densities
    keep their true lengths.

    near, far, background, range, colour, density, scale, directions, jitter, pieces, unit_length:
                as of ``volume``.
    samples:    evaluations of the field along a ray that meets anything.
    bins:       of a ray, for which the grid is asked.
    contract:   all of space is brought into the field's domain (arXiv:2111.12077, eq. 10): ``ball``
                contracts what is beyond the ball of radius ``scale``, ``cube`` what is beyond the
                cube; ``none`` does not. Points are halved then, so that they stay in [-1, 1]. Bins
                are even in t as far as that ball may reach, and in 1 / t beyond; a last sample at
                ``far``, which is opaque, is what lies behind everything.
    resolution: cells of each side of the grid.
    looks:      cells that each step of training looks into, at a random point.
    decay:      the weight of earlier looks into a cell in its mean.
    empty:      the opacity of a bin below which it is empty: fog that takes less of the light in
                each bin is not seen, though all bins of a ray may take much of it (0.72 of 128 bins
                and 0.01); 0 sees it, and evaluates the field wherever there is any density.
    even:       the share of the samples that lies evenly in all bins that are not empty.
    """

    grid: Tensor

    def __init__(
        self,
        near: float,
        far: float,
        samples: int = 16,
        bins: int = 128,
        contract: Contraction = "none",
        background: Literal["white", "black", "none"] = "white",
        range: Literal["signed", "unit"] = "signed",
        colour: Literal["identity", "sigmoid"] = "sigmoid",
        density: Density = "softplus-10",
        scale: float = 1.0,
        directions: bool = True,
        jitter: bool = True,
        resolution: int = 64,
        looks: int = 2048,
        decay: float = 0.85,
        empty: float = 0.01,
        even: float = 0.25,
        pieces: int = 1 << 18,
        unit_length: float = 1.0,
    ) -> None:
        nn.Module.__init__(self)
        Volume.__init__(
            self,
            near,
            far,
            samples,
            background=background,
            range=range,
            colour=colour,
            density=density,
            scale=scale,
            directions=directions,
            jitter=jitter,
            pieces=pieces,
            unit_length=unit_length,
        )
        if bins < 2 or not 2 <= resolution <= 1024 or looks < 1:
            raise InputError(
                f"renderer: bins = {bins}, resolution = {resolution}, looks = {looks}: at least 2 "
                "bins, from 2 to 1024 cells a side, at least 1 look."
            )
        if not (0 <= decay <= 1 and 0 <= empty < 1 and 0 < even <= 1):
            raise InputError(
                f"renderer: decay = {decay:g}, empty = {empty:g}, even = {even:g}: from 0 to 1, "
                "even above 0, empty below 1."
            )
        memory.require(2 * memory.FLOAT * max(bins, resolution**3))
        self.bins, self.contraction, self.resolution = bins, contract, resolution
        self.looks, self.decay, self.even = min(looks, resolution**3), decay, even
        self.thinnest = -math.log1p(-empty)
        self.evaluations = samples + (contract != "none")
        cell = 2 * scale * (1 if contract == "none" else 2) / resolution
        self.densest = OPAQUE / cell
        self.register_buffer("grid", torch.full((resolution**3,), UNKNOWN))

    # -- the grid

    @torch.no_grad()
    def look(self, function: Function) -> None:
        """Look into some cells at random points: a step of training does so before its loss.

        function: of the scene. Random numbers are torch's own, which a step seeds.
        """
        device, dtype = self.grid.device, self.grid.dtype
        first = torch.randint(len(self.grid), (1,), device=device)
        cells = (first + torch.arange(self.looks, device=device) * PRIME) % len(self.grid)
        corner = torch.stack(
            [cells // self.resolution**2, cells // self.resolution % self.resolution,
             cells % self.resolution], -1
        )  # fmt: skip
        points = (corner + torch.rand(len(cells), 3, device=device, dtype=dtype)) / self.resolution
        points, along = (2 * points - 1).unsqueeze(0), torch.randn(1, len(cells), 3, device=device)
        raw = self.evaluate(function, points.unsqueeze(2), along.to(dtype))
        found = self.activate(raw)[1].flatten().to(dtype).clamp(max=self.densest)
        before = self.grid.index_select(0, cells)
        mean = torch.lerp(found, before, self.decay)
        self.grid.index_copy_(0, cells, torch.where(before < 0, found, mean))

    def index(self, cell: Tensor) -> Tensor:
        """The index of cells by their numbers along the axes, (..., 3), rounded down -> (...)."""
        x, y, z = cell.long().clamp(0, self.resolution - 1).unbind(-1)
        return (x * self.resolution + y) * self.resolution + z

    def expect(self, rays: Coords, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the grid expects in the bins of rays, whose edges are t (batch, rays, bins + 1).

        Returns the share of a ray's samples that each bin gets, its length (0 of empty bins), both
        (batch, rays, bins), and whether the ray meets anything, (batch, rays): where it does not,
        its bins are all alike.
        """
        origin, direction = rays.split(3, -1)
        points = self.place(origin, direction, (t[..., 1:] + t[..., :-1]) / 2)
        density = self.grid[self.index((points + 1) * (self.resolution / 2))].to(t)
        length = t.diff(dim=-1) * direction.norm(dim=-1, keepdim=True)
        thickness = density.clamp_min(0) * length
        there = (thickness > self.thinnest) | (density < 0)
        met = there.any(-1)
        there = (there | ~met.unsqueeze(-1)).to(t)
        through = torch.exp(-thickness.cumsum(-1))
        light = F.pad(through[..., :-1], (1, 0), value=1.0) - through
        weights = there * light * (1 - self.even)
        rest = (1 - weights.sum(-1, keepdim=True)) / there.sum(-1, keepdim=True)
        return weights + there * rest, there * length, met

    # -- from rays to colours

    def place(self, origin: Tensor, direction: Tensor, t: Tensor) -> Tensor:
        """Points t (..., samples) of rays (..., 3), in the field's domain: (..., samples, 3)."""
        points = (origin.unsqueeze(-2) + t.unsqueeze(-1) * direction.unsqueeze(-2)) / self.scale
        return points if self.contraction == "none" else contract(points, self.contraction) / 2

    def knee(self, rays: Coords) -> Tensor:
        """The t up to which the ball that is not contracted may reach: (..., rays, 1)."""
        origin, direction = rays.split(3, -1)
        reach = origin.norm(dim=-1, keepdim=True) + self.scale
        return reach / direction.norm(dim=-1, keepdim=True)

    def warp(self, t: Tensor, rays: Coords) -> Tensor:
        """t (..., rays, n) as the parameter in which bins are even: t, or, contracted, that by the
        knee: linear up to it, and 2 - knee / t beyond."""
        if self.contraction == "none":
            return t
        return contract((t / self.knee(rays)).unsqueeze(-1), "cube").squeeze(-1)

    def unwarp(self, s: Tensor, rays: Coords) -> Tensor:
        """The inverse of ``warp``."""
        if self.contraction == "none":
            return s
        return expand(s.unsqueeze(-1), "cube").squeeze(-1) * self.knee(rays)

    def ends(self, rays: Coords) -> tuple[Tensor, Tensor]:
        """``near`` and ``far`` in the parameter of ``warp``: (batch, rays, 1) each."""
        near, far = (rays.new_full((*rays.shape[:2], 1), x) for x in (self.near, self.far))
        return self.warp(near, rays), self.warp(far, rays)

    def shade(self, t: Tensor, rays: Coords) -> Tensor:
        near, far = self.ends(rays)
        return (self.warp(t, rays) - near) / (far - near)

    def edges(self, rays: Coords) -> Tensor:
        """The edges of the bins of rays: t, (batch, rays, bins + 1)."""
        near, far = self.ends(rays)
        part = torch.linspace(0, 1, self.bins + 1, device=rays.device, dtype=rays.dtype)
        return self.unwarp(near + (far - near) * part, rays)

    def draw_samples(
        self, t: Tensor, shares: Tensor, length: Tensor, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Samples at even steps of the cumulative shares, and the lengths that they stand for.

        t: edges of bins; shares, length: of ``expect``. With chance a sample lies anywhere in its
        step, else in its middle. Returns t and lengths, (batch, rays, samples) each.
        """
        cdf = F.pad(shares.cumsum(-1), (1, 0))
        cdf, before = cdf / cdf[..., -1:], F.pad(length.cumsum(-1), (1, 0))
        steps = torch.arange(self.samples + 1, device=t.device, dtype=t.dtype) / self.samples
        where = (*t.shape[:-1], self.samples)
        chance = t.new_full((), 0.5)
        if self._random(generator):
            chance = draw_uniform(where, generator, t.device).to(t)
        inner = (steps[:-1] + chance / self.samples).expand(where)
        u = torch.cat([steps.expand(*t.shape[:-1], -1), inner], -1)
        right = torch.searchsorted(cdf, u, right=True).clamp_(1, self.bins)
        low, high = cdf.gather(-1, right - 1), cdf.gather(-1, right)
        part = ((u - low) / (high - low).clamp_min(1e-12)).clamp_(0, 1)
        at = lambda x: torch.lerp(x.gather(-1, right - 1), x.gather(-1, right), part)
        ends = at(before)[..., : self.samples + 1]
        return at(t)[..., self.samples + 1 :], ends.diff(dim=-1)

    def march(
        self, function: Function, rays: Coords, generator: Generator | None = None
    ) -> Rendered:
        """Render rays (1, rays, 6). ``depth`` of the result is in the parameter of ``warp``."""
        if len(rays) != 1:
            raise InputError(
                f"renderer 'occupancy' is of one scene: its grid is not of {len(rays)} scenes."
            )
        learns = torch.is_grad_enabled()
        with torch.no_grad():
            t = self.edges(rays)
            shares, length, met = self.expect(rays, t)
            some = met[0].nonzero().squeeze(-1)
            whole = self.contraction != "none" or len(some) == rays.shape[1]
            # where training meets nothing it evaluates all rays, so that it learns
            whole = whole or (learns and not len(some))
            if not whole:
                t, shares, length = (x.index_select(1, some) for x in (t, shares, length))
        own = rays if whole else rays.index_select(1, some)
        with torch.no_grad():
            t, delta = self.draw_samples(t, shares, length, generator)
            if self.contraction != "none":
                end = torch.ones_like(t[..., :1])
                t, delta = torch.cat([t, end * self.far], -1), torch.cat([delta, end * SKY], -1)
        origin, direction = own.split(3, -1)
        raw = self.evaluate(function, self.place(origin, direction, t), direction)
        colour, density = self.activate(raw)
        seen = composite(colour, density, self.warp(t, own), delta, None)
        if not whole:
            all_rays = lambda x: x.new_zeros(1, rays.shape[1], *x.shape[2:]).index_copy(1, some, x)
            seen = Rendered(*map(all_rays, seen))
        if self.background is None:
            return seen
        behind = (1 - seen.opacity).unsqueeze(-1) * self.background
        return seen._replace(colour=seen.colour + behind)

    def depth(self, function: Function, coords: Coords) -> Values:
        """Expected distance t along each ray, of the parameter in which bins are even.

        ``far`` for empty rays: (batch, rays, 1).
        """
        seen = self._in_pieces(function, coords, None)
        beyond = (1 - seen.opacity).unsqueeze(-1) * self.ends(coords)[1]
        found = seen.depth.unsqueeze(-1) + beyond
        return self.unwarp(found, coords)
