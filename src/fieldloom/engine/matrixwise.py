"""Muon on the matrices among parameters, AdamW on the others, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Size, Tensor, nn

from fieldloom.errors import InputError

Betas = tuple[float, float]


def is_matrix(parameter: Tensor) -> bool:
    """Whether more than one axis of a parameter is longer than 1."""
    return sum(n > 1 for n in parameter.shape) > 1


def as_matrix(x: Tensor) -> Tensor:
    """A view of a tensor: its first axis that is longer than 1, against all others.

    Of a linear layer this is its matrix; of a mixture's bases (M, in, out) the matrix that maps M
    coefficients to weights.
    """
    return x.view(next(n for n in x.shape if n > 1), -1)


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) on matrices (``as_matrix``), AdamW on all other parameters.

    Muon's steps are scaled to the size of AdamW's (arXiv:2502.16982, section 2.2), so that both
    take one rate. Both are torch's own; this class holds what they keep of each parameter.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        momentum: float,
        betas: Betas,
        eps: float,
        weight_decay: float,
        fused: bool | None = None,
    ) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise InputError(
                f"optimizer 'muon' needs torch 2.9 or later (this is {torch.__version__}): "
                "'adamw' does without."
            )
        held = list(parameters)
        super().__init__(held, {"lr": lr, "fused": fused})
        self.matrices = {p: nn.Parameter(as_matrix(p.detach())) for p in held if is_matrix(p)}
        others = [p for p in held if p not in self.matrices]
        self.muon: torch.optim.Optimizer | None = None
        self.adamw: torch.optim.Optimizer | None = None
        if self.matrices:
            self.muon = torch.optim.Muon(
                list(self.matrices.values()),
                lr,
                weight_decay,
                momentum,
                adjust_lr_fn="match_rms_adamw",
            )
        if others:
            self.adamw = torch.optim.AdamW(others, lr, betas, eps, weight_decay, fused=fused)

    def moments_of(self, parameter: Tensor) -> dict[str, Size]:
        """What is kept of a parameter: name -> shape."""
        if is_matrix(parameter):
            return {"momentum_buffer": parameter.shape}
        return {"exp_avg": parameter.shape, "exp_avg_sq": parameter.shape, "step": Size()}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        rate = self.param_groups[0]["lr"]
        if self.muon is not None:
            self.muon.param_groups[0]["lr"] = rate
            for parameter, matrix in self.matrices.items():
                self.muon.state[matrix] = self._show(parameter, matrix)
            self.muon.step()
        if self.adamw is not None:
            self.adamw.param_groups[0]["lr"] = rate
            self.adamw.state = self.state
            self.adamw.step()

    def _show(self, parameter: nn.Parameter, matrix: nn.Parameter) -> dict[str, Tensor]:
        """Let a matrix view a parameter and its gradient; returns the view of its momentum."""
        matrix.data = as_matrix(parameter.data)
        matrix.grad = None
        if parameter.grad is None:
            return {}
        matrix.grad = as_matrix(parameter.grad.contiguous())
        own = self.state[parameter]
        if not own:
            own["momentum_buffer"] = parameter.new_zeros(parameter.shape)
        return {"momentum_buffer": as_matrix(own["momentum_buffer"])}
