"""How much memory something would take, reckoned before any of it is taken.

Parts are made within ``reckoned``: what they ask torch for is added up, and refused where it passes
what the machine has. Loops say beforehand what they would make (``ask``, ``rounds``), since a
billion small tensors take their time even to be counted.
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

from fieldloom.errors import InputError
from fieldloom.permit import Permit

OBJECT = 16 << 10
"""Bytes of a tensor beside its numbers. Measured: a layer's two tensors take 4 kB of Python's and
torch's objects, in training 11 kB more of one graph, gradients and moments; descent holds several.
"""

SURE = 256 << 20
"""Bytes that are made without reckoning all the rest first."""

FLOAT = 4
"""Bytes of a number."""

Made = TypeVar("Made")


class TooMuch(Exception):
    """What is asked for would take so many bytes, more than there are."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.count = count


@cache
def machine() -> int:
    """Bytes of this machine's memory, or of the limit that its processes are given."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *_limits(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))])


def _limits(own: Path, root: Path) -> Iterator[int]:
    """Those of the control groups that this process is in, of both versions."""
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
                said = (folder / name).read_text().strip()
            except OSError:  # a container sees its own group as the root
                continue
            if said.isdigit():
                yield int(said)


UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")


def size(count: int) -> str:
    """Bytes as people say them: ``65.5 TB``."""
    value = float(min(count, 10**30))
    for unit in UNITS:
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"more than 1000 {UNITS[-1]}"


def refusal(what: str, count: int, has: int, given: str = "") -> InputError:
    """The error for what would take so many bytes where there are fewer."""
    return InputError(
        f"{what} would take {size(count)}{f' ({given})' if given else ''}, and this machine has "
        f"{size(has)}: take less; --large (in Python large=True) tries all the same."
    )


def check(what: str, count: int, permit: Permit, has: int | None = None, given: str = "") -> None:
    """Raise InputError where so many bytes are more than there are, unless the user allows it.

    has: bytes that there are; None: this machine's. given: what asks for so many.
    """
    has = machine() if has is None else has
    if count > has and not permit.large:
        raise refusal(what, count, has, given)


def of_numbers(shapes: Iterable[tuple[int, ...]]) -> int:
    """Bytes of float32 tensors of these shapes."""
    return sum(OBJECT + FLOAT * math.prod(shape) for shape in shapes)


SHAPED = {torch.empty, torch.full, torch.ones, torch.rand, torch.randn, torch.zeros}
"""What is asked of them is a shape."""

MAKING = SHAPED | {torch.arange, torch.eye, torch.linspace, torch.randint, torch.randperm}


class Reckoning(TorchFunctionMode):
    """Adds up what torch is asked to make; raises TooMuch before what would pass the limit.

    beyond: is called once, when ``SURE`` is passed.
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
            self.ask(more)
            self.held += more
            if self.beyond is not None and self.held > SURE:
                beyond, self.beyond = self.beyond, None
                beyond()
        return func(*args, **kwargs)

    def ask(self, count: int) -> None:
        if self.held + count > self.limit:
            raise TooMuch(self.held + count)


def _bytes(make: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Of what one call would make."""
    if make in SHAPED:
        first = args[0] if args else kwargs.get("size", ())
        shape = first if isinstance(first, tuple | list) else args
        each = kwargs.get("dtype") or torch.float32
        return each.itemsize * abs(math.prod(shape))  # a negative one is torch's to refuse
    kept = {key: value for key, value in kwargs.items() if key != "generator"}
    try:
        return make(*args, **kept | {"device": "meta"}).nbytes
    except (RuntimeError, TypeError, OverflowError):  # more than torch can count
        return FLOAT * max((abs(n) for n in args if isinstance(n, int)), default=0)


_now: ContextVar[Reckoning | None] = ContextVar("reckoning", default=None)


@contextmanager
def _within(reckoning: Reckoning) -> Iterator[None]:
    before = _now.set(reckoning)
    try:
        with reckoning:
            yield
    finally:
        _now.reset(before)


def reckoned(make: Callable[[], Made], what: str) -> Made:
    """What ``make`` makes. Raises InputError before the memory of this machine is passed.

    Nothing large is made before all of it is reckoned: at ``SURE`` bytes ``make`` is called once
    more, for tensors without numbers (torch's device ``meta``). Where the caller asks for such
    tensors already, nothing is refused.
    """
    if torch.get_default_device().type == "meta":
        return make()

    def dry() -> None:
        try:
            with _within(Reckoning(machine())), torch.device("meta"):
                make()
        except Exception as error:  # a part that cannot be made so is counted as it is made
            if TooMuch in (type(error), type(error.__cause__)):
                raise

    try:
        with _within(Reckoning(machine(), dry)):
            return make()
    except TooMuch as error:  # beside its named parts
        raise refusal(what, error.count, machine()) from None


def ask(count: int) -> None:
    """Raise TooMuch where so many bytes more would pass the limit; without one, do nothing."""
    now = _now.get()
    if now is not None:
        now.ask(count)


def rounds(count: int) -> Iterator[int]:
    """``range(count)`` for a loop that makes the like in each round.

    Raises TooMuch where, as far as the first rounds tell, all of them would pass the limit.
    """
    now = _now.get()
    before = 0 if now is None else now.held
    for i in range(count):
        if now is not None and i & (i - 1) == 0 and i:  # after 1, 2, 4, 8 ... rounds
            now.ask((now.held - before) * (count - i) // i)
        yield i
