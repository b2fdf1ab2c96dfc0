"""Makes the runs beside it, with the code of commit 3c930ee alone: see README.md.

PYTHONPATH=CHECKOUT_OF_3c930ee/src OMP_NUM_THREADS=1 python make.py [KIND ...]
"""

import json
import os
import shutil
import sys
import tempfile
import tomllib
from pathlib import Path
from unittest import mock

import numpy as np
import soundfile
import torch
import trimesh
from PIL import Image
from safetensors.torch import save_file

import fieldloom
from fieldloom import stopping
from fieldloom.engine.loop import Training
from fieldloom.engine.run import Run
from fieldloom.engine.train import prepare, train
from fieldloom.errors import Interrupted
from fieldloom.evaluate import evaluate
from fieldloom.evaluate.figures import parse
from fieldloom.recipe import merge

HERE = Path(__file__).resolve().parent
COUNT = 3
"""Sampled codes, and encoded data, of each run, at most."""

STOPS = {
    "images-mixture": ("prior", 5),
    "images-shift": ("field", 5),
    "images-adversarial": ("field", 3),
    "weights-quantize": ("prior", 5),
    "weights-graph": ("codec", 3),
    "points-direct": ("paused", 3),
    "views-volume": ("field", 3),
    "views-plucker": ("field", 3),
}
"""Kind -> where another run of it was stopped: the stage, and the step that it was killed in."""

TRAINING = ("field", "codec", "prior")


# -- data: random numbers from a seed


def image(draw, size=8, channels=1):
    shape = (size, size) if channels == 1 else (size, size, channels)
    return Image.fromarray(draw.integers(0, 256, shape, np.uint8))


def make_images(folder, draw):
    for i in range(8):
        path = folder / "images" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image(draw, 6).save(path)


def make_array(folder, draw):
    data = draw.integers(0, 256, (8, 6, 6), np.uint8)
    np.savez_compressed(folder / "images.npz", data=data, labels=np.arange(8) % 2)


def make_packed(folder, draw, count=4, size=6):
    blobs = []
    for _ in range(count):
        image(draw, size, 3).save(folder / "one.png")
        blobs.append((folder / "one.png").read_bytes())
    (folder / "one.png").unlink()
    ends = np.cumsum([0, *map(len, blobs)])
    data = np.frombuffer(b"".join(blobs), np.uint8)
    np.savez_compressed(folder / "packed.npz", data=data, offsets=ends)


def make_frames(folder, draw):
    (folder / "frames").mkdir()
    for i in range(6):
        image(draw, 4, 3).save(folder / "frames" / f"{i}.png")


def make_sound(folder, draw):
    samples = draw.integers(-20000, 20000, 100).astype(np.int16)
    soundfile.write(folder / "sound.wav", samples, 8000, "PCM_16")


def make_voxels(folder, draw):
    solid = draw.integers(0, 2, (8, 4, 4, 4), np.uint8)
    bits = np.packbits(solid.reshape(8, -1), axis=1)
    np.savez_compressed(folder / "voxels.npz", bits=bits, shape=np.array([4, 4, 4]))


def make_meshes(folder, draw):
    (folder / "meshes").mkdir()
    for i in range(6):
        hull = trimesh.convex.convex_hull(draw.normal(size=(12, 3)).round(3))
        hull.export(folder / "meshes" / f"{i}.obj", header=None, digits=3)


def poses(draw, count):
    """OpenGL cameras (count, 4, 4) at a distance of 1.3 that look at the origin."""
    found = []
    for _ in range(count):
        back = draw.normal(size=3)
        back /= np.linalg.norm(back)
        right = np.cross([0.0, 0.0, 1.0], back)
        right /= np.linalg.norm(right)
        pose = np.eye(4)
        pose[:3] = np.stack([right, np.cross(back, right), back, 1.3 * back], 1)
        found.append(pose)
    return np.stack(found)


def make_objects(folder, draw):
    for name in "abcd":
        home = folder / "objects" / name
        for part in ("rgb", "pose"):
            (home / part).mkdir(parents=True)
        opencv = poses(draw, 3) @ np.diag([1.0, -1.0, -1.0, 1.0])
        for i, pose in enumerate(opencv):
            image(draw, 4, 3).save(home / "rgb" / f"{i}.png")
            text = " ".join(f"{x:.9g}" for x in pose.flatten())
            (home / "pose" / f"{i}.txt").write_text(text + "\n")
        (home / "intrinsics.txt").write_text("5 2 2 0\n0 0 0\n1\n4 4\n")


def make_scene(folder, draw):
    (folder / "scene").mkdir()
    frames = []
    for i, pose in enumerate(poses(draw, 4)):
        image(draw, 4, 3).save(folder / "scene" / f"{i}.png")
        frames.append({"file_path": f"{i}.png", "transform_matrix": pose.round(9).tolist()})
    told = {"camera_angle_x": 0.7, "near": 0.5, "far": 2.0, "frames": frames}
    (folder / "scene" / "transforms_train.json").write_text(json.dumps(told))


def make_views(folder, draw):
    make_packed(folder, draw, count=12, size=4)
    with np.load(folder / "packed.npz") as file:
        held = dict(file)
    (folder / "packed.npz").unlink()
    c2w = np.stack([poses(draw, 3) for _ in range(4)])
    about = dict(focal=5.0, height=4, width=4, camera_radius=1.3)
    np.savez_compressed(folder / "views.npz", **held, c2w=c2w, **about)


DATA = {
    "images": make_images,
    "images.npz": make_array,
    "packed.npz": make_packed,
    "picture.png": lambda folder, draw: image(draw, 8, 3).save(folder / "picture.png"),
    "frames": make_frames,
    "sound.wav": make_sound,
    "maps.npy": lambda folder, draw: np.save(
        folder / "maps.npy", draw.uniform(200, 320, (1, 4, 8)).astype(np.float32)
    ),
    "voxels.npz": make_voxels,
    "meshes": make_meshes,
    "objects": make_objects,
    "views.npz": make_views,
    "scene": make_scene,
}


# -- runs


def stopped(recipe, folder, stage, step):
    """A run that was killed in a step of a stage, or paused in the descent of its first one."""
    if stage == "paused":
        looks = (look == step for look in range(10**6))
        with mock.patch.object(stopping, "pause_asked", looks.__next__):
            try:
                train(recipe, folder, device="cpu")
            except Interrupted:
                return
        raise SystemExit(f"{folder} was not paused")
    plain = Training.advance

    def advance(self, *rest):
        if (TRAINING[self.tag], self.step) == (stage, step):
            raise SystemExit("killed")
        return plain(self, *rest)

    with mock.patch.object(Training, "advance", advance):
        try:
            train(recipe, folder, device="cpu")
        except SystemExit:
            return
    raise SystemExit(f"{folder} was not killed")


def anywhere(folder):
    """Takes out of a run what is of this machine: its data are found beside it, by ``known``."""
    run = Run(folder)
    recipe = run.read_recipe()
    recipe["source"]["path"] = f"elsewhere/{Path(recipe['source']['path']).name}"
    run.write_recipe(recipe)
    text = (folder / "recipe.toml").read_text()
    assert "beside" not in text
    name = Path(recipe["source"]["path"]).name
    (folder / "recipe.toml").write_text(
        text.replace("[known]\n", f'[known]\nbeside = "../data/{name}"\n')
    )
    told = json.loads((folder / "env.json").read_text())
    for key in ("system", "processor", "cores", "threads"):
        del told[key]
    told["versions"]["fieldloom"] = fieldloom.__version__
    run.write_json("env.json", told)
    lines = [{k: v for k, v in line.items() if k != "seconds_a_step"} for line in run.read_log()]
    run.write_log(lines)


def outcomes(folder):
    """What a finished run gives: sampled codes, encoded data, and one of them decoded."""
    system = fieldloom.load(folder, "cpu")
    recipe, source = prepare(Run(folder).read_recipe(), torch.device("cpu"))
    index = torch.arange(min(COUNT, len(source.data)))
    data, about, found = source.read(index), source.about(index), {}
    if system.generates:
        options = parse(recipe.get("evaluate", {})).options()
        label = [0, 1, 1] if system.prior.classes else None
        found["sampled"] = system.sample_codes(COUNT, label, seed=0, **options)
    code = found.get("sampled")
    if system.encodes:
        if system.family.code_shape[1]:
            code = found["encoded"] = system.encode(data, index=index, **about)
        else:
            code = torch.zeros(1, *system.family.code_shape)
    cameras = {key: about[key][:1] for key in ("c2w", "intrinsics") if key in about}
    found["decoded"] = system.decode(code[:1], cameras=cameras or None)
    return {name: x.contiguous() for name, x in found.items()}


def metrics(folder):
    """What ``fieldloom evaluate`` measures, without what depends on the machine."""
    system = fieldloom.load(folder, "cpu")
    _, source = prepare(Run(folder).read_recipe(), torch.device("cpu"))
    figures = evaluate(system, source).figures
    return {x.name: x.value for x in figures if x.name not in ("decoded", "memory")}


def make(kind):
    folder = HERE / kind
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "data").mkdir(parents=True)
    text = (HERE / "recipes" / f"{kind}.toml").read_text()
    recipe = {"recipe": kind, "seed": 0} | tomllib.loads(text)
    name = recipe["source"]["path"]
    DATA[name](folder / "data", np.random.default_rng(len(kind)))
    recipe = merge(recipe, {"source": {"path": str(folder / "data" / name)}})
    train(recipe, str(folder / "finished"), device="cpu")
    runs = [folder / "finished"]
    if kind in STOPS:
        stopped(recipe, str(folder / "interrupted"), *STOPS[kind])
        runs.append(folder / "interrupted")
    for run in runs:
        anywhere(run)
    save_file(outcomes(folder / "finished"), folder / "expected.safetensors")
    (folder / "expected.json").write_text(json.dumps(metrics(folder / "finished"), indent=1) + "\n")
    size = sum(x.stat().st_size for x in folder.rglob("*") if x.is_file())
    print(f"{kind}: {size:,} bytes")


if __name__ == "__main__":
    kinds, sys.argv[1:] = sys.argv[1:], []
    sys.argv[0] = "make.py"
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["FIELDLOOM_CACHE"] = cache
        for kind in kinds or sorted(path.stem for path in (HERE / "recipes").glob("*.toml")):
            make(kind)
