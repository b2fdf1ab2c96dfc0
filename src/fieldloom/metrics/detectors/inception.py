"""The detector ``inception``: the network that FID is defined by, from torch-fidelity."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from torch import Tensor

from fieldloom.errors import InputError, quote_path, shorten
from fieldloom.metrics.detectors.detector import Features, Images, check_images, identify
from fieldloom.permit import NOTHING, Permit


class Inception:
    """The last pool of FID's Inception network, 2048 wide (arXiv:1706.08500), by torch-fidelity.

    weights: a local file of the network; None takes torch-fidelity's own from the cache of
             torch.hub, or downloads it.
    """

    name = "inception"
    filter = "8 bit, bilinear as in TensorFlow 1 without antialiasing, to 299x299"
    metric = "fid"

    def __init__(self, weights: str | None = None, permit: Permit = NOTHING) -> None:
        if weights is None and not permit.network:
            raise InputError(
                "Detector 'inception' would fetch its weights: name a local file by "
                "evaluate.weights, or give --network."
            )
        if weights is not None and not Path(weights).is_file():
            raise InputError(f"detector.weights = {quote_path(weights)}: there is no such file.")
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except (ImportError, RuntimeError) as reason:  # Runtime: torchvision of another torch
            raise InputError(
                "Detector 'inception' needs torch-fidelity and torchvision, which cannot be "
                f"imported ({_sentence(reason)}): install fieldloom[fid], or take detector 'gabor'."
            ) from reason
        try:
            held = None if weights is None else weights_only_copy(weights)
            self.network = FeatureExtractorInceptionV3(self.name, ["2048"], held)
        except MemoryError:
            raise
        except Exception as reason:  # unpickling fails in many ways on a broken file
            raise InputError(
                f"The weights of detector 'inception' cannot be loaded ({_sentence(reason)}): "
                "name a good local file by detector.weights."
            ) from reason
        values = self.network.state_dict().items()
        held_values = [f"{key} {value.double().sum()}" for key, value in values]
        self.identity = identify(self.name, self.filter, *held_values)

    @torch.no_grad()
    def __call__(self, images: Images) -> Features:
        check_images(images)
        self.network.to(images.device)
        return torch.cat([self._features(part) for part in images.split(64)])

    def _features(self, images: Tensor) -> Tensor:
        levels = (images.clamp(0, 1) * 255).round().to(torch.uint8)
        return self.network(levels.expand(-1, 3, -1, -1))[0]


def weights_only_copy(path: str) -> io.BytesIO:
    """A copy in memory of a file of weights that contains its tensors alone.

    torch-fidelity unpickles the file, which could run any code that it contains.
    """
    held, written = torch.load(path, map_location="cpu", weights_only=True), io.BytesIO()
    torch.save(held, written)
    written.seek(0)
    return written


def _sentence(reason: Exception) -> str:
    """The first sentence of an error's message."""
    first = (str(reason).splitlines() or [type(reason).__name__])[0]
    return shorten(first.partition(". ")[0].rstrip(".:"))
