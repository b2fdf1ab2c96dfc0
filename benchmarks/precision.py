"""What a precision of training costs in dB: the same recipe trained in each, for several seeds.

    python benchmarks/precision.py --out benchmarks/results/precision.json

TF32 is emulated, so that no GPU is needed: the inputs of every matrix product, those of gradients
and of the inner loop's second gradients too, are rounded to its 10 bits of mantissa, and products
are summed in float32, as tensor cores do. Every model is evaluated in float32 on the test part.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from typing import Any

from fieldloom.process import tune_process

tune_process()  # as the command line does: before torch is imported

import torch  # noqa: E402
from measure import CPU  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from fieldloom import recipe  # noqa: E402
from fieldloom.engine import device as devices  # noqa: E402
from fieldloom.inputs import source_of  # noqa: E402
from fieldloom.training import train  # noqa: E402

PRECISIONS = ("float32", "tf32", "bfloat16")


class EmulatedTf32(TorchDispatchMode):
    """A context in which the inputs of matrix products are rounded as for TF32."""

    PRODUCTS = {getattr(torch.ops.aten, name).default for name in ("mm", "bmm", "addmm", "baddbmm")}

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if operation in self.PRODUCTS:
            args = tuple(round_to_tf32(x) if isinstance(x, Tensor) else x for x in args)
        return operation(*args, **(kwargs or {}))


def round_to_tf32(x: Tensor) -> Tensor:
    """float32 rounded to nearest, ties to even, at 10 bits of mantissa; others as they are."""
    if x.dtype != torch.float32:
        return x
    bits = x.contiguous().view(torch.int32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)


def measure(name: str, overrides: list[str], precision: str, seed: int) -> float:
    """PSNR in dB of a trained model, its mean over the signals of the test part."""
    emulated: AbstractContextManager[Any] = nullcontext()
    if precision == "tf32":
        emulated = EmulatedTf32()
    own = [f"train.field.precision={precision}", f"seed={seed}", *overrides]
    with TemporaryDirectory() as place:
        with emulated:
            system = train(recipe.load(name, own), f"{place}/run", stage="field", device="cpu")
        source = source_of(system, None)
        signals = system.signals(source.read(source.test))
        psnr = torch.cat([system.psnr(system.encode_signal(x), x) for x in signals])
    return float(psnr.mean())


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="mnif:digits")
    parser.add_argument("--set", nargs="*", default=[], help="overrides of the recipe")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, help="write the results here as JSON")
    return parser.parse_args()


def main() -> None:
    args = parse()
    report = {
        "command": "python " + " ".join(sys.argv),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": devices.environment(CPU),
        "recipe": args.recipe,
        "overrides": args.set,
        "seeds": args.seeds,
        "results": {},
    }
    print(json.dumps(report["environment"]))
    for precision in args.precisions:
        found = [measure(args.recipe, args.set, precision, seed) for seed in args.seeds]
        spread = stdev(found) if len(found) > 1 else 0.0
        report["results"][precision] = {"psnr": found, "mean": mean(found), "spread": spread}
        print(f"{precision:8s}  {mean(found):.2f} dB, spread {spread:.2f}", flush=True)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
