r"""What top-k leaves of the spread of weights, before any network comes in.

    fieldloom train weights:mnist28 --run RUN --stage field --set source.path=mnist.npz \
        --set source.limit=500
    python benchmarks/truncation.py RUN --out benchmarks/results/truncation.json

Each number of a code is taken for a Gaussian of its own, with the mean and the variance that the
training fields have there, and drawn as tokens are: from the codebook of its layer, by the
probability that the Gaussian gives to each entry's cell, from the k likeliest alone. A row is the
variance of such draws over that of the training fields, both summed over the places, and the mean
entropy of a place in nats.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fieldloom import atomic, load
from fieldloom.assembly import open_source
from fieldloom.codecs.quantize import Quantize
from fieldloom.engine import device as devices
from fieldloom.engine.run import Run
from fieldloom.training import training_codes

KEPT = (3, 5, 64, 255)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="of weights:mnist28, after the stage 'field'")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    system = load(asked.run, "cpu")
    codes, _ = training_codes(system, open_source(system.recipe, system.modality), Run(asked.run))
    codec = system.prior.codec if system.prior is not None else None
    assert isinstance(codec, Quantize), "the prior has no tokens of single numbers"
    start = system.family.conditioner.origin(1)[0]
    codec.fit(codes, None, start)
    found = {
        "command": f"python benchmarks/truncation.py RUN --out benchmarks/results/{asked.out.name}",
        "recipe": system.recipe["recipe"],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": system.recipe.get("seed", 0),
        "environment": devices.environment(torch.device("cpu")),
        "fields": len(codes),
        "rows": truncate(codec, codes),
    }
    atomic.write_text(json.dumps(found, indent=2) + "\n", asked.out)


def truncate(codec: Quantize, codes: Tensor) -> list[dict[str, Any]]:
    """A row for each of ``KEPT``."""
    values = (codes - codec.center).flatten(1).double()
    index = codec.index[:, 0]
    mean, std = values[:, index].mean(0), values[:, index].std(0).clamp(min=1e-12)
    chances = torch.zeros(len(index), codec.books.shape[2], dtype=torch.double)
    entries = torch.zeros_like(chances)
    for family, members in enumerate(codec.members):
        book = codec.books[family, 0, :, 0].double().sort().values
        entries[members] = book
        chances[members] = cell_probabilities(book, mean[members], std[members])
    rows = []
    for k in KEPT:
        some, which = chances.topk(k, dim=1)
        some = some / some.sum(1, keepdim=True)
        drawn = entries.gather(1, which)
        spread = (some * drawn**2).sum(1) - (some * drawn).sum(1) ** 2
        entropy = -(some * some.clamp(min=1e-300).log()).sum(1).mean()
        kept = float(spread.sum() / std.square().sum())
        rows.append({"row": f"k{k}", "kept": kept, "entropy": float(entropy)})
    return rows


def cell_probabilities(book: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(places, entries): of a Gaussian a place, the part nearest to each of the sorted entries."""
    edges = (book[1:] + book[:-1]) / 2
    below = torch.special.ndtr((edges - mean[:, None]) / std[:, None])
    ends = torch.zeros(len(mean), 1, dtype=below.dtype)
    return torch.cat([ends, below, ends + 1], 1).diff(dim=1)


if __name__ == "__main__":
    main()
