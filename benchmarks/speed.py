"""Speed and memory of mNIF on 64 x 64 pictures, timed in turns with a plain reference.

    python benchmarks/speed.py --out benchmarks/results/speed.json

The reference does the same arithmetic as it is commonly written: a whole batch at once, the bases
mixed by broadcasting, sines out of place. Weights are untrained and pictures random, which no time
depends on. Codes are drawn so that mixed weights have the spread of a SIREN's own initial draw.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Literal

from fieldloom.assembly import objective_of
from fieldloom.process import multiplies_bfloat16, tune_process

tune_process()  # as the command line does: before torch is imported

import torch  # noqa: E402
from arithmetic import count  # noqa: E402
from bounds import Bounds, Work, point_of  # noqa: E402
from bounds import measure as measure_bounds  # noqa: E402
from measure import CPU, in_turns  # noqa: E402
from torch import Tensor  # noqa: E402

import fieldloom  # noqa: E402
from fieldloom import recipe  # noqa: E402
from fieldloom.engine import device as devices  # noqa: E402
from fieldloom.engine.execution import Execution  # noqa: E402
from fieldloom.system import System  # noqa: E402

RELEASED = {"S": {"train": 2.3, "decode": 91.0}, "L": {"train": 0.63, "decode": 21.0}}
"""Pictures a second of the authors' released code, on another machine: a scale for the aims."""
AIMS = {"train": 6.0, "decode": 0.7, "busy": 2.0, "memory": 7e8}
"""Training against the reference (with AVX-512; 4 with AVX2); decoding against the bound of its
matrices and sines; how much slower beside a busy process at most; bytes that a training step adds.
"""


def make_system(variant: str) -> System:
    """The published configuration without its prior, and without noise on the codes' start."""
    spec = recipe.load(f"mnif:celebahq64-{variant}", ["encoder.noise=0.0"])
    del spec["prior"]
    return fieldloom.build(spec)


def gradients(system: System) -> list[Tensor]:
    return [p.grad.clone() for p in system.parameters() if p.grad is not None]


def make_step(system: System, execution: Literal["eager", "compiled"]) -> Callable[[Tensor], float]:
    """The step that takes the loss and the gradients of a batch as the training loop does."""
    objective = objective_of(system)
    stage = replace(system.settings.field_stage, execution=execution)
    recorded = Execution(objective, stage, CPU)
    parameters = [p for group in objective.players["field"].values() for p in group]

    def step(data: Tensor) -> float:
        objective.train()
        batch = system.modality.observe(data)
        width, points = system.recipe["field"]["width"], batch.context.coords.shape[1]
        micro = devices.micro_batch(CPU, len(data), points, width)
        system.zero_grad()
        total = 0.0
        for first in range(0, len(data), micro):
            part = batch.part(slice(first, first + micro))
            fraction = len(part) / len(data)
            loss, _ = recorded.differentiate("field", part, fraction, parameters, lambda: None)
            total += fraction * loss.item()
        system.eval()
        return total

    return step


# The plain reference, on the same parameters.


def plain_weights(system: System, code: Tensor) -> dict[str, Tensor]:
    """sum_m alpha[m, layer] W[m, layer], the product broadcast to (batch, bases, in, out)."""
    mixture = system.family.conditioner
    alpha = mixture.project(code[:, 0]).unflatten(-1, (mixture.experts, mixture.count))
    mixed = {}
    for name in mixture.chosen:
        basis = mixture.basis[name]
        own = alpha[:, :, mixture.layer_index[name]].reshape(len(code), -1, *[1] * (basis.ndim - 1))
        mixed[name] = (own * basis).sum(1)
    return mixed


def plain_field(system: System, code: Tensor, coords: Tensor) -> Tensor:
    weights, h = plain_weights(system, code), coords
    for i, w0 in enumerate(system.family.field.frequencies):
        bias, weight = weights[f"{i}.bias"], weights[f"{i}.weight"]
        h = torch.sin(w0 * torch.baddbmm(bias[:, None], h, weight))
    return h


def plain_step(system: System, data: Tensor) -> float:
    signal, encoder = system.modality.observe(data).context, system.encoder
    system.zero_grad()
    code = torch.zeros(len(data), *system.family.code_shape, requires_grad=True)
    step = encoder.rate * encoder.rates.clamp(*encoder.clamp)
    for _ in range(encoder.steps):
        predicted = plain_field(system, code, signal.coords)
        inner = ((predicted - signal.values) ** 2).mean((1, 2)).sum()
        (gradient,) = torch.autograd.grad(inner, code, create_graph=True)
        code = code - step * gradient
    loss = ((plain_field(system, code, signal.coords) - signal.values) ** 2).mean()
    loss.backward()
    return loss.item()


@torch.inference_mode()
def plain_decode(system: System, code: Tensor) -> Tensor:
    return plain_field(system, code, system.modality.grid().expand(len(code), -1, -1))


# Measures.


def median_seconds(tasks: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    return {name: median(seconds) for name, seconds in in_turns(tasks, repeats).items()}


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def compare_training(system: System, data: Tensor, reference: int, repeats: int) -> dict[str, Any]:
    """Pictures a second of both, and how far apart their losses and gradients are."""
    few = data[:reference]
    eager, compiled = make_step(system, "eager"), make_step(system, "compiled")
    loss, own = eager(few), gradients(system)
    plain_loss, plain = plain_step(system, few), gradients(system)
    compiled(few)
    fused = gradients(system)
    seconds = median_seconds(
        {
            "own": lambda: eager(data),
            "compiled": lambda: compiled(data),
            "plain": lambda: plain_step(system, few),
        },
        repeats,
    )
    rate, plain_rate = len(data) / seconds["own"], len(few) / seconds["plain"]
    flop = count(lambda: eager(few))["flops"] / len(few)
    system.zero_grad()
    return {
        "images_per_second": rate,
        "flop_per_image": flop,
        "plain_images_per_second": plain_rate,
        "ratio": rate / plain_rate,
        "compiled_images_per_second": len(data) / seconds["compiled"],
        "compiled_ratio": len(data) / seconds["compiled"] / plain_rate,
        "compiled_gradient_error": max(relative(a, b) for a, b in zip(fused, own, strict=True)),
        "loss_error": abs(loss - plain_loss) / plain_loss,
        "gradient_error": max(relative(a, b) for a, b in zip(own, plain, strict=True)),
    }


def compare_decoding(system: System, code: Tensor, repeats: int) -> dict[str, Any]:
    """Pictures a second alone, beside a busy process, and of the reference; errors to float32.

    ``one``: of one code at a time; ``float32``, ``bfloat16``: of all.
    """
    coords = system.modality.grid()

    def decode(dtype: torch.dtype | None = None, count: int | None = None) -> Tensor:
        return torch.cat(list(system.evaluate(code[:count], coords, dtype)))

    tasks: dict[str, Callable[[], Any]] = {"float32": decode, "one": lambda: decode(count=1)}
    if multiplies_bfloat16():
        tasks["bfloat16"] = lambda: decode(torch.bfloat16)
    whole, plain = decode(), plain_decode(system, code)
    with busy_process():
        beside = median_seconds(tasks, repeats)
    alone = median_seconds(tasks | {"plain": lambda: plain_decode(system, code)}, repeats)
    count = lambda name: 1 if name == "one" else len(code)
    found: dict[str, Any] = {
        "images_per_second": {name: count(name) / taken for name, taken in alone.items()},
        "beside_a_busy_process": {name: count(name) / taken for name, taken in beside.items()},
        "plain_error": relative(whole, plain),
    }
    if multiplies_bfloat16():
        half = decode(torch.bfloat16)
        pictures, rounded = (
            system.modality.assemble(values).clamp().tensor for values in (whole, half)
        )
        error = (pictures - rounded).abs()
        found["bfloat16_psnr"] = -10 * math.log10(float(error.square().mean()))
        found["bfloat16_worst"] = float(error.max())
    return found


@contextmanager
def busy_process() -> Iterator[None]:
    """A context beside a process that keeps one core busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def shares(system: System, result: dict[str, Any], bounds: Bounds) -> dict[str, dict[str, float]]:
    """For each row: its share of the bound, and of each rate of the machine.

    bound: the time of matrices at their peak and then sines at theirs, over the time taken; the
    mixing of bases is not in it. copied: bytes of the bases, read once for all codes. with_bases:
    the bound and the time of that reading, over the time taken.
    """
    field = system.family.field
    points = system.modality.grid().shape[1]
    picture = point_of(field.slots, last_sine=True) * points
    bases = 4 * sum(x.numel() for x in system.family.conditioner.basis.parameters())
    found = {}
    for name, rate in result["decode"]["images_per_second"].items():
        dtype = "bfloat16" if name == "bfloat16" else "float32"
        least, read = bounds.seconds(picture, dtype), bases / bounds.copied
        read /= 1 if name == "one" else result["batch"]
        found[name] = {
            "bound": rate * least,
            "with_bases": rate * (least + read),
            "matrices": rate * picture.flop / bounds.matrix[dtype],
            "sines": rate * picture.sines / bounds.sines,
            "copied": rate * read,
        }
    train = result["train"]
    work = Work(train["flop_per_image"] * train["images_per_second"])
    found["train"] = {"matrices": work.flop / bounds.matrix["float32"]}
    return found


def step_memory(variant: str, task: str, batch: int, seed: int) -> dict[str, int]:
    """Bytes of a process at rest, and what a training step adds to them at its peak."""
    system, data = make_system(variant), draw_data(batch, seed)
    rest = devices.peak_memory(CPU)
    plain_step(system, data) if task == "plain" else make_step(system, "eager")(data)
    return {"rest": rest, "step": devices.peak_memory(CPU) - rest}


def memory_apart(variant: str, task: str, batch: int, args: argparse.Namespace) -> dict[str, int]:
    """``step_memory`` in a process of its own; {} where the machine's memory did not suffice."""
    words = ["--memory", variant, task, "--batch", str(batch), "--seed", str(args.seed)]
    if args.threads:
        words += ["--threads", str(args.threads)]
    done = subprocess.run([sys.executable, __file__, *words], stdout=subprocess.PIPE)
    return json.loads(done.stdout) if done.returncode == 0 else {}


# The report.


def draw_data(batch: int, seed: int) -> Tensor:
    return torch.rand(batch, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def draw_codes(system: System, batch: int, seed: int) -> Tensor:
    """Codes for which the variances of the M coefficients, 1 / M each, add up to 1."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(batch, *system.family.code_shape, generator=generator)
    return noise * math.sqrt(3 / system.family.conditioner.experts)


def reference_batch(variant: str, args: argparse.Namespace) -> int:
    return min(args.batch, args.reference_batch or {"S": 32, "L": 8}[variant])


def measure_memory(variant: str, args: argparse.Namespace) -> dict[str, Any]:
    few = reference_batch(variant, args)
    return {
        "memory": memory_apart(variant, "own", args.batch, args),
        "plain_memory": memory_apart(variant, "plain", few, args),
    }


def measure(variant: str, args: argparse.Namespace, bounds: Bounds) -> dict[str, Any]:
    system, data = make_system(variant), draw_data(args.batch, args.seed)
    reference = reference_batch(variant, args)
    result = {
        "variant": f"mnif:celebahq64-{variant}",
        "batch": args.batch,
        "reference_batch": reference,
        "decode": compare_decoding(system, draw_codes(system, args.batch, args.seed), args.repeats),
        "train": compare_training(system, data, reference, args.repeats),
        "released_images_per_second": RELEASED[variant],
    }
    return result | {"shares": shares(system, result, bounds)}


def table(result: dict[str, Any]) -> list[str]:
    """A measured variant as lines of text."""
    train, decode, memory = result["train"], result["decode"], result["memory"]
    rates, beside, share = (
        decode["images_per_second"],
        decode["beside_a_busy_process"],
        result["shares"],
    )
    plain = result["plain_memory"].get("step")
    batch, few = result["batch"], result["reference_batch"]
    met = lambda good: "met" if good else "NOT met"
    lines = [
        f"{result['variant']}, batch {batch}, training batch of the reference {few}",
        f"  training    {train['images_per_second']:9.2f} images/s   reference "
        f"{train['plain_images_per_second']:8.2f}   ratio {train['ratio']:.2f}, aim "
        f"{AIMS['train']:g}: {met(train['ratio'] >= AIMS['train'])}   "
        f"{share['train']['matrices']:.0%} of the matrix peak",
        f"  compiled    {train['compiled_images_per_second']:9.2f} images/s   ratio "
        f"{train['compiled_ratio']:.2f}: {met(train['compiled_ratio'] >= AIMS['train'])}; "
        f"gradients to eager {train['compiled_gradient_error']:.1e}",
        f"              relative error: loss {train['loss_error']:.1e}, "
        f"gradients {train['gradient_error']:.1e}",
    ]
    for name in beside:
        own, slower = share[name], rates[name] / beside[name]
        lines.append(
            f"  {name:8s}    {rates[name]:9.1f} images/s   {own['bound']:.0%} of the bound, "
            f"{own['with_bases']:.0%} with the bases "
            f"({met(own['bound'] >= AIMS['decode'])}): matrices {own['matrices']:.0%}, sines "
            f"{own['sines']:.0%}, copies {own['copied']:.0%}; beside a busy process {slower:.1f} "
            f"times slower ({met(slower <= AIMS['busy'])})"
        )
    error = ""
    if "bfloat16_psnr" in decode:
        error = f"; bfloat16: {decode['bfloat16_psnr']:.1f} dB, at worst "
        error += f"{decode['bfloat16_worst']:.3f} of [0, 1]"
    return [
        *lines,
        f"  reference   {rates['plain']:9.1f} images/s   relative error: float32 "
        f"{decode['plain_error']:.1e}{error}",
        f"  memory      {memory['step'] / 1e6:9.0f} MB a step    reference "
        + (f"{plain / 1e6:8.0f}   " if plain is not None else "ran out of memory   ")
        + f"aim {AIMS['memory'] / 1e6:.0f}: {met(memory['step'] < AIMS['memory'])}   "
        f"(process at rest: {memory['rest'] / 1e6:.0f})",
    ]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variants", nargs="+", choices=["S", "L"], default=["S", "L"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument(
        "--reference-batch",
        type=int,
        help="signals of the reference's training step: 32 for S and, for its memory, 8 for L",
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, help="torch's own choice where not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the results here as JSON")
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.memory:
        print(json.dumps(step_memory(*args.memory, args.batch, args.seed)))
        return
    report = {
        "command": "python " + " ".join(sys.argv),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": devices.environment(CPU),
        "seed": args.seed,
        "repeats": args.repeats,
        "aims": AIMS,
        "results": [],
    }
    print(json.dumps(report["environment"]))
    # first: a process inherits the peak of the one that starts it
    memory = {variant: measure_memory(variant, args) for variant in args.variants}
    bounds = measure_bounds(CPU)
    report["bounds"] = asdict(bounds)
    print(json.dumps(report["bounds"]))
    for variant in args.variants:
        report["results"].append(measure(variant, args, bounds) | memory[variant])
        print("\n".join(table(report["results"][-1])), flush=True)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
