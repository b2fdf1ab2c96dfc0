"""What detectors know, and how the metrics in their features rank known degradations.

    python benchmarks/detectors.py --data ../shared/data --out benchmarks/results/detectors.json

accuracy: ImageNet's classes that efficientnet-lite0 gives pictures with known labels, with the
preprocessing and padding of its training and with others. ranking: pictures of a set against as
many others of it that are degraded more and more. seconds: of one core, for a picture. The folder
holds caltech101_178.npz, portraits256.npz, cifar10.npz and mnist.npz; letters are drawn with the
fonts that come with matplotlib. About ten minutes of one core; what stands in the result already
is not measured again.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import platform
import string
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from scipy.stats import spearmanr
from skimage.filters import gaussian
from sklearn.cluster import KMeans
from torch import Generator, Tensor
from torch.nn import functional as F

from fieldloom.metrics.detectors import DETECTORS, Detector
from fieldloom.metrics.detectors import efficientnet as lite
from fieldloom.metrics.sets import frechet, kid, kid_error, prdc

# -- pictures


class Pictures(NamedTuple):
    """Pictures (n, 1 | 3, side, side) in [0, 1] and the class of each; names: of the classes."""

    images: Tensor
    classes: Tensor
    names: Sequence[str]


def unpack(data: np.ndarray, offsets: np.ndarray, which: Sequence[int]) -> Tensor:
    """Encoded images that lie one behind another, as colours in [0, 1]."""
    parts = [data[offsets[i] : offsets[i + 1]].tobytes() for i in which]
    pictures = [np.array(Image.open(io.BytesIO(part)).convert("RGB")) for part in parts]
    return torch.from_numpy(np.stack(pictures)).movedim(3, 1).float() / 255


def pick(count: int, of: int, seed: int = 0) -> list[int]:
    return torch.randperm(of, generator=Generator().manual_seed(seed))[:count].tolist()


def read_caltech(folder: Path, count: int | None) -> Pictures:
    """Photographs, 178 x 178, of 20 classes."""
    file = np.load(folder / "caltech101_178.npz")
    names, classes = np.unique(file["label"], return_inverse=True)
    which = list(range(len(classes))) if count is None else pick(count, len(classes))
    images = unpack(file["data"], file["offsets"], which)
    return Pictures(images, torch.from_numpy(classes)[which], names.tolist())


def read_portraits(folder: Path, count: int) -> Pictures:
    """Portraits, 128 x 128; classes are clusters of 8 x 8 thumbnails."""
    file = np.load(folder / "portraits256.npz")
    images = unpack(file["data"], file["offsets"], pick(count, len(file["offsets"]) - 1))
    images = F.avg_pool2d(images, 2)
    thumbnails = F.adaptive_avg_pool2d(images, 8).flatten(1).numpy()
    clusters = KMeans(8, n_init=3, random_state=0).fit_predict(thumbnails)
    return Pictures(images, torch.from_numpy(clusters).long(), [str(i) for i in range(8)])


def read_cifar(folder: Path, count: int) -> Pictures:
    """Photographs, 32 x 32, of 10 classes."""
    file = np.load(folder / "cifar10.npz")
    which = pick(count, len(file["y_train"]))
    images = unpack(file["train_data"], file["train_offsets"], which)
    classes = torch.from_numpy(file["y_train"].astype(np.int64))[which]
    return Pictures(images, classes, file["class_names"].tolist())


def read_digits(folder: Path, count: int) -> Pictures:
    """Written digits, 28 x 28, grey."""
    file = np.load(folder / "mnist.npz")
    which = pick(count, len(file["y_train"]))
    images = torch.from_numpy(file["x_train"][which])[:, None].float() / 255
    classes = torch.from_numpy(file["y_train"].astype(np.int64))[which]
    return Pictures(images, classes, list(string.digits))


def draw_letters(folder: Path, count: int) -> Pictures:
    """26 capitals, 28 x 28, grey, in the fonts of matplotlib, turned, moved and scaled a little."""
    import matplotlib

    fonts = sorted(Path(matplotlib.get_data_path(), "fonts", "ttf").glob("DejaVuS*.ttf"))
    fonts = [font for font in fonts if "Display" not in font.name]
    random, images = np.random.default_rng(0), []
    classes = torch.from_numpy(random.integers(0, 26, count))
    for letter in classes.tolist():
        size, angle, font = random.uniform(60, 84), random.uniform(-8, 8), random.choice(fonts)
        sheet = Image.new("L", (112, 112))
        place = tuple(56 + random.uniform(-6, 6, 2))
        ImageDraw.Draw(sheet).text(
            place, string.ascii_uppercase[letter], 255, ImageFont.truetype(font, size), anchor="mm"
        )
        turned = sheet.rotate(angle, Image.Resampling.BICUBIC)
        images.append(np.array(turned.resize((28, 28), Image.Resampling.BOX)))
    values = torch.from_numpy(np.stack(images))[:, None].float() / 255
    return Pictures(values, classes, list(string.ascii_uppercase))


SETS: Mapping[str, Callable[[Path, int], Pictures]] = {
    "letters 28": draw_letters,
    "caltech101 178": read_caltech,
    "digits 28": read_digits,
    "portraits 128": read_portraits,
    "cifar10 32": read_cifar,
}


# -- degradations, each by its severities, the mildest first


def add_noise(images: Tensor, deviation: float) -> Tensor:
    noise = torch.randn(images.shape, generator=Generator().manual_seed(0))
    return (images + deviation * noise).clamp(0, 1)


def blur(images: Tensor, deviation: float) -> Tensor:
    """deviation: in 64ths of the side."""
    pixels = deviation * images.shape[-1] / 64
    made = [gaussian(one.numpy(), (0, pixels, pixels), mode="reflect") for one in images]
    return torch.from_numpy(np.stack(made)).float()


def compress(images: Tensor, quality: int) -> Tensor:
    """JPEG."""
    made = []
    for one in (images * 255).round().to(torch.uint8):
        file = io.BytesIO()
        picture = Image.fromarray(one.movedim(0, 2).squeeze(2).numpy())
        picture.save(file, "JPEG", quality=quality)
        array = np.array(Image.open(file))
        made.append(torch.from_numpy(array if array.ndim == 3 else array[..., None]).movedim(2, 0))
    return torch.stack(made).float() / 255


def lower_contrast(images: Tensor, factor: float) -> Tensor:
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + factor * (images - mean)


def shuffle_patches(images: Tensor, cells: int) -> Tensor:
    """The cells of a grid, in another order in each picture."""
    side = images.shape[-1] // cells
    patches = F.unfold(images[..., : side * cells, : side * cells], side, stride=side)
    generator = Generator().manual_seed(0)
    orders = [torch.randperm(cells**2, generator=generator) for _ in images]
    mixed = torch.stack([one[:, order] for one, order in zip(patches, orders, strict=True)])
    return F.fold(mixed, (side * cells, side * cells), side, stride=side)


DEGRADATIONS: Mapping[str, tuple[Callable[[Tensor, float], Tensor], Sequence[float]]] = {
    "noise": (add_noise, (0.04, 0.1, 0.25)),
    "blur": (blur, (1, 2, 4)),
    "jpeg": (compress, (50, 20, 5)),
    "contrast": (lower_contrast, (0.8, 0.6, 0.4)),
    "shuffled patches": (shuffle_patches, (2, 4, 7)),
}


def fewer_modes(classes: Tensor, fraction: float, count: int) -> Tensor:
    """``count`` of the pictures of the first classes, as many as hold that fraction of all; the
    same picture may occur several times where they hold fewer."""
    sizes = classes.bincount()
    kept = int((sizes.cumsum(0) < fraction * len(classes)).sum()) + 1
    held = (classes < kept).nonzero()[:, 0]
    return held[torch.arange(count) % len(held)]


# -- measurements


def measure(real: Tensor, made: Tensor) -> dict[str, float]:
    near = prdc(real, made, k=3)
    wide = prdc(real, made, k=5)
    return {
        "frechet": frechet(real, made),
        "kid": kid(real, made),
        "kid.error": kid_error(real, made),
        "precision": near["precision"],
        "recall": near["recall"],
        "density": wide["density"],
        "coverage": wide["coverage"],
    }


def rank(
    detector: Detector, pictures: Pictures, count: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Degradation -> severity -> metrics; the undegraded pictures are severity "none"."""
    real = detector(pictures.images[:count])
    pool, classes = detector(pictures.images[count:]), pictures.classes[count:]
    clean, none = pictures.images[count : 2 * count], measure(real, pool[:count])
    rows = {}
    for name, (degrade, severities) in DEGRADATIONS.items():
        worse = {f"{x:g}": measure(real, detector(degrade(clean, x))) for x in severities}
        rows[name] = {"none": none, **worse}
    halves = {f"1/{n}": measure(real, pool[fewer_modes(classes, 1 / n, count)]) for n in (2, 4, 8)}
    repeated = {f"{n} pictures": measure(real, pool[torch.arange(count) % n]) for n in (50, 20, 5)}
    rows["fewer modes"] = {"none": none, **halves}
    rows["copies of a few"] = {"none": none, **repeated}
    rows["copies of the data"] = {"none": none, "all": measure(real, real)}
    return rows


def judge(severities: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Whether distances grow with severity (Spearman's correlation, 1: always), and how far the
    strongest degradation is from none, in standard errors of the difference of the two KIDs."""
    rows = list(severities.values())
    order = lambda name: float(spearmanr(range(len(rows)), [row[name] for row in rows]).statistic)
    error = math.hypot(rows[0]["kid.error"], rows[-1]["kid.error"])
    return {
        "kid": round(order("kid"), 2),
        "frechet": round(order("frechet"), 2),
        "errors": round((rows[-1]["kid"] - rows[0]["kid"]) / error, 1),
    }


def tabulate(ranking: Mapping[str, dict]) -> str:
    """The judgements as a table of Markdown, a column for each set."""
    detectors = list(next(iter(ranking.values())))
    lines = ["| degradation | detector | " + " | ".join(ranking) + " |"]
    lines.append("|---" * (len(ranking) + 2) + "|")
    for name in (*DEGRADATIONS, "fewer modes", "copies of a few"):
        for detector in detectors:
            found = [judge(one[detector][name]) if detector in one else None
                     for one in ranking.values()]  # fmt: skip
            cells = ["-" if x is None else "{kid:g} / {frechet:g} ({errors:g})".format(**x)
                     for x in found]  # fmt: skip
            lines.append(f"| {name} | {detector} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


IMAGENET: Mapping[str, Sequence[int]] = {
    "butterfly": range(321, 327),
    "grand_piano": [579],
    "hawksbill": range(33, 38),
    "ketch": [780, 871, 914],
    "laptop": [620, 681],
    "llama": [355],
    "scorpion": [71],
    "starfish": [327],
    "trilobite": [69],
    "watch": [531, 826],
}
"""Class of caltech101 -> ImageNet's classes of the same thing: six butterflies, five turtles,
schooner, trimaran and yawl, notebook and laptop, stopwatch and digital watch."""

PHOTOGRAPHS: Mapping[str, Sequence[int]] = {
    "chelsea": [281, 282, 283, 284, 285],
    "coffee": [504, 967, 968],
    "rocket": [657, 744],
}
"""Photographs of scikit-image -> their ImageNet classes: cats, espresso or cup, missile."""


def symmetric(self: lite.Convolution, x: Tensor) -> Tensor:
    """Padded alike on both sides, as PyTorch does."""
    pad = [(self.kernel_size[0] - 1) // 2] * 4
    return self._conv_forward(F.pad(x, pad), self.weight, self.bias)


def normalise_as_torchvision(x: Tensor) -> Tensor:
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    return ((x * 128 + 127) / 255 - mean) / deviation


def log_probabilities(network: lite.Network, x: Tensor) -> Tensor:
    """Of ImageNet's classes: (n, 1000)."""
    with torch.inference_mode():
        return torch.cat([network(part) for part in x.split(lite.BATCH)]).log_softmax(1)


def of_known(found: Tensor, known: Sequence[Sequence[int]]) -> Tensor:
    """Log probabilities (n,) of the classes that are right."""
    return torch.stack([one[list(k)].logsumexp(0) for one, k in zip(found, known, strict=True)])


def count_right(found: Tensor, known: Sequence[Sequence[int]]) -> dict[str, float]:
    pairs = list(zip(found.topk(5).indices.tolist(), known, strict=True))
    right = lambda n: sum(bool({*five[:n]} & {*one}) for five, one in pairs) / len(pairs)
    mean = of_known(found, known).mean().item()
    return {"top 1": right(1), "top 5": right(5), "log probability": mean}


def measure_accuracy(folder: Path) -> dict:
    from skimage import data as photographs

    network = lite.load_network(lite.find_weights())
    every = read_caltech(folder, None)
    which = [i for i, c in enumerate(every.classes.tolist()) if every.names[c] in IMAGENET]
    names = [every.names[int(every.classes[i])] for i in which]
    known = [IMAGENET[name] for name in names]
    x = torch.cat([lite.prepare(part) for part in every.images[which].split(64)])
    found = log_probabilities(network, x)
    of = lambda name: [i for i, n in enumerate(names) if n == name]
    accuracy = {
        "pictures": len(which),
        "chance of top 1": sum(len(one) for one in known) / len(known) / 1000,
        "as it is": count_right(found, known),
        "by class": {
            name: count_right(found[of(name)], [known[i] for i in of(name)]) for name in IMAGENET
        },
    }
    some = slice(0, None, 2)  # every second picture, since each way costs as much again
    others = {"normalised as by torchvision": log_probabilities(
        network, normalise_as_torchvision(x[some]))}  # fmt: skip
    kept, lite.Convolution.forward = lite.Convolution.forward, symmetric
    others["padded alike on both sides"] = log_probabilities(network, x[some])
    lite.Convolution.forward = kept
    own = of_known(found[some], known[some])
    accuracy["of every second picture"] = {"as it is": count_right(found[some], known[some])}
    for name, other in others.items():
        less = own - of_known(other, known[some])  # of the same pictures, so their spread cancels
        accuracy["of every second picture"][name] = count_right(other, known[some]) | {
            "below as it is": less.mean().item(),
            "error of that": less.std().item() / math.sqrt(len(less)),
        }
    accuracy["photographs of scikit-image"] = {}
    for name, classes in PHOTOGRAPHS.items():
        image = torch.from_numpy(getattr(photographs, name)()).movedim(2, 0)[None].float() / 255
        side = min(image.shape[2:])
        top, left = ((length - side) // 2 for length in image.shape[2:])
        x = lite.prepare(image[..., top : top + side, left : left + side])
        accuracy["photographs of scikit-image"][name] = count_right(
            log_probabilities(network, x), [classes]
        )
    return accuracy


def seconds_a_picture(detector: Detector, side: int) -> float:
    images = torch.rand(64, 3, side, side, generator=Generator().manual_seed(0))
    detector(images[:8])
    start = time.process_time()
    detector(images)
    return (time.process_time() - start) / len(images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--inception", help="a local file of Inception's weights")
    parser.add_argument("--count", type=int, default=200, help="pictures of a set")
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=SETS)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    names = ["gabor", "efficientnet-lite0"]
    detectors = {name: DETECTORS[name]() for name in names}
    if arguments.inception:
        detectors["inception"] = DETECTORS["inception"](arguments.inception)
    found: dict = {"count": arguments.count, "seconds a picture": {}, "ranking": {}}
    if arguments.out and arguments.out.is_file():
        found = json.loads(arguments.out.read_text())

    def write() -> None:
        found["command"] = " ".join(["python", *sys.argv])
        found["date"], found["torch"] = date.today().isoformat(), torch.__version__
        found["machine"] = f"{platform.machine()}, one core of {os.cpu_count()}, shared with others"
        text = json.dumps(found, indent=1, default=float) + "\n"
        print(f"{time.process_time():.0f} s", flush=True)
        if arguments.out:
            arguments.out.write_text(text)

    for title in arguments.sets:
        ranked = found["ranking"].setdefault(title, {})
        pictures = SETS[title](arguments.data, 3 * arguments.count)
        for name, detector in detectors.items():
            if name not in ranked:
                ranked[name] = rank(detector, pictures, arguments.count)
                write()
    for name, detector in detectors.items():
        sides = {side: round(seconds_a_picture(detector, side), 4) for side in (28, 64, 256)}
        found["seconds a picture"].setdefault(name, sides)
    if "accuracy" not in found:
        found["accuracy"] = measure_accuracy(arguments.data)
    write()
    print(tabulate(found["ranking"]))


if __name__ == "__main__":
    main()
