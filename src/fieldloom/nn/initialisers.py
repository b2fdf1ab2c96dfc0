"""Initialisation of torch.nn's layers: of single linear layers, and of whole networks.

Weights are drawn first, then biases, from the generator (None: torch's default generator).
"""

from __future__ import annotations

import math

from torch import Generator, nn


def torch_linear(
    inputs: int, outputs: int, generator: Generator | None, bias: float | None = None
) -> nn.Linear:
    """Weights and biases in U(-1/sqrt(inputs), 1/sqrt(inputs)), as torch.nn.Linear draws them.

    bias: a constant value of all biases; None: draw them.
    """
    layer, bound = nn.Linear(inputs, outputs), inputs**-0.5
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    if bias is None:
        nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    else:
        nn.init.constant_(layer.bias, bias)
    return layer


def kaiming_linear(inputs: int, outputs: int, generator: Generator | None) -> nn.Linear:
    """Weights N(0, 2 / inputs), for ReLU (arXiv:1502.01852, eq. 10); biases 0.01 N(0, 1)."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, 0, math.sqrt(2 / inputs), generator=generator)
    nn.init.normal_(layer.bias, 0, 0.01, generator=generator)
    return layer


def lecun_linear(inputs: int, outputs: int, generator: Generator | None) -> nn.Linear:
    """Weights N(0, 1 / inputs), cut at two standard deviations; biases 0: the default of Haiku."""
    layer, std = nn.Linear(inputs, outputs), inputs**-0.5
    nn.init.trunc_normal_(layer.weight, 0, std, -2 * std, 2 * std, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def init_normal(network: nn.Module, std: float = 0.02) -> None:
    """Initialise linear maps and embeddings by N(0, std^2), and biases by zero, as GPT-2's code.

    Parameters of other modules are not changed.
    """
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=std)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
