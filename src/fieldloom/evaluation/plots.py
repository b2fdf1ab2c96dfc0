"""Curves as images."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from fieldloom.errors import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Panel(NamedTuple):
    """Axes with a line (x, y) for each name."""

    xlabel: str
    ylabel: str
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]


def plot(*panels: Panel) -> bytes:
    """Panels side by side, as a PNG; lines of one name have one colour in all of them."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import MaxNLocator

    figure, axes = plt.subplots(
        1, len(panels), figsize=(5 * len(panels), 3.6), sharey="row", squeeze=False
    )
    for ax, panel in zip(axes[0], panels, strict=True):
        for name, (x, y) in panel.lines.items():
            ax.plot(x, y, label=_label(name), marker="o" if len(x) < 8 else None, markersize=4)
        ax.set(xlabel=panel.xlabel, ylabel=panel.ylabel)
        if all(isinstance(value, int) for x, _ in panel.lines.values() for value in x):
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(alpha=0.3)
    axes[0, 0].legend()
    return figure_to_png(figure)


def _label(name: str) -> str:
    """A name as a legend shows it: not as a formula, and not left out for its underscore."""
    text = printable(name).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def figure_to_png(figure: Figure) -> bytes:
    """A figure of matplotlib as a PNG; the figure is closed."""
    from matplotlib import pyplot as plt

    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    plt.close(figure)
    return buffer.getvalue()
