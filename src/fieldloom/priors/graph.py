"""Networks as graphs: neurons are nodes, weights are edges, and the order of hidden neurons means
nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fieldloom import memory
from fieldloom.errors import InputError
from fieldloom.priors.codecs import TOGETHER, Codec
from fieldloom.types import Code, Slot

Edges = list[Tensor]
"""Of each layer: weights (batch, in, out)."""
Nodes = list[Tensor]
"""Of each layer, inputs first: features (batch, neurons, width)."""


class Graph(Codec):
    """An autoencoder of perceptrons with a latent vector for each neuron (inputs have none).

    Encoder and decoder exchange messages along weights, so that permuting the hidden neurons of a
    field permutes its latents, and what is decoded from permuted latents is the same function.
    Inputs and outputs are told apart by learned vectors, hidden neurons by their layer alone.
    Numbers are standardised for each weight tensor.

    layout:  the slots of the code's weights (conditioner ``flat-weights``): the layers of one
             perceptron.
    width:   of features of nodes and edges. rounds: of messages, in the encoder. latent: numbers
             that a neuron keeps.
    order:   of the hidden neurons in the sequence of latents: as they are ``kept`` (fields that
             were fitted from a shared start inherit its order), by the ``norm`` of their incoming
             weights, largest first, or matched to the ``start`` (a linear assignment a layer, first
             to last, of incoming weights and bias: outgoing ones lead to neurons that are not
             matched yet).

    Source: arXiv:2403.12143 (neural graphs) for the graph and its features; a decoder, and what is
    done with the latents, are ours.
    """

    trained = True

    def __init__(
        self,
        code_shape: tuple[int, int],
        layout: Mapping[str, Slot] | None = None,
        width: int = 32,
        rounds: int = 2,
        latent: int = 32,
        order: Literal["kept", "norm", "start"] = "kept",
    ) -> None:
        super().__init__(code_shape)
        if min(width, rounds, latent) < 1:
            raise InputError(
                f"codec 'graph': width = {width}, rounds = {rounds}, latent = {latent}: at least 1."
            )
        self.layers, self.sizes = _perceptron(layout or {}), []
        self.held = [(name, slot.shape) for name, slot in (layout or {}).items()]
        self.sizes = [self.layers[0][0], *(out for _, out in self.layers)]
        self.order = order
        self.latent = latent
        total = math.prod(code_shape)
        self.register_buffer("mean", torch.zeros(total))
        self.register_buffer("std", torch.ones(total))
        self.register_buffer("start", torch.zeros(total))
        self.register_buffer("middle", torch.zeros(latent))
        self.register_buffer("spread", torch.ones(latent))
        self.encoder = _Encoder(self.sizes, width, rounds, latent)
        self.decoder = _Decoder(self.sizes, width, latent)

    mean: Tensor
    std: Tensor
    start: Tensor
    middle: Tensor
    spread: Tensor

    @property
    def inner_shape(self) -> tuple[int, int]:
        return sum(self.sizes[1:]), self.latent

    def fit(self, codes: Code, labels: Tensor | None = None, start: Tensor | None = None) -> None:
        """As ``prepare``; and the same of latents as they are now."""
        self.prepare(codes, labels, start)
        with torch.no_grad():
            parts = (self._graph(some) for some in codes.split(TOGETHER))
            latents = torch.cat([torch.cat(self.encoder(*part)[1:], 1) for part in parts])
        self.middle.copy_(latents.mean((0, 1)))
        self.spread.copy_(latents.std((0, 1), correction=0).clamp_min(1e-8))

    def prepare(
        self, codes: Code, labels: Tensor | None = None, start: Tensor | None = None
    ) -> None:
        """Means and standard deviations of each weight tensor."""
        flat, first = codes.flatten(1), 0
        for _, shape in self.held:
            own = slice(first, first + math.prod(shape))
            self.mean[own], first = flat[:, own].mean(), own.stop
            self.std[own] = flat[:, own].std(correction=0).clamp_min(1e-8)
        if start is not None:
            self.start.copy_(start.flatten())

    def loss(self, code: Code) -> Tensor:
        """Squared error of the standardised numbers, the mean over each code: (batch,)."""
        edges, biases = self._graph(code)
        made = self.decoder(self.encoder(edges, biases))
        return (self._flat(*made) - self._flat(edges, biases)).square().mean(1)

    def encode(self, code: Code) -> Tensor:
        """(batch, neurons, latent), layer by layer, standardised for each number of a neuron."""
        edges, biases = self._graph(code)
        latents = self.encoder(edges, biases)
        if self.order != "kept":
            latents = self._ordered(latents, *self._own(edges, biases))
        return (torch.cat(latents[1:], 1) - self.middle) / self.spread

    def decode(self, inner: Tensor) -> Code:
        parts = (inner * self.spread + self.middle).split(self.sizes[1:], 1)
        latents = [inner.new_zeros(len(inner), self.sizes[0], 0), *parts]
        return self._code(*self.decoder(latents))

    # -- a code as a graph, and back

    def _graph(self, code: Code) -> tuple[Edges, Edges]:
        """Standardised weights (batch, in, out) and biases (batch, out) of each layer."""
        flat = (code.flatten(1) - self.mean) / self.std
        return self._parts(flat)

    def _parts(self, flat: Tensor) -> tuple[Edges, Edges]:
        parts = flat[:, : sum(math.prod(shape) for _, shape in self.held)].split(
            [math.prod(shape) for _, shape in self.held], 1
        )
        edges, biases = [], []
        for (_, shape), part in zip(self.held, parts, strict=True):
            if len(shape) == 2:
                edges.append(part.unflatten(1, shape))
                biases.append(part.new_zeros(len(part), shape[1]))
            else:
                biases[-1] = part
        return edges, biases

    def _flat(self, edges: Edges, biases: Edges) -> Tensor:
        """Numbers in the order of the code, without its padding."""
        layer, parts = -1, []
        for _, shape in self.held:
            layer += len(shape) == 2
            parts.append((edges if len(shape) == 2 else biases)[layer].flatten(1))
        return torch.cat(parts, 1)

    def _code(self, edges: Edges, biases: Edges) -> Code:
        flat = self._flat(edges, biases)
        count = flat.shape[1]
        flat = flat * self.std[:count] + self.mean[:count]
        padded = F.pad(flat, (0, math.prod(self.code_shape) - count))
        return padded.unflatten(1, self.code_shape)

    def _own(self, edges: Edges, biases: Edges) -> tuple[Edges, Edges]:
        """Weights as they are, from standardised ones."""
        flat = self._flat(edges, biases)
        count = flat.shape[1]
        return self._parts(flat * self.std[:count] + self.mean[:count])

    # -- the order of hidden neurons

    def _ordered(self, latents: Nodes, edges: Edges, biases: Edges) -> Nodes:
        latents = list(latents)
        start = self._parts(self.start[None])
        for layer in range(1, len(self.sizes) - 1):
            if self.order == "norm":
                place = edges[layer - 1].norm(dim=1).argsort(dim=1, descending=True, stable=True)
            else:
                place = _matched(edges, biases, start, layer)
            pick = lambda x, axis, place=place: x.take_along_dim(_along(place, x, axis), axis)
            latents[layer] = pick(latents[layer], 1)
            edges[layer - 1], biases[layer - 1] = (
                pick(edges[layer - 1], 2),
                pick(biases[layer - 1], 1),
            )
            edges[layer] = pick(edges[layer], 1)
        return latents


def _along(place: Tensor, x: Tensor, axis: int) -> Tensor:
    """Places (batch, neurons) as an index into an axis of x."""
    return place.view(len(place), *(-1 if i == axis else 1 for i in range(1, x.ndim)))


def _matched(edges: Edges, biases: Edges, start: tuple[Edges, Edges], layer: int) -> Tensor:
    """For each of the start's neurons of a layer, its match: (batch, neurons)."""
    from scipy.optimize import linear_sum_assignment

    def profile(edges: Edges, biases: Edges) -> Tensor:
        return torch.cat([edges[layer - 1].mT, biases[layer - 1].unsqueeze(-1)], -1)

    mine, theirs = profile(edges, biases), profile(*start)
    # standardised numbers: a matrix product's rounding is far below what tells neurons apart
    costs = torch.cdist(theirs.expand(len(mine), -1, -1), mine).detach().cpu().numpy()
    found = [torch.from_numpy(linear_sum_assignment(cost)[1]) for cost in costs]
    return torch.stack(found).to(mine.device)


def _perceptron(layout: Mapping[str, Slot]) -> list[tuple[int, int]]:
    """(in, out) of each layer. Raises InputError where the slots are no chain of plain layers."""
    shapes = [(name, slot.shape) for name, slot in layout.items()]
    weights = [shape for _, shape in shapes if len(shape) == 2]
    plain = all(len(shape) in (1, 2) for _, shape in shapes) and weights
    after = all(
        len(one) == 2 and one[1] == two[0]
        for (_, one), (_, two) in pairwise(shapes)
        if len(two) == 1
    )
    chained = all(one[1] == two[0] for one, two in pairwise(weights))
    if not plain or not after or not chained or len(shapes[0][1]) != 2:
        raise InputError(
            "codec 'graph' reads the weights and biases of one plain perceptron: take conditioner "
            "'direct' with all weights, of field 'siren' or 'fourier-mlp'."
        )
    return [(int(a), int(b)) for a, b in weights]


class _Encoder(nn.Module):
    """Weights and biases -> a vector for each neuron."""

    def __init__(self, sizes: Sequence[int], width: int, rounds: int, latent: int) -> None:
        super().__init__()
        self.nodes = _identities(sizes, width)
        self.biases = nn.ModuleList(nn.Linear(1, width) for _ in sizes[1:])
        self.rounds = nn.ModuleList(
            _Round(len(sizes) - 1, width) for _ in memory.checked_range(rounds)
        )
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, latent))

    def forward(self, edges: Edges, biases: Edges) -> Nodes:
        batch = len(edges[0])
        h = [identity.expand(batch, -1, -1) for identity in _expanded(self.nodes, edges)]
        for i, (lift, bias) in enumerate(zip(self.biases, biases, strict=True), 1):
            h[i] = h[i] + lift(bias.unsqueeze(-1))
        for exchange in self.rounds:
            h = exchange(h, edges)
        return [self.head(x) for x in h]


class _Round(nn.Module):
    """Messages along all edges, to both ends; then every node changes."""

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        several = lambda a, b: nn.ModuleList(nn.Linear(a, b) for _ in range(layers))
        self.weight, self.source, self.target = (
            several(1, width),
            several(width, width),
            several(width, width),
        )
        self.forth, self.back = several(width, width), several(width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers + 1))
        self.change = nn.ModuleList(
            nn.Sequential(nn.Linear(2 * width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            for _ in range(layers + 1)
        )

    def forward(self, h: Nodes, edges: Edges) -> Nodes:
        heard = [torch.zeros_like(x) for x in h]
        for i, weights in enumerate(edges):
            ends = self.source[i](h[i]).unsqueeze(2) + self.target[i](h[i + 1]).unsqueeze(1)
            message = F.gelu(self.weight[i](weights.unsqueeze(-1)) + ends)
            heard[i + 1] = heard[i + 1] + self.forth[i](message.mean(1))
            heard[i] = heard[i] + self.back[i](message.mean(2))
        return [
            x + change(torch.cat([norm(x), own], -1))
            for x, own, norm, change in zip(h, heard, self.norms, self.change, strict=True)
        ]


class _Decoder(nn.Module):
    """A vector for each neuron -> weights and biases."""

    def __init__(self, sizes: Sequence[int], width: int, latent: int) -> None:
        super().__init__()
        self.nodes = _identities(sizes, width)
        several = lambda a, b: nn.ModuleList(nn.Linear(a, b) for _ in sizes[1:])
        self.lift = several(latent, width)
        self.source, self.target = several(width, 2 * width), several(width, 2 * width)
        self.weight, self.bias = several(width, 1), several(width, 1)

    def forward(self, latents: Nodes) -> tuple[Edges, Edges]:
        g = [
            x.expand(len(latents[1]), -1, -1)
            for x in _expanded(self.nodes, [x.transpose(1, 2) for x in latents[1:]])
        ]
        for i, (lift, z) in enumerate(zip(self.lift, latents[1:], strict=True), 1):
            g[i] = g[i] + lift(z)
        edges, biases = [], []
        for i in range(len(g) - 1):
            # a product of both ends, which a rank of ``width`` bounds, and a network of their sum
            one, first = self.source[i](g[i]).chunk(2, -1)
            two, last = self.target[i](g[i + 1]).chunk(2, -1)
            sum_of = self.weight[i](F.gelu(first.unsqueeze(2) + last.unsqueeze(1))).squeeze(-1)
            edges.append(one @ two.mT / one.shape[-1] ** 0.5 + sum_of)
            biases.append(self.bias[i](F.gelu(g[i + 1])).squeeze(-1))
        return edges, biases


def _identities(sizes: Sequence[int], width: int) -> nn.ParameterList:
    """What tells nodes apart: a vector for each input and each output, one for a hidden layer."""
    own = [n if i in (0, len(sizes) - 1) else 1 for i, n in enumerate(sizes)]
    return nn.ParameterList(nn.Parameter(torch.randn(1, n, width)) for n in own)


def _expanded(identities: nn.ParameterList, edges: Edges) -> list[Tensor]:
    """Identities (1, neurons, width) of every layer."""
    counts = [identities[0].shape[1], *(x.shape[2] for x in edges)]
    return [x.expand(-1, n, -1) for x, n in zip(identities, counts, strict=True)]
