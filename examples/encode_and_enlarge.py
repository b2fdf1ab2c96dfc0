"""A transformer encodes your photograph in one pass; its field is rendered four times larger.

    python examples/encode_and_enlarge.py [PICTURE] --steps 600

LA-GINR, small: trained for some minutes on crops of scikit-image's pictures, all but the one that
is enlarged. The tokens that the encoder answers are then refined on the photograph itself.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from fieldloom import Family, export
from fieldloom.conditioners import Substitute
from fieldloom.encoders import Fit, Transformer
from fieldloom.fields import Local
from fieldloom.metrics.mismatch import mse
from fieldloom.metrics.paired import psnr
from fieldloom.modalities import Grid
from fieldloom.modalities.sources import SOURCES
from fieldloom.renderers import Direct

PICTURES = ("chelsea", "coffee", "rocket", "immunohistochemistry", "retina", "hubble_deep_field")


def crops(pictures: torch.Tensor, count: int, size: int) -> torch.Tensor:
    """(count, 3, size, size): squares of random pictures, from ``size`` to twice as wide."""
    made = []
    for _ in range(count):
        wide = int(torch.randint(size, 2 * size + 1, ()))
        top, left = (int(torch.randint(pictures.shape[-1] - wide + 1, ())) for _ in "ab")
        some = pictures[torch.randint(len(pictures), (1,)), :, top : top + wide, left : left + wide]
        made.append(torch.nn.functional.adaptive_avg_pool2d(some, size))
    return torch.cat(made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", nargs="?", help="default: scikit-image's astronaut")
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--out", type=Path, default=Path("outputs/encode_and_enlarge"))
    asked = parser.parse_args()
    torch.manual_seed(0)
    image = Grid(axes=2, size=asked.size, channels=3, range="unit")
    given = SOURCES["folder" if asked.picture else "skimage"]
    photograph = given(image, asked.picture or ("astronaut",)).data[:1].float() / 255
    large = Grid(axes=2, size=4 * asked.size, channels=3)
    pictures = SOURCES["skimage"](large, PICTURES).data.float() / 255

    field = Local(2, 3, width=96, features=96, tokens=64, bands=(48.0, 16.0), query=8.0, offset=0.5)
    family = Family(field, Substitute(field.slots, "tokens", origin="zero"))
    shape = {"axes": image.axes, "value_dim": 3, "coord_dim": 2}
    encoder = Transformer(family.code_shape, width=128, depth=3, heads=4, patch=6, **shape)
    parameters = [*family.parameters(), *encoder.parameters()]
    adam = torch.optim.Adam(parameters, 1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, asked.steps)
    for step in range(asked.steps):
        batch = image.observe(crops(pictures, 8, asked.size), points=512, whole=True)
        code = encoder(batch.context, family, Direct(), mse)
        loss = mse(family(batch.target.coords, code), batch.target.values).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
        if (step + 1) % 100 == 0:
            print(f"step {step + 1}: loss {loss.item():.5f}")

    signal = image.encoding(photograph)
    shown = [image.assemble(signal.values)]
    for name, how in {"one pass": encoder, "refined": Fit(steps=100, start=encoder)}.items():
        with torch.no_grad():
            code = how(signal, family, Direct(), mse)
            small = image.assemble(family(image.grid(), code))
            shown.append(image.assemble(family(image.grid(4 * asked.size), code), 4 * asked.size))
        print(
            f"{name}: PSNR {psnr(small, photograph).item():.2f} dB at {asked.size} x {asked.size}"
        )
    shown[0] = torch.nn.functional.interpolate(shown[0], 4 * asked.size)
    sheet = export.sheet(torch.cat(shown).clamp(0, 1), columns=3)
    export.write(export.png_bytes(sheet), asked.out / "enlarged.png")
    print(f"pixels, one pass, refined: {asked.out / 'enlarged.png'}")


if __name__ == "__main__":
    main()
