"""The network of the detector ``points-v1``: a PointNet whose weights come with the package."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources
from itertools import pairwise

import torch
from jaxtyping import Float
from safetensors.torch import load as read_tensors
from torch import Tensor, nn

from fieldloom.errors import InputError

POINT_WIDTHS = (3, 64, 64, 256)
"""Numbers of a point: its position, and after each layer."""
WIDTH = 256
"""Numbers of a cloud: the features."""

FILE = "points-v1.safetensors"
SHA256 = "ebab1883a7c3b8fd97ac0f08fdfd835fea1e3f45f701f07bdde3e1ec645cdb15"


class PointNet(nn.Module):
    """Clouds (n, points, 3) -> features (n, 256), after arXiv:1612.00593, without its transforms.

    The same layers see every point. Beside the maximum over the points, the published pooling,
    stands their mean, which also knows how many points lie at a place.
    """

    def __init__(self) -> None:
        super().__init__()
        self.point = nn.ModuleList(Layer(a, b) for a, b in pairwise(POINT_WIDTHS))
        self.cloud = Layer(2 * POINT_WIDTHS[-1], WIDTH)

    def forward(self, clouds: Float[Tensor, "n points 3"]) -> Float[Tensor, "n d"]:
        h = clouds.flatten(0, 1)
        for layer in self.point:
            h = layer(h)
        h = h.unflatten(0, clouds.shape[:2])
        return self.cloud(torch.cat([h.amax(1), h.mean(1)], 1))


class Layer(nn.Sequential):
    """A linear layer, batch normalisation and ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU())


@cache
def published_network() -> PointNet:
    """The network with the published weights, in float64 for evaluation.

    Raises InputError where the file is not the published one.
    """
    content = (resources.files("fieldloom.metrics") / FILE).read_bytes()
    check_hash(content)
    network = PointNet()
    network.load_state_dict(read_tensors(content))
    return network.double().eval().requires_grad_(False)


def check_hash(content: bytes) -> None:
    """Raise InputError unless these are the bytes of the published weights."""
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise InputError(
            f"The weights '{FILE}' of this installation are not the published ones: install "
            "fieldloom anew, or take evaluate.cloud_detector = 'cloud-statistics'."
        )
