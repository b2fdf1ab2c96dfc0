"""A made scene as people have them, unedited, to views that were never seen: ``fit:scene``.

    python benchmarks/scene.py --folder OUT/scene --run OUT/run --minutes 10 --out RESULTS.json

Solids with textures stand on a chequered ground under a sky of clouds, and pictures of them lie in
a folder with ``transforms.json`` as instant-ngp writes it: a lens with Brown's distortion,
``aabb_scale = 4``, poses in another place and unit, pictures of some frames missing, and no split.
The run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from fieldloom import atomic
from fieldloom.geometry.cameras import look_at
from fieldloom.geometry.distortion import Lens, distort

HEIGHT, WIDTH, FOCAL, VIEWS = 120, 160, 130.0, 56
LENS = Lens((-0.12, 0.02), (1e-3, -5e-4))
CENTRE = (WIDTH / 2 + 1.5, HEIGHT / 2 - 1.0)
PLACE, UNIT = torch.tensor([12.0, -5.0, 3.0], dtype=torch.float64), 2.5
"""Where the scene's origin stands in the file, and how long its unit is there."""
MISSING = (5, 18, 31, 44)
"""Frames whose pictures are not there."""
SUN = torch.nn.functional.normalize(torch.tensor([0.5, 0.3, 0.8], dtype=torch.float64), dim=0)

BALLS = [((0.0, 0.0, 0.45), 0.45), ((-0.95, 0.35, 0.3), 0.3), ((0.35, -1.0, 0.22), 0.22)]
"""Centres and radii."""
BOXES = [((0.55, 0.2, 0.0), (1.05, 0.8, 0.9)), ((-0.7, -1.0, 0.0), (-0.2, -0.45, 0.5))]
"""Lowest and highest corners."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--folder", type=Path, required=True, help="where the scene lies, or is written"
    )
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--minutes", type=float, help="of training, of all cores")
    parser.add_argument("--steps", type=int, help="of training, instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", dest="more", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if not (asked.folder / "transforms.json").is_file():
        write_scene(asked.folder)
    train(asked)
    if asked.out:
        atomic.write_text(json.dumps(collect(asked.run), indent=2) + "\n", asked.out)


def train(asked: argparse.Namespace) -> None:
    """Train and evaluate, or go on with it."""
    verb = [sys.executable, "-m", "fieldloom"]
    if not (asked.run / "model.safetensors").is_file():
        if (asked.run / "recipe.toml").is_file():
            how = ["--resume"]
        else:
            keys = [f"source.path={asked.folder}", f"seed={asked.seed}", *asked.more]
            keys += [] if asked.steps is None else [f"train.field.steps={asked.steps}"]
            how = [x for key in keys for x in ("--set", key)]
            how += [] if asked.minutes is None else ["--minutes", str(asked.minutes)]
        command = [*verb, "train", "fit:scene", "--run", str(asked.run), *how]
        subprocess.run(command, check=True)
    if not (asked.run / "report.json").is_file():
        subprocess.run([*verb, "evaluate", str(asked.run)], check=True)


def collect(run: Path) -> dict[str, object]:
    """What was measured, and where."""
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    log = [json.loads(line) for line in lines]
    environment = json.loads((run / "env.json").read_text(encoding="utf-8"))
    command = [x for x in environment.pop("command", []) if "/" not in x]
    return {
        "recipe": "fit:scene",
        "command": f"python benchmarks/scene.py (see its head); {' '.join(command)}",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "seed": report["seed"],
        "cores": os.cpu_count(),
        "environment": environment,
        "steps": log[-1]["step"],
        "seconds": round(log[-1]["step"] * log[-1]["seconds_a_step"]),
        "figures": report["figures"],
    }


# -- the scene


def write_scene(folder: Path) -> None:
    """Pictures and ``transforms.json``, as instant-ngp's own scenes are."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    frames = []
    for i, pose in enumerate(poses()):
        name = f"images/{i:04d}.png"
        if i not in MISSING:
            photograph(pose).save(folder / name)
        moved = pose.clone()
        moved[:3, 3] = moved[:3, 3] * UNIT + PLACE
        frames.append({"file_path": name, "sharpness": 30.0, "transform_matrix": moved.tolist()})
    (k1, k2), (p1, p2) = LENS.radial, LENS.tangential
    table = {
        "camera_angle_x": 2 * math.atan(WIDTH / 2 / FOCAL),
        "camera_angle_y": 2 * math.atan(HEIGHT / 2 / FOCAL),
        "fl_x": FOCAL, "fl_y": FOCAL, "k1": k1, "k2": k2, "p1": p1, "p2": p2,
        "cx": CENTRE[0], "cy": CENTRE[1], "w": float(WIDTH), "h": float(HEIGHT), "aabb_scale": 4,
        "frames": frames,
    }  # fmt: skip
    atomic.write_text(json.dumps(table, indent=1), folder / "transforms.json")


def poses() -> Tensor:
    """Cameras all around, at several heights and distances, that look at the solids: (n, 4, 4)."""
    turn = torch.arange(VIEWS, dtype=torch.float64)
    angle = 2 * math.pi * turn * 0.381966  # neighbours in the file are far apart
    high, far = 0.6 + 1.5 * (turn % 7) / 6, 2.6 + 0.5 * (turn % 5) / 4
    eye = torch.stack([far * angle.cos(), far * angle.sin(), high], 1)
    at = torch.stack([0.2 * (3 * angle).sin(), 0.2 * (5 * angle).cos(), 0.35 + 0 * angle], 1)
    return look_at(eye, at, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))


def photograph(pose: Tensor, fine: int = 2) -> Image.Image:
    """What a camera with this lens sees, each pixel the mean of ``fine`` x ``fine`` rays."""
    u = (torch.arange(WIDTH * fine, dtype=torch.float64) + 0.5) / fine
    v = (torch.arange(HEIGHT * fine, dtype=torch.float64) + 0.5) / fine
    v, u = torch.meshgrid(v, u, indexing="ij")
    shown = (u - CENTRE[0]) / FOCAL, (v - CENTRE[1]) / FOCAL
    x, y = shown
    for _ in range(20):  # the lens shows (x, y) at ``shown``
        bent = distort(x, y, LENS)
        x, y = x + shown[0] - bent[0], y + shown[1] - bent[1]
    ray = torch.stack([x, -y, -torch.ones_like(x)], -1) @ pose[:3, :3].T
    colour = look(pose[:3, 3], torch.nn.functional.normalize(ray.reshape(-1, 3), dim=1))
    pixels = colour.view(HEIGHT, fine, WIDTH, fine, 3).mean((1, 3))
    return Image.fromarray((255 * pixels).round().to(torch.uint8).numpy())


def look(eye: Tensor, ray: Tensor) -> Tensor:
    """Colours in [0, 1] of rays (n, 3) of length 1 from a point."""
    nearest, colour = torch.full((len(ray),), math.inf, dtype=torch.float64), sky(ray)

    def show(t: Tensor, normal: Tensor, paint: Tensor) -> None:
        nonlocal nearest, colour
        seen = (t > 0) & (t < nearest)
        lit = (0.55 + 0.45 * (normal @ SUN).clamp_min(0)).unsqueeze(1)
        nearest = torch.where(seen, t, nearest)
        colour = torch.where(seen.unsqueeze(1), lit * paint, colour)

    t = -eye[2] / ray[:, 2]
    place = eye + t.clamp(0, 1e3).unsqueeze(1) * ray
    radius = place[:, :2].norm(dim=1)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand_as(ray)
    show(torch.where(radius < 8, t, -1.0), up, ground(place))
    for i, (centre, size) in enumerate(BALLS):
        offset = eye - torch.tensor(centre, dtype=torch.float64)
        along = ray @ offset
        root = along.square() - offset @ offset + size * size
        t = torch.where(root > 0, -along - root.clamp_min(0).sqrt(), -1.0)
        normal = (offset + t.unsqueeze(1) * ray) / size
        show(t, normal, stripes(normal, i))
    for i, (low, high) in enumerate(BOXES):
        low, high = (torch.tensor(x, dtype=torch.float64) for x in (low, high))
        first, last = (low - eye) / ray, (high - eye) / ray
        enter, leave = torch.minimum(first, last), torch.maximum(first, last)
        t, axis = enter.max(1)
        t = torch.where(t < leave.amin(1), t, -1.0)
        normal = -torch.nn.functional.one_hot(axis, 3).double() * ray.sign()
        show(t, normal, bricks((eye + t.unsqueeze(1) * ray - low) / (high - low), axis, i))
    return colour.clamp(0, 1)


def mix(a: tuple[float, ...], b: tuple[float, ...], share: Tensor) -> Tensor:
    a, b = (torch.tensor(x, dtype=torch.float64) for x in (a, b))
    return a + (b - a) * share.unsqueeze(-1)


def ground(place: Tensor) -> Tensor:
    """Tiles that fade into meadow, with spots."""
    x, y = place[:, 0], place[:, 1]
    tile = ((x / 0.5).floor() + (y / 0.5).floor()) % 2
    tiles = mix((0.85, 0.8, 0.7), (0.45, 0.3, 0.25), tile)
    meadow = mix(
        (0.25, 0.5, 0.15), (0.55, 0.6, 0.25), 0.5 + 0.5 * (2.1 * x).sin() * (1.7 * y).cos()
    )
    return tiles + (meadow - tiles) * (place[:, :2].norm(dim=1) > 2.0).double().unsqueeze(1)


def sky(ray: Tensor) -> Tensor:
    """Blue, with clouds, above hills at the horizon."""
    x, y, z = ray.unbind(1)
    cloud = 0.5 + 0.5 * (5 * x + 2 * (4 * y).sin()).sin() * (6 * y + 7 * z).cos()
    colour = mix((0.35, 0.55, 0.9), (0.95, 0.95, 1.0), cloud)
    angle = torch.atan2(y, x)
    hills = z < 0.08 + 0.05 * (5 * angle).sin() + 0.03 * (11 * angle).cos()
    hill = mix((0.3, 0.35, 0.45), (0.45, 0.5, 0.4), 0.5 + 0.5 * (9 * angle).sin())
    return torch.where(hills.unsqueeze(1), hill, colour)


def stripes(normal: Tensor, i: int) -> Tensor:
    x, y, z = normal.unbind(1)
    wave = 0.5 + 0.5 * ((6 + 2 * i) * (z + 0.5 * (3 * torch.atan2(y, x)).sin())).sin()
    pairs = [((0.9, 0.2, 0.15), (1.0, 0.85, 0.3)), ((0.1, 0.3, 0.8), (0.8, 0.9, 1.0)),
             ((0.15, 0.6, 0.3), (0.9, 0.4, 0.7))]  # fmt: skip
    return mix(*pairs[i % 3], wave)


def bricks(unit: Tensor, axis: Tensor, i: int) -> Tensor:
    """Bricks on the sides of a box, whose faces are by turns of two colours."""
    along = torch.where(axis == 0, unit[:, 1], unit[:, 0])
    high = torch.where(axis == 2, unit[:, 1], unit[:, 2])
    row = (high * 6).floor()
    mortar = ((high * 6) % 1 < 0.15) | ((along * 4 + 0.5 * (row % 2)) % 1 < 0.1)
    colour = mix((0.7, 0.35, 0.25), (0.5, 0.45, 0.7), (axis % 2 + i) % 2.0)
    return torch.where(mortar.unsqueeze(1), colour.new_tensor([0.9, 0.88, 0.8]), colour)


if __name__ == "__main__":
    main()
