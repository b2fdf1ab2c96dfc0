"""One image fitted by a ReLU network, a SIREN and Levels-of-Experts, side by side.

    python examples/mlp_siren_experts.py [IMAGE] --size 192 --steps 300

All three have five hidden layers of 64 units, and cost the same per pixel; the experts have sixteen
matrices where the others have one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from fieldloom import Family, export
from fieldloom.conditioners import Shared
from fieldloom.fields import Experts, Field, Fourier, FourierMlp, Siren, Tiling
from fieldloom.metrics.losses import mse
from fieldloom.metrics.paired import psnr
from fieldloom.modalities import Grid
from fieldloom.modalities.sources import SOURCES


def fit(field: Field, rate: float, image: Grid, data: torch.Tensor, steps: int) -> torch.Tensor:
    """Fit a field by Adam on random points; returns the fitted image (1, 3, size, size)."""
    torch.manual_seed(0)
    family = Family(field, Shared(field.slots))
    code = family.conditioner.origin(1)
    adam = torch.optim.Adam(family.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    for _ in range(steps):
        some = image.observe(data, points=8192).target
        adam.zero_grad()
        mse(family(some.coords, code), some.values).mean().backward()
        adam.step()
        schedule.step()
    with torch.no_grad():
        return image.assemble(family(image.grid(), code)).tensor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", nargs="?", help="default: scikit-image's astronaut")
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("outputs/mlp_siren_experts"))
    arguments = parser.parse_args()
    image = Grid(axes=2, size=arguments.size, channels=3)
    source = SOURCES["folder" if arguments.image else "skimage"]
    found = source(image, arguments.image) if arguments.image else source(image, ("astronaut",))
    data = found.read(found.train[:1]).tensor

    octaves = Fourier("octaves", count=8)
    experts = Experts(
        2, 3, width=64, depth=6, tiling=Tiling(tiles=(4, 4, 4, 4, 4, 1)), encoding=octaves
    )
    fields = {
        "mlp": (FourierMlp(2, 3, width=64, depth=6, init="kaiming", encoding=octaves), 5e-3),
        "siren": (Siren(2, 3, width=64, depth=6), 1e-3),
        "experts": (experts, 1e-2),
    }
    images = [data[0]]
    for name, (field, rate) in fields.items():
        fitted = fit(field, rate, image, data, arguments.steps)
        print(f"{name}: PSNR {psnr(fitted, data).item():.2f} dB after {arguments.steps} steps")
        images.append(fitted[0])
    sheet = export.sheet(torch.stack(images), columns=4)
    export.png(sheet, arguments.out / "side_by_side.png")
    print(f"original, mlp, siren, experts: {arguments.out / 'side_by_side.png'}")


if __name__ == "__main__":
    main()
