"""A device without a device: its numbers are on the CPU, but nothing may take them for its own.

``register`` makes torch know the device ``apart`` (its key for devices of third parties). A tensor
there wraps one of the CPU, so that every operation gives the CPU's numbers, with gradients of any
order, ``.item()`` and all. What a GPU refuses is refused here: tensors of two devices in one
operation, a generator of the CPU for numbers of the device, NumPy, and, as on MPS, float64.

Torch keeps a device until the process ends: register it in a process of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

NAME = "apart"

aten = torch.ops.aten
COPIES = {aten.copy_.default, aten._copy_from.default, aten._to_copy.default}
"""What goes from device to device."""
INDEXED = {
    aten.index.Tensor, aten._unsafe_index.Tensor, aten.index_put.default, aten.index_put_.default,
    aten._index_put_impl_.default,
}  # fmt: skip
"""What takes indices from the CPU for a tensor of any device; never the other way round."""

SCALARS = INDEXED | {aten.fill_.Tensor}
"""What takes single numbers from the CPU, apart from operations on each number by itself."""


class WrongDevice(RuntimeError):
    """What would fail on a GPU."""


class Apart(Tensor):
    """A tensor of the device; ``numbers`` are on the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    @torch.inference_mode(False)  # a view of a normal tensor must be one
    def __new__(cls, numbers: Tensor) -> Apart:
        if numbers.dtype in (torch.float64, torch.complex128):
            raise TypeError(f"{numbers.dtype} on the device: MPS has none.")
        return Tensor._make_wrapper_subclass(
            cls,
            numbers.shape,
            numbers.stride(),
            numbers.storage_offset(),
            dtype=numbers.dtype,
            device=torch.device(NAME, 0),
        )

    def __init__(self, numbers: Tensor) -> None:
        self.numbers = numbers

    def __repr__(self) -> str:
        return f"{self.numbers} on {NAME}"

    def tolist(self) -> Any:
        return self.cpu().tolist()  # torch has none for subclasses

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled():  # nothing has taken composed operations apart yet
            made = operation.decompose(*args, **kwargs)
            if made is not NotImplemented:
                return made
        return run(operation, args, kwargs)


def run(operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result of an operation, on the device that it belongs to. Raises WrongDevice."""
    check(operation, args, kwargs)
    WAITS.update(find_waits(operation, args, kwargs))
    asked = kwargs.get("device")
    stays = asked is None or torch.device(asked).type == NAME
    known: dict[int, Apart] = {}  # of operations in place

    def numbers_of(x: Tensor) -> Tensor:
        if not isinstance(x, Apart):
            return x
        known[id(x.numbers)] = x
        return x.numbers

    plain = {name: map_tensors(numbers_of, x) for name, x in kwargs.items()}
    if asked is not None:
        plain["device"] = "cpu"
    made = operation(*map_tensors(numbers_of, args), **plain)
    if operation is aten.copy_.default:
        return args[0]

    def place(x: Tensor) -> Tensor:
        own = known.get(id(x))
        if own is not None:
            assert own.shape == x.shape, f"{operation} resizes: {NAME} cannot"
            return own
        return Apart(x) if stays else x

    return map_tensors(place, made)


def map_tensors(change: Callable[[Tensor], Tensor], given: Any) -> Any:
    """Change the tensors among an operation's arguments or results."""
    if isinstance(given, Tensor):
        return change(given)
    if isinstance(given, list | tuple):
        return type(given)([map_tensors(change, x) for x in given])
    return given


def check(operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise WrongDevice where a GPU would refuse the operation."""
    leaves = flatten(args) + flatten(tuple(kwargs.values()))
    if any(isinstance(x, torch.Generator) for x in leaves):
        raise WrongDevice(f"{operation}: a generator of the CPU for numbers of the device.")
    if operation in COPIES:
        return
    indexed = operation in INDEXED
    tensors = [args[0], *flatten(args[2:])] if indexed else leaves
    scalars = torch.Tag.pointwise in operation.tags or operation in SCALARS
    here = [
        x for x in tensors if isinstance(x, Tensor) and not isinstance(x, Apart)
        if x.ndim or not scalars
    ]  # fmt: skip
    changed = args[0] if operation._schema.name.endswith("_") and args else None
    if isinstance(changed, Tensor) and not isinstance(changed, Apart):
        here.append(changed)
    if here:
        shapes = ", ".join(str(tuple(x.shape)) for x in here)
        raise WrongDevice(f"{operation}: tensors of the CPU, {shapes}, meet some of the device.")


# -- what makes the program wait for a GPU


WAITS: Counter[str] = Counter()
"""How often the device was read, and how often it was sent something of the CPU."""

ANSWERS = {
    "_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal",
    "unique_consecutive", "is_nonzero", "bincount", "_linalg_check_errors",
}  # fmt: skip
"""Operations whose result, or its shape, the program must know before it goes on."""


def find_waits(operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
    """``read`` and ``sent``, each as often as an operation waits for a GPU."""
    name, found = operation._schema.name.removeprefix("aten::"), []
    tensors = [x for x in flatten(args) if isinstance(x, Tensor)]
    if name in ANSWERS and any(isinstance(x, Apart) for x in tensors):
        found.append("read")
    if operation in INDEXED and isinstance(args[0], Apart):
        indices = [x for x in args[1] if isinstance(x, Tensor)]
        found += ["read"] * any(x.dtype in (torch.bool, torch.uint8) for x in indices)
        found += ["sent"] * any(not isinstance(x, Apart) for x in indices)
    if name == "_to_copy" and kwargs.get("device") is not None:
        found += find_crossing(torch.device(kwargs["device"]).type == NAME, args[0])
    if name == "copy_":
        found += find_crossing(isinstance(args[0], Apart), args[1])
    return found


def find_crossing(there: bool, source: Tensor) -> list[str]:
    """``sent`` or ``read`` where a copy of ``source``, to the device or not, leaves where it is."""
    if there == isinstance(source, Apart):
        return []
    return ["sent" if there else "read"]


def flatten(given: Any) -> list[Any]:
    """Arguments, and what lists of them hold."""
    return [y for x in given for y in (flatten(x) if isinstance(x, list | tuple) else [x])]


# -- what torch asks of a device


MADE = [
    "empty.memory_format", "empty_strided", "arange", "arange.start", "arange.start_step", "eye",
    "eye.m", "triu_indices",
]  # fmt: skip
"""What makes tensors for all that torch makes on a device."""


def making(name: str) -> Any:
    """An operation that makes a tensor, on the device."""
    operation = overload(name)
    on_cpu = {"device": "cpu", "pin_memory": None}
    return lambda *args, **options: Apart(operation(*args, **options | on_cpu))


def overload(name: str) -> Any:
    packet, _, own = name.partition(".")
    return getattr(getattr(aten, packet), own or "default")


def copy_from(source, target, non_blocking=False):
    WAITS.update(find_crossing(isinstance(target, Apart), source))
    target.numbers.copy_(source.numbers if isinstance(source, Apart) else source)
    return target


class Backend(_DummyBackendModule):
    """``torch.apart``."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


LIBRARIES: list[torch.library.Library] = []
"""Torch forgets what a library registers when it is dropped."""


def register() -> None:
    """Make torch know the device, until the process ends."""
    _setup_privateuseone_for_python_backend(NAME, Backend())
    own = torch.library.Library("aten", "IMPL")
    for name in MADE:
        own.impl(name, making(name), "PrivateUse1")
    own.impl("_copy_from", copy_from, "PrivateUse1")
    LIBRARIES.append(own)
    register_autocast()
    torch.accelerator.synchronize = lambda device=None, /: None  # Python's devices have no queue


NARROW = ["mm", "bmm", "addmm", "baddbmm", "matmul", "linear", "conv1d", "conv2d", "conv3d",
          "scaled_dot_product_attention"]  # fmt: skip
"""What autocast computes in bfloat16 on a GPU."""
WIDE = ["exp", "log", "log10", "log1p", "rsqrt", "reciprocal", "softplus", "pow.Tensor_Scalar",
        "softmax.int", "log_softmax.int", "sum", "sum.dim_IntList", "prod", "cumsum", "layer_norm",
        "group_norm", "logsumexp", "mse_loss", "binary_cross_entropy_with_logits"]  # fmt: skip
"""What autocast computes in float32 on a GPU."""


def register_autocast() -> None:
    """Autocast of the device, by CUDA's lists; all other operations keep their dtypes."""
    key = "AutocastPrivateUse1"
    rest = torch.library.Library("_", "IMPL")
    rest.fallback(torch.library.fallthrough_kernel, key)
    own = torch.library.Library("aten", "IMPL")
    for names, dtype in ((NARROW, torch.bfloat16), (WIDE, torch.float32)):
        for name in names:
            own.impl(name, casting(name, dtype), key)
    LIBRARIES.extend([rest, own])


def casting(name: str, dtype: torch.dtype) -> Any:
    """An operation on arguments that are cast to ``dtype`` first."""
    operation = overload(name)
    cast = lambda x: x.to(dtype) if x.is_floating_point() else x

    def run_cast(*args: Any, **kwargs: Any) -> Any:
        keys = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)
        with torch._C._ExcludeDispatchKeyGuard(keys):
            named = {name: map_tensors(cast, x) for name, x in kwargs.items()}
            return operation(*map_tensors(cast, args), **named)

    return run_cast
