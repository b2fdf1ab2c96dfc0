"""A system: modality, renderer, family, encoder and prior, and what they do together."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from fieldloom import memory
from fieldloom.arguments import (
    Array,
    as_cameras,
    as_data,
    as_numbers,
    as_values,
    check_unit_range,
    check_whole,
)
from fieldloom.decoding import evaluate_codes
from fieldloom.encoders import Encoder, Nothing, OnStep
from fieldloom.encoders.encoder import check_codes
from fieldloom.encoders.refinement import What, check_refinement, refine_batches
from fieldloom.errors import InputError, escape_bytes, name_argument, quote, shorten, unknown
from fieldloom.family import Family
from fieldloom.fields import HasKernels
from fieldloom.geometry.mesh import Mesh
from fieldloom.interpolation import interpolate_codes
from fieldloom.metrics.paired import FIDELITY
from fieldloom.modalities import Modality
from fieldloom.modalities.modality import Extent, Resolution
from fieldloom.nn.kernels import KernelsOf
from fieldloom.permit import NOTHING, Permit
from fieldloom.priors import Gaussian, Prior
from fieldloom.progress import during
from fieldloom.recipe import Recipe
from fieldloom.renderers import Renderer, Volume
from fieldloom.settings import Settings, parse_settings
from fieldloom.threads import threads_by_work
from fieldloom.types import Cameras, Code, Data, Function, LossFn, Signal, Values
from fieldloom.unfinished import Unfinished

Label = int | str | Sequence[int | str] | Tensor
"""A class's number or name, or one for each datum."""

STRIP = 1 << 22
"""The most values of a datum that ``System.strips`` holds at a time."""

HEIGHT = 480
"""Of a page in a notebook, in pixels."""


@runtime_checkable
class Shown(Protocol):
    """What a notebook shows where it is returned. page: its HTML."""

    @property
    def page(self) -> str: ...

    def _repr_html_(self) -> str: ...


ShowFn = Callable[[Any, Code, Sequence[str], bool, int], Shown]
"""From a system, codes, their names, ``half`` and ``height`` to a page: as of ``System.show``."""


class Refined(NamedTuple):
    """The result of ``System.refine``: ``system.decode(code)`` returns the refined data.

    start: the encoder's codes (batch, tokens, width), of the system that was refined. before,
    after: (batch,), the PSNR (of sound SNR) in dB of the encoder's and of the refined codes, over
    the known points that they were found from.
    """

    system: System
    code: Code
    start: Code
    before: Tensor
    after: Tensor


class System(nn.Module):
    """A neural-field model: from data to codes (batch, tokens, width), and back.

    Data are ``Data``; a tensor or a numpy array will do where values alone are enough.

    prior:    None in a recipe without one.
    recipe:   resolved, kept for saving; settings: everything in it but its parts.
    stored_recipe: the recipe as the run's file has it, perhaps with old names: the run's files
              carry fingerprints of it.
    finished: the stages of training that are finished.
    unfinished: the checkpoint that the weights are of; None where they are of finished stages.
    permit:   what the user allows the parts and data of this system.
    show_fn:  what ``show`` calls.
    """

    settings: Settings

    def __init__(
        self,
        modality: Modality,
        render: Renderer,
        loss_fn: LossFn,
        family: Family,
        encoder: Encoder,
        prior: Prior | None,
        recipe: Recipe,
        link: Callable[[Tensor], Tensor] | None = None,
        permit: Permit = NOTHING,
        show_fn: ShowFn | None = None,
    ) -> None:
        super().__init__()
        self.permit, self.show_fn = permit, show_fn
        self.link = link or (lambda values: values)
        self.modality, self.render, self.loss_fn = modality, render, loss_fn
        self.recipe = self.stored_recipe = recipe
        self.family, self.encoder, self.prior = family, encoder, prior
        self.finished: list[str] = []
        self.unfinished: Unfinished | None = None
        self.eval()

    @property
    def recipe(self) -> Recipe:
        return self._recipe

    @recipe.setter
    def recipe(self, recipe: Recipe) -> None:
        self._recipe, self.settings = recipe, parse_settings(recipe)

    @property
    def generates(self) -> bool:
        """Whether the system can sample: it has a prior, and that is trained, or being trained."""
        if self.prior is None or "prior" in self.finished:
            return self.prior is not None
        going = self.unfinished
        return going is not None and (going.stage == "prior" or not self.prior.learns)

    @property
    def encodes(self) -> bool:
        """Whether the system can encode data: a GAN cannot, it has no encoder."""
        return not (isinstance(self.encoder, Nothing) and self.family.has_code)

    @property
    def has_standard_prior(self) -> bool:
        """Whether samples are drawn from N(0, I): they are interpolated on great circles."""
        return isinstance(self.prior, Gaussian) and not self.prior.learns

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def forward(self, *given: Any, **named: Any) -> Any:
        """Raises InputError: a system does several things, each by its name."""
        raise InputError(
            "a system is not called: system.encode(data), system.decode(code) or "
            "system.reconstruct(data) is."
        )

    def to(self, *given: Any, **named: Any) -> System:
        """The system on another device, or of another dtype, as of ``nn.Module``.

        Raises InputError for a device that there is not.
        """
        try:
            return super().to(*given, **named)
        except (AssertionError, RuntimeError) as error:
            why = shorten(str(error).partition("\n")[0])
            if "memory" in why:
                raise
            asked = ", ".join(map(quote, (*given, *named.values())))
            raise InputError(f"the system cannot be moved to {asked}: {why}.") from error

    def use(self, kernels: KernelsOf) -> System:
        """The system, whose field computes by what a device has: ``engine.device.kernels``.

        The field asks at each call, so that the system may be moved. Nothing changes where the
        recipe says ``kernels = "plain"``.
        """
        if self.settings.kernels == "auto" and isinstance(self.family.field, HasKernels):
            self.family.field.kernels = kernels
        return self

    # -- data <-> codes

    def encode(self, data: Data | Array, batch: int | None = None) -> Code:
        """The codes of data: (batch, tokens, width). batch: as of ``signals``.

        Raises InputError where data are not of the modality's kind, for floats that are not in [0,
        1], and where ``encodes`` is False.
        """
        found = [self.encode_signal(x) for x in self.signals(data, batch)]
        if not found:
            return torch.zeros(0, *self.family.code_shape, device=self.device)
        return torch.cat(found)

    def signals(
        self, data: Data | Array, batch: int | None = None, strict: bool = True
    ) -> Iterator[Signal]:
        """The observations that an encoder finds the codes of data from, a few signals at a time.

        batch: the number of signals at a time; None: the micro-batch of training (fewer, if
        encoding sees more points than a step of training), or the batch of training where the codes
        of a batch depend on one another, or all data where the encoder itself divides them into
        batches. Data without an index get 0, 1, 2 ..., by which encoders seed random numbers.
        strict: whether floats that do not lie in [0, 1] raise InputError; a job on many data leaves
        out those that fail instead.
        """
        if not self.encodes:
            raise InputError("this run cannot encode: it was trained without an encoder.")
        data = self.as_data(data)
        if batch is not None:
            check_whole("batch", batch, 1)
        if data.index is None:
            data = replace(data, index=torch.arange(len(data)))
        self.modality.check_data(data)
        size = batch or self.encode_batch_size(data)
        for first in range(0, len(data), size):
            part = data.part(slice(first, first + size))
            if strict:
                check_unit_range(part.tensor)
            yield self.modality.encoding(part)

    def encode_batch_size(self, data: Data) -> int:
        """How many of these data are encoded at a time by default."""
        stage, points = self.settings.field_stage, 0
        if stage.points is not None and len(data):
            points = self.modality.encoding(data.part(slice(1))).coords.shape[1]
        return self.encoder.batch_size(len(data), points, stage.batch, stage.micro, stage.points)

    def encode_signal(self, signal: Signal) -> Code:
        """The codes of a batch of signals, whole grids or scattered points."""
        self.eval()
        numbers = math.prod(signal.coords.shape[:2]) * self.render.evaluations * self.family.widest
        with torch.no_grad(), threads_by_work(numbers, self.device.type == "cpu"):
            signal = signal.to(self.device)
            code = self.encoder(signal, self.family, self.render, self.loss_at(signal))
            return check_codes(self.encoder, code, signal, self.family).detach()

    def loss_at(self, signal: Signal) -> LossFn:
        """The loss of a signal's values, with logits as steep as where it is decoded."""
        steep, loss = self.steepness_of(signal), self.loss_fn
        return loss if steep == 1 else lambda values, true: loss(steep * values, true)

    def steepness_of(self, signal: Signal) -> float:
        """``Modality.steepness`` at a signal's grid; 1, as trained, of scattered points and of a
        context."""
        if signal.grid is None or self.modality.partial:
            return 1.0
        return self.modality.steepness(signal.grid)

    def decode(
        self,
        code: Code | NDArray[Any] | None = None,
        resolution: Resolution | None = None,
        cameras: Cameras | Mapping[str, Array] | None = None,
    ) -> Data:
        """The data of codes, at any resolution, clamped to [0, 1].

        code: (batch, tokens, width); a system that fits one signal, without codes, needs none.
        cameras: of views, the same for all codes or one set each; None: an orbit.
        """
        return self.predict(code, resolution, cameras).clamp()

    def predict(
        self,
        code: Code | NDArray[Any] | None = None,
        resolution: Resolution | None = None,
        cameras: Cameras | Mapping[str, Array] | None = None,
    ) -> Data:
        """As ``decode``, not clamped."""
        code, cameras = self.as_code(code), self.choose_cameras(cameras)
        self.check_memory(len(code), resolution, cameras)
        coords = self.modality.grid(resolution, cameras).to(self.device)
        steep = self.modality.steepness(self.modality.shape(resolution))
        values = torch.cat(list(self.evaluate(code.to(self.device), coords, steep=steep)))
        return self.modality.assemble(values.cpu(), resolution, cameras)

    def predict_at(self, code: Code | NDArray[Any], data: Data | Array) -> Data:
        """The data of codes where these data were observed: in their shape, not clamped.

        Views are rendered at their own cameras, samples are evaluated at their coordinates, and
        grids at their resolution.
        """
        code, data = self.as_code(code), as_data(data)
        coords = self.modality.coords_of(data).to(self.device)
        steep = self.modality.steepness(tuple(data.shape[2:]))
        values = torch.cat(list(self.evaluate(code.to(self.device), coords, steep=steep))).cpu()
        return self.modality.as_observed(values, data)

    def as_code(self, code: Any) -> Code:
        """Codes in the family's dtype; None is the only one of a family without codes.

        Raises InputError where their shape is not the family's.
        """
        if code is None and not self.family.has_code:
            return self.family.conditioner.origin(1).detach().to(self.dtype)
        code = as_numbers("code", code).to(self.dtype)
        tokens, width = self.family.code_shape
        if code.ndim != 3 or tuple(code.shape[1:]) != (tokens, width) or not len(code):
            raise InputError(
                f"code: the shape {tuple(code.shape)} is not (batch, {tokens}, {width}), as this "
                "run's codes are."
            )
        return code

    def one_code(self, code: Any) -> Code:
        """As ``as_code``, of one signal. Raises InputError for more."""
        code = self.as_code(code)
        if len(code) != 1:
            raise InputError(f"code: {len(code)} codes where one is asked for: take code[:1].")
        return code

    def as_data(self, data: Any) -> Data:
        """Data of data or arrays, with floats in this system's dtype. Raises InputError."""
        data = as_data(data)
        if isinstance(data.values, Tensor) and data.values.is_floating_point():
            data = replace(data, values=data.values.to(self.dtype))
        return data

    def choose_cameras(self, cameras: Any) -> Cameras | None:
        """The cameras that are given, or else the modality's own. Raises InputError."""
        return self.modality.cameras() if cameras is None else as_cameras(cameras)

    def check_memory(
        self, count: int, resolution: Resolution | None, cameras: Cameras | None = None
    ) -> None:
        """Raise InputError where ``count`` decoded data need more memory than there is."""
        points = math.prod(self.modality.shape(resolution))
        points *= 1 if cameras is None else cameras.count
        each = self.modality.coord_dim + 2 * count * self.modality.value_dim
        what = f"data at resolution {quote(resolution)}" if resolution is not None else "data"
        memory.check(what, memory.FLOAT * points * each, self.permit)

    def strips(
        self,
        code: Code | NDArray[Any],
        resolution: Resolution | None = None,
        window: Extent | None = None,
        values: int = STRIP,
        frame: float | None = None,
    ) -> Iterator[tuple[int, Tensor]]:
        """Decode one code (1, tokens, width) in strips, from the first row to the last, unclamped.

        Yields the index of a strip's first row and the strip, (channel, rows, *other axes); joined,
        strips are what ``predict`` returns. window, frame: the part that is decoded, as of
        ``Modality.rows``. values: the most values of a strip, which has at least one row. Raises
        InputError where data are no grids.
        """
        shape, coords = self.modality.rows(resolution, window, frame)
        code, channels = self.as_code(code), self.modality.channels
        steep = self.modality.steepness(shape, window)
        check_whole("values", values, 1)
        row = math.prod(shape[1:]) * (self.modality.coord_dim + 2 * channels)
        memory.check(f"a row of data at resolution {quote(resolution)}", 16 * row, self.permit)
        rows = max(1, values // (channels * math.prod(shape[1:])))
        for first in range(0, shape[0], rows):
            part = slice(first, min(first + rows, shape[0]))
            points = coords(part).to(self.device)
            made = self.modality.denormalize(
                next(self.evaluate(code.to(self.device), points, steep=steep)).cpu()
            )
            yield first, made[0].mT.unflatten(1, (part.stop - first, *shape[1:]))

    def evaluate(
        self, code: Code, coords: Tensor, dtype: torch.dtype | None = None, steep: float = 1.0
    ) -> Iterator[Values]:
        """As ``decoding.evaluate_codes``: values of each code in turn, (1, points, value).

        steep: the factor of logits (``Modality.steepness``).
        """
        link = self.link if steep == 1 else lambda values: self.link(steep * values)
        return evaluate_codes(self.family, self.render, link, code, coords, dtype)

    def depth(
        self,
        code: Code | NDArray[Any],
        resolution: Resolution | None = None,
        cameras: Cameras | Mapping[str, Array] | None = None,
    ) -> Data:
        """Depths of views as images: (batch, view, 1, height, width) in [0, 1].

        0 is the renderer's ``near``, 1 its ``far``, where rays that hit nothing end, too; between
        them they are even in t, or, in contracted space, in the parameter of its bins.
        """
        depth, render = self.metric_depth(code, resolution, cameras), self.render
        assert isinstance(render, Volume)  # ``metric_depth`` has looked
        t = depth.tensor / render.unit_length
        rays = self.modality.grid(resolution, self.choose_cameras(cameras))
        unit = render.shade(t.flatten(1).unsqueeze(-1), rays).view_as(t)
        return replace(depth, values=unit).clamp()

    def metric_depth(
        self,
        code: Code | NDArray[Any],
        resolution: Resolution | None = None,
        cameras: Cameras | Mapping[str, Array] | None = None,
    ) -> Data:
        """Expected depths along the axes of cameras, in the cameras' unit.

        (batch, view, 1, height, width); ``far`` where rays hit nothing. Raises InputError where the
        renderer is not ``volume``.
        """
        if not isinstance(self.render, Volume):
            raise InputError("depth needs renderer 'volume': a light field knows no distance.")
        code, cameras = self.as_code(code), self.choose_cameras(cameras)
        self.check_memory(len(code), resolution, cameras)
        rays = self.modality.grid(resolution, cameras).to(self.device)
        rays = rays.expand(len(code), -1, -1)
        with torch.no_grad():
            depth = self.render.depth(self.family.bind(code.to(self.device)), rays).cpu()
        depth = self.modality.normalize(depth * self.render.unit_length)
        return self.modality.assemble(depth, resolution, cameras)

    def mesh(
        self,
        code: Code | NDArray[Any],
        resolution: Resolution | None = None,
        project: int = 0,
        frame: Tensor | None = None,
    ) -> Mesh | None:
        """The surface of one shape's code (1, tokens, width); None where there is none.

        project: Newton steps of the vertices onto the field's level set. frame: the centre and
        scale of the original mesh, (4,). Raises InputError where data are no shapes.
        """
        code = self.one_code(code)
        check_whole("project", project)
        if frame is not None and tuple((frame := as_numbers("frame", frame)).shape) != (4,):
            raise InputError(
                f"frame: the shape {tuple(frame.shape)} is not (4,), centre and scale."
            )
        function = self.function(code)
        on_device = lambda x: function(x.to(self.device)).to(x.device)
        self.check_memory(1, resolution)
        datum = self.modality.sample(self.values_of(code), resolution)
        return self.modality.mesh(datum, frame, on_device, project)

    def values_of(self, code: Code | NDArray[Any]) -> Function:
        """As ``function``, without gradients, and in pieces that fit a processor's cache."""
        code = self.one_code(code).to(self.device)
        return lambda x: self.modality.denormalize(
            next(self.evaluate(code, x.to(self.device))).cpu()
        )

    def function(self, code: Code | NDArray[Any]) -> Function:
        """The data of one code (1, tokens, width) as a function of the field's own coordinates.

        It gives values and gradients at any points, as to project a mesh's vertices.
        """
        weights = self.family.conditioner(self.one_code(code).to(self.device))
        return lambda x: self.modality.denormalize(self.link(self.family.field(x, weights)))

    def show(
        self,
        code: Code | NDArray[Any] | None = None,
        names: Sequence[str] = (),
        *,
        half: bool = False,
        height: int = HEIGHT,
    ) -> Shown:
        """A page that evaluates the functions of codes in the browser; a notebook shows it.

        >>> system.show(system.sample_codes(4))

        code: (functions, tokens, width), of one for each choice of the page's picker; None: of a
        run that fits one datum. names: of the functions. half: whether weights are half-precision
        numbers. height: of the frame, in pixels. ``fieldloom.export_field`` writes the page into a
        file.

        Raises InputError for data that no page shows, and where this system was put together by
        hand, without ``show_fn``.
        """
        code = self.as_code(code)
        check_whole("height", height, 1)
        if self.show_fn is None:
            raise InputError(
                "this system was put together without what shows it: call fieldloom.show(system, "
                "code)."
            )
        return self.show_fn(self, code, names, half, height)

    def reconstruct(self, data: Data | Array, resolution: Resolution | None = None) -> Data:
        """decode(encode(data)), at any resolution; views are rendered at their own cameras."""
        data = as_data(data)
        made = self.decode(self.encode(data), resolution, data.cameras)
        return replace(made, frame=data.frame, index=data.index, label=data.label)

    # -- refinement

    def refine(
        self,
        data: Data | Array,
        what: What = "codes",
        steps: int = 100,
        rate: float | None = None,
        points: int | None = None,
        seed: int = 0,
        on_step: OnStep | None = None,
    ) -> Refined:
        """Encode data, then optimise each signal's code (or weights) further with Adam.

        what:   ``codes``: the family stays as it is; ``weights``: all weights of each function.
        rate:   of Adam; None: of codes a tenth of each signal's root mean square, of weights, also
                where codes are weights, 1e-4.
        points: of a signal, sampled anew for each step; None: as many as a step of training saw.
                Views take theirs from those that a code is found from, never from those held out.
        seed:   of the sampled points.
        on_step: is called with the state of each stack's descent (``encoders.Step``).

        A signal whose PSNR did not rise keeps the encoder's answer. Raises InputError where there
        is no code to refine, and where the system cannot encode. Sources: ``encoders.refine``.
        """
        check_refinement(self.family, what, steps, rate, points)
        data, stage = self.as_data(data), self.settings.field_stage
        if not len(data):
            raise InputError("refine: there are no data.")
        start, points = self.encode(data), points or stage.points
        data = replace(data, index=torch.arange(len(data)))  # of the sampled points, and of rows
        first = self.modality.encoding(data.part(slice(1)))
        whole = first.coords.shape[1]
        seen = whole if points is None else min(points, whole)
        size = Encoder().batch_size(len(data), seen, stage.batch, stage.micro, stage.points)
        quality = lambda family, code, signal: self.with_family(family).fidelity(code, signal)
        signals = (signal.to(self.device) for signal in self.signals(data, size))
        batches = ((start[signal.index.to(start.device)], signal) for signal in signals)
        parts = (self.family, self.render, self.loss_at(first), quality)
        found = refine_batches(batches, len(data), *parts, what, steps, rate, points, seed, on_step)
        system = self.with_family(found.family)
        return Refined(system, found.code, start.cpu(), found.before, found.after)

    def with_family(self, family: Family) -> System:
        """A system with another family, and the same data, renderer and loss.

        It neither encodes nor samples.
        """
        if family is self.family:
            return self
        parts = (self.modality, self.render, self.loss_fn, family.to(self.device), Nothing(), None)
        return System(*parts, self.recipe, self.link, self.permit, self.show_fn)

    def unfold(self, code: Code) -> tuple[System, Code]:
        """A system whose codes are all weights of a function, and ``code`` as such codes.

        These are (batch, 1, weights). The system decodes such codes of other signals, too.
        """
        family = self.family.unfold(code)
        return self.with_family(family), family.conditioner.origin(len(code)).detach()

    def fidelity(self, code: Code, signal: Signal) -> Float[Tensor, " batch"]:
        """PSNR (of sound SNR) in dB of codes over the known points of signals, not clamped."""
        ratio = FIDELITY[self.modality.fidelity]
        coords = signal.coords.to(self.device)
        values = torch.cat(list(self.evaluate(code, coords, steep=self.steepness_of(signal))))
        made = self.modality.denormalize(values).cpu()
        true = self.modality.denormalize(signal.values).cpu()
        mask = torch.ones(true.shape[:2], dtype=torch.bool)
        mask = mask if signal.mask is None else signal.mask.cpu()
        pairs = zip(made, true, mask, strict=True)
        return torch.cat([ratio(m[there].mT[None], t[there].mT[None]) for m, t, there in pairs])

    # -- sampling

    def sample(
        self,
        count: int,
        resolution: Resolution | None = None,
        label: Label | None = None,
        seed: int = 0,
        cameras: Cameras | Mapping[str, Array] | None = None,
        **options: Any,
    ) -> Data:
        """New data from the prior, in [0, 1]. options: the prior's own (guidance, sampler ...).

        label: a class's name or number, or one for each datum; None: any class. cameras: as of
        ``decode``.
        """
        self.prior_for(count)
        self.check_memory(count, resolution, self.choose_cameras(cameras))  # before codes are drawn
        return self.decode(self.sample_codes(count, label, seed, **options), resolution, cameras)

    def sample_codes(
        self,
        count: int,
        label: Label | None = None,
        seed: int = 0,
        part: tuple[int, int] | None = None,
        **options: Any,
    ) -> Code:
        """New codes (count, tokens, width) from the prior; arguments as of ``sample``.

        part: as of ``Prior.sample``.

        Raises InputError where there is no trained prior, and for labels and options that it does
        not have.
        """
        prior = self.prior_for(count)
        self.eval()
        check_whole("seed", seed)
        number = lambda x: self.class_of(x) if isinstance(x, str) else x
        chosen: Any = (
            [number(x) for x in label] if isinstance(label, list | tuple) else number(label)
        )
        generator = Generator().manual_seed(seed)
        with during("sampling codes from the prior"):
            codes = prior.sample(count, chosen, generator=generator, part=part, **options)
        broken = len(codes) - int(codes.flatten(1).isfinite().all(1).sum())
        if broken:
            warnings.warn(
                f"the codes of {broken} of {len(codes)} samples hold NaN or infinite values: the "
                "prior is broken, and what is drawn of them means nothing.",
                stacklevel=2,
            )
        return codes

    def prior_for(self, count: int) -> Prior:
        """The prior. Raises InputError where there is none that draws as many codes."""
        if self.prior is None:
            raise InputError("this recipe has no prior to sample from.")
        if not self.generates:
            raise InputError(
                "the prior is not trained yet: training with "
                f"{name_argument('resume', True)} does it."
            )
        check_whole("count", count, 1)
        numbers = math.prod(self.family.code_shape)
        memory.check(f"{count} codes", 2 * memory.FLOAT * count * numbers, self.permit)
        return self.prior

    def class_of(self, label: str) -> int:
        """The number of a class by its name, or by its number as text. Raises InputError.

        Where a name is itself a number, texts are names alone: of the classes 1, 2 and 3 "0" is
        none.
        """
        names, label = self.settings.names, escape_bytes(label)
        if not names:
            raise InputError(f"label = {quote(label)}: the classes of this run have no names.")
        if label in names:
            return names.index(label)
        numbers = any(name.strip("-").replace(".", "", 1).isdecimal() for name in names)
        short = label.isascii() and label.isdecimal() and len(label) < 10
        if not numbers and short and int(label) < len(names):
            return int(label)
        raise unknown("class", label, names)

    def interpolate(
        self, a: Array, b: Array, steps: int = 16, resolution: Resolution | None = None
    ) -> Data:
        """From datum a to b (channel, *axes) along the line between their codes, ends included.

        Returns (steps, channel, *axes).
        """
        a, b = as_values(a, "a"), as_values(b, "b")
        if a.shape != b.shape:
            raise InputError(f"a and b: the shapes {tuple(a.shape)} and {tuple(b.shape)} differ.")
        own = (self.modality.channels, *self.modality.shape())
        codes = (tuple(self.family.code_shape), (1, *self.family.code_shape))
        if tuple(a.shape) in codes and tuple(a.shape) != own:
            raise InputError(
                f"a and b: the shape {tuple(a.shape)} is that of codes, and data {own} go here: "
                "interpolate_codes takes codes."
            )
        return self.decode(self.encode_between(torch.stack([a, b]), steps), resolution)

    def encode_between(self, data: Data | Array, steps: int = 16) -> Code:
        """Codes on the line from the first of two data to the second: (steps, tokens, width).

        Raises InputError for data that are not two, or scattered points.
        """
        data = self.as_data(data)
        if data.coords is not None:
            raise InputError("interpolate takes data on a grid: this run's are scattered points.")
        if len(data) != 2:
            raise InputError(f"data: {len(data)} of them, where codes go from one to another.")
        self._check_steps(steps)
        ends = self.encode(data)
        return interpolate_codes(ends[:1], ends[1:], steps)

    def sample_between(self, first: int, last: int, steps: int = 16) -> Code:
        """Codes from the sample of one seed to that of another: (steps, tokens, width).

        They lie on the great circle between them where the prior is N(0, I), else on the line.
        """
        self._check_steps(steps)
        a, b = (self.sample_codes(1, seed=seed) for seed in (first, last))
        return interpolate_codes(a, b, steps, self.has_standard_prior)

    def _check_steps(self, steps: int) -> None:
        """Raise InputError where ``steps`` is no positive whole number, or too many codes."""
        check_whole("steps", steps, 1)
        numbers = memory.FLOAT * steps * math.prod(self.family.code_shape)
        memory.check(f"steps = {steps}", numbers, self.permit)

    interpolate_codes = staticmethod(interpolate_codes)
