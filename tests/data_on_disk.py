"""One small set on disk for every reader, as people have it: the table that situations go over."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from fieldloom.modalities import Grid, Views, Voxels
from fonts_by_hand import BARS, write_font
from media import gradient, wave
from posed_images import blender, cars, colmap, nsvf
from solids import ball

COUNT = 6
"""The data of a set."""


@dataclass(frozen=True)
class Kept:
    """How a reader's data lie on disk.

    write:    writes a set below a folder that exists, and returns the path to read.
    modality: a modality of such data.
    suffix:   of a datum's file, where it is one.
    many:     whether the path is a folder with a file for each datum (or part of it).
    labelled: whether the folders of files are their classes.
    more:     further arguments of the reader.
    """

    write: Callable[[Path], Path]
    modality: Callable[[], object]
    suffix: str = ""
    many: bool = False
    labelled: bool = False
    more: tuple[tuple[str, object], ...] = ()


def image(number: int) -> Image.Image:
    return Image.fromarray(np.roll(gradient(16, 16), number, 0))


def write_images(folder: Path, count: int = COUNT) -> Path:
    for i in range(count):
        image(i).save(folder / f"{i}.png")
    return folder


def write_packed(folder: Path) -> Path:
    from media import pack

    pack(folder / "packed.npz", COUNT)
    return folder / "packed.npz"


def write_tar(folder: Path) -> Path:
    from tarred import pack

    contents = {}
    for i in range(COUNT):
        stream = io.BytesIO()
        image(i).save(stream, "PNG")
        contents[f"{i}.png"] = stream.getvalue()
    return pack(folder / "shard.tar", contents)


def write_array(folder: Path) -> Path:
    np.save(folder / "array.npy", np.stack([np.asarray(image(i)) for i in range(COUNT)]))
    return folder / "array.npy"


def write_table(folder: Path) -> Path:
    import datasets

    table = datasets.Dataset.from_dict(
        {"image": [image(i) for i in range(COUNT)]},
        features=datasets.Features({"image": datasets.Image()}),
    )
    table.save_to_disk(str(folder / "table"))
    return folder / "table"


def write_image(folder: Path) -> Path:
    image(0).save(folder / "image.png")
    return folder / "image.png"


def write_video(folder: Path) -> Path:
    from fieldloom import export

    frames = [np.asarray(image(i)) for i in range(COUNT)]
    return export.mp4(frames, folder / "video.mp4", 10)


def write_recording(folder: Path) -> Path:
    with (folder / "recording.wav").open("wb") as file:
        soundfile.write(file, wave(channels=1), 8000, format="WAV")
    return folder / "recording.wav"


def write_binvox(folder: Path, count: int = COUNT) -> Path:
    for i in range(count):
        bits = np.zeros((8, 8, 8), np.uint8)
        bits[i % 8] = 1
        runs = b"".join(bytes([int(bit), 1]) for bit in bits.transpose(0, 2, 1).reshape(-1))
        (folder / f"{i}.binvox").write_bytes(b"#binvox 1\ndim 8 8 8\ndata\n" + runs)
    return folder


def write_meshes(folder: Path, count: int = COUNT) -> Path:
    from fieldloom import export

    for i in range(count):
        mesh = ball(8 + 2 * i)
        export.mesh(np.asarray(mesh.vertices), np.asarray(mesh.faces), folder / f"{i}.ply")
    return folder


def write_objects(folder: Path) -> Path:
    from posed_images import FOCAL, HEIGHT, PICTURES, POSES, WIDTH

    blobs = []
    for picture in PICTURES:
        file = folder / "view.png"
        picture.save(file)
        blobs.append(file.read_bytes())
        file.unlink()
    np.savez(
        folder / "objects.npz",
        data=np.frombuffer(b"".join(blobs), np.uint8),
        offsets=np.cumsum([0] + [len(b) for b in blobs]),
        c2w=POSES[None].numpy(),
        focal=FOCAL,
        height=HEIGHT,
        width=WIDTH,
    )
    return folder / "objects.npz"


def write_glyphs(folder: Path) -> Path:
    return write_font(folder / "bars.ttf", BARS)


IMAGE = partial(Grid, size=16)
VOXEL = partial(Voxels, size=8)
VIEWS = partial(Views, size=(12, 16))

KEPT: dict[str, Kept] = {
    "folder": Kept(write_images, IMAGE, ".png", many=True, labelled=True),
    "packed": Kept(write_packed, IMAGE, ".npz"),
    "tar": Kept(write_tar, IMAGE, ".tar"),
    "array": Kept(write_array, IMAGE, ".npy"),
    "huggingface": Kept(write_table, IMAGE),
    "glyphs": Kept(write_glyphs, IMAGE, ".ttf", more=(("characters", "abcdef"),)),
    "image": Kept(write_image, IMAGE, ".png"),
    "video": Kept(write_video, partial(Grid, axes=3), ".mp4"),
    "audio": Kept(write_recording, partial(Grid, axes=1, channels=1), ".wav"),
    "voxels": Kept(write_binvox, VOXEL, ".binvox", many=True, labelled=True),
    "meshes": Kept(write_meshes, VOXEL, ".ply", many=True, labelled=True),
    "multiview": Kept(write_objects, VIEWS, ".npz"),
    "transforms": Kept(lambda folder: Path(blender(folder / "scene")), VIEWS),
    "srn": Kept(lambda folder: Path(cars(folder / "object")), VIEWS),
    "nsvf": Kept(lambda folder: Path(nsvf(folder / "scene")), VIEWS),
    "colmap": Kept(lambda folder: Path(colmap(folder / "scene")), VIEWS),
}
"""Reader -> how its data lie on disk."""

WITHOUT_A_PATH = {"digits", "skimage"}
"""Readers of data that come with a package."""
