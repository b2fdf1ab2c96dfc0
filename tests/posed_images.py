"""A ball in images with cameras, written in layouts of others."""

import json
import math

import torch
from PIL import Image

from fieldloom.geometry.cameras import opencv_from_opengl, orbit, rays

HEIGHT, WIDTH, FOCAL, RADIUS = 24, 32, 40.0, 3.0
INTRINSICS = torch.tensor([FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2])
BALL = torch.tensor([0.3, -0.2, 0.25])


def ball(c2w: torch.Tensor, intrinsics: torch.Tensor = INTRINSICS) -> Image.Image:
    """A red ball of radius 0.3 at ``BALL``, clear around: blue where nobody sees it."""
    ray = rays(c2w, intrinsics, HEIGHT, WIDTH)
    direction = ray[:, 3:] / ray[:, 3:].norm(dim=1, keepdim=True)
    offset = BALL - ray[:, :3]
    along = (offset * direction).sum(1, keepdim=True)
    met = (offset - along * direction).norm(dim=1) < 0.3
    pixels = torch.tensor([[0, 0, 255, 0], [255, 0, 0, 255]], dtype=torch.uint8)[met.long()]
    return Image.fromarray(pixels.reshape(HEIGHT, WIDTH, 4).numpy())


POSES = orbit(4, RADIUS, 25.0)
PICTURES = [ball(pose) for pose in POSES]


PLACES = {
    "at home": ((0.0, 0.0, 0.0), 1.0),
    "moved": ((10.0, 20.0, 5.0), 1.0),
    "in centimetres": ((0.0, 0.0, 0.0), 100.0),
    "in kilometres": ((0.1, 0.0, -0.2), 1e-3),
    "on a map": ((500_000.0, 4_000_000.0, 120.0), 25.0),
}
"""Where one scene may stand: its origin and its unit, in a file's coordinates."""


def stand(place, poses=POSES):
    """Poses of the same cameras where the scene stands, in float64."""
    move, scale = PLACES[place]
    moved = poses.double()
    moved[:, :3, 3] = moved[:, :3, 3] * scale + torch.tensor(move)
    return moved


def centroid(white: torch.Tensor) -> torch.Tensor:
    """(u, v) of what is no background, (3, height, width) uint8 on white."""
    weight = 255 - white.float().amin(0)
    v, u = torch.meshgrid(*(torch.arange(n) + 0.5 for n in weight.shape), indexing="ij")
    return torch.stack([(weight * u).sum(), (weight * v).sum()]) / weight.sum()


def blender(folder, poses=POSES, part="train", count=4, table=None, frame=None, suffix=".png"):
    """A scene of Blender's layout, or with other keys in the whole file and in frame 1."""
    (folder / part).mkdir(parents=True)
    frames = []
    for i, (pose, image) in enumerate(zip(poses[:count], PICTURES, strict=False)):
        image.save(folder / part / f"r_{i}{suffix}", lossless=True)
        frames.append({"file_path": f"./{part}/r_{i}", "transform_matrix": pose.tolist()})
    frames[-1 if count == 1 else 1] |= frame or {}
    angle = {"camera_angle_x": 2 * math.atan(WIDTH / 2 / FOCAL)}
    file = folder / f"transforms_{part}.json"
    file.write_text(json.dumps((angle if table is None else table) | {"frames": frames}))
    return str(folder)


def cars(folder, poses=POSES, count=4, end=""):
    """An object in SRN's layout."""
    (folder / "rgb").mkdir(parents=True)
    (folder / "pose").mkdir()
    for i, (pose, image) in enumerate(zip(poses[:count], PICTURES, strict=False)):
        image.save(folder / "rgb" / f"{i:06d}.png")
        numbers = " ".join(f"{x:.17g}" for x in opencv_from_opengl(pose).flatten().tolist())
        (folder / "pose" / f"{i:06d}.txt").write_text(numbers + "\n")
    head = f"{FOCAL} {WIDTH / 2} {HEIGHT / 2} 0.\n0. 0. 0.\n1.\n{HEIGHT} {WIDTH}\n"
    (folder / "intrinsics.txt").write_text(head + end)
    return str(folder)
