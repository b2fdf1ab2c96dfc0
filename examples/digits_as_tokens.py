"""A thousand digits into fields, fields into tokens, tokens back into digits; then new sequences.

    python examples/digits_as_tokens.py --count 1000 --steps 900

Every digit becomes a network of 153 weights. Each weight, less that of the network from which all
were fitted, becomes one token of a small codebook, and a transformer learns the sequences of
tokens. The first image shows what tokens lose: a row each of digits, of their fields, and of the
fields decoded from tokens.
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
from fieldloom.renderers import Direct


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--fit-steps", type=int, default=300)
    parser.add_argument("--steps", type=int, default=900, help="of the transformer")
    parser.add_argument("--out", type=Path, default=Path("outputs/digits_as_tokens"))
    arguments = parser.parse_args()
    torch.manual_seed(0)

    image = Grid(axes=2, size=8, channels=1, range="unit")
    digits = SOURCES["digits"](image)
    indices = digits.train[: arguments.count]
    data, labels = digits.read(indices).tensor, digits.labels[indices]

    # 1. Fields: one digit is fitted, and all others start at its weights, so that corresponding
    #    weights are comparable. All are fitted at once, each as it would be alone.
    net = FourierMlp(2, 1, width=8, depth=3, encoding=Fourier("octaves", count=2, pi=False))
    family = Family(net, FlatWeights(net.slots))
    fit = Fit(steps=arguments.fit_steps, rate=1e-2)
    fields = lambda some: fit(image.observe(some).context, family, Direct(), mse).detach()
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
        decoded = codec.decode(codec.encode(codes))
        print(f"PSNR through codebooks of {size} a layer: {score(decode(decoded), data)}")
    rows = torch.cat([part[:16] for part in (data, decode(codes), decode(decoded))])
    export.png(export.sheet(rows, 16, 48), arguments.out / "tokens.png")

    # 3. A transformer learns fields as sequences of tokens, and samples new ones.
    prior = Autoregressive(shape, 10, codec, layout, depth=3, width=96, heads=6)
    adam = torch.optim.AdamW(prior.parameters(), 2e-3, weight_decay=0.05)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, arguments.steps)
    for step in range(arguments.steps):
        some = torch.randint(len(codes), (32,))
        loss = prior.loss(codes[some], labels[some]).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        cosine.step()
        if step % 100 == 0:
            print(f"step {step}: {loss.item():.3f} nats a token")
    prior.eval()
    # each token only among the five likeliest: one wrong weight spoils a field
    samples = decode(prior.sample(16, torch.arange(16) % 10, top_k=5, temperature=0.8))
    _, near = nearest(samples.flatten(1), data.flatten(1))
    rows = torch.cat([samples, data[near]])
    export.png(export.sheet(rows, 16, 48), arguments.out / "samples.png")
    print(f"new digits above the nearest of the {len(data)}: {arguments.out / 'written.png'}")


def score(predicted: torch.Tensor, true: torch.Tensor) -> str:
    return f"{psnr(predicted, true).mean().item():.2f} dB"


if __name__ == "__main__":
    main()
