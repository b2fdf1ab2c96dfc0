"""Decoding a picture of 178 x 178 from tokens: chunked against naive attention, in turns.

    python benchmarks/attention.py --out benchmarks/results/attention.json

Naive: all points at once, and their scores over all tokens as one tensor. The peak is what a fresh
process holds above what it held before it decodes; an accelerator's allocator is asked where there
is one. Values are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from fieldloom.process import tune_process

tune_process()  # as the command line does: before torch is imported

import torch  # noqa: E402
from measure import in_turns  # noqa: E402
from torch import Tensor  # noqa: E402

from fieldloom.engine import device as devices  # noqa: E402
from fieldloom.fields.local import Local  # noqa: E402
from fieldloom.nn.layers import fourier, relu  # noqa: E402

SIDE = 178
AIMS = {"memory": 0.25, "time": 1.1}


def naive(field: Local, coords: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """Eq. 2 to 9 of arXiv:2310.05624 as they stand, all points at once."""

    def layer(x: Tensor, name: str) -> Tensor:
        out = x @ weights[f"{name}.weight"]
        return out + weights[f"{name}.bias"] if f"{name}.bias" in weights else out

    split = lambda x: x.unflatten(-1, (field.heads, -1)).transpose(1, 2)
    q = split(layer(relu(layer(fourier(coords, field.query), "query")), "q"))
    k, v = (split(layer(weights["tokens"], name)) for name in "kv")
    scores = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
    m = layer((scores @ v).transpose(1, 2).flatten(-2), "o")
    total, h = torch.zeros(()), m
    for level, frequencies in zip(field.levels, field.bands, strict=True):
        modulated = relu(relu(layer(fourier(coords, frequencies), f"band{level}"))
                         + layer(m, f"mod{level}"))  # fmt: skip
        h = modulated if level == 1 else relu(layer(modulated + h, f"hidden{level}"))
        total = total + layer(h, f"out{level}")
    return total + field.offset


def works(device: torch.device) -> dict[str, Callable[[], Tensor]]:
    field = Local(2, 3)
    draw = torch.Generator().manual_seed(0)
    weights = {name: slot.init(draw)[None].to(device) for name, slot in field.slots.items()}
    axis = ((torch.arange(SIDE) + 0.5) / SIDE * 2 - 1).to(device)
    coords = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).view(1, -1, 2)
    return {
        "chunked": lambda: field(coords, weights),
        "naive": lambda: naive(field, coords, weights),
    }


def peak(name: str, device: torch.device) -> int:
    """Bytes that decoding takes above what this process held: call it in a fresh one."""
    work = works(device)[name]
    devices.forget_peak(device)
    before = devices.held_memory(device)
    work()
    return devices.peak_memory(device) - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--peak", choices=["chunked", "naive"], help="print one peak and end")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    device = devices.pick(asked.device)
    with torch.no_grad():
        if asked.peak:
            print(peak(asked.peak, device))
            return
        found = measure(device, asked.rounds)
    text = json.dumps(found, indent=2)
    print(text)
    if asked.out:
        asked.out.write_text(text + "\n", encoding="utf-8")


def measure(device: torch.device, rounds: int) -> dict[str, Any]:
    each = works(device)
    torch.testing.assert_close(each["chunked"](), each["naive"](), rtol=1e-4, atol=1e-5)
    seconds = in_turns(each, rounds, device)
    ratios = [a / b for a, b in zip(seconds["chunked"], seconds["naive"], strict=True)]
    own = [sys.executable, __file__, "--device", device.type, "--peak"]
    peaks = {
        name: int(subprocess.run([*own, name], check=True, capture_output=True, text=True).stdout)
        for name in each
    }
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "command": "python benchmarks/attention.py",
        "environment": devices.environment(device),
        "points, tokens, heads, width": [SIDE**2, 256, 2, 256],
        "seconds": {name: round(median(s), 4) for name, s in seconds.items()},
        "peaks": peaks,
        "time": {
            "median": round(median(ratios), 3),
            "least": round(min(ratios), 3),
            "most": round(max(ratios), 3),
            "aim": AIMS["time"],
        },
        "memory": {"ratio": round(peaks["chunked"] / peaks["naive"], 3), "aim": AIMS["memory"]},
    }


if __name__ == "__main__":
    main()
