"""What is asked of trained systems beyond their figures: LA-GINR's Figs. 1, 4 and 5.

Source: arXiv:2310.05624, sections 4.2 and 4.3.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Generator, Tensor

from fieldloom.errors import InputError
from fieldloom.evaluation.batches import in_batches
from fieldloom.evaluation.views import check_held_out, psnr_of_held_out
from fieldloom.modalities import Views
from fieldloom.system import System
from fieldloom.types import Cameras, Code, Data

# -- token influence (Fig. 5)


class Influence(NamedTuple):
    """What a code decodes to, not clamped, and how much that changes without each of some tokens.

    whole: (channel, height, width); maps: (tokens, height, width), at least 0.
    """

    whole: Tensor
    maps: Tensor


def drawn_tokens(system: System, count: int, seed: int = 0) -> list[int]:
    """Places of ``count`` tokens of a code, or of all where it has fewer, in rising order."""
    if not system.family.has_code:
        raise InputError("influence: this run's signals have no codes, so they have no tokens.")
    generator = Generator().manual_seed(seed)
    return sorted(torch.randperm(system.family.code_shape[0], generator=generator)[:count].tolist())


def influence(
    system: System, code: Code, tokens: Sequence[int], cameras: Cameras | None = None
) -> Influence:
    """The absolute difference, mean over channels, where one token of a code is replaced by zero.

    code: (1, tokens, width). tokens: places of those replaced, one a map. cameras: of views, one.
    Raises InputError where data are neither pictures nor views.
    """
    codes = code.detach().repeat(len(tokens) + 1, 1, 1)
    codes[torch.arange(len(tokens)), torch.tensor(tokens)] = 0
    made = system.modality.images(system.predict(codes, cameras=cameras).tensor.detach())
    if made is None:
        raise InputError("influence is drawn of pictures and of views: this run has neither.")
    return Influence(made[-1], (made[:-1] - made[-1]).abs().mean(1))


class InfluenceStudy(NamedTuple):
    """A row of pictures a datum, and the numbers behind them, as JSON has them.

    pictures: (data * (tokens + 2), 3, height, width): of each datum the original, its
    reconstruction, and a map for each token. mean: of all maps' locality; None: none has any.
    """

    pictures: Tensor
    mean: float | None
    numbers: dict[str, Any]


def study_influence(system: System, data: Data, tokens: Sequence[int]) -> InfluenceStudy:
    """The influence of some tokens of the codes of data; of views, on the first one held out."""
    rows, fractions, strengths = [], [], []
    for i in range(len(data)):
        datum = data.part([i])
        code = system.encode(datum)
        seen = system.modality.one_view(datum)
        whole, maps = influence(system, code, tokens, seen.cameras)
        original = system.modality.images(seen.tensor)
        assert original is not None  # ``influence`` has looked
        rows += [as_colour(original[0]), as_colour(whole), *heat(maps)]
        fractions.append(locality(maps))
        strengths.append(maps.mean((1, 2)))
    found = torch.stack(fractions)
    there = found[~found.isnan()]
    mean = there.mean().item() if len(there) else None
    numbers = {
        "locality": mean,
        "of": "fraction of a token's influence in the 10 % of pixels with most, mean of maps",
        "data": len(data),
        "tokens": list(tokens),
        "without influence": int(found.isnan().sum()),
        "localities": [[None if x != x else x for x in row] for row in found.tolist()],
        "mean differences": torch.stack(strengths).tolist(),
    }
    return InfluenceStudy(torch.stack(rows), mean, numbers)


def as_colour(picture: Tensor) -> Tensor:
    """A picture (channel, height, width) with three channels, in [0, 1]."""
    return picture.cpu().clamp(0, 1).expand(3, -1, -1)


def locality(maps: Tensor, fraction: float = 0.1) -> Tensor:
    """How much of the sum of each map lies in the ``fraction`` of its pixels with most: (maps,).

    From ``fraction``, where all pixels are alike, to 1; NaN where a map is zero.
    """
    flat = maps.flatten(1)
    most = flat.topk(math.ceil(fraction * flat.shape[1])).values
    return most.sum(1) / flat.sum(1)


def heat(maps: Tensor) -> Tensor:
    """Maps (n, height, width) as pictures (n, 3, height, width), each by its own largest value."""
    import matplotlib

    unit = maps / maps.amax((1, 2), keepdim=True).clamp_min(1e-12)
    coloured = matplotlib.colormaps["inferno"](unit.cpu().numpy())[..., :3]
    return torch.from_numpy(coloured).float().movedim(-1, 1)


# -- learning curves (Fig. 1)


def learning_curve(log: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[float], list[float]]:
    """Steps, seconds and PSNR of the lines of a run's log that have one, of the stage ``field``.

    Seconds are steps times the mean pace since training was last begun or resumed.
    """
    told = lambda line: all(line.get(key) is not None for key in ("psnr", "seconds_a_step"))
    lines = [line for line in log if line["stage"] == "field" and told(line)]
    steps = [int(line["step"]) for line in lines]
    seconds = [line["step"] * line["seconds_a_step"] for line in lines]
    return steps, seconds, [float(line["psnr"]) for line in lines]


# -- support views (Fig. 4)


def psnr_by_support(system: System, data: Data, counts: Sequence[int]) -> list[float]:
    """PSNR of the held-out views, mean per view, of codes found from each number of support views.

    Raises InputError where data are no views, or none are held out.
    """
    check_held_out(system)
    modality = cast(Views, system.modality)
    kept = modality.kept(data)
    if max(counts) > kept:
        raise InputError(f"support: {max(counts)} views, and only {kept} are not held out.")

    def one(count: int) -> float:
        encode = lambda part: system.encode_signal(modality.support(part, count))
        work = lambda part: psnr_of_held_out(system, encode(part), part)
        return in_batches(work, f"{count} views", data, size=4).mean().item()

    return [one(count) for count in counts]


# -- pictures


class Panel(NamedTuple):
    """Axes with a line (x, y) for each name."""

    xlabel: str
    ylabel: str
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]


def plot(*panels: Panel) -> bytes:
    """Panels side by side, as a PNG; lines of one name have one colour, as they come."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import MaxNLocator

    figure, axes = plt.subplots(
        1, len(panels), figsize=(5 * len(panels), 3.6), sharey="row", squeeze=False
    )
    for ax, panel in zip(axes[0], panels, strict=True):
        for name, (x, y) in panel.lines.items():
            ax.plot(x, y, label=name, marker="o" if len(x) < 8 else None, markersize=4)
        ax.set(xlabel=panel.xlabel, ylabel=panel.ylabel)
        if all(isinstance(value, int) for x, _ in panel.lines.values() for value in x):
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(alpha=0.3)
    axes[0, 0].legend()
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    plt.close(figure)
    return buffer.getvalue()
