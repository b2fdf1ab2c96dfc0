"""How the loss and the gradients of a micro-batch are computed: eagerly, captured, or compiled.

A step of CAVIA is over a thousand small operations. *Eagerly* a processor launches one after the
other, and an accelerator waits for most of them. *Captured*, they are recorded once, as a CUDA
graph, and launched together. *Compiled*, the whole step with its gradients, those of the inner loop
included, is traced to one graph of plain operations, which inductor fuses. (``torch.compile`` alone
cannot do it: what it compiles has no second gradients.)

What is no tensor of the batch stays as it was when the step was recorded. So only an objective that
is ``capturable`` is recorded, each shape of batches for itself, and every recording proves itself:
its first loss and gradients must be those of the eager step, or else training goes on eagerly.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from fieldloom.engine import device as devices
from fieldloom.errors import FieldloomError, InputError, shorten
from fieldloom.objectives import AnyBatch, Objective
from fieldloom.objectives.objective import Logs
from fieldloom.progress import announce
from fieldloom.settings import Precision, Stage

Run = Callable[[Sequence[Tensor]], list[Tensor]]
"""A recorded step: from the tensors of a batch to its loss, its log and its gradients."""

ROUNDING: Mapping[Precision, float] = {"float32": 1e-3, "tf32": 1e-2, "bfloat16": 5e-2}
"""How far the gradients of a recorded step may be from the eager ones, relative to their norm."""

MOST = 64
"""Shapes of micro-batches that are recorded, each of which keeps memory."""


def choose_execution(
    stage: Stage, objective: Objective, device: torch.device
) -> Literal["eager", "captured", "compiled"]:
    """How the steps of a stage run on a device. Raises InputError where they cannot as asked."""
    asked, possible = stage.execution, devices.can_capture(device)
    if asked == "auto":
        return "captured" if possible and objective.capturable else "eager"
    if asked == "captured" and not possible:
        raise InputError(
            f"train: execution = 'captured' needs CUDA, and the device is '{device.type}': take "
            "'auto', 'eager' or 'compiled'."
        )
    if asked != "eager" and not objective.capturable:
        raise InputError(
            f"train: execution = '{asked}' repeats a step that was recorded, and steps of this "
            "objective differ in more than their data: take 'auto' or 'eager'."
        )
    return asked


class Execution:
    """Computes loss and gradients of micro-batches, and keeps the steps that were recorded.

    Raises InputError as ``choose_execution`` does.
    """

    def __init__(self, objective: Objective, stage: Stage, device: torch.device) -> None:
        self.objective, self.device, self.precision = objective, device, stage.precision
        self.mode = choose_execution(stage, objective, device)
        self.recorded: dict[Hashable, tuple[Layout, Run]] = {}
        self.full = False

    def differentiate(
        self,
        player: str,
        batch: AnyBatch,
        fraction: float,
        parameters: list[nn.Parameter],
        seed: Callable[[], None],
    ) -> tuple[Tensor, Logs]:
        """The loss of a micro-batch, detached, and its log; adds its gradients to ``.grad``.

        fraction: of the batch, by which the loss is multiplied before it is differentiated.
        seed: seeds torch's generators as of this micro-batch.
        """
        with devices.matmul_precision(self.device, self.precision):
            recorded = None
            if self.mode != "eager":
                recorded = self._recorded(player, batch, fraction, parameters, seed)
            seed()
            if recorded is None:
                with devices.autocast(self.device, self.precision):
                    loss, logs = self.objective.loss(player, batch)
                (loss * fraction).backward(inputs=parameters)
                return loss.detach(), logs
            layout, run = recorded
            loss, logs, gradients = layout.unpack(run(tensors_of(batch)))
            # what a graph has written is written anew by its next replay
            accumulate([parameters[i] for i in layout.used], gradients, fraction == 1)
            return loss, logs

    def _recorded(
        self,
        player: str,
        batch: AnyBatch,
        fraction: float,
        parameters: list[nn.Parameter],
        seed: Callable[[], None],
    ) -> tuple[Layout, Run] | None:
        """The recorded step for such a micro-batch; None, after a sentence, where there is none."""
        key = player, fraction, shape_of(batch)
        if key not in self.recorded:
            if len(self.recorded) == MOST:
                if not self.full:
                    self.full = True
                    announce(f"Steps of {MOST} shapes are {self.mode}; others run eagerly.")
                return None
            step = Step(
                self.objective, player, batch, fraction, parameters, self.device, self.precision
            )
            tensors, record = tensors_of(batch), RECORDERS[self.mode]
            seed()
            expected = step(tensors)
            loss, _, gradients = step.layout.unpack(expected)
            if not all(bool(x.isfinite().all()) for x in (loss, *gradients)):
                return None  # nothing to compare with: the loop says that the loss is no number
            try:
                run = record(step, tensors, self.device)
                seed()
                step.layout.compare(run(tensors), expected, ROUNDING[self.precision])
            except Exception as error:  # whatever is wrong with a recording, the step itself is not
                reason = shorten(f"{type(error).__name__}: {error}")
                announce(f"Steps cannot be {self.mode} here, and run eagerly: {reason}")
                self.mode = "eager"
                return None
            self.recorded[key] = step.layout, run
        return self.recorded[key]


@dataclass
class Layout:
    """What the tensors are that a step returns: its loss, its log, its gradients.

    used: places, among the parameters, of those that have gradients.
    """

    logs: list[str]
    used: list[int]

    def unpack(self, found: list[Tensor]) -> tuple[Tensor, Logs, list[Tensor]]:
        loss, rest = found[0], found[1:]
        count = len(self.logs)
        return loss, dict(zip(self.logs, rest, strict=False)), rest[count:]

    def compare(self, found: list[Tensor], expected: list[Tensor], rounding: float) -> None:
        """Raise FieldloomError where loss or gradients are further apart than rounding."""
        loss, _, gradients = self.unpack(found)
        right, _, expected = self.unpack(expected)
        for name, pair in {"loss": ([loss], [right]), "gradient": (gradients, expected)}.items():
            off = relative_difference(*pair)
            if not off <= rounding:
                raise FieldloomError(f"the {name} would be off by {off:.2g} of itself.")


class Step:
    """Loss, log and gradients of micro-batches like ``batch``, as a function of tensors alone."""

    def __init__(
        self,
        objective: Objective,
        player: str,
        batch: AnyBatch,
        fraction: float,
        parameters: list[nn.Parameter],
        device: torch.device,
        precision: Precision,
    ) -> None:
        self.loss = Loss(objective, player)
        self.batch, self.fraction, self.device = batch, fraction, device
        self.precision = precision
        self.state: dict[str, Tensor] = dict(self.loss.named_parameters())
        names = {id(p): name for name, p in self.state.items()}
        self.names = [names[id(p)] for p in parameters]
        self.state |= dict(self.loss.named_buffers())
        self.layout = Layout([], [])

    def __call__(
        self, tensors: Sequence[Tensor], state: Mapping[str, Tensor] | None = None
    ) -> list[Tensor]:
        """Its results for the tensors of a batch. state: weights in place of the objective's."""
        state = self.state if state is None else state
        parameters = [state[name] for name in self.names]
        with devices.autocast(self.device, self.precision, reuse=False):
            loss, logs = functional_call(self.loss, dict(state), (rebuild(self.batch, tensors),))
        found = torch.autograd.grad(loss * self.fraction, parameters, allow_unused=True)
        pairs = zip(parameters, found, strict=True)
        gradients = [None if g is None else laid_out_like(p, g) for p, g in pairs]
        self.layout = Layout(list(logs), [i for i, g in enumerate(gradients) if g is not None])
        return [loss.detach(), *logs.values(), *(g for g in gradients if g is not None)]


class Loss(nn.Module):
    """The loss of one player as a module, whose weights ``functional_call`` can replace."""

    def __init__(self, objective: Objective, player: str) -> None:
        super().__init__()
        self.objective, self.player = objective, player

    def forward(self, batch: AnyBatch) -> tuple[Tensor, Logs]:
        return self.objective.loss(self.player, batch)


# -- recordings


def capture_step(step: Run, tensors: list[Tensor], device: torch.device) -> Run:
    """A step whose kernels are launched together. Its results are written anew by each call."""
    static = [x.clone() for x in tensors]
    constants = Constants()

    def run() -> list[Tensor]:
        with constants:
            return step(static)

    graph, made = devices.capture(device, run)

    def replay(tensors: Sequence[Tensor], read: Constants = constants) -> list[Tensor]:
        torch._foreach_copy_(static, list(tensors))
        graph.replay()
        return made

    return replay


def compile_step(step: Step, tensors: list[Tensor], device: torch.device) -> Run:
    """A step as one function of inductor's; on a device that captures, its kernels are captured.

    Random numbers are drawn by torch's own kernels, so that they are those of the eager step.
    """
    from torch._inductor import compile as compile_graph  # which takes a second to import
    from torch.fx.experimental.proxy_tensor import make_fx

    names, constants = list(step.state), Constants()

    def plain(*given: Tensor) -> list[Tensor]:
        with constants:
            return step(given[len(names) :], dict(zip(names, given, strict=False)))

    traced = make_fx(plain)(*step.state.values(), *tensors)
    weights = [x.detach() for x in step.state.values()]  # in the same memory
    with torch.no_grad():
        options = {"fallback_random": True}
        fused = compile_graph(traced, [*weights, *tensors], options=options)

    def run(tensors: Sequence[Tensor]) -> list[Tensor]:
        with torch.no_grad():
            return list(fused(*weights, *tensors))

    return capture_step(run, tensors, device) if devices.can_capture(device) else run


RECORDERS: Mapping[str, Callable[[Step, list[Tensor], torch.device], Run]] = {
    "captured": capture_step,
    "compiled": compile_step,
}


class Constants(TorchFunctionMode):
    """What a step brings from the processor to its device: a graph cannot, and reads a copy.

    Each copy is made when the step runs for the first time. Raises FieldloomError where a later
    run brings something else.
    """

    def __init__(self) -> None:
        super().__init__()
        self.brought: list[tuple[Any, Tensor | None]] = []
        self.place = 0

    def __enter__(self) -> Constants:
        self.place = 0
        super().__enter__()
        return self

    def __torch_function__(
        self, function: Any, types: Any, given: tuple[Any, ...] = (), named: Any = None
    ) -> Any:
        named = named or {}
        if function not in BRINGS:
            return function(*given, **named)
        source = given[BRINGS[function]]
        if isinstance(source, Tensor) and source.device.type != "cpu":
            return function(*given, **named)
        if self.place == len(self.brought):
            made = function(*given, **named)
            crosses = made.device.type != "cpu"
            kept = source.clone() if isinstance(source, Tensor) else source
            self.brought.append((kept, made) if crosses else (None, None))
        before, copy = self.brought[self.place]
        self.place += 1
        if copy is None:
            return function(*given, **named)
        if not (torch.equal(before, source) if isinstance(source, Tensor) else before == source):
            raise FieldloomError("it brings other numbers from the processor each time")
        return copy


BRINGS: Mapping[Any, int] = {
    torch.tensor: 0, torch.as_tensor: 0, Tensor.to: 0, Tensor.type_as: 0, Tensor.new_tensor: 1,
}  # fmt: skip
"""What makes tensors of a device from others or from numbers, and which argument holds those."""


# -- batches and gradients


def map_tensors(change: Callable[[Tensor], Any], value: Any, known: dict[int, Any]) -> Any:
    """A batch with its tensors changed, each once, though it may occur twice."""
    if id(value) in known:
        return known[id(value)]
    if isinstance(value, Tensor):
        known[id(value)] = change(value)
    elif is_dataclass(value) and not isinstance(value, type):
        held = {f.name: getattr(value, f.name) for f in fields(value)}
        own = {name: map_tensors(change, x, known) for name, x in held.items()}
        known[id(value)] = replace(value, **own)
    else:
        return value
    return known[id(value)]


def tensors_of(batch: AnyBatch) -> list[Tensor]:
    """The different tensors of a batch; of one that all signals share in memory, a single row."""
    found: list[Tensor] = []

    def collect(x: Tensor) -> Tensor:
        shared = x.ndim > 1 and len(x) > 1 and x.stride(0) == 0
        found.append(x[:1] if shared else x)
        return x

    map_tensors(collect, batch, {})
    return found


def rebuild(batch: AnyBatch, tensors: Sequence[Tensor]) -> Any:
    """The batch with other tensors, as ``tensors_of`` gives them."""
    left = iter(tensors)
    return map_tensors(lambda x: next(left).expand_as(x), batch, {})


def shape_of(batch: AnyBatch) -> Hashable:
    """All of a batch but the numbers in its tensors."""

    def describe(value: Any) -> Hashable:
        if isinstance(value, Tensor):
            return value.shape, value.stride(), value.dtype
        if is_dataclass(value) and not isinstance(value, type):
            return type(value), *(describe(getattr(value, f.name)) for f in fields(value))
        return value

    return describe(batch), len(tensors_of(batch))


def laid_out_like(parameter: Tensor, gradient: Tensor) -> Tensor:
    """A gradient with the strides of its parameter, which optimizers rely on."""
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


@torch.no_grad()
def accumulate(parameters: list[nn.Parameter], gradients: list[Tensor], last: bool) -> None:
    """Add gradients to ``.grad``. last: whether they stay as they are until they are used."""
    pairs = list(zip(parameters, gradients, strict=True))
    begun = [(p.grad, g) for p, g in pairs if p.grad is not None]
    for parameter, gradient in pairs:
        if parameter.grad is None:
            parameter.grad = gradient if last else gradient.clone()
    if begun:
        torch._foreach_add_(*map(list, zip(*begun, strict=True)))


@torch.no_grad()
def relative_difference(found: list[Tensor], expected: list[Tensor]) -> float:
    """|found - expected| / |expected| of tensors, all of them together; 0 where both are 0."""
    norm = lambda tensors: torch.stack(torch._foreach_norm(tensors)).norm().item()
    off = norm(torch._foreach_sub(found, expected))
    return off / norm(expected) if off else 0.0
