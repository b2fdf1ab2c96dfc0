"""What each token of a code changes in the decoded data (arXiv:2310.05624, Fig. 5)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from fieldloom.errors import InputError
from fieldloom.progress import PATIENCE, track
from fieldloom.system import System
from fieldloom.types import Cameras, Code, Data

FRACTION = 0.1
"""The fraction of a map's pixels that ``locality`` sums."""


class Influence(NamedTuple):
    """A decoded code, not clamped, and how much it changes without each of some tokens.

    whole: (channel, height, width); maps: (tokens, height, width), at least 0.
    """

    whole: Tensor
    maps: Tensor


@dataclass(frozen=True)
class InfluenceAnalysis:
    """The influence of some tokens on some data.

    tokens:     indices of the tokens.
    originals:  (data, channel, height, width) in [0, 1].
    influences: of each datum.
    """

    tokens: list[int]
    originals: Tensor
    influences: list[Influence]

    @property
    def localities(self) -> Tensor:
        """(data, tokens); NaN of a token without influence."""
        return torch.stack([locality(own.maps) for own in self.influences])

    @property
    def mean_locality(self) -> float | None:
        """Over all tokens with influence; None where there is none."""
        found = self.localities
        found = found[~found.isnan()]
        return found.mean().item() if len(found) else None

    def draw(self) -> Tensor:
        """Images (rows * columns, 3, height, width) in [0, 1], a row a datum.

        Its columns are the original, its reconstruction, and the map of each token, by its own
        largest value.
        """
        in_colours = lambda image: image.cpu().clamp(0, 1).expand(3, -1, -1)
        images: list[Tensor] = []
        for original, own in zip(self.originals, self.influences, strict=True):
            images += [in_colours(original), in_colours(own.whole), *heat_maps(own.maps)]
        return torch.stack(images)

    def as_json(self) -> dict[str, Any]:
        """The content of ``influence.json``."""
        found = self.localities
        return {
            "locality": self.mean_locality,
            "of": "fraction of a token's influence in the 10 % of pixels with most, mean of maps",
            "data": len(self.influences),
            "tokens": self.tokens,
            "without influence": int(found.isnan().sum()),
            "localities": [[None if x != x else x for x in row] for row in found.tolist()],
            "mean differences": [own.maps.mean((1, 2)).tolist() for own in self.influences],
        }


def analyse_influence(
    system: System, data: Data, count: int = 8, seed: int = 0
) -> InfluenceAnalysis:
    """The influence of ``count`` random tokens on each of these data; of views, on the first one
    that is held out.

    Raises InputError where signals have no codes, and where data are neither images nor views.
    """
    tokens = draw_tokens(system, count, seed)
    originals, influences = [], []
    for i in track(range(len(data)), "measuring influence", len(data), "data", PATIENCE):
        datum = data.part([i]).as_float()
        view = system.modality.one_view(datum)
        cameras = view.cameras
        if cameras is not None:  # one camera for all codes that are decoded
            cameras = Cameras(cameras.c2w[0], cameras.intrinsics[0])
        influences.append(influence(system, system.encode(datum), tokens, cameras))
        image = system.modality.images(view.tensor)
        assert image is not None  # else ``influence`` has raised
        originals.append(image[0])
    return InfluenceAnalysis(tokens, torch.stack(originals), influences)


def draw_tokens(system: System, count: int, seed: int = 0) -> list[int]:
    """Indices of ``count`` tokens of a code, or of all where it has fewer, in rising order."""
    if not system.family.has_code:
        raise InputError("influence: this run's signals have no codes, so they have no tokens.")
    generator = Generator().manual_seed(seed)
    return sorted(torch.randperm(system.family.code_shape[0], generator=generator)[:count].tolist())


def influence(
    system: System, code: Code, tokens: Sequence[int], cameras: Cameras | None = None
) -> Influence:
    """The absolute difference, mean over channels, that replacing one token by zero makes.

    code: (1, tokens, width). tokens: indices of those replaced, one a map. cameras: of views, one.
    Raises InputError where data are neither images nor views.
    """
    codes = code.detach().repeat(len(tokens) + 1, 1, 1)
    codes[torch.arange(len(tokens)), torch.tensor(tokens)] = 0
    images = system.modality.images(system.predict(codes, cameras=cameras).tensor.detach())
    if images is None:
        raise InputError("influence is drawn of pictures and of views: this run has neither.")
    return Influence(images[-1], (images[:-1] - images[-1]).abs().mean(1))


def locality(maps: Tensor, fraction: float = FRACTION) -> Tensor:
    """How much of the sum of each map lies in the ``fraction`` of its pixels with most: (maps,).

    From ``fraction``, where all pixels are alike, to 1; NaN where a map is zero.
    """
    flat = maps.flatten(1)
    most = flat.topk(math.ceil(fraction * flat.shape[1])).values
    return most.sum(1) / flat.sum(1)


def heat_maps(maps: Tensor) -> Tensor:
    """Maps (n, height, width) as images (n, 3, height, width), each by its own largest value."""
    import matplotlib

    unit = maps / maps.amax((1, 2), keepdim=True).clamp_min(1e-12)
    colours = matplotlib.colormaps["inferno"](unit.cpu().numpy())[..., :3]
    return torch.from_numpy(colours).float().movedim(-1, 1)
