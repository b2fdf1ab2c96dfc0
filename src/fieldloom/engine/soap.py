"""SOAP of the package pytorch_optimizer, with a state that a checkpoint can hold exactly."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_optimizer import SOAP
from torch import Size, Tensor


class Soap(SOAP):
    """Adam in the eigenbases of Shampoo's preconditioner (arXiv:2409.11321).

    It keeps of each parameter both moments, and of each axis of matrices that has a preconditioner
    the average of products of the gradient (n, n) and its eigenvectors (n, n). In a state these are
    tensors by name, ``products{axis}`` and ``basis{axis}``. All are contiguous, since another
    layout, as a file would give back, multiplies in another order and rounds otherwise.
    """

    def axes_of(self, parameter: Tensor) -> list[int]:
        """The axes of a parameter that have a preconditioner; vectors have none."""
        largest = self.param_groups[0]["max_precondition_dim"]
        return [i for i, n in enumerate(parameter.shape) if n <= largest and parameter.dim() > 1]

    def moments_of(self, parameter: Tensor) -> dict[str, Size]:
        """What is kept of a parameter: name -> shape."""
        square = {i: Size([parameter.shape[i]] * 2) for i in self.axes_of(parameter)}
        return {
            **{"exp_avg": parameter.shape, "exp_avg_sq": parameter.shape, "step": Size()},
            **{f"{name}{i}": shape for name in NAMES for i, shape in square.items()},
        }

    def state_dict(self) -> dict[str, Any]:
        whole = super().state_dict()
        group = self.param_groups[0]
        flat = {}
        for index, own in whole["state"].items():
            axes = self.axes_of(group["params"][index])
            step = torch.tensor(float(group["step"]))
            flat[index] = {"exp_avg": own["exp_avg"], "exp_avg_sq": own["exp_avg_sq"], "step": step}
            flat[index] |= {f"{n}{i}": own[key][i] for n, key in NAMES.items() for i in axes}
        return whole | {"state": flat}

    def load_state_dict(self, whole: dict[str, Any]) -> None:
        group, state = self.param_groups[0], {}
        beta = group["shampoo_beta"]
        for index, own in whole["state"].items():
            parameter = group["params"][index]
            axes = range(parameter.dim())
            state[index] = {
                "exp_avg": own["exp_avg"],
                "exp_avg_sq": own["exp_avg_sq"],
                **{key: [own.get(f"{name}{i}", []) for i in axes] for name, key in NAMES.items()},
                "precondition_frequency": group["precondition_frequency"],
                "shampoo_beta": group["betas"][1] if beta is None else beta,
            }
        super().load_state_dict(whole | {"state": state})
        steps = {int(own["step"]) for own in whole["state"].values()}
        self.param_groups[0]["step"] = max(steps, default=0)

    def init_group(self, group: dict[str, Any], **kwargs: Any) -> None:
        super().init_group(group, **kwargs)
        for parameter in group["params"]:
            own = self.state.get(parameter, {})
            for name in own.keys() & {"exp_avg", "exp_avg_sq"}:
                own[name] = own[name].contiguous()

    @staticmethod
    def get_orthogonal_matrix(*args: Any, **kwargs: Any) -> list[Any]:
        return as_contiguous(SOAP.get_orthogonal_matrix(*args, **kwargs))

    def get_orthogonal_matrix_qr(self, *args: Any, **kwargs: Any) -> list[Any]:
        return as_contiguous(super().get_orthogonal_matrix_qr(*args, **kwargs))


def as_contiguous(bases: list[Any]) -> list[Any]:
    """The bases of all axes; that of an axis without a preconditioner is an empty list."""
    return [basis.contiguous() if len(basis) else basis for basis in bases]


NAMES = {"products": "GG", "basis": "Q"}
"""Our name of an axis's matrix -> the list of them in the package's state."""
