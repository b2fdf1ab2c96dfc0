"""Enlargement measured: reconstructions at finer resolutions against what is true there.

Three answers to the same low-resolution data: the field, decoded at the finer resolution; bicubic
interpolation of the pixels; and a convolutional network on pixels. The truth comes from the source
(``Source.truth``), and is seen by none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from fieldloom.evaluation.results import Metric, ReportImage
from fieldloom.metrics.paired import psnr, ssim, ssim_protocol
from fieldloom.modalities.modality import spread
from fieldloom.modalities.sources import Source
from fieldloom.modalities.sources.source import choose
from fieldloom.progress import during
from fieldloom.types import Code, Data

FACTORS = (1, 2, 4, 8)
MOST = 48
"""Data that are enlarged, evenly spaced among those that are given."""
SHOWN = 8
"""Of these, how many are drawn."""
TRAINED_ON = 2000
STEPS, BATCH, RATE = 1000, 32, 2e-3
"""Training of the network on pixels, some ten seconds of one core; a longer one is still better."""

Decode = Callable[[Code, tuple[int, int]], Data]
Enlarge = Callable[[int], Tensor]
"""The data at a multiple of their resolution: (n, channel, height, width) in [0, 1]."""


class Doubler(nn.Module):
    """Images of twice the height and width: bicubic interpolation, corrected by an ESPCN.

    Three convolutions at the low resolution give the four pixels of each (arXiv:1609.05158, section
    3); the last one starts at zero, so that an untrained network interpolates.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 64, 5, padding=2)
        self.second = nn.Conv2d(64, 32, 3, padding=1)
        self.last = nn.Conv2d(32, 4 * channels, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.second(self.first(images).relu()).relu()
        return interpolate(images, 2) + F.pixel_shuffle(self.last(hidden), 2)


def interpolate(images: Tensor, factor: int) -> Tensor:
    """Bicubic interpolation of images (n, channel, height, width), not clamped."""
    if factor == 1:
        return images
    return F.interpolate(images, scale_factor=factor, mode="bicubic", align_corners=False)


def train_doubler(images: Tensor, seed: int = 0, steps: int | None = None) -> Doubler:
    """A network that doubles the resolution, trained to undo a halving of these images.

    The halving is the mean of 2 x 2 pixels, an odd last row or column left out. steps: of Adam;
    None: ``STEPS``.
    """
    steps = STEPS if steps is None else steps
    height, width = (2 * (n // 2) for n in images.shape[2:])
    fine = images[..., :height, :width].contiguous()
    coarse, generator = F.avg_pool2d(fine, 2), Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Doubler(images.shape[1])
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    for _ in range(steps):
        which = torch.randint(len(fine), (min(BATCH, len(fine)),), generator=generator)
        loss = F.mse_loss(network(coarse[which]), fine[which])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


@torch.no_grad()
def double(network: Doubler, images: Tensor, factor: int) -> Tensor:
    """Images enlarged by a power of 2, doubling again and again, in [0, 1]."""
    while factor > 1:
        images, factor = network(images).clamp(0, 1), factor // 2
    return images


def measure_enlargement(
    decode: Decode, source: Source, indices: Tensor, codes: Code, of: str
) -> tuple[list[Metric], list[ReportImage]]:
    """PSNR and SSIM of data at each of ``FACTORS``, and a picture at the largest.

    decode: from codes and a size, height and width, to data, as of ``System``. indices: (n,) of the
    data in the source, which has to have ``truth``; codes: theirs. of: the data in words.
    """
    assert source.truth is not None
    some = torch.tensor(spread(len(indices), min(MOST, len(indices))))
    which = indices[some]
    low = source.read(which).tensor
    height, width = low.shape[2:]
    few = source.train[torch.tensor(spread(len(source.train), min(TRAINED_ON, len(source.train))))]
    with during("training a network on pixels to enlarge them"):
        network = train_doubler(source.read(few).tensor)
    answers: Mapping[str, Enlarge] = {
        "": lambda n: decode(codes[some], (n * height, n * width)).tensor,
        ".bicubic": lambda n: interpolate(low, n).clamp(0, 1),
        ".pixels": lambda n: double(network, low, n),
    }
    size = sum(p.numel() for p in network.parameters())
    how = {
        "": "decoded at that resolution",
        ".bicubic": "bicubic interpolation (a = -0.75) of the pixels, clamped",
        ".pixels": f"a network on pixels (ESPCN, {size:,} parameters, {STEPS} steps), doubling",
    }
    of = of if len(some) == len(indices) else f"{len(some)} of {of}"
    metrics = []
    rows: list[Tensor] = []
    with during("measuring enlargements against the truth"):
        for factor in FACTORS:
            size_there = (factor * height, factor * width)
            true = source.truth(which, size_there)
            made = {name: answer(factor) for name, answer in answers.items()}
            for name, one in made.items():
                told = (
                    f"{how[name]}, against the source's truth at {size_there[0]} x {size_there[1]}"
                )
                decibels = psnr(one, true).mean().item()
                metrics.append(Metric(f"psnr.x{factor}{name}", decibels, of, f"dB, {told}"))
                window = ssim_protocol(size_there)
                alike = ssim(one, true).mean().item()
                metrics.append(Metric(f"ssim.x{factor}{name}", alike, of, f"{window}, {told}"))
            rows = [true, *made.values()]
    few_of = choose_shown(source, which)
    caption = (
        f"Enlarged {FACTORS[-1]} times, from above: the truth, the field, bicubic interpolation, a "
        "network on pixels"
    )
    return metrics, [
        ReportImage("enlarged.png", caption, stack_rows([r[few_of] for r in rows]), "enlargement")
    ]


def choose_shown(source: Source, which: Tensor) -> list[int]:
    """Which of some data are drawn, by their places in ``which``: of each class alike."""
    if source.labels is None:
        return spread(len(which), min(SHOWN, len(which)))
    return list(choose(SHOWN, len(which), source.labels[which].tolist()))


def stack_rows(rows: list[Tensor]) -> Tensor:
    """Rows of images (n, channel, height, width) as one: (1, channel, rows height, n width)."""
    return torch.cat([torch.cat(list(row), 2) for row in rows], 1)[None]


def describe_lack(source: Source) -> str | None:
    """Why the enlargement of a source's data cannot be measured, in a sentence; None if it can."""
    if source.truth is not None:
        return None
    return (
        "metric 'enlarge' compares with what is true at finer resolutions, which this source does "
        "not know: it is left out."
    )
