"""The values that flow between the parts, with their shapes.

Every code is (batch, tokens, width), every signal a set of (coords, values), and every weight
carries a leading axis of 1 (shared by the batch) or batch (each signal its own).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Generator, Tensor

from fieldloom.constants import place
from fieldloom.errors import InputError
from fieldloom.portion import draw_rows

Coords = Float[Tensor, "batch points coord"]
Values = Float[Tensor, "batch points value"]
Code = Float[Tensor, "batch tokens width"]
Weights = Mapping[str, Tensor]
Function = Callable[[Tensor], Tensor]
LossFn = Callable[[Tensor, Tensor], Tensor]
Which = slice | Sequence[int] | Tensor
"""Which items of a batch: a slice, their indices, or a mask of booleans, one an item."""

RAY = 6
"""Numbers of a ray: its origin, and its direction, which need not be a unit vector."""


class Slot(NamedTuple):
    """A weight, bias or input of a field, by name: what a conditioner must provide.

    shape: a weight's last two axes are (in, out); axes before them belong to the field (tiles).
    init:  draws one tensor of that shape; a mixture of M calls it M times.
    role:  ``fixed`` slots are saved buffers that nothing conditions or trains; ``input`` slots are
           read by the field and belong to no layer.
    passes: matrices of a slot that one point meets: 1, the corners of a tiled weight's blend, or 0
           (looked up, or met by other slots alone).
    table: whether a point reads a few rows of it: training has a group and an optimizer for these.
    """

    shape: tuple[int, ...]
    init: Callable[[Generator | None], Tensor]
    role: Literal["weight", "bias", "input", "fixed"]
    passes: int = 1
    table: bool = False


def layer_of(slot: str) -> str:
    """The layer that a slot belongs to: ``3.weight`` -> ``3``."""
    return slot.rpartition(".")[0]


class Domain(NamedTuple):
    """Dimensions of the map that a renderer needs from a field: (coord | direction) -> value."""

    coord: int
    direction: int
    value: int


@dataclass(frozen=True)
class Signal:
    """A batch of signals, each a set of observations; any subset is a signal again.

    coords (batch, points, coord) and values (batch, points, value); ``index`` is that of each
    signal in its data set; ``grid`` the axes that the points fill, row-major, or None when they are
    scattered; ``mask`` tells which points are known (None: all); ``label`` is the class; ``whole``
    is the number of signals of the batch that these are a part of (None: they are all of it).
    """

    coords: Coords
    values: Values
    index: Int[Tensor, " batch"]
    grid: tuple[int, ...] | None = None
    mask: Bool[Tensor, "batch points"] | None = None
    label: Int[Tensor, " batch"] | None = None
    whole: int | None = None

    def __len__(self) -> int:
        return len(self.coords)

    def subset(
        self, points: int, generator: Generator | None = None, together: bool = False
    ) -> Signal:
        """``points`` observations of each signal, drawn without replacement; the grid is lost.

        together: the same points of every signal, so that signals on one grid can be compared.
        """
        batch, count = self.coords.shape[:2]
        shape = (1 if together else batch, count)
        order = draw_uniform(shape, generator, self.coords.device)
        return self._at(order.topk(points, dim=1).indices.expand(batch, -1))

    def sample_known(self, points: int, generator: Generator | None = None) -> Signal:
        """``points`` observations of each signal, its known ones before any other."""
        rank = draw_uniform(self.coords.shape[:2], generator, self.coords.device)
        if self.mask is not None:
            rank = rank + self.mask
        return self._at(rank.topk(min(points, rank.shape[1]), dim=1).indices)

    def _at(self, keep: Int[Tensor, "batch few"]) -> Signal:
        """These observations of each signal."""
        pick = lambda x, at: x.gather(1, at.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
        mask = None if self.mask is None else self.mask.gather(1, keep)
        shared = keep.stride(0) == 0 == self.coords.stride(0)
        few = pick(self.coords[:1], keep[:1]) if shared else pick(self.coords, keep)
        coords, values = few.expand(len(self), -1, -1), pick(self.values, keep)
        return replace(self, coords=coords, values=values, grid=None, mask=mask)

    def thin(self, points: int) -> Signal:
        """At most ``points`` observations, the same points of every signal, whatever the batch."""
        count = self.coords.shape[1]
        if points >= count:
            return self
        keep = place(_permutation(count), self.coords.device)[:points]
        mask = None if self.mask is None else self.mask[:, keep]
        coords, values = self.coords[:, keep], self.values[:, keep]
        return replace(self, coords=coords, values=values, grid=None, mask=mask)

    def hide(self, mask: Bool[Tensor, "batch points"]) -> Signal:
        """The same grid with only the points of ``mask`` known."""
        return replace(self, mask=mask if self.mask is None else self.mask & mask)

    def part(self, signals: slice) -> Signal:
        """Some of the signals of the batch."""
        found = self._map(lambda x: x[signals])
        few = len(found) < len(self)
        return replace(found, whole=self.whole or len(self)) if few else found

    def joined(self, others: Sequence[Signal]) -> Signal:
        """These signals, and then others of the same kind; what all share stays shared."""
        if not others:
            return self
        every = [self, *others]

        def join(name: str) -> Tensor | None:
            parts = [getattr(one, name) for one in every]
            if parts[0] is None:
                return None
            first, count = parts[0][:1], sum(map(len, parts))
            if first.ndim > 1 and all(is_shared(x) and torch.equal(x[:1], first) for x in parts):
                return first.expand(count, *first.shape[1:])
            return torch.cat(parts)

        names = ("coords", "values", "index", "mask", "label")
        joined: dict[str, Any] = {name: join(name) for name in names}
        return replace(self, **joined)

    def to(self, device: torch.device | str) -> Signal:
        return self.map(lambda x: x.to(device))

    def map(self, change: Callable[[Tensor], Tensor]) -> Signal:
        """Every tensor changed; what all signals share is changed once, and stays shared."""
        return self._map(lambda x: _change_shared(x, change))

    def _map(self, change: Callable[[Tensor], Tensor]) -> Signal:
        changed: dict[str, Any] = {
            f.name: change(value)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, **changed)


@lru_cache(maxsize=4)
def _permutation(count: int) -> Tensor:
    """The order in which ``Signal.thin`` takes points, always the same."""
    return torch.randperm(count, generator=Generator().manual_seed(0), device="cpu")


def is_shared(x: Tensor) -> bool:
    """Whether all rows of a tensor are known to be the same: in memory, or there is one alone."""
    return len(x) == 1 or x.stride(0) == 0


def _change_shared(x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """A tensor changed; of one whose rows are the same in memory only the first, for all."""
    shared = x.ndim > 1 and len(x) > 1 and x.stride(0) == 0
    return change(x[:1]).expand_as(x) if shared else change(x)


@dataclass(frozen=True)
class Batch:
    """Encode the context, predict the target; equal for plain reconstruction."""

    context: Signal
    target: Signal

    def __len__(self) -> int:
        return len(self.context)

    def describe(self) -> str:
        """Which data these are, for a message."""
        return f"the signals {self.target.index.tolist()}"

    def part(self, signals: slice) -> Batch:
        context = self.context.part(signals)
        if self.target is self.context:
            return Batch(context, context)
        return Batch(context, self.target.part(signals))

    def joined(self, others: Sequence[Batch]) -> Batch:
        """These signals, and then those of others that are parts of the same batch."""
        context = self.context.joined([other.context for other in others])
        if self.target is self.context:
            return Batch(context, context)
        return Batch(context, self.target.joined([other.target for other in others]))

    def within(self, count: int) -> Batch:
        """The same signals as a part of a batch of ``count``."""
        context = replace(self.context, whole=count)
        if self.target is self.context:
            return Batch(context, context)
        return Batch(context, replace(self.target, whole=count))

    def to(self, device: torch.device | str) -> Batch:
        return self.map(lambda x: x.to(device))

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Every tensor changed; a target that is the context stays so."""
        context = self.context.map(change)
        if self.target is self.context:
            return Batch(context, context)
        return Batch(context, self.target.map(change))


@runtime_checkable
class Lazy(Protocol):
    """Values that are read only when they are needed, for example from many files.

    ``shape`` (items, ...) and ``dtype`` are known beforehand. ``read`` returns some of the items,
    of a slice or of indices (n,), as a tensor of that dtype: uint8, or floats in [0, 1]. It caches
    nothing, so that a set may be larger than memory.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def read(self, which: slice | Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Cameras:
    """Pinhole cameras of views, the same for all items or some for each.

    c2w:        camera-to-world (views, 4, 4) or (batch, views, 4, 4); OpenGL: x right, y up, the
                camera looks along -z.
    intrinsics: fx, fy, cx, cy in pixels of the images: (views, 4) or (batch, views, 4).

    Raises InputError where the shapes differ from these, or there are no views.
    """

    c2w: Tensor
    intrinsics: Tensor

    def __post_init__(self) -> None:
        parts = (self.c2w, self.intrinsics)
        if not all(isinstance(x, Tensor) and x.is_floating_point() for x in parts):
            raise InputError("cameras are two tensors of floats: c2w and intrinsics.")
        c2w, intrinsics = (tuple(x.shape) for x in parts)
        right = len(c2w) in (3, 4) and c2w[-2:] == (4, 4) and intrinsics == (*c2w[:-2], 4)
        if not right or c2w[-3] == 0:
            raise InputError(
                f"cameras of the shapes {c2w} and {intrinsics} are not (views, 4, 4) and (views, "
                "4), nor the same with a batch in front."
            )

    @property
    def count(self) -> int:
        """How many views there are."""
        return self.c2w.shape[-3]

    @property
    def batched(self) -> bool:
        """Whether each item of a batch has cameras of its own."""
        return self.c2w.ndim == 4

    def views(self, which: Which) -> Cameras:
        """Some of the views, of every item."""
        return Cameras(self.c2w[..., which, :, :], self.intrinsics[..., which, :])

    def part(self, which: Which) -> Cameras:
        """The cameras of some items of the batch; cameras that all items share stay as they are."""
        return self._map(lambda x: x[which]) if self.batched else self

    def to(self, device: torch.device | str) -> Cameras:
        return self._map(lambda x: x.to(device))

    def _map(self, change: Callable[[Tensor], Tensor]) -> Cameras:
        return Cameras(change(self.c2w), change(self.intrinsics))


def draw_uniform(shape: Sequence[int], generator: Generator | None, device: torch.device) -> Tensor:
    """Numbers in [0, 1) on a device, drawn on the generator's own; None: by torch's default.

    Those of a portion of a batch are drawn as for the whole batch (``portion.draw_rows``).
    """
    where = device if generator is None else generator.device
    draw = lambda shape: torch.rand(tuple(shape), generator=generator, device=where)
    return draw_rows(draw, shape).to(device)


def draw_normal(shape: Sequence[int], generator: Generator | None, device: torch.device) -> Tensor:
    """Standard normal numbers on a device, drawn as ``draw_uniform`` draws its own."""
    where = device if generator is None else generator.device
    draw = lambda shape: torch.randn(tuple(shape), generator=generator, device=where)
    return draw_rows(draw, shape).to(device)


def as_unit_floats(values: Tensor) -> Tensor:
    """Values as floats in [0, 1]: uint8 divided by 255, floats as they are."""
    bytes_ = values.dtype == torch.uint8
    return values.to(torch.get_default_dtype()) / 255 if bytes_ else values


def as_float64(x: Tensor) -> Tensor:
    """x in float64, on the CPU where its device has none."""
    try:
        return x.double()
    except TypeError:
        return x.cpu().double()


@dataclass(frozen=True)
class Data:
    """A batch of data as people have them: what sources read, and systems take and return.

    values:  grids (batch, channel, *axes), views (batch, view, channel, height, width), or samples
             (batch, points, value). uint8 in 0 .. 255 or floats in [0, 1]; a tensor (perhaps
             memory-mapped), or ``Lazy`` values, which are read a part at a time.
    cameras: of views, one for each (batch, view), in the coordinates of the original.
    coords:  of samples: (batch, points, coord).
    frame:   where each mesh stood: (batch, 4), centre x, y, z and scale, such that
             original = coordinates * scale + centre.
    surface: points of the true surface, for metrics: (batch, points, 3), in the modality's
             coordinates.
    index:   of each item in its data set; label: its class. Both (batch,).

    Raises InputError where one of these does not fit the values.
    """

    values: Tensor | Lazy
    cameras: Cameras | None = None
    coords: Tensor | None = None
    frame: Tensor | None = None
    surface: Tensor | None = None
    index: Tensor | None = None
    label: Tensor | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.values, Tensor | Lazy):
            kind = type(self.values).__name__
            raise InputError(f"data: a {kind} where a tensor is needed, uint8, or floats.")
        dtype = self.values.dtype
        if dtype != torch.uint8 and not dtype.is_floating_point:
            raise InputError(
                f"data: values of {dtype}, where uint8 in 0 .. 255, or floats in [0, 1], are right."
            )
        shape = self.shape
        if len(shape) < 2:
            raise InputError(f"data: the shape {shape} is that of no data.")
        items, parts = shape[:2]  # of an item: channels, views, or samples
        expected: dict[str, tuple[int | None, ...]] = {
            "cameras": (items, parts, 4, 4),
            "coords": (items, parts, None),
            "frame": (items, 4),
            "surface": (items, None, 3),
            "index": (items,),
            "label": (items,),
        }
        for name, right in expected.items():
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, Cameras if name == "cameras" else Tensor):
                wanted = "cameras are" if name == "cameras" else "a tensor is"
                raise InputError(f"data: {name} of {type(value).__name__} where {wanted} needed.")
            found = tuple((value.c2w if isinstance(value, Cameras) else value).shape)
            fits = len(found) == len(right) and all(
                n in (None, m) for n, m in zip(right, found, strict=True)
            )
            if not fits:
                wanted = ", ".join("any" if n is None else str(n) for n in right)
                raise InputError(
                    f"data: {name} of the shape {found} where ({wanted}) belongs to values of the "
                    f"shape {shape}."
                )
            if (
                isinstance(value, Tensor)
                and name in ("index", "label")
                and (value.is_floating_point() or value.is_complex())
            ):
                raise InputError(f"data: {name} of {value.dtype} where whole numbers are needed.")

    @classmethod
    def of(cls, data: Data | Tensor) -> Data:
        """Data as they are, or a tensor as the values of data that have nothing else."""
        return data if isinstance(data, Data) else cls(data)

    def __len__(self) -> int:
        return self.shape[0]

    # -- data are no tensor: their values are one

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.tensor.cpu().numpy(), dtype=dtype, copy=copy or None)

    def __getitem__(self, which: Any) -> NoReturn:
        raise InputError(
            "data have no [...]: data.part([0]) is one datum with what belongs to it, data.tensor "
            "the values."
        )

    if not TYPE_CHECKING:  # which would let mypy take any name

        def __getattr__(self, name: str) -> NoReturn:
            own = hasattr(Tensor, name) and not name.startswith("_")
            hint = ": their values have, the tensor data.tensor" if own else ""
            raise AttributeError(f"data have no '{name}'{hint}.")

    @classmethod
    def __torch_function__(cls, func: Any, *rest: Any, **named: Any) -> NoReturn:
        name = getattr(func, "__name__", "a function")
        raise InputError(
            f"torch's {name} takes tensors: data.tensor is that of these data's values."
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the values."""
        return tuple(self.values.shape)

    @property
    def tensor(self) -> Tensor:
        """The values, all of them, as they are stored: lazy ones are read."""
        return self.values if isinstance(self.values, Tensor) else self._read(slice(None))

    def extras(self) -> dict[str, Tensor]:
        """Name -> tensor of the further data (cameras, labels ...), with one row per item."""
        found = {"frame": self.frame, "coords": self.coords, "surface": self.surface,
                 "index": self.index, "label": self.label}  # fmt: skip
        if self.cameras is not None:
            found |= {"c2w": self.cameras.c2w, "intrinsics": self.cameras.intrinsics}
        return {name: value for name, value in found.items() if value is not None}

    def part(self, which: Which) -> Data:
        """Some of the items, as they are stored; lazy values are read, and only these.

        For a slice and for a single index the values are a view, so that a memory-mapped file is
        not read. Raises IndexError for an index that is out of range, and InputError for what is
        no ``Which``.
        """
        if not isinstance(which, slice):
            which = torch.as_tensor(which).cpu()  # these index tensors of any device
            mask = which.dtype == torch.bool
            if which.ndim != 1 or (len(which) and which.is_floating_point()):
                raise InputError("data.part: a slice, a list of indices, or one boolean an item.")
            if mask and len(which) != len(self):
                raise InputError(f"data.part: {len(which)} booleans for {len(self)} items.")
            which = which.nonzero().flatten() if mask else which.long()
            if len(which) == 1:
                first = range(len(self))[int(which)]
                which = slice(first, first + 1)
        return self._replace(self._read(which), lambda x: x[which])

    def _read(self, which: slice | Tensor) -> Tensor:
        """Some of the values. Raises InputError for lazy ones that are not what they said."""
        if isinstance(self.values, Tensor):
            return self.values[which]
        found: Any = self.values.read(which)
        count = len(range(len(self))[which]) if isinstance(which, slice) else len(which)
        expected = ((count, *self.shape[1:]), self.values.dtype)
        if not isinstance(found, Tensor) or (tuple(found.shape), found.dtype) != expected:
            told = (getattr(found, "shape", None), getattr(found, "dtype", None))
            raise InputError(
                f"data: lazy values of the shape {expected[0]} and {expected[1]} were read as a "
                f"{type(found).__name__} of {told[0] and tuple(told[0])} and {told[1]}."
            )
        return found

    def to(self, device: torch.device | str) -> Data:
        """The data with values, coordinates, indices and labels on a device.

        What says where data stand in the world stays where it is, in float64, which not every
        device has: cameras, which a modality places before it moves them, frames and surfaces.
        """
        return self.map(lambda x: x.to(device))

    def map(self, change: Callable[[Tensor], Tensor]) -> Data:
        """Values, coordinates, indices and labels changed, as ``to`` moves them."""
        named = {name: getattr(self, name) for name in ("coords", "index", "label")}
        changed: dict[str, Any] = {n: change(x) for n, x in named.items() if x is not None}
        return replace(self, values=change(self.tensor), **changed)

    def rows(self, here: Tensor, there: Tensor) -> Data:
        """Some of the items, by their indices beside each tensor: in memory, and on its device."""
        if len(here) == 1:
            return self.part(slice(int(here), int(here) + 1))
        pick = lambda x: x[here if x.device == here.device else there]
        return self._replace(pick(self.tensor), pick)

    def as_float(self) -> Data:
        """Values as floats in [0, 1]."""
        return replace(self, values=as_unit_floats(self.tensor))

    def clamp(self) -> Data:
        """Values clamped to [0, 1]."""
        return replace(self, values=self.tensor.clamp(0, 1))

    def _replace(self, values: Tensor, change: Callable[[Tensor], Tensor]) -> Data:
        changed: dict[str, Any] = {
            f.name: change(value)
            for f in fields(self)
            if f.name != "values" and isinstance(value := getattr(self, f.name), Tensor)
        }
        cameras = None if self.cameras is None else self.cameras._map(change)
        return replace(self, values=values, cameras=cameras, **changed)
