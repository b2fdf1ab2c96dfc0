"""The networks of the graph codec: messages along the weights of a perceptron."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fieldloom import memory

Edges = list[Tensor]
"""One tensor per layer: weights (batch, in, out), or biases (batch, out)."""
Nodes = list[Tensor]
"""One tensor per layer, inputs first: features (batch, neurons, width)."""


class GraphEncoder(nn.Module):
    """Weights and biases -> a vector for each neuron."""

    def __init__(
        self, sizes: Sequence[int], width: int, rounds: int, latent: int, own: bool = False
    ) -> None:
        super().__init__()
        self.nodes = identity_vectors(sizes, width, own)
        self.biases = nn.ModuleList(nn.Linear(1, width) for _ in sizes[1:])
        self.rounds = nn.ModuleList(
            MessageRound(len(sizes) - 1, width) for _ in memory.checked_range(rounds)
        )
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, latent))

    def forward(self, edges: Edges, biases: Edges) -> Nodes:
        batch = len(edges[0])
        h = [identity.expand(batch, -1, -1) for identity in expand_identities(self.nodes, edges)]
        for i, (lift, bias) in enumerate(zip(self.biases, biases, strict=True), 1):
            h[i] = h[i] + lift(bias.unsqueeze(-1))
        for exchange in self.rounds:
            h = exchange(h, edges)
        return [self.head(x) for x in h]


class MessageRound(nn.Module):
    """Messages along all edges in both directions, and an update of every node."""

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        linear_maps = lambda a, b: nn.ModuleList(nn.Linear(a, b) for _ in range(layers))
        self.weight, self.source = linear_maps(1, width), linear_maps(width, width)
        self.target = linear_maps(width, width)
        self.forth, self.back = linear_maps(width, width), linear_maps(width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers + 1))
        self.change = nn.ModuleList(
            nn.Sequential(nn.Linear(2 * width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            for _ in range(layers + 1)
        )

    def forward(self, h: Nodes, edges: Edges) -> Nodes:
        received = [torch.zeros_like(x) for x in h]
        for i, weights in enumerate(edges):
            ends = self.source[i](h[i]).unsqueeze(2) + self.target[i](h[i + 1]).unsqueeze(1)
            message = F.gelu(self.weight[i](weights.unsqueeze(-1)) + ends)
            received[i + 1] = received[i + 1] + self.forth[i](message.mean(1))
            received[i] = received[i] + self.back[i](message.mean(2))
        return [
            x + change(torch.cat([norm(x), own], -1))
            for x, own, norm, change in zip(h, received, self.norms, self.change, strict=True)
        ]


class GraphDecoder(nn.Module):
    """A vector for each neuron -> weights and biases."""

    def __init__(self, sizes: Sequence[int], width: int, latent: int, own: bool = False) -> None:
        super().__init__()
        self.nodes = identity_vectors(sizes, width, own)
        linear_maps = lambda a, b: nn.ModuleList(nn.Linear(a, b) for _ in sizes[1:])
        self.lift = linear_maps(latent, width)
        self.source, self.target = linear_maps(width, 2 * width), linear_maps(width, 2 * width)
        self.weight, self.bias = linear_maps(width, 1), linear_maps(width, 1)

    def forward(self, latents: Nodes) -> tuple[Edges, Edges]:
        g = [
            x.expand(len(latents[1]), -1, -1)
            for x in expand_identities(self.nodes, [x.transpose(1, 2) for x in latents[1:]])
        ]
        for i, (lift, z) in enumerate(zip(self.lift, latents[1:], strict=True), 1):
            g[i] = g[i] + lift(z)
        edges, biases = [], []
        for i in range(len(g) - 1):
            # a bilinear form of both ends, of rank ``width``, plus a network of their sum
            one, first = self.source[i](g[i]).chunk(2, -1)
            two, last = self.target[i](g[i + 1]).chunk(2, -1)
            sum_of = self.weight[i](F.gelu(first.unsqueeze(2) + last.unsqueeze(1))).squeeze(-1)
            edges.append(one @ two.mT / one.shape[-1] ** 0.5 + sum_of)
            biases.append(self.bias[i](F.gelu(g[i + 1])).squeeze(-1))
        return edges, biases


def identity_vectors(sizes: Sequence[int], width: int, own: bool = False) -> nn.ParameterList:
    """Learned vectors that identify nodes: one per input and per output, and one per hidden layer,
    or per hidden neuron where each has its ``own``."""
    counts = [n if own or i in (0, len(sizes) - 1) else 1 for i, n in enumerate(sizes)]
    return nn.ParameterList(nn.Parameter(torch.randn(1, n, width)) for n in counts)


def expand_identities(identities: nn.ParameterList, edges: Edges) -> list[Tensor]:
    """The identity vectors of every layer, repeated for its neurons: (1, neurons, width) each."""
    counts = [identities[0].shape[1], *(x.shape[2] for x in edges)]
    return [x.expand(-1, n, -1) for x, n in zip(identities, counts, strict=True)]
