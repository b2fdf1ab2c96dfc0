"""The only file that names a device, a thread count or a cache."""

from __future__ import annotations

import math
import os
import platform
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from fieldloom.errors import InputError
from fieldloom.memory import total_memory
from fieldloom.nn.kernels import PLAIN, Kernels
from fieldloom.nn.kernels.proof import Device
from fieldloom.progress import announce
from fieldloom.settings import Precision


def pick(name: str = "auto") -> torch.device:
    """``auto`` is the accelerator that this machine has, of any maker, or else the CPU."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    there = ["cpu"] if found is None else [found.type, "cpu"]
    name = there[0] if name == "auto" else name
    try:
        device = torch.device(name)
    except RuntimeError:  # no type of a device, or no number
        device = None
    if device is None or device.type not in there:
        raise InputError(
            f"device '{name}' is not available here; there are: auto, {', '.join(there)}."
        )
    return device


def claim(device: torch.device, number: int) -> None:
    """Let this process, of this number on its machine, have an accelerator of its own."""
    if device.type != "cpu":
        torch.accelerator.set_device_index(number % torch.accelerator.device_count())


def adds_up_by(device: torch.device) -> str:
    """How processes add up the gradients that are on a device: a backend of torch.distributed."""
    nccl = device.type == "cuda" and torch.distributed.is_nccl_available()
    return "nccl" if nccl else "gloo"


def threads_of_part(count: int) -> int:
    """How many threads each of so many processes of this machine has."""
    return max(1, torch.get_num_threads() // count)


@contextmanager
def divided(count: int) -> Iterator[None]:
    """A context in which this process has its part of the threads, beside ``count`` - 1 others."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads_of_part(count))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def autocast(
    device: torch.device, precision: Precision, reuse: bool = True
) -> AbstractContextManager[Any]:
    """A context for a forward pass of this precision.

    reuse: whether a weight is rounded once for all its uses; a graph must round it each time.
    """
    if precision != "bfloat16":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=reuse)


@contextmanager
def matmul_precision(device: torch.device, precision: Precision) -> Iterator[None]:
    """A context for forward and backward passes: whether float32 products are rounded to TF32.

    Only CUDA has TF32. There ``float32`` means what it says for convolutions, too, which torch
    would round to TF32.
    """
    if device.type != "cuda":
        yield
        return
    backends: list[Any] = [torch.backends.cuda.matmul, torch.backends.cudnn]
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


def fuses_optimizers(device: torch.device) -> bool:
    """Whether an optimizer should update all weights in one kernel. On a CPU that rounds apart."""
    return device.type == "cuda"


@runtime_checkable
class Graph(Protocol):
    """Kernels that were captured, on the memory that they were captured on."""

    def replay(self) -> None: ...


def can_capture(device: torch.device) -> bool:
    """Whether the kernels of a step can be captured, and launched together."""
    return device.type == "cuda"


def capture(
    device: torch.device, run: Callable[[], list[torch.Tensor]]
) -> tuple[Graph, list[torch.Tensor]]:
    """The kernels of ``run`` as a CUDA graph, and its results, which each replay writes anew.

    Before, it runs twice, with other random numbers each time: libraries set themselves up in the
    first run, and the second may not wait for the device.

    Graphs share the memory of what is computed on the way, so that the results of one must be used
    up before another one is replayed. Random numbers come from torch's default generator: a replay
    hands its seed and offset at that time to the kernels (CUDAGeneratorState::replay_prologue), so
    that after the same ``torch.manual_seed`` they draw what they would draw without a graph.

    Raises RuntimeError where the kernels cannot be captured.
    """
    with torch.cuda.device(device):
        stream = _capture_stream(device)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            run()
            with _refuse_waiting():
                run()
            graph = torch.cuda.CUDAGraph()
            # the thread that reads ahead pins memory meanwhile, which the default would not allow
            mode = "thread_local"
            try:
                with torch.cuda.graph(graph, _graph_pool(device), stream, capture_error_mode=mode):
                    made = run()
            except BaseException:  # torch's generator would go on as if it were captured
                own = torch.cuda.default_generators[torch.cuda.current_device()]
                own.graphsafe_set_state(own.clone_state())
                raise
        torch.cuda.current_stream().wait_stream(stream)
        return graph, made


@contextmanager
def _refuse_waiting() -> Iterator[None]:
    """A context in which what waits for CUDA raises RuntimeError.

    Most of what cannot be captured waits, and a capture that has failed is harder to clean up.
    """
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream of all captures of a device: graphs that share memory need the same."""
    return torch.cuda.Stream(device)


@cache
def _graph_pool(device: torch.device) -> Any:
    return torch.cuda.graph_pool_handle()


def kernels(device: torch.device) -> Kernels:
    """What fields compute by on a device: Triton's kernels on a GPU, or else torch's operations.

    A step that is compiled has torch's, which the compiler fuses itself.
    """
    if device.type != "cuda" or torch.compiler.is_compiling():
        return PLAIN
    return triton_kernels(device)


OLDEST_TRITON = (3, 3)
"""Triton 3.2, of torch 2.6, aborts the process where it compiles gradients in bfloat16."""


@cache
def triton_kernels(device: torch.device, precision: str | None = None) -> Kernels:
    """Triton's kernels for a GPU; torch's operations, and a sentence, where there is no Triton.

    precision: of products of float32, as ``proof.Device`` has it; None: TF32 where torch allows it.
    """
    try:
        import triton
    except ImportError:
        announce(f"{device}: fields have no kernels of their own here, since triton is missing.")
        return PLAIN
    number = triton.__version__
    if tuple(int(part) for part in number.split(".")[:2]) < OLDEST_TRITON:
        announce(f"{device}: fields have no kernels of their own with triton {number}: 3.3 has.")
        return PLAIN
    from fieldloom.nn.kernels.fused import fused_kernels

    matmul = torch.backends.cuda.matmul
    return fused_kernels(
        Device(
            here=lambda x: torch.cuda.device(x.device),
            capturing=torch.cuda.is_current_stream_capturing,
            precision=lambda: precision or ("tf32" if matmul.allow_tf32 else "ieee"),
        )
    )


MICRO_BYTES = 4 << 20
"""Measured (benchmarks/speed.py): larger is hardly faster; a step of CAVIA holds 120 of them."""


def micro_batch(device: torch.device, batch: int, points: int, width: int) -> int:
    """Signals that are trained on at a time, a divisor of the batch where one is near.

    On a CPU one hidden layer (points, width) of float32 takes MICRO_BYTES, so that it stays in the
    cache; on an accelerator the whole batch is taken, as far as a quarter of its free memory holds
    some two hundred hidden layers (three inner steps, their gradients and second-order graph).
    """
    layer = 4 * points * width
    if device.type == "cpu":
        fitting = MICRO_BYTES / layer
    elif device.type == "cuda":
        fitting = torch.cuda.mem_get_info(device)[0] / 4 / (200 * layer)
    else:
        fitting = (2 << 30) / (200 * layer)
    rounds = math.ceil(batch / max(1, min(batch, int(fitting))))
    return math.ceil(batch / rounds)


def reads_at_once(device: torch.device) -> bool:
    """Whether a number is there as soon as it is computed, so that reading it waits for nothing."""
    return device.type == "cpu"


RESIDENT = 1 / 4
"""The fraction of an accelerator's free memory that data may take which stay on it."""
AHEAD = 4
"""How many steps are read ahead for an accelerator, of data that do not stay on it."""


def holds(device: torch.device, size: int) -> bool:
    """Whether data of this many bytes are worth keeping on a device, and fit."""
    if device.type == "cpu":
        return False  # they are there
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else total_memory()
    return size <= RESIDENT * free


def steps_ahead(device: torch.device, streamed: bool = False) -> int:
    """How many steps a thread should read ahead of a device.

    streamed: whether what is read lies on a disk, for which a processor would wait, too.
    """
    return (1 if streamed else 0) if device.type == "cpu" else AHEAD


def pin(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor that the device can copy while the program goes on; as it is, where it cannot."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor
    with torch.cuda.device(device):
        return tensor.pin_memory()


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on a device; one that is pinned is copied while the program goes on."""
    return tensor.to(device, non_blocking=device.type == "cuda")


@contextmanager
def keep_random(device: torch.device) -> Iterator[None]:
    """A context after which torch's generators of the CPU, and of a CUDA device, are as before."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that the process (CPU) or the allocator (accelerator) has held."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would begin at the peak of the process that started this one
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def forget_peak(device: torch.device) -> None:
    """Reset the peak to what is held now, where the system can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_bytes(b"5")


def memory(device: torch.device) -> int:
    """Bytes of memory in all, used or not."""
    return torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else total_memory()


def held_memory(device: torch.device) -> int:
    """Bytes that are held now; on a CPU by the process, or its peak where only that is known."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    status = Path("/proc/self/status")
    if not status.exists():
        return peak_memory(device)
    line = next(x for x in status.read_text().splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def environment(device: torch.device) -> dict[str, Any]:
    """What a result depends on apart from the recipe: versions, processor, threads."""
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        named = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        processor = named[0].partition(":")[2].strip() if named else processor
    versions = {}
    for package in ("fieldloom", "torch", "numpy", "safetensors"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "source tree"
    return {
        "versions": versions,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }
