"""A system: modality, renderer, family, encoder and prior, built from a recipe."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from fieldloom import memory, registry
from fieldloom import recipe as recipes
from fieldloom.conditioners import CONDITIONERS
from fieldloom.encoders import ENCODERS, Encoder, Nothing
from fieldloom.errors import InputError, quote, unknown
from fieldloom.family import Family
from fieldloom.fields import ARRANGEMENTS, FIELDS
from fieldloom.geometry.isosurface import project_to_level as to_level
from fieldloom.geometry.mesh import Mesh, from_unit
from fieldloom.metrics.losses import LINKS, LOSSES
from fieldloom.modalities import MODALITIES, Grid, Modality, Views, Voxels
from fieldloom.modalities.grid import Window
from fieldloom.modalities.modality import Cameras, Resolution
from fieldloom.modalities.shapes import LEVEL
from fieldloom.modalities.sources import SOURCES, Source
from fieldloom.modalities.views import check_cameras
from fieldloom.objectives import CRITICS, OBJECTIVES, PENALTIES, Objective
from fieldloom.permit import NOTHING, Permit
from fieldloom.priors import CODECS, DENOISERS, PRIORS, Prior
from fieldloom.renderers import RENDERERS, Renderer, Volume
from fieldloom.types import Code, Coords, Function, LossFn, Signal, Values, layer_of

TABLES: Mapping[str, Mapping[str, Any]] = {
    "source": SOURCES,
    "modality": MODALITIES,
    "renderer": RENDERERS,
    "field": FIELDS,
    "arrangement": ARRANGEMENTS,
    "conditioner": CONDITIONERS,
    "encoder": ENCODERS,
    "start": ENCODERS,
    "unseen": ENCODERS,
    "objective": OBJECTIVES,
    "penalty": PENALTIES,
    "critic": CRITICS,
    "prior": PRIORS,
    "codec": CODECS,
    "denoiser": DENOISERS,
}

Array = Tensor | NDArray[Any]
"""What data and codes may be given as."""

Label = int | str | Sequence[int | str] | Tensor
"""A class's number or name, or one for each datum."""

CACHED = 1 << 18
"""Values of one hidden layer that are evaluated at a time: 1 MiB of float32."""

A_TILE = 64
"""Points a tile, at least, so that a tile's matrix is not read for a handful of them."""

STRIP = 1 << 22
"""Values of a datum that ``System.strips`` holds at a time."""


class System(nn.Module):
    """Data are tensors as the modality has them, in [0, 1]; codes are (batch, tokens, width).

    Grids are (batch, channel, *axes), views (batch, view, channel, height, width). ``meta`` is what
    data have beside their numbers: cameras of views, coordinates of scattered points.
    ``prior`` is None in a recipe without one. ``recipe`` is the resolved recipe, kept for saving;
    ``finished`` the stages of training that the weights have behind them. ``permit`` is what the
    user allows the parts and data of this system.
    """

    def __init__(
        self,
        modality: Modality,
        render: Renderer,
        loss_fn: LossFn,
        family: Family,
        encoder: Encoder,
        prior: Prior | None,
        recipe: recipes.Recipe,
        link: Callable[[Tensor], Tensor] | None = None,
        permit: Permit = NOTHING,
    ) -> None:
        super().__init__()
        self.permit = permit
        self.link = link or (lambda values: values)
        self.modality, self.render, self.loss_fn, self.recipe = modality, render, loss_fn, recipe
        self.family, self.encoder, self.prior = family, encoder, prior
        self.finished: list[str] = []
        self.eval()

    @property
    def generates(self) -> bool:
        """Whether there is a prior, and it is trained."""
        return self.prior is not None and "prior" in self.finished

    @property
    def encodes(self) -> bool:
        """Whether codes can be found from data: not in a GAN, whose encoder knows nothing."""
        return not (isinstance(self.encoder, Nothing) and self.family.code_shape[1])

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    # -- data <-> codes

    def encode(
        self, data: Array, batch: int | None = None, index: Tensor | None = None, **meta: Any
    ) -> Code:
        """The codes of data: (batch, tokens, width). batch, index: as of ``signals``.

        data: a tensor or a numpy array, as all methods take them. Raises InputError for what is
        not of this run's kind.
        """
        found = [self.encode_signal(x) for x in self.signals(data, batch, index, **meta)]
        if not found:
            return torch.zeros(0, *self.family.code_shape, device=self.device)
        return torch.cat(found)

    def signals(
        self, data: Array, batch: int | None = None, index: Tensor | None = None, **meta: Any
    ) -> Iterator[Signal]:
        """What codes of data are found from, a few signals at a time.

        batch: so many of them; None: the recipe's micro-batch (of fewer signals, if they are
        encoded from more points than they are trained on), or, where the codes of a batch depend on
        one another, the batch that it trains with, or, where the encoder cuts batches itself, all.
        index: places of the data in their set, which an encoder may draw by; None: 0, 1, 2 ...
        """
        if not self.encodes:
            raise InputError("this run cannot encode: it was trained without an encoder.")
        data = as_data(data)
        data = data if _is_bytes(data) else data.to(self.dtype)
        meta = {key: as_numbers(key, value) for key, value in meta.items()}
        for key, value in meta.items():
            if len(value) != len(data):
                raise InputError(f"{key}: of {len(value)} data, and there are {len(data)}.")
        if batch is not None:
            check_whole("batch", batch, 1)
        if index is not None and (index.ndim != 1 or len(index) != len(data)):
            raise InputError(f"index: {len(data)} places are needed, one of each datum.")
        field = self.recipe.get("train", {}).get("field", {})
        whole = field.get("batch", 32)
        size = batch or (field.get("micro", whole) if self.encoder.independent else whole)
        if batch is None and self.encoder.independent and self.encoder.splits_batches:
            size = max(1, len(data))
        elif batch is None and self.encoder.independent and "points" in field and len(data):
            alone = {key: value[:1] for key, value in meta.items()}
            points = self.modality.encoding(data[:1], **alone).coords.shape[1]
            size = max(1, size * field["points"] // max(points, field["points"]))
        index = torch.arange(len(data), device=data.device) if index is None else index
        for first in range(0, len(data), size):
            some = slice(first, first + size)
            own = {key: value[some] for key, value in meta.items()}
            yield replace(self.modality.encoding(data[some], **own), index=index[some])

    def encode_signal(self, signal: Signal) -> Code:
        """The codes of a batch of signals, whole grids or scattered points."""
        self.eval()
        with torch.no_grad():
            signal = signal.to(self.device)
            return self.encoder(signal, self.family, self.render, self.loss_fn).detach()

    def decode(
        self,
        code: Code | NDArray[Any],
        resolution: Resolution | None = None,
        cameras: Cameras | None = None,
    ) -> Tensor:
        """The data of codes, at any resolution, clamped to [0, 1].

        cameras: of views, the same for all codes or one set each; None: an orbit.
        """
        return self.predict(code, resolution, cameras).clamp(0, 1)

    def predict(
        self,
        code: Code | NDArray[Any],
        resolution: Resolution | None = None,
        cameras: Cameras | None = None,
    ) -> Tensor:
        """As ``decode``, not clamped."""
        code = self.as_code(code)
        cameras = as_cameras(cameras)
        self.check_room(code, resolution, cameras)
        coords = self.modality.grid(resolution, cameras).to(self.device)
        values = torch.cat(list(self.evaluate(code.to(self.device), coords)))
        return self.modality.assemble(values.cpu(), resolution)

    def as_code(self, code: Any) -> Code:
        """Codes as the family takes them. Raises InputError for what are none of this run's."""
        code = as_numbers("code", code).to(self.dtype)
        tokens, width = self.family.code_shape
        if code.ndim != 3 or tuple(code.shape[1:]) != (tokens, width) or not len(code):
            raise InputError(
                f"code: the shape {tuple(code.shape)} is not (batch, {tokens}, {width}), as this "
                "run's codes are."
            )
        return code

    def one_code(self, code: Any) -> Code:
        """As ``as_code``, of one signal."""
        code = self.as_code(code)
        if len(code) != 1:
            raise InputError(f"code: {len(code)} codes where one is asked for: take code[:1].")
        return code

    def check_room(
        self, code: Code, resolution: Resolution | None, cameras: Cameras | None = None
    ) -> None:
        """Raise InputError where data of this resolution would not fit this machine's memory."""
        points = math.prod(self.modality.shape(resolution))
        if isinstance(self.modality, Views):
            views = self.modality.around
            if cameras is not None:
                views = check_cameras(cameras)["c2w"].shape[-3]
            points *= views
        each = self.modality.coord_dim + 2 * len(code) * self.modality.value_dim
        what = f"data at resolution {quote(resolution)}" if resolution is not None else "data"
        memory.check(what, memory.FLOAT * points * each, self.permit)

    def strips(
        self,
        code: Code | NDArray[Any],
        resolution: Resolution | None = None,
        window: Window | None = None,
        values: int = STRIP,
        frame: float | None = None,
    ) -> Iterator[tuple[int, Tensor]]:
        """The datum of one code (1, tokens, width), from its first row to its last, not clamped.

        Yields the place of a strip's first row and the strip, (channel, rows, *other axes); joined
        they are what ``predict`` gives. A row is what one place on the first axis holds: of a film
        a whole frame. window: the part of the extent, as ``Grid.grid`` takes it. values: of a
        strip, at most; a row is never cut. frame: of a film, the picture at this fraction of its
        time; resolution and window are then the picture's. Raises InputError where data are no
        grids.
        """
        if not isinstance(self.modality, Grid):
            raise InputError("strips are of grids: this run's data are none.")
        code = self.as_code(code)
        check_whole("values", values, 1)
        if frame is None:
            shape = self.modality.shape(resolution)
            coords = partial(self.modality.grid, shape, window=window)
        else:
            asked = (1, *resolution) if isinstance(resolution, tuple) else resolution
            shape = self.modality.shape(asked)[1:]
            coords = partial(still, self.modality, frame, shape, window)
        row = math.prod(shape[1:]) * (self.modality.coord_dim + 2 * self.modality.channels)
        memory.check(f"a row of data at resolution {quote(resolution)}", 16 * row, self.permit)
        rows = max(1, values // (self.modality.channels * math.prod(shape[1:])))
        for first in range(0, shape[0], rows):
            part = slice(first, min(first + rows, shape[0]))
            where = coords(rows=part).to(self.device)
            made = self.modality.denormalize(next(self.evaluate(code.to(self.device), where)).cpu())
            yield first, made[0].mT.unflatten(1, (part.stop - first, *shape[1:]))

    def evaluate(
        self, code: Code, coords: Tensor, dtype: torch.dtype | None = None
    ) -> Iterator[Values]:
        """Values of each code in turn, (1, points, value), at coords (1 | batch, points, coord).

        One instance at a time, in pieces whose hidden layers stay in the cache: faster on a CPU
        than any larger batch. dtype: of all weights but the first layer's, where coordinates and
        phases of many periods meet (in bfloat16 they would cost 10 dB); None is their own.
        """
        with torch.inference_mode():  # here and below, since a generator may be wrapped
            weights, slots = self.family.conditioner(code), self.family.field.slots
        if dtype is not None:
            first = layer_of(next(name for name, slot in slots.items() if slot.role == "weight"))
            weights = {
                n: w if layer_of(n) == first or slots[n].role == "fixed" else w.to(dtype)
                for n, w in weights.items()
            }
        widest = max(slot.shape[-1] for slot in slots.values())
        tiled = (math.prod(s.shape[:-2]) for s in slots.values() if s.role == "weight")
        tiles = max(tiled, default=1)
        piece = max(CACHED // widest, A_TILE * tiles) if code.is_cpu else 1 << 20
        piece = max(1, piece // self.render.evaluations)
        for i in range(len(code)):
            own = {n: w if len(w) == 1 else w[i : i + 1] for n, w in weights.items()}
            where = coords if len(coords) == 1 else coords[i : i + 1]
            with torch.inference_mode():
                function = partial(self.family.field, weights=own)
                pieces = [self.render(function, part) for part in where.split(piece, 1)]
                values = self.link(torch.cat(pieces, 1).float())
            yield values

    def depth(
        self,
        code: Code | NDArray[Any],
        resolution: Resolution | None = None,
        cameras: Cameras | None = None,
    ) -> Tensor:
        """Distances along the rays of views: (batch, view, 1, height, width) in [0, 1].

        0 is the renderer's near, 1 its far, where rays that meet nothing end, too.
        """
        if not isinstance(self.render, Volume):
            raise InputError("depth needs renderer 'volume': a light field knows no distance.")
        code, cameras = self.as_code(code), as_cameras(cameras)
        self.check_room(code, resolution, cameras)
        rays = self.modality.grid(resolution, cameras).to(self.device)
        rays = rays.expand(len(code), -1, -1)
        with torch.no_grad():
            far = self.render.depth(self.family.bind(code.to(self.device)), rays).cpu()
        unit = (far - self.render.near) / (self.render.far - self.render.near)
        return self.modality.assemble(self.modality.normalize(unit), resolution).clamp(0, 1)

    def mesh(
        self,
        code: Code | NDArray[Any],
        resolution: Resolution | None = None,
        project: int = 0,
        frame: Tensor | None = None,
    ) -> Mesh | None:
        """The surface of one shape's code (1, tokens, width); None where there is none.

        project: Newton steps of the vertices onto the field's level set. frame: where the original
        stood, as ``Voxels.mesh`` takes it.
        """
        if not isinstance(self.modality, Voxels):
            raise InputError("meshes are of shapes: this run's data are none.")
        code = self.one_code(code)
        check_whole("project", project)
        if frame is not None and tuple((frame := as_numbers("frame", frame)).shape) != (4,):
            raise InputError(
                f"frame: the shape {tuple(frame.shape)} is not (4,), centre and scale."
            )
        found = self.modality.mesh(self.predict(code, resolution)[0])
        if found is not None and project:
            function = self.function(code)
            on_device = lambda x: function(x.to(self.device)).to(x.device)
            place = self.modality.placement
            cell = (place.high - place.low) / min(self.modality.shape(resolution))
            found = to_level(found, on_device, LEVEL, project, max_step=cell)
        return found if found is None or frame is None else from_unit(found, frame)

    def function(self, code: Code | NDArray[Any]) -> Function:
        """The data of one code (1, tokens, width) as a function of the field's own coordinates.

        For what asks for values, or gradients, where no grid is: projecting a mesh's vertices.
        """
        weights = self.family.conditioner(self.one_code(code).to(self.device))
        return lambda x: self.modality.denormalize(self.link(self.family.field(x, weights)))

    def reconstruct(self, data: Array, resolution: Resolution | None = None, **meta: Any) -> Tensor:
        """decode(encode(data)); views are rendered at their own cameras."""
        cameras = {key: value for key, value in meta.items() if key in ("c2w", "intrinsics")}
        return self.decode(self.encode(data, **meta), resolution, cameras or None)

    # -- sampling

    def sample(
        self,
        count: int,
        resolution: Resolution | None = None,
        label: Label | None = None,
        seed: int = 0,
        cameras: Cameras | None = None,
        **options: Any,
    ) -> Tensor:
        """New data from the prior. options: the prior's own (guidance, steps, sampler ...).

        label: a class's name or number, or one for each datum; None: any.
        """
        return self.decode(self.sample_codes(count, label, seed, **options), resolution, cameras)

    def sample_codes(
        self, count: int, label: Label | None = None, seed: int = 0, **options: Any
    ) -> Code:
        if self.prior is None:
            raise InputError("this recipe has no prior to sample from.")
        if not self.generates:
            raise InputError("the prior is not trained yet: --stage prior with --resume trains it.")
        self.eval()
        check_whole("count", count, 1)
        check_whole("seed", seed)
        numbers = math.prod(self.family.code_shape)
        memory.check(f"{count} codes", 2 * memory.FLOAT * count * numbers, self.permit)
        place = lambda x: self.class_of(x) if isinstance(x, str) else x
        chosen: Any = [place(x) for x in label] if isinstance(label, list | tuple) else place(label)
        generator = Generator().manual_seed(seed)
        return self.prior.sample(count, chosen, generator=generator, **options)

    def class_of(self, label: str) -> int:
        """A class by its name, or by its number as text. Raises InputError for none of this run."""
        names = list(self.recipe.get("known", {}).get("names", []))
        if not names:
            raise InputError(f"label = {quote(label)}: the classes of this run have no names.")
        if label in names:
            return names.index(label)
        if label.isascii() and label.isdigit() and len(label) < 10 and int(label) < len(names):
            return int(label)
        raise unknown("class", label, names)

    def interpolate(
        self, a: Array, b: Array, steps: int = 16, resolution: Resolution | None = None
    ) -> Tensor:
        """From datum a to b (channel, *axes) along the line between their codes, ends included.

        Returns (steps, channel, *axes).
        """
        a, b = as_data(a, "a"), as_data(b, "b")
        if a.shape != b.shape:
            raise InputError(f"a and b: the shapes {tuple(a.shape)} and {tuple(b.shape)} differ.")
        check_whole("steps", steps, 1)
        numbers = memory.FLOAT * steps * math.prod(self.family.code_shape)
        memory.check(f"steps = {steps}", numbers, self.permit)
        ends = self.encode(torch.stack([a, b]))
        return self.decode(self.between(ends[:1], ends[1:], steps), resolution)

    @staticmethod
    def between(
        a: Code, b: Code, steps: int = 16, spherical: bool = False
    ) -> Float[Tensor, "steps tokens width"]:
        """From code a to b (1, tokens, width), ends included: (steps, tokens, width).

        spherical: along the great circle between their directions, at equal angles, the norm
        growing evenly: where a prior is N(0, I), codes of the line between would be shorter than
        any that it draws (arXiv:1609.04468, section 2.1).
        """
        check_whole("steps", steps, 1)
        if a.shape != b.shape or a.ndim != 3 or len(a) != 1:
            raise InputError(
                f"codes of the shapes {tuple(a.shape)} and {tuple(b.shape)} are not two of (1, "
                "tokens, width)."
            )
        fraction = torch.linspace(0, 1, steps, device=a.device).to(a).view(-1, 1, 1)
        line = torch.lerp(a, b, fraction)
        lengths = a.norm(), b.norm()
        angle = torch.arccos((a / lengths[0] * b / lengths[1]).sum().clamp(-1, 1))
        if not spherical or not 1e-4 < angle < math.pi - 1e-4:  # (nearly) one direction, or a zero
            return line
        one, other = (
            ((1 - fraction) * angle).sin() / lengths[0],
            (fraction * angle).sin() / lengths[1],
        )
        return torch.lerp(*lengths, fraction) / angle.sin() * (one * a + other * b)

    # -- training

    def objective(self) -> Objective:
        """The objective of the stage ``field``."""
        spec = self.recipe.get("objective", "reconstruction")
        known = {
            "family": self.family,
            "encoder": self.encoder,
            "render": self.render,
            "loss_fn": self.loss_fn,
            "prior": self.prior,
            "link": self.link,
            "coord_dim": 2 if self.modality.coord_dim == 6 else self.modality.coord_dim,
            "value_dim": self.modality.value_dim,
            "span": self.modality.high - self.modality.low,
        }

        def make() -> Objective:
            with torch.random.fork_rng(devices=[]):  # a critic is drawn from the seed, too
                torch.manual_seed(self.recipe.get("seed", 0))
                return registry.build("objective", spec, TABLES, self.permit, **known)

        made = make() if self.permit.large else memory.reckoned(make, "the objective")
        return made.to(self.device)


def register(kind: str, name: str, part: Callable[..., Any]) -> None:
    """Let recipes of this process name a part: ``register("field", "gabor", Gabor)``.

    kind: the key of a recipe that it belongs to (``field``, ``conditioner``, ``codec`` ...).
    Raises InputError for a kind that there is not, and as ``registry.register`` does.
    """
    if kind not in TABLES:
        raise unknown("kind of part", str(kind), TABLES)
    registry.register(kind, name, part)


def build(
    recipe: str | recipes.Recipe,
    variant: str | None = None,
    *,
    trust: Sequence[str] = (),
    large: bool = False,
    **overrides: Any,
) -> System:
    """The system that a recipe describes, untrained: a name, a path, or a dict.

    trust: modules whose classes the recipe may name as ``module:Class``. large: try sizes beyond
    this machine's memory. overrides: sections or keys that replace the recipe's:
    ``build("mnif", "digits", seed=1, field={"width": 64})``. Raises InputError for whatever does
    not fit, naming it.
    """
    for what, value in (("the recipe", recipe), ("overrides", overrides)):
        recipes.check_values(value, what)
    trust = (trust,) if isinstance(trust, str) else tuple(trust)
    if isinstance(recipe, str):
        recipe = recipes.load(f"{recipe}:{variant}" if variant else recipe)
    elif variant:
        raise InputError("variant: a recipe given as a dict has its variants merged already.")
    elif not isinstance(recipe, Mapping):
        raise InputError(f"recipe = {quote(recipe)} is not right: it is a name, or a dict.")
    return assemble(recipes.merge(recipe, overrides), Permit(trust, large=large))


def assemble(recipe: recipes.Recipe, permit: Permit = NOTHING) -> System:
    """As ``build``, of a resolved recipe and what the user allows."""
    recipes.validate(recipe)

    def make() -> System:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.get("seed", 0))
            return _assemble(recipe, permit)

    return make() if permit.large else memory.reckoned(make, "this recipe")


def _assemble(recipe: recipes.Recipe, permit: Permit) -> System:
    make = partial(registry.build, tables=TABLES, permit=permit)
    for section in ("modality", "field"):
        if section not in recipe:
            raise InputError(f"the recipe has no section '{section}'.")
    facts = recipe.get("known", {})  # what the source said when the run began
    signals, classes = facts.get("signals", 0), facts.get("classes", 0)
    modality = make("modality", recipe["modality"])
    render = make("renderer", recipe.get("renderer", "direct"))
    if isinstance(render, Volume) and (render.low, render.high) != (modality.low, modality.high):
        raise InputError(
            f"renderer.range goes from {render.low:g} to {render.high:g}, modality.range from "
            f"{modality.low:g} to {modality.high:g}: set both alike."
        )
    domain = render.domain(modality.coord_dim, modality.value_dim)
    field = make(
        "field",
        recipe["field"],
        coord_dim=domain.coord,
        value_dim=domain.value,
        direction_dim=domain.direction,
    )
    try:  # whichever conditioner fills them
        memory.ask(memory.of_numbers(slot.shape for slot in field.slots.values()))
    except memory.TooMuch as error:
        spec = recipe["field"] if isinstance(recipe["field"], Mapping) else {}
        raise registry.refused("the field", spec, error) from error
    conditioner = make("conditioner", recipe.get("conditioner", "shared"), slots=field.slots)
    family = Family(field, conditioner)
    batch = recipe.get("train", {}).get("field", {}).get("batch", 32)
    known = {"code_shape": family.code_shape, "signals": signals, "classes": classes}
    seen = {key: getattr(modality, key) for key in ("axes", "coord_dim", "value_dim")}
    encoder = make("encoder", recipe.get("encoder", "nothing"), batch=batch, **known, **seen)
    drawn = recipe.get("prior", "none")
    held = conditioner.layout  # which weights a code holds, for what is made of them
    prior = None if drawn == "none" else make("prior", drawn, layout=held, **known)
    loss = recipe.get("loss", "mse")
    if loss not in LOSSES:
        raise unknown("loss", str(loss), LOSSES)
    if loss in LINKS and modality.low != 0:
        raise InputError(
            f"loss = '{loss}' takes data in [0, 1]: set modality.range to 'unit', not 'signed'."
        )
    link = LINKS.get(loss)
    return System(modality, render, LOSSES[loss], family, encoder, prior, recipe, link, permit)


def still(
    film: Grid, frame: float, shape: tuple[int, ...], window: Window | None, rows: slice
) -> Coords:
    """Coordinates of rows of the picture at a fraction of a film's time: (1, points, 3)."""
    if len(film.size) != 3:
        raise InputError(f"frame = {quote(frame)}: these data have no frames, they are no film.")
    if not isinstance(frame, int | float) or not math.isfinite(frame):
        raise InputError(
            f"frame = {quote(frame)}: it is a number, the fraction of the film's time."
        )
    ends = ((0, 1), *(((0, 1), (0, 1)) if window is None else window))
    down = film.grid((1, shape[0], 1), window=ends)[0, rows, 1]
    across = film.grid((1, 1, shape[1]), window=ends)[0, :, 2]
    y, x = torch.meshgrid(down, across, indexing="ij")
    time = film.placement.low + (film.placement.high - film.placement.low) * frame
    return torch.stack([torch.full_like(y, time), y, x], -1).flatten(0, 1)[None]


def as_data(data: Any, what: str = "data") -> Tensor:
    """A tensor, of a tensor or a numpy array: uint8, or floats. Raises InputError."""
    if isinstance(data, np.ndarray) and data.dtype == np.uint8:
        data = torch.from_numpy(np.ascontiguousarray(data))
    data = data if _is_bytes(data) else as_numbers(what, data, "uint8, or floats in [0, 1]")
    if data.ndim < 2:
        raise InputError(f"{what}: the shape {tuple(data.shape)} is that of no data.")
    return data


def _is_bytes(data: Any) -> bool:
    return isinstance(data, Tensor) and data.dtype == torch.uint8


def as_numbers(what: str, value: Any, right: str = "floats") -> Tensor:
    """A tensor, of a tensor or a numpy array of floats. Raises InputError."""
    if isinstance(value, np.ndarray) and value.dtype in (np.float16, np.float32, np.float64):
        value = torch.from_numpy(np.ascontiguousarray(value))
    if not isinstance(value, Tensor) or not value.is_floating_point():
        kind = type(value).__name__
        said = f"a {kind} of {value.dtype}" if hasattr(value, "dtype") else f"a {kind}"
        raise InputError(f"{what}: {said} where a tensor or a numpy array is needed, {right}.")
    return value


def as_cameras(cameras: Any) -> Cameras | None:
    """Cameras as tensors, of tensors or numpy arrays. Raises InputError."""
    if cameras is None:
        return None
    if not isinstance(cameras, Mapping):
        raise InputError("cameras are a dict of two tensors: c2w and intrinsics.")
    return {key: as_numbers(key, value) for key, value in cameras.items()}


def check_whole(what: str, value: Any, least: int = 0) -> None:
    """Raise InputError for what is no whole number, or less."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or not least <= int(value) < 2**63:
        raise InputError(f"{what} = {quote(value)}: a whole number, at least {least}.")


def open_source(recipe: recipes.Recipe, modality: Modality, permit: Permit = NOTHING) -> Source:
    """The data of a recipe, in the size and channels of its modality."""
    if "source" not in recipe:
        raise InputError("the recipe has no section 'source': give --set source.name=folder.")
    if "modality" in recipe and "known" not in recipe:  # a size that was asked for, not found
        points = recipe.get("train", {}).get("field", {}).get("points")
        a_point = modality.value_dim  # bytes
        if points is None:
            a_point += memory.FLOAT * (modality.coord_dim + modality.value_dim)
        shape = modality.shape()
        memory.check(f"one datum of the size {shape}", math.prod(shape) * a_point, permit)
    return registry.build("source", recipe["source"], TABLES, permit, modality=modality)
