"""What must not happen on a device, each as a function that makes it happen there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

import apart
from fieldloom.assembly import build, objective_of
from fieldloom.renderers import Direct


def numbers(count: int = 3) -> Tensor:
    return torch.ones(count, device=apart.NAME)


class Square(torch.autograd.Function):
    """A square whose gradient makes a factor on the CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * x * torch.full((len(x),), 2.0)


class Forgetful(Direct):
    """A renderer that adds zeros, and forgets to say where."""

    def __call__(self, function: Any, coords: Tensor, generator: Generator | None = None) -> Tensor:
        return function(coords) + torch.zeros(coords.shape[1], 1)


def with_a_forgetful_part(act: Callable[[Any, Tensor], Any]) -> Callable[[], Any]:
    def run() -> Any:
        system = build("mnif", "tiny").to(apart.NAME)
        system.render = Forgetful()
        return act(system, torch.rand(2, 1, 8, 8))

    return run


def train_step(system: Any, data: Tensor) -> None:
    batch = system.modality.observe(data).to(system.device)
    objective_of(system.train()).loss("field", batch)


def no_fault() -> None:
    """What a device takes: its own numbers, single ones of the CPU, and indices of the CPU."""
    x = numbers() * torch.tensor(2.0) + numbers()
    x[torch.tensor([0, 1])] = torch.tensor(1.0)
    torch.where(x > 1, x, torch.tensor(0.0)).cpu().numpy()
    x.copy_(torch.ones(3))


FAULTS: dict[str, Callable[[], Any]] = {
    "numbers of the CPU": lambda: numbers() + torch.ones(3),
    "a table on the CPU": lambda: torch.ones(3)[numbers().long()],
    "a number of the CPU in a list": lambda: torch.stack([numbers()[0], torch.tensor(1.0)]),
    "a sum on the CPU": lambda: torch.zeros(3).add_(numbers()),
    "a generator of the CPU": lambda: torch.rand(3, device=apart.NAME, generator=Generator()),
    "numpy": lambda: numbers().numpy(),
    "float64": lambda: numbers().double(),
    "float64 from the CPU": lambda: torch.ones(3, dtype=torch.float64).to(apart.NAME),
    "a gradient": lambda: Square.apply(numbers().requires_grad_()).sum().backward(),
    "a part in encoding": with_a_forgetful_part(lambda system, data: system.encode(data)),
    "a part in decoding": with_a_forgetful_part(
        lambda system, data: system.decode(torch.zeros(1, *system.family.code_shape))
    ),
    "a part in training": with_a_forgetful_part(train_step),
}


def meet(fault: str) -> str:
    """The error that a fault raises; nothing where it passes unseen."""
    try:
        (FAULTS | {"none": no_fault})[fault]()
    except (apart.WrongDevice, TypeError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def wait_for_the_device() -> dict[str, int]:
    """What ``apart`` counts of the ways to wait, each taken once."""
    x, few = numbers(), torch.tensor([0, 1])
    before = apart.WAITS.copy()
    x[0].item(), x.nonzero(), x[x > 0], torch.equal(x, x), x.cpu(), x.tolist()  # read
    few.to(apart.NAME), x.new_tensor([1.0, 2.0]), x[few]  # sent
    return dict(apart.WAITS - before)
