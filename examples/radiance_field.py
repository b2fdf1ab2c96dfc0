"""One scene, from posed images to a radiance field: held-out views, depth, and an orbit.

    python examples/radiance_field.py SCENE --size 100 --steps 1500 --out outputs/radiance_field

SCENE is a folder with transforms.json, an object of SRN, or a packed .npz of views. Its last views
are held out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from fieldloom import Family, export
from fieldloom.conditioners import Shared
from fieldloom.fields import Fourier, FourierMlp
from fieldloom.metrics.losses import mse
from fieldloom.metrics.paired import psnr
from fieldloom.modalities import Views
from fieldloom.modalities.sources import SOURCES, spec_of
from fieldloom.renderers import Volume


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scene")
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--rays", type=int, default=512)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--out", type=Path, default=Path("outputs/radiance_field"))
    arguments = parser.parse_args()
    torch.manual_seed(0)

    seen = Views(size=arguments.size, held=4)
    source = SOURCES[spec_of(arguments.scene)["name"]](seen, arguments.scene)
    suggested = source.suggests["modality"]
    seen = Views(arguments.size, held=4, **suggested)
    render = Volume(
        **source.suggests["renderer"],
        unit_length=seen.unit_length,
        samples=48,
        colour="sigmoid",
        density="softplus",  # its gradient never vanishes: where relu starts empty, it stays so
        last="step",
        jitter=True,
    )
    data = source.take(source.train[:1])

    domain = render.domain(seen.coord_dim, seen.value_dim)
    field = FourierMlp(
        domain.coord,
        domain.value,
        width=96,
        depth=5,
        init="kaiming",
        encoding=Fourier("octaves", count=7, pi=False, include_input=True),
    )
    family = Family(field, Shared(field.slots))
    code = family.conditioner.origin(1)
    adam = torch.optim.Adam(family.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, arguments.steps)
    for step in range(arguments.steps):
        signal = seen.observe(data, points=arguments.rays).target
        loss = mse(render(family.bind(code), signal.coords), signal.values).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step}: loss {loss.item():.5f}")

    with torch.no_grad():
        held, orbit = seen.select_held_out(data).as_float(), seen.cameras(arguments.frames)
        function, rays = family.bind(code), seen.grid(cameras=held.cameras)
        as_views = lambda values, cameras: seen.assemble(values, cameras=cameras).clamp().tensor[0]
        views = as_views(render(function, rays), held.cameras)
        around = as_views(render(function, seen.grid(cameras=orbit)), orbit)
        far = (render.depth(function, rays) - render.near) / (render.far - render.near)
        depth = as_views(seen.normalize(far), held.cameras)
    true = held.tensor[0]
    rows = torch.cat([true, views, depth.expand(-1, 3, -1, -1)])
    export.png(export.sheet(rows, 4), arguments.out / "held_out.png")
    export.gif([export.pixels(view) for view in around], arguments.out / "orbit.gif")
    print(f"PSNR {psnr(views, true).mean().item():.2f} dB on 4 views that were held out")
    print(f"images: {arguments.out}")


if __name__ == "__main__":
    main()
