"""A transformer encodes your photograph in one pass; its field is rendered four times larger.

    python examples/encode_and_enlarge.py [IMAGE] --steps 2500

LA-GINR, very small: trained for two minutes on squares of 16 x 16 pixels of scikit-image's
images, except the one that is enlarged. The photograph is encoded square by square; the tokens
that the encoder answers are then refined on the photograph itself.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from fieldloom import Family, export
from fieldloom.conditioners import Substitute
from fieldloom.encoders import Fit, Transformer
from fieldloom.fields import Local
from fieldloom.metrics.losses import mse
from fieldloom.metrics.paired import psnr
from fieldloom.modalities import Grid
from fieldloom.modalities.sources import SOURCES
from fieldloom.renderers import Direct

SIDE = 16
IMAGES = ("chelsea", "coffee", "rocket", "immunohistochemistry", "retina", "hubble_deep_field")


def random_crops(images: torch.Tensor, count: int) -> torch.Tensor:
    """Squares of random images: (count, 3, SIDE, SIDE)."""
    crops = []
    for _ in range(count):
        top, left = (int(torch.randint(images.shape[-1] - SIDE + 1, ())) for _ in "ab")
        index = int(torch.randint(len(images), ()))
        crops.append(images[index, :, top : top + SIDE, left : left + SIDE])
    return torch.stack(crops)


def split_squares(photograph: torch.Tensor) -> torch.Tensor:
    """(1, 3, n SIDE, n SIDE) -> (n n, 3, SIDE, SIDE), row by row."""
    rows = photograph[0].unfold(1, SIDE, SIDE).unfold(2, SIDE, SIDE)
    return rows.permute(1, 2, 0, 3, 4).flatten(0, 1)


def join_squares(parts: torch.Tensor) -> torch.Tensor:
    """The inverse of ``split_squares``, for squares of any size."""
    n, side = round(len(parts) ** 0.5), parts.shape[-1]
    grid = parts.unflatten(0, (n, n)).permute(2, 0, 3, 1, 4)
    return grid.reshape(1, parts.shape[1], n * side, n * side)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", nargs="?", help="default: scikit-image's astronaut")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--out", type=Path, default=Path("outputs/encode_and_enlarge"))
    arguments = parser.parse_args()
    torch.manual_seed(0)
    size = arguments.size // SIDE * SIDE
    image = Grid(axes=2, size=SIDE, channels=3, range="unit")
    given = SOURCES["folder" if arguments.image else "skimage"]
    whole = Grid(axes=2, size=size, channels=3)
    first = given(whole, arguments.image or ("astronaut",)).data.part(slice(1))
    others = SOURCES["skimage"](Grid(axes=2, size=192, channels=3), IMAGES).data
    photograph, images = first.as_float().tensor, others.as_float().tensor

    field = Local(2, 3, width=64, features=64, tokens=16, bands=(8.0, 4.0), query=4.0, offset=0.5)
    family = Family(field, Substitute(field.slots, "tokens", origin="zero"))
    shape = {"axes": image.axes, "value_dim": 3, "coord_dim": 2}
    encoder = Transformer(family.code_shape, width=96, depth=2, heads=4, patch=4, **shape)
    parameters = [*family.parameters(), *encoder.parameters()]
    adam = torch.optim.Adam(parameters, 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, arguments.steps)
    for step in range(arguments.steps):
        batch = image.observe(random_crops(images, 32))
        code = encoder(batch.context, family, Direct(), mse)
        loss = mse(family(batch.target.coords, code), batch.target.values).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
        if (step + 1) % 250 == 0:
            print(f"step {step + 1}: loss {loss.item():.5f}")

    parts = image.encoding(split_squares(photograph))
    rows = [torch.nn.functional.interpolate(photograph, 4 * size)]
    for name, method in {"one pass": encoder, "refined": Fit(steps=100, start=encoder)}.items():
        with torch.no_grad():
            code = method(parts, family, Direct(), mse)
            grids = {n: image.grid(n).expand(len(code), -1, -1) for n in (SIDE, 4 * SIDE)}
            drawn = {n: image.assemble(family(grid, code), n).tensor for n, grid in grids.items()}
        error = psnr(join_squares(drawn[SIDE]), photograph).item()
        print(f"{name}: PSNR {error:.2f} dB at {size} x {size}")
        rows.append(join_squares(drawn[4 * SIDE]))
    sheet = export.sheet(torch.cat(rows).clamp(0, 1), columns=3)
    export.png(sheet, arguments.out / "enlarged.png")
    print(f"pixels, one pass, refined: {arguments.out / 'enlarged.png'}")


if __name__ == "__main__":
    main()
