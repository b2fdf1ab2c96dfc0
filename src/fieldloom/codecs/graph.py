"""Networks as graphs: neurons are nodes, and weights are edges; equivariant to permutations of the
hidden neurons."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from fieldloom.codecs.codec import BATCH, Codec
from fieldloom.codecs.graph_network import Edges, GraphDecoder, GraphEncoder, Nodes
from fieldloom.errors import InputError
from fieldloom.types import Code, Slot


class Graph(Codec):
    """An autoencoder of perceptrons with a latent vector for each neuron (inputs have none).

    The encoder passes messages along weights, so that permuting the hidden neurons of a field
    permutes its latents, and permuted latents decode to the same function. Learned vectors identify
    inputs and outputs; hidden neurons have one vector per layer (but see ``identities``). Numbers
    are standardised for each weight tensor.

    layout:  the slots of the code's weights (conditioner ``flat-weights``): the layers of one
             perceptron.
    width:   of the features of nodes and edges.
    rounds:  number of message-passing rounds of the encoder.
    latent:  numbers of a neuron's latent vector.
    order:   of the hidden neurons in the sequence of latents: as they are ``kept`` (fields that
             were fitted from a shared start inherit its order), by the ``norm`` of their incoming
             weights, largest first, or matched to the ``start`` (a linear assignment for each
             layer, from the first to the last, of incoming weights and bias: outgoing weights lead
             to neurons that are not matched yet).
    identities: whether learned vectors tell hidden neurons apart: one for each ``layer``, or one
             for each ``neuron``. The latter knows neurons by their place, so it needs fields from a
             shared start, their neurons ``kept`` in its order, and no longer follows permutations.

    Source: arXiv:2403.12143 (neural graphs) for the graph and its features. The decoder and the use
    of the latents are our own.
    """

    trained = True
    mean: Tensor  # of each number of a code
    std: Tensor
    start: Tensor
    middle: Tensor  # the mean of each number of a latent
    spread: Tensor  # and its standard deviation

    def __init__(
        self,
        code_shape: tuple[int, int],
        layout: Mapping[str, Slot] | None = None,
        width: int = 32,
        rounds: int = 2,
        latent: int = 32,
        order: Literal["kept", "norm", "start"] = "kept",
        identities: Literal["layer", "neuron"] = "layer",
    ) -> None:
        super().__init__(code_shape)
        if min(width, rounds, latent) < 1:
            raise InputError(
                f"codec 'graph': width = {width}, rounds = {rounds}, latent = {latent}: at least 1."
            )
        if identities == "neuron" and order != "kept":
            raise InputError(
                f"codec 'graph': identities = 'neuron' needs order = 'kept', not '{order}'."
            )
        layers = _layer_sizes(layout or {})
        self.shapes = [slot.shape for slot in (layout or {}).values()]
        self.sizes = [layers[0][0], *(out for _, out in layers)]
        self.order = order
        self.latent = latent
        total = math.prod(code_shape)
        self.register_buffer("mean", torch.zeros(total))
        self.register_buffer("std", torch.ones(total))
        self.register_buffer("start", torch.zeros(total))
        self.register_buffer("middle", torch.zeros(latent))
        self.register_buffer("spread", torch.ones(latent))
        own = identities == "neuron"
        self.encoder = GraphEncoder(self.sizes, width, rounds, latent, own)
        self.decoder = GraphDecoder(self.sizes, width, latent, own)

    @property
    def inner_shape(self) -> tuple[int, int]:
        return sum(self.sizes[1:]), self.latent

    def fit(self, codes: Code, labels: Tensor | None = None, start: Tensor | None = None) -> None:
        """Statistics of the weights, as ``prepare``, and of the latents of the trained encoder."""
        self.prepare(codes, labels, start)
        with torch.no_grad():
            parts = (self._to_graph(some) for some in codes.split(BATCH))
            latents = torch.cat([torch.cat(self.encoder(*part)[1:], 1) for part in parts])
        self.middle.copy_(latents.mean((0, 1)))
        self.spread.copy_(latents.std((0, 1), correction=0).clamp_min(1e-8))

    def prepare(
        self, codes: Code, labels: Tensor | None = None, start: Tensor | None = None
    ) -> None:
        """Means and standard deviations of each weight tensor."""
        flat, first = codes.flatten(1), 0
        for shape in self.shapes:
            own = slice(first, first + math.prod(shape))
            self.mean[own], first = flat[:, own].mean(), own.stop
            self.std[own] = flat[:, own].std(correction=0).clamp_min(1e-8)
        if start is not None:
            self.start.copy_(start.flatten())

    def loss(self, code: Code) -> Tensor:
        """Squared error of the standardised numbers, the mean over each code: (batch,)."""
        edges, biases = self._to_graph(code)
        decoded = self.decoder(self.encoder(edges, biases))
        return (self._concatenate(*decoded) - self._concatenate(edges, biases)).square().mean(1)

    def encode(self, code: Code) -> Tensor:
        """(batch, neurons, latent), layer by layer, standardised for each number of a neuron."""
        edges, biases = self._to_graph(code)
        latents = self.encoder(edges, biases)
        if self.order != "kept":
            latents = self._sort_neurons(latents, *self._to_weights(edges, biases))
        return (torch.cat(latents[1:], 1) - self.middle) / self.spread

    def decode(self, inner: Tensor) -> Code:
        parts = (inner * self.spread + self.middle).split(self.sizes[1:], 1)
        latents = [inner.new_zeros(len(inner), self.sizes[0], 0), *parts]
        return self._to_code(*self.decoder(latents))

    # -- a code as a graph, and back

    def _to_graph(self, code: Code) -> tuple[Edges, Edges]:
        """Standardised weights (batch, in, out) and biases (batch, out) of each layer."""
        flat = (code.flatten(1) - self.mean) / self.std
        return self._split_layers(flat)

    def _split_layers(self, flat: Tensor) -> tuple[Edges, Edges]:
        """Split numbers (batch, n) in the code's order into weights and biases of each layer."""
        sizes = [math.prod(shape) for shape in self.shapes]
        parts = flat[:, : sum(sizes)].split(sizes, 1)
        edges, biases = [], []
        for shape, part in zip(self.shapes, parts, strict=True):
            if len(shape) == 2:
                edges.append(part.unflatten(1, shape))
                biases.append(part.new_zeros(len(part), shape[1]))
            else:
                biases[-1] = part
        return edges, biases

    def _concatenate(self, edges: Edges, biases: Edges) -> Tensor:
        """The inverse of ``_split_layers``: numbers in the code's order, without padding."""
        layer, parts = -1, []
        for shape in self.shapes:
            layer += len(shape) == 2
            parts.append((edges if len(shape) == 2 else biases)[layer].flatten(1))
        return torch.cat(parts, 1)

    def _to_code(self, edges: Edges, biases: Edges) -> Code:
        """The inverse of ``_to_graph``; padding is zero."""
        flat = self._concatenate(edges, biases)
        count = flat.shape[1]
        flat = flat * self.std[:count] + self.mean[:count]
        padded = F.pad(flat, (0, math.prod(self.code_shape) - count))
        return padded.unflatten(1, self.code_shape)

    def _to_weights(self, edges: Edges, biases: Edges) -> tuple[Edges, Edges]:
        """Weights and biases of each layer, from standardised ones."""
        flat = self._concatenate(edges, biases)
        count = flat.shape[1]
        return self._split_layers(flat * self.std[:count] + self.mean[:count])

    # -- the order of hidden neurons

    def _sort_neurons(self, latents: Nodes, edges: Edges, biases: Edges) -> Nodes:
        """The latents, with the hidden neurons of each layer sorted as ``order`` says."""
        latents = list(latents)
        start = self._split_layers(self.start[None])
        for layer in range(1, len(self.sizes) - 1):
            if self.order == "norm":
                order = edges[layer - 1].norm(dim=1).argsort(dim=1, descending=True, stable=True)
            else:
                order = _match_to_start(edges, biases, start, layer)
            pick = lambda x, axis, order=order: x.take_along_dim(_index_along(order, x, axis), axis)
            latents[layer] = pick(latents[layer], 1)
            edges[layer - 1] = pick(edges[layer - 1], 2)
            biases[layer - 1] = pick(biases[layer - 1], 1)
            edges[layer] = pick(edges[layer], 1)
        return latents


def _index_along(order: Tensor, x: Tensor, axis: int) -> Tensor:
    """Reshape indices (batch, neurons) so that they index this axis of x."""
    return order.view(len(order), *(-1 if i == axis else 1 for i in range(1, x.ndim)))


def _match_to_start(edges: Edges, biases: Edges, start: tuple[Edges, Edges], layer: int) -> Tensor:
    """The neuron that matches each neuron of the start, in one layer: (batch, neurons)."""
    from scipy.optimize import linear_sum_assignment

    def profile(edges: Edges, biases: Edges) -> Tensor:
        return torch.cat([edges[layer - 1].mT, biases[layer - 1].unsqueeze(-1)], -1)

    mine, theirs = profile(edges, biases), profile(*start)
    # numbers are standardised: rounding of a matrix product does not matter
    costs = torch.cdist(theirs.expand(len(mine), -1, -1), mine).detach().cpu().numpy()
    found = [torch.from_numpy(linear_sum_assignment(cost)[1]) for cost in costs]
    return torch.stack(found).to(mine.device)


def _layer_sizes(layout: Mapping[str, Slot]) -> list[tuple[int, int]]:
    """(in, out) of each layer. Raises InputError where slots are not a chain of plain layers."""
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
            "'flat-weights' with all weights, of field 'siren' or 'fourier-mlp'."
        )
    return [(int(a), int(b)) for a, b in weights]
