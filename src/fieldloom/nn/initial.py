"""Initial draws of whole networks."""

from __future__ import annotations

from torch import nn


def init_normal(network: nn.Module, std: float = 0.02) -> None:
    """N(0, std^2) for linear maps and embeddings, zero for biases: as GPT-2's released code does.

    Parameters of other modules stay as they are.
    """
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=std)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
