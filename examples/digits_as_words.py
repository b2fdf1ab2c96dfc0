"""A thousand digits into fields, fields into tokens, tokens back into digits; then new sequences.

    python examples/digits_as_words.py --count 1000 --steps 900

Every digit becomes a network of 153 weights; each weight, less that of the network that all began
as, becomes one token of a small codebook; a transformer learns which token follows which. First of
all: what do tokens lose? The picture has digits, their fields, and what tokens give back, a row
each.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from fieldloom import Family, export
from fieldloom.codecs import Quantize
from fieldloom.conditioners import FlatWeights
from fieldloom.encoders import Fit
from fieldloom.fields import Fourier, FourierMlp
from fieldloom.metrics.losses import mse
from fieldloom.metrics.paired import psnr
from fieldloom.metrics.sets import nearest
from fieldloom.modalities import Grid
from fieldloom.modalities.sources import SOURCES
from fieldloom.priors import Autoregressive
from fieldloom.renderers import Direct as Points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--fit-steps", type=int, default=300)
    parser.add_argument("--steps", type=int, default=900, help="of the transformer")
    parser.add_argument("--out", type=Path, default=Path("outputs/digits_as_words"))
    asked = parser.parse_args()
    torch.manual_seed(0)

    image = Grid(axes=2, size=8, channels=1, range="unit")
    digits = SOURCES["digits"](image)
    places = digits.train[: asked.count]
    data, labels = digits.read(places).tensor, digits.labels[places]

    # 1. Fields: one digit is fitted, and where it ends all others begin, so that a weight means the
    #    same in all of them. All are fitted at once, each as it would be alone.
    net = FourierMlp(2, 1, width=8, depth=3, encoding=Fourier("octaves", count=2, pi=False))
    family = Family(net, FlatWeights(net.slots))
    fit = Fit(steps=asked.fit_steps, rate=1e-2)
    fields = lambda some: fit(image.observe(some).context, family, Points(), mse).detach()
    start = family.conditioner.start
    start.data = fields(data[:1])[0].view_as(start)
    codes = fields(data)
    decode = lambda some, size=8: (
        image.assemble(family(image.grid(size).expand(len(some), -1, -1), some).detach(), size)
        .clamp()
        .tensor
    )
    print(f"PSNR of {len(data)} fields of {codes[0].numel()} weights: {score(decode(codes), data)}")

    # 2. Tokens, and what they lose, before anything is trained on them.
    shape, layout = family.code_shape, family.conditioner.layout
    for size in (7, 31, 127):
        codec = Quantize(shape, layout, per="layer", codebook_size=size)
        codec.fit(codes, start=family.conditioner.origin(1)[0].detach())
        back = codec.decode(codec.encode(codes))
        print(f"PSNR through codebooks of {size} a layer: {score(decode(back), data)}")
    rows = torch.cat([part[:16] for part in (data, decode(codes), decode(back))])
    export.png(export.sheet(rows, 16, 48), asked.out / "words.png")

    # 3. A transformer learns fields as sequences of tokens, and samples new ones.
    prior = Autoregressive(shape, 10, codec, layout, depth=3, width=96, heads=6)
    adam = torch.optim.AdamW(prior.parameters(), 2e-3, weight_decay=0.05)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, asked.steps)
    for step in range(asked.steps):
        some = torch.randint(len(codes), (32,))
        loss = prior.loss(codes[some], labels[some]).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        cosine.step()
        if step % 100 == 0:
            print(f"step {step}: {loss.item():.3f} nats a token")
    prior.eval()
    # each token only from the five likeliest: a field does not survive a wrong one
    written = decode(prior.sample(16, torch.arange(16) % 10, top_k=5, temperature=0.8))
    _, near = nearest(written.flatten(1), data.flatten(1))
    rows = torch.cat([written, data[near]])
    export.png(export.sheet(rows, 16, 48), asked.out / "written.png")
    print(f"new digits above the nearest of the {len(data)}: {asked.out / 'written.png'}")


def score(made: torch.Tensor, true: torch.Tensor) -> str:
    return f"{psnr(made, true).mean().item():.2f} dB"


if __name__ == "__main__":
    main()
