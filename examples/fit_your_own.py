"""Fit an image, a video, a sound, a mesh or a scene of your own, and draw what the field holds.

    python examples/fit_your_own.py FILE --steps 500 --out outputs/fit_your_own

Without a FILE it is scikit-image's astronaut. `fieldloom fit FILE` does the same in a terminal.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import skimage.data
from PIL import Image

import fieldloom
from fieldloom.drawing import draw_fit
from fieldloom.inputs import source_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", help="default: scikit-image's astronaut")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--field", help="another field: siren, experts, fourier-mlp, wave-mlp")
    parser.add_argument("--out", type=Path, default=Path("outputs/fit_your_own"))
    arguments = parser.parse_args()

    signal = arguments.file or Image.fromarray(skimage.data.astronaut())
    system = fieldloom.fit(signal, arguments.out, steps=arguments.steps, field=arguments.field)
    for line in draw_fit(system, source_of(system, quiet=True), arguments.out):
        print(line)
    if system.modality.kind == "images":
        large = fieldloom.render(system, arguments.out / "part.png", crop=(0.4, 0.4, 0.6, 0.6),
                                 resolution=512)  # fmt: skip
        print(f"a part of it: {large}")


if __name__ == "__main__":
    main()
