"""Small good runs and files, made once a session."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
import torch
import trimesh
from numpy.typing import NDArray
from PIL import Image

import posed_images
from fieldloom import recipe
from fieldloom.assembly import open_source
from fieldloom.codes import bulk, nef
from fieldloom.engine.run import Run
from fieldloom.geometry.cameras import orbit
from fieldloom.system import System
from fieldloom.training import train

SMALL = [
    "train.field.steps=6", "train.prior.steps=4", "train.field.batch=4", "train.prior.batch=4",
    "prior.denoiser.width=32", "prior.denoiser.depth=2", "field.width=8", "conditioner.width=4",
    "conditioner.experts=4", "train.field.points=64", "source.split=[0.67,0.33]",
]  # fmt: skip
SHAPES = [*SMALL, "modality.size=12", "evaluate.points=64", "field.output=linear"]
VIEWS = [
    *SMALL, "modality.size=8", "modality.held=1", "modality.rays=32", "renderer.samples=6",
    "encoder.unseen.steps=3",
]  # fmt: skip
SOUND = ["train.field.steps=2", "field.depth=3", "field.tiling.tiles=[4,4,1]", "field.width=8"]
WEIGHTS = ["source.split=[40,10]", "train.prior.steps=4", "encoder.steps=2"]
DIGITS = ["source.split=[80,40]", "train.field.steps=10", "train.prior.steps=10"]


@dataclass(frozen=True)
class Good:
    """runs: name -> a run's folder; files: name -> bytes; arrays: name -> members of an ``.npz``.

    folders: name -> path -> bytes of a file in it.
    """

    runs: Mapping[str, Path]
    files: Mapping[str, bytes]
    arrays: Mapping[str, dict[str, NDArray[Any]]]
    folders: Mapping[str, dict[str, bytes]]


def make(where: Path) -> Good:
    """All of them. where: an empty folder."""
    draw = np.random.default_rng(0)
    arrays = {
        "pictures": {"x": draw.integers(0, 256, (6, 8, 8), dtype=np.uint8)},
        "split": {
            "x_train": draw.random((6, 8, 8), np.float32),
            "x_test": draw.random((3, 8, 8), np.float32),
            "y_train": draw.integers(0, 3, 6),
            "y_test": draw.integers(0, 3, 3),
        },
        "packed": packed_pictures(draw),
        "bits": balls(draw),
        "cells": {"cells": draw.integers(0, 2, (4, 12, 12, 12), dtype=np.uint8)},
        "meshes": packed_meshes(),
        "views": packed_views(draw),
    }
    files = {"sound.wav": sound("WAV"), "sound.flac": sound("FLAC"), "sound.ogg": sound("OGG")}
    files |= {f"picture.{kind}": picture(draw, kind) for kind in PICTURES}
    files |= {f"film.{kind}": film(draw, kind) for kind in ("mp4", "mkv", "avi")}
    box = trimesh.creation.box()
    for kind in ("obj", "ply", "stl", "off", "glb"):
        content = box.export(file_type=kind)
        files[f"mesh.{kind}"] = content.encode() if isinstance(content, str) else content
    files["ascii.stl"] = box.export(file_type="stl_ascii").encode()
    files["ascii.ply"] = box.export(file_type="ply", encoding="ascii")
    files["shape.binvox"] = binvox()
    folders = {"scene": scene(draw), "object": srn(draw)} | models(where)
    runs = make_runs(where, arrays, files)
    weights = Run(runs["weights"]).read_system("cpu")
    codes, *_ = Run(runs["weights"]).read_codes()
    beside = {"labels": torch.zeros(3, dtype=torch.long)}
    files["codes.hdf5"] = nef.write(where / "w.h5", weights.family, codes[:3], beside).read_bytes()
    return Good(runs, files, arrays, folders)


PICTURES = ("png", "jpg", "webp", "bmp", "gif", "tif", "ppm")


def picture(draw: np.random.Generator, kind: str, size: int = 12, channels: int = 3) -> bytes:
    pixels = draw.integers(0, 256, (size, size, channels), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, {"jpg": "jpeg", "tif": "tiff"}.get(kind, kind))
    return file.getvalue()


def sound(kind: str) -> bytes:
    wave = 0.5 * np.sin(np.linspace(0, 60, 400))
    file = io.BytesIO()
    soundfile.write(file, wave, 4000, format=kind)
    return file.getvalue()


def film(draw: np.random.Generator, kind: str) -> bytes:
    file = io.BytesIO()
    names = {"mp4": "mp4", "mkv": "matroska", "avi": "avi"}
    with av.open(file, "w", format=names[kind]) as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        for _ in range(3):
            frame = draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def binvox() -> bytes:
    head = b"#binvox 1\ndim 12 12 12\ntranslate 0 0 0\nscale 1\ndata\n"
    return head + bytes([0, 255, 1, 255] * 3 + [0, 198])


def packed_pictures(draw: np.random.Generator) -> dict[str, NDArray[Any]]:
    return together([picture(draw, "png") for _ in range(6)]) | {"label": np.arange(6) % 2}


def together(blobs: list[bytes]) -> dict[str, NDArray[Any]]:
    data = np.frombuffer(b"".join(blobs), np.uint8)
    return {"data": data, "offsets": np.cumsum([0, *map(len, blobs)])}


def balls(draw: np.random.Generator) -> dict[str, NDArray[Any]]:
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 12)] * 3, indexing="ij"), -1)
    cells = [np.linalg.norm(grid, axis=-1) < draw.uniform(0.4, 0.8) for _ in range(9)]
    return {"bits": np.packbits(np.reshape(cells, (9, -1)), axis=1), "shape": np.array([12] * 3)}


def packed_meshes() -> dict[str, NDArray[Any]]:
    box = trimesh.creation.box()
    return {
        "verts": np.concatenate([box.vertices] * 2).astype(np.float32),
        "faces": np.concatenate([box.faces] * 2).astype(np.int32),
        "vert_offsets": np.array([0, 8, 16]),
        "face_offsets": np.array([0, 12, 24]),
        "category": np.array([0, 1]),
    }


def packed_views(draw: np.random.Generator) -> dict[str, NDArray[Any]]:
    numbers = {"focal": 10.0, "height": 8, "width": 8, "camera_radius": 1.6}
    poses = np.repeat(orbit(3, 1.6, 20.0).numpy()[None], 6, 0)
    blobs = [picture(draw, "png", 8) for _ in range(18)]
    return together(blobs) | {"c2w": poses} | {k: np.asarray(v) for k, v in numbers.items()}


def scene(draw: np.random.Generator) -> dict[str, bytes]:
    """A ``transforms.json`` with its pictures."""
    poses = orbit(3, 1.6, 20.0).tolist()
    frames = [{"file_path": f"./v{i}.png", "transform_matrix": poses[i]} for i in range(3)]
    told = {"camera_angle_x": 0.8, "w": 8, "h": 8, "near": 0.8, "far": 2.4, "frames": frames}
    pictures = {f"v{i}.png": picture(draw, "png", 8) for i in range(3)}
    return {"transforms.json": json.dumps(told).encode()} | pictures


def srn(draw: np.random.Generator) -> dict[str, bytes]:
    """An object in SRN's layout."""
    poses = orbit(3, 1.6, 20.0).reshape(3, 16).tolist()
    found = {f"pose/{i}.txt": " ".join(map(str, poses[i])).encode() for i in range(3)}
    found |= {f"rgb/{i}.png": picture(draw, "png", 8) for i in range(3)}
    return found | {"intrinsics.txt": b"10. 4. 4. 0.\n0. 0. 0.\n1.\n8 8\n"}


def models(where: Path) -> dict[str, dict[str, bytes]]:
    """Scenes of other layouts: COLMAP's two, NSVF's, and objects that a file of lists divides."""
    cloud = torch.rand(9, 3, generator=torch.Generator().manual_seed(0)).tolist()
    lens = ("OPENCV", 4, (40.0, 40.0, 16.0, 12.0, -0.1, 0.01, 0.001, 0.0))
    posed_images.colmap(where / "model", points=cloud, model=lens)
    posed_images.colmap(where / "texts", points=cloud, text=True)
    posed_images.nsvf(where / "nsvf", box=(-1, -1, -1, 1, 1, 1))
    for name in "ab":
        table = {"fl_x": 40.0, "w": 32, "h": 24, "is_fisheye": True, "k1": 0.01}
        posed_images.blender(where / "set" / name, table=table)
    lists = json.dumps({"train": ["a"], "test": ["b"]})
    (where / "set" / "set_splits.json").write_text(lists)
    return {
        name: {
            path.relative_to(where / name).as_posix(): path.read_bytes()
            for path in sorted((where / name).rglob("*"))
            if path.is_file()
        }
        for name in ("model", "texts", "nsvf", "set")
    }


def make_runs(
    where: Path, arrays: Mapping[str, dict[str, NDArray[Any]]], files: Mapping[str, bytes]
) -> dict[str, Path]:
    """Runs of each kind of data; one that was stopped in a stage, one in the midst of its codes."""
    runs = {name: where / name for name in ("digits", "shapes", "views", "weights", "sound")}
    for name in ("bits", "views"):
        np.savez(where / f"{name}.npz", **arrays[name])
    (where / "sound.wav").write_bytes(files["sound.wav"])
    train(recipe.load("mnif:tiny", DIGITS), str(runs["digits"]))
    bits, views = (f"source.path={where / name}.npz" for name in ("bits", "views"))
    train(recipe.load("mnif:chairs32", [*SHAPES, bits]), str(runs["shapes"]))
    train(recipe.load("mnif:multiview128", [*VIEWS, views]), str(runs["views"]))
    train(recipe.load("weights:tiny", WEIGHTS), str(runs["weights"]))
    wave = f"source.path={where / 'sound.wav'}"
    train(recipe.load("loe:audio", [*SOUND, wave]), str(runs["sound"]))
    system = Run(runs["digits"]).read_system("cpu")
    source = open_source(system.recipe, system.modality)
    shutil.copytree(runs["digits"], where / "half-coded")
    bulk.encode(system, source, source.test, runs["digits"] / "encoded", shard=16)
    runs["half-coded"] = half_coded(where / "half-coded", system, source.train)
    runs["half-trained"] = half_trained(where / "half-trained", runs["digits"])
    return runs


def half_coded(folder: Path, system: System, places: torch.Tensor) -> Path:
    """A run whose field is trained, and the first of whose shards of codes is there, with its row
    in the manifest, as older versions wrote it."""
    source = open_source(system.recipe, system.modality)
    bulk.encode(system, source, places, folder / "codes", shard=32)
    manifest = json.loads((folder / "codes" / "manifest.json").read_text())
    for path in sorted((folder / "codes").glob("[0-9]*.json")):
        if path.name == "00000.json":
            manifest["shards"] = [json.loads(path.read_text())]
        path.unlink()
    (folder / "codes" / "manifest.json").write_text(json.dumps(manifest))
    system.finished = ["field"]
    Run(folder).write_system(system)
    (folder / "codes.safetensors").unlink()
    return folder


def half_trained(folder: Path, done: Path) -> Path:
    """A run that was stopped in its first stage."""
    state, write = [], Run.write_state
    try:
        Run.write_state = lambda self, *found: state.append(found)  # type: ignore[method-assign]
        train(Run(done).read_recipe(), str(folder), "field")
    finally:
        Run.write_state = write  # type: ignore[method-assign]
    Run(folder).write_state(*state[0])
    (folder / "model.safetensors").unlink()
    return folder
