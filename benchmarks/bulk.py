"""Fields fitted a second: in stacks, as one stack, one by one; timed in turns.

    python benchmarks/bulk.py --out benchmarks/results/bulk.json

Steps of Adam on 28 x 28 images: the published MNIST field (octaves, 16-16-1; NeF-GPT) at 64 drawn
pixels a step and on whole images, and SIRENs 2-32-32-1 on whole images. ``plain`` is one fit as it
is commonly written, torch's modules and torch's Adam, its pixels drawn beforehand; ``alone`` is the
package's own, one signal at a time. Before anything is timed, fitted values are compared.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from fieldloom.process import tune_process

tune_process()  # as the command line does: before torch is imported

import torch  # noqa: E402
from measure import in_turns  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from fieldloom.conditioners import FlatWeights  # noqa: E402
from fieldloom.encoders import Fit, stacks  # noqa: E402
from fieldloom.encoders.draws import point_sampler  # noqa: E402
from fieldloom.engine import device as devices  # noqa: E402
from fieldloom.family import Family  # noqa: E402
from fieldloom.fields import Fourier, FourierMlp, Siren  # noqa: E402
from fieldloom.metrics.losses import bce, mse  # noqa: E402
from fieldloom.modalities import MODALITIES  # noqa: E402
from fieldloom.renderers import Direct as Renderer  # noqa: E402
from fieldloom.types import LossFn, Signal  # noqa: E402


class Case(NamedTuple):
    """points: drawn a step, None for all. aim: stacks over the faster of the single fits."""

    name: str
    field: Any
    loss_fn: LossFn
    rate: float
    points: int | None
    fields: int
    steps: int
    aim: float | None


def cases() -> list[Case]:
    mnist = FourierMlp(
        2, 1, width=16, depth=3, init="xavier", encoding=Fourier("octaves", count=4, pi=False)
    )
    siren = Siren(2, 1, width=32, depth=3, frequency=30.0)
    return [
        Case("mnist, 64 pixels a step", mnist, bce, 4e-3, 64, 1024, 50, 20.0),
        Case("mnist, whole images", mnist, bce, 4e-3, None, 256, 20, 3.0),
        Case("siren, whole images", siren, mse, 1e-3, None, 500, 4, None),
    ]


def images(count: int, seed: int) -> Signal:
    """Smooth random pictures in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, 7, 7, generator=generator)
    data = nn.functional.interpolate(coarse, 28, mode="bilinear", align_corners=False)
    return MODALITIES["image"](size=28, channels=1, range="unit").encoding(data)


class Plain(nn.Module):
    """The same field as ``nn.Linear`` layers, from a family's shared start."""

    def __init__(self, family: Family) -> None:
        super().__init__()
        self.field = family.field
        weights = family.conditioner(family.conditioner.origin(1).detach())
        names = [name for name in family.field.slots if name.endswith("weight")]
        sizes = [weights[names[0]].shape[1], *(weights[n].shape[2] for n in names)]
        layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
        self.layers = nn.ModuleList(layers).to(weights[names[0]].device)
        for layer, name in zip(self.layers, names, strict=True):
            layer.weight.data = weights[name][0].mT.contiguous().clone()
            layer.bias.data = weights[name.replace("weight", "bias")][0].clone()

    def forward(self, coords: Tensor) -> Tensor:
        siren = isinstance(self.field, Siren)
        h = coords if siren else self.field.encode(coords, {})
        for layer in self.layers[:-1]:
            h = torch.sin(30.0 * layer(h)) if siren else torch.relu(layer(h))
        return self.layers[-1](h)


def plain_fit(case: Case, family: Family, seen: list[Signal]) -> Plain:
    """One fit, a step for each of the signals seen (1, points, ...)."""
    model = Plain(family)
    adam = torch.optim.Adam(model.parameters(), case.rate)
    for signal in seen:
        adam.zero_grad()
        case.loss_fn(model(signal.coords), signal.values).sum().backward()
        adam.step()
    return model


def measure(case: Case, single: int, rounds: int, seed: int) -> dict[str, Any]:
    """Field-steps a second of each way, and how far apart their fitted values are."""
    torch.manual_seed(seed)
    family = Family(case.field, FlatWeights(case.field.slots))
    signal, render = images(case.fields, seed), Renderer()
    points = case.points or signal.coords.shape[1]
    draw = "once" if case.points is None else "anew"
    fit = Fit(case.steps, case.rate, keep="last", points=case.points, draw=draw)
    size = stacks.stack_size(family, render, points, on_cpu=True)
    each = [signal.part(slice(i, i + 1)) for i in range(single)]
    drawn = [
        [point_sampler(one, points, fit.seed)(step) for step in range(case.steps)] for one in each
    ]

    def stacked() -> Tensor:
        return fit(signal, family, render, case.loss_fn)

    def at_once() -> Tensor:
        cached, stacks.CPU_LAYER = stacks.CPU_LAYER, 1 << 40
        try:
            return stacked()
        finally:
            stacks.CPU_LAYER = cached

    def alone() -> Tensor:
        return torch.cat([fit(one, family, render, case.loss_fn) for one in each])

    def plain() -> Tensor:
        with torch.no_grad():
            grid = signal.coords[:1]
            with torch.enable_grad():
                models = [plain_fit(case, family, seen) for seen in drawn]
            return torch.cat([model(grid) for model in models])

    with torch.no_grad():
        values = family(signal.coords[:single], stacked()[:single])
        others = {
            "one stack": family(signal.coords[:single], at_once()[:single]),
            "alone": family(signal.coords[:single], alone()),
            "plain": plain(),
        }
    worst = {name: float((own - values).abs().max()) for name, own in others.items()}
    if max(worst.values()) > 1e-2:
        raise SystemExit(f"{case.name}: fitted values differ by {worst}; nothing was timed.")
    tasks = {"stacks": stacked, "one stack": at_once, "alone": alone, "plain": plain}
    times = in_turns(tasks, rounds)
    fields = {"stacks": case.fields, "one stack": case.fields, "alone": single, "plain": single}
    rates = {name: fields[name] * case.steps / median(taken) for name, taken in times.items()}
    return {
        "case": case.name,
        "fields": case.fields,
        "steps": case.steps,
        "stack": size,
        "field_steps_per_second": rates,
        "ratio": rates["stacks"] / max(rates["alone"], rates["plain"]),
        "ratio_plain": rates["stacks"] / rates["plain"],
        "aim": case.aim,
        "largest_difference_of_values": worst,
        "seconds": times,
    }


def line(result: dict[str, Any]) -> str:
    rates = ", ".join(f"{n} {rate:,.0f}" for n, rate in result["field_steps_per_second"].items())
    aim = result["aim"]
    met = "" if aim is None else f", aim {aim:g}: {'met' if result['ratio'] >= aim else 'NOT met'}"
    return (
        f"{result['case']} (stacks of {result['stack']}): {rates} field-steps/s; ratio "
        f"{result['ratio']:.1f}{met}"
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--single", type=int, default=8, help="fields of the single fits")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, help="torch's own choice where not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the results here as JSON")
    return parser.parse_args()


def main() -> None:
    args = parse()
    if args.threads:
        torch.set_num_threads(args.threads)
    report = {
        "command": "python " + " ".join(sys.argv),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": devices.environment(torch.device("cpu")),
        "seed": args.seed,
        "rounds": args.rounds,
        "results": [],
    }
    for case in cases():
        report["results"].append(measure(case, args.single, args.rounds, args.seed))
        print(line(report["results"][-1]), flush=True)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
