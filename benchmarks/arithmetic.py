"""What a training step and a decode of each system take: counted, not timed.

    python benchmarks/arithmetic.py --out benchmarks/results/arithmetic.json

Published configurations, untrained, on random images; a batch has as many signals as the step's
kernels need to be those of any batch (2), and all numbers are per signal but the operations, of
which a larger batch has no more.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from fieldloom import recipe
from fieldloom.assembly import build, objective_of
from fieldloom.atomic import write_text
from fieldloom.engine import device as devices
from fieldloom.objectives import CodeBatch, Objective, PriorLoss
from fieldloom.threads import one_thread
from fieldloom.types import Data

ROWS = (
    "mnif:celebahq64-S", "mnif:celebahq64-L", "functa:celebahq64", "gem:celebahq64",
    "gasp:celebahq64", "loe:table1", "transinr:celeba178", "ipc:celeba178", "laginr:celeba178",
)  # fmt: skip
SIGNALS = {"gem:celebahq64": 12}
"""Recipe -> signals of the batch that is counted; others: 2. GEM's penalty needs its neighbours."""

SLOW = {"sin", "cos", "tanh", "sigmoid", "exp", "gelu", "gelu_backward", "silu", "silu_backward"}
"""Functions of one number that take many instructions."""
NOTHING = {"view", "_unsafe_view", "t", "transpose", "expand", "select", "slice", "unsqueeze"}
NOTHING |= {"squeeze", "detach", "alias", "permute", "as_strided", "split", "unbind", "empty"}
NOTHING |= {"empty_like", "new_empty", "lift_fresh", "_reshape_alias", "diagonal", "unfold"}
NOTHING |= {"empty_strided", "new_empty_strided", "resize_"}
"""Operations that compute nothing: views, and memory that is not written."""


class Operations(TorchDispatchMode):
    """Counts operations, the bytes that they write, matrix products, and slow functions.

    torch's own counter of products follows modules by hooks that a gradient in a forward pass
    (CAVIA's) does not allow; its formulas are used here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled() and func.overloadpacket not in flop_registry:
            with self:  # there a product comes as one operation of several
                made = func.decompose(*args, **kwargs)
            if made is not NotImplemented:
                return made
        made = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if name not in NOTHING:
            tensors = [x for x in torch.utils._pytree.tree_leaves(made) if isinstance(x, Tensor)]
            self.counts["operations"] += 1
            self.counts["bytes"] += sum(x.nbytes for x in tensors)
            if func.overloadpacket in flop_registry:
                formula = flop_registry[func.overloadpacket]
                self.counts["flops"] += formula(*args, **kwargs, out_val=made)
            if name.removesuffix("_") in SLOW:
                self.counts["functions"] += sum(x.numel() for x in tensors)
        return made


def count(work: Callable[[], Any]) -> dict[str, int]:
    """The operations of a piece of work, and of all of them together: ``flops`` of matrix products
    (two for a multiply-accumulate), ``functions`` (sines and the like, by numbers), ``bytes``.
    """
    with one_thread(), Operations() as operations:  # which counts those of its own thread
        work()
    return dict(operations.counts)


def per_signal(counted: dict[str, int], signals: int) -> dict[str, float]:
    return {n: x if n == "operations" else x / signals for n, x in counted.items()}


def take_step(objective: Objective, batch: Any) -> None:
    """Losses and gradients of all players."""
    for player, groups in objective.players.items():
        loss, _ = objective.loss(player, batch)
        loss.backward(inputs=[p for group in groups.values() for p in group])


def count_row(name: str) -> dict[str, Any]:
    """One recipe: a training step, a decode, and a step of the prior where it learns by steps."""
    signals = SIGNALS.get(name, 2)
    system = build(recipe.load(name) | {"known": {"signals": signals}})
    signals = signals if system.family.has_code else 1
    stage, modality = system.settings.field_stage, system.modality
    images = torch.rand(signals, modality.channels, *modality.shape())
    data = Data(images, index=torch.arange(signals))
    batch = modality.observe(data, points=stage.points, keep_grid=system.encoder.reads_grid)
    codes, prior = torch.randn(signals, *system.family.code_shape), system.prior
    counted = {
        "step": count(lambda: take_step(objective_of(system).train(), batch)),
        "decode": count(lambda: list(system.eval().evaluate(codes, modality.grid()))),
    }
    if prior is not None and prior.trained:
        counted["prior"] = count(lambda: take_step(PriorLoss(prior).train(), CodeBatch(codes)))
    points = {"step": batch.target.coords.shape[1], "decode": modality.grid().shape[1]}
    return {
        "recipe": name,
        "points": points,
        "signals": signals,
        "work": {work: per_signal(found, signals) for work, found in counted.items()},
    }


def table(rows: list[dict[str, Any]]) -> list[str]:
    """The rows in Markdown: GFLOP, millions of functions, MB and operations of each."""
    lines = [
        "| recipe | work | points | GFLOP | functions, M | written, MB | operations |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        for work, found in row["work"].items():
            points = f"{row['points'][work]:,}" if work in row["points"] else ""
            lines.append(
                f"| `{row['recipe']}` | {work} | {points} | {found['flops'] / 1e9:.3g} | "
                f"{found.get('functions', 0) / 1e6:.3g} | {found['bytes'] / 1e6:.4g} | "
                f"{found['operations']:,} |"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipes", nargs="+", default=list(ROWS))
    parser.add_argument("--out", type=Path, help="write the counts here as JSON")
    args = parser.parse_args()
    rows = []
    for name in args.recipes:
        rows.append(count_row(name))
        print(f"{name}: counted", file=sys.stderr)
    print("\n".join(table(rows)))
    if args.out:
        report = {
            "command": "python " + " ".join(sys.argv),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "environment": devices.environment(torch.device("cpu")),
            "results": rows,
        }
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_text(json.dumps(report, indent=2) + "\n", args.out)


if __name__ == "__main__":
    main()
