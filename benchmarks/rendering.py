"""The memory of second-order CAVIA through a volume renderer, with and without keeping every graph.

    python benchmarks/rendering.py --scenes 4 --rays 512 --out benchmarks/results/rendering.json

Each way runs in a process of its own: three inner steps, the outer loss, its backward pass. The
losses and gradients must agree.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from fieldloom import atomic
from fieldloom.conditioners import Mixture
from fieldloom.encoders import Cavia, reconstruction_loss
from fieldloom.engine import device as devices
from fieldloom.family import Family
from fieldloom.fields import Siren
from fieldloom.metrics.losses import mse
from fieldloom.process import tune_process
from fieldloom.renderers import Volume
from fieldloom.types import Signal


def step(
    checkpoint: bool, scenes: int, rays: int, samples: int, repeats: int, device: str = "cpu"
) -> dict[str, float]:
    """One step of training: peak above what the process held before, and its median time."""
    tune_process()  # as the command line does: how freed memory is kept decides the peak
    where = devices.pick(device)
    torch.manual_seed(0)
    render = Volume(near=1.1, far=2.1, samples=samples, jitter=True)
    siren = Siren(3, 4, width=64, depth=6)
    siren.kernels = devices.kernels
    family = Family(siren, Mixture(siren.slots, experts=256, width=128)).to(where)
    encoder = Cavia(family.code_shape, rate=0.05, checkpoint=checkpoint).train().to(where)
    origin = torch.randn(scenes, rays, 3) * 0.1 + torch.tensor([0.0, 0.0, 1.6])
    direction = torch.randn(scenes, rays, 3) * 0.2 - torch.tensor([0.0, 0.0, 1.0])
    signal = Signal(
        torch.cat([origin, direction], -1), torch.rand(scenes, rays, 3), torch.arange(scenes)
    ).to(where)
    devices.forget_peak(where)
    before = devices.held_memory(where)
    seconds = []
    for _ in range(repeats):
        torch.manual_seed(1)
        family.zero_grad()
        began = time.perf_counter()
        code = encoder(signal, family, render, mse)
        loss = reconstruction_loss(code, signal, family, render, mse).mean()
        loss.backward()
        devices.synchronize(where)
        seconds.append(time.perf_counter() - began)
    slope = torch.stack([p.grad.cpu().double().norm() for p in family.parameters()]).norm()
    return {
        "peak_bytes": devices.peak_memory(where) - before,
        "seconds": statistics.median(seconds),
        "loss": float(loss.detach()),
        "gradient": float(slope),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=4)
    parser.add_argument("--rays", type=int, default=512)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    sizes = (arguments.scenes, arguments.rays, arguments.samples, arguments.repeats)
    found = {}
    for name, checkpoint in (("kept", False), ("forgotten", True)):
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            found[name] = pool.submit(step, checkpoint, *sizes).result()
        print(name, found[name])
    if (found["kept"]["loss"], found["kept"]["gradient"]) != (
        found["forgotten"]["loss"],
        found["forgotten"]["gradient"],
    ):
        raise SystemExit("the two ways differ")
    result = {
        "environment": devices.environment(torch.device("cpu")),
        "sizes": {
            key: value for key, value in vars(arguments).items() if key not in ("out", "repeats")
        },
        "steps": found,
        "memory_ratio": found["forgotten"]["peak_bytes"] / found["kept"]["peak_bytes"],
        "time_ratio": found["forgotten"]["seconds"] / found["kept"]["seconds"],
    }
    print(f"memory {result['memory_ratio']:.2f}, time {result['time_ratio']:.2f}")
    if arguments.out:
        atomic.write_text(json.dumps(result, indent=2) + "\n", arguments.out)


if __name__ == "__main__":
    main()
