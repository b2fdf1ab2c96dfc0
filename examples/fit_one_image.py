"""Fit one image with a SIREN, and draw it at four times the size.

    python examples/fit_one_image.py [IMAGE] --size 128 --steps 400 --out outputs/fit_one_image

Only parts: a modality defines what an image is, a field how weights become a function, and a
conditioner owns the weights. Everything else is plain PyTorch.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from fieldloom import Family, export
from fieldloom.conditioners import Shared
from fieldloom.fields import Siren
from fieldloom.metrics.losses import mse
from fieldloom.metrics.paired import psnr
from fieldloom.modalities import Grid
from fieldloom.modalities.sources import SOURCES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", nargs="?", help="default: scikit-image's astronaut")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--out", type=Path, default=Path("outputs/fit_one_image"))
    arguments = parser.parse_args()
    torch.manual_seed(0)

    image = Grid(axes=2, size=arguments.size, channels=3)
    if arguments.image:
        source = SOURCES["folder"](image, arguments.image)
    else:
        source = SOURCES["skimage"](image, ("astronaut",))
    original = source.read(source.train[:1]).tensor  # (1, 3, size, size) in [0, 1]
    signal = image.observe(original).target  # coords (1, points, 2), values (1, points, 3)

    siren = Siren(coord_dim=2, value_dim=3, width=128, depth=5)
    family = Family(siren, Shared(siren.slots))
    code = family.conditioner.origin(1)  # a shared field has no code: (1, 0, 0)

    adam = torch.optim.Adam(family.parameters(), 5e-4)
    for step in range(arguments.steps):
        loss = mse(family(signal.coords, code), signal.values).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        if step % 50 == 0:
            print(f"step {step}: loss {loss.item():.5f}")

    with torch.no_grad():
        same = image.assemble(family(signal.coords, code)).tensor
        fine = 4 * arguments.size
        large = image.assemble(family(image.grid(fine), code), fine).tensor
    print(f"PSNR {psnr(same, original).item():.2f} dB after {arguments.steps} steps")
    export.png(original[0], arguments.out / "original.png")
    export.png(same[0], arguments.out / "fitted.png")
    export.png(large[0], arguments.out / "four_times.png")
    print(f"images: {arguments.out}")


if __name__ == "__main__":
    main()
