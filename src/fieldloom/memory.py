"""Estimates of the memory that something would take, before any of it is allocated.

Parts are made by ``make_within_limit``: the sizes of their tensors are added up, and an error is
raised where the sum exceeds the machine's memory. Loops announce their tensors (``require``,
``checked_range``), since even counting a billion small tensors would take long.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.overrides import TorchFunctionMode

from fieldloom.errors import InputError, name_argument
from fieldloom.permit import Permit

OBJECT = 16 << 10
"""Bytes of a tensor in addition to its numbers. Measured: the Python and torch objects of a layer's
two tensors take 4 kB, and in training 11 kB more for a graph, gradients and moments; descent has
several graphs.
"""

UNCHECKED = 256 << 20
"""Bytes that are allocated before the rest is estimated."""

FLOAT = 4
"""Bytes of a number."""

Made = TypeVar("Made")


class TooMuch(Exception):
    """Tensors of ``count`` bytes were requested, more than the limit."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.count = count


@cache
def total_memory() -> int:
    """Bytes of this machine's memory, or of the limit of this process's control groups."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *_limits(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))])


def _limits(own: Path, root: Path) -> Iterator[int]:
    """The limits in bytes of this process's control groups, of both versions."""
    try:
        lines = own.read_text().splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, kinds, group = line.split(":", 2)
        if kinds not in ("", "memory"):
            continue
        top = root / kinds
        below = top / group.lstrip("/")
        name = "memory.limit_in_bytes" if kinds else "memory.max"
        for folder in (top, below, *below.parents):
            try:
                limit = (folder / name).read_text().strip()
            except OSError:  # a container sees its own group as the root
                continue
            if limit.isdigit():
                yield int(limit)


UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")


def format_bytes(count: int) -> str:
    """A number of bytes with its unit: ``65.5 TB``."""
    value = float(min(count, 10**30))
    for unit in UNITS:
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"more than 1000 {UNITS[-1]}"


def too_large(what: str, count: int, has: int, given: str = "") -> InputError:
    """The error for something that would take ``count`` bytes, where the machine has ``has``."""
    by = f" ({given})" if given else ""
    return InputError(
        f"{what} would take {format_bytes(count)}{by}, and this machine has {format_bytes(has)}: "
        f"take less; {name_argument('large', True)} tries all the same."
    )


def check(what: str, count: int, permit: Permit, has: int | None = None, given: str = "") -> None:
    """Raise InputError where ``count`` bytes exceed the memory, unless the user allows it.

    has: the memory in bytes; None: this machine's. given: the arguments that request the bytes.
    """
    has = total_memory() if has is None else has
    if count > has and not permit.large:
        raise too_large(what, count, has, given)


def bytes_of(shapes: Iterable[tuple[int, ...]]) -> int:
    """Bytes of float32 tensors of these shapes."""
    return sum(OBJECT + FLOAT * math.prod(shape) for shape in shapes)


SHAPED = {torch.empty, torch.full, torch.ones, torch.rand, torch.randn, torch.zeros}
"""Functions of torch whose argument is a shape."""

COUNTED: dict[Any, Callable[..., float]] = {
    torch.arange: lambda start, end=None, step=1, **_: math.ceil(
        start if end is None else (end - start) / step
    ),
    torch.eye: lambda n, m=None, **_: n * (n if m is None else m),
    torch.linspace: lambda start, end, steps, **_: steps,
    torch.randint: lambda *given, size=None, **_: math.prod(given[-1] if size is None else size),
    torch.randperm: lambda n, **_: n,
}
"""Functions of torch -> the numbers that they make. The device ``meta`` knows them, too, but for it
torch imports its compiler, which takes a second."""

WHOLE = {torch.randint, torch.randperm}
"""Functions that make whole numbers, as ``arange`` of such does."""

MAKING = SHAPED | set(COUNTED)


class Estimate(TorchFunctionMode):
    """Adds up the bytes of new tensors, and raises TooMuch before they exceed the limit.

    beyond: is called once, when the sum exceeds ``UNCHECKED`` bytes.
    """

    def __init__(self, limit: int, beyond: Callable[[], object] | None = None) -> None:
        super().__init__()
        self.limit, self.held, self.beyond = limit, 0, beyond

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in MAKING:
            more = OBJECT + _bytes(func, args, kwargs)
            self.require(more)
            self.held += more
            if self.beyond is not None and self.held > UNCHECKED:
                beyond, self.beyond = self.beyond, None
                beyond()
        return func(*args, **kwargs)

    def require(self, count: int) -> None:
        if self.held + count > self.limit:
            raise TooMuch(self.held + count)


def _bytes(make: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """The bytes of the tensor that one call would make."""
    if make in SHAPED:
        first = args[0] if args else kwargs.get("size", ())
        shape = first if isinstance(first, tuple | list) else args
        each = kwargs.get("dtype") or torch.float32
        return each.itemsize * abs(math.prod(shape))  # torch raises the error for negative sizes
    whole = make in WHOLE or (make is torch.arange and all(isinstance(n, int) for n in args))
    each = kwargs.get("dtype") or (torch.int64 if whole else torch.get_default_dtype())
    try:
        return each.itemsize * max(0, int(COUNTED[make](*args, **kwargs)))
    except (ArithmeticError, TypeError, ValueError):  # torch raises its own error
        return FLOAT * max((abs(n) for n in args if isinstance(n, int)), default=0)


_active: ContextVar[Estimate | None] = ContextVar("estimate", default=None)


@contextmanager
def _activate(estimate: Estimate) -> Iterator[None]:
    before = _active.set(estimate)
    try:
        with estimate:
            yield
    finally:
        _active.reset(before)


def make_within_limit(make: Callable[[], Made], what: str) -> Made:
    """The result of ``make``. Raises InputError before the memory of this machine is exceeded.

    Large tensors are only made after all of them are estimated: at ``UNCHECKED`` bytes ``make`` is
    called once more, for tensors without numbers (torch's device ``meta``). Within that device no
    error is raised.
    """
    if torch.get_default_device().type == "meta":
        return make()

    def dry() -> None:
        try:
            with _activate(Estimate(total_memory())), torch.device("meta"):
                make()
        except (
            Exception
        ) as error:  # parts that ``meta`` does not support are counted as they are made
            if TooMuch in (type(error), type(error.__cause__)):
                raise

    try:
        with _activate(Estimate(total_memory(), dry)):
            return make()
    except TooMuch as error:  # counted without the parts' names
        raise too_large(what, error.count, total_memory()) from None


def require(count: int) -> None:
    """Raise TooMuch where ``count`` more bytes would exceed the limit, if there is one."""
    now = _active.get()
    if now is not None:
        now.require(count)


def checked_range(count: int) -> Iterator[int]:
    """``range(count)`` for a loop that allocates the same amount in every round.

    Raises TooMuch where all rounds would exceed the limit, extrapolated from the first ones.
    """
    now = _active.get()
    before = 0 if now is None else now.held
    for i in range(count):
        if now is not None and i & (i - 1) == 0 and i:  # after 1, 2, 4, 8 ... rounds
            now.require((now.held - before) * (count - i) // i)
        yield i
