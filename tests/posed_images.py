"""A ball in images with cameras, written in layouts of others."""

import json
import math
import struct

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


def nsvf(folder, poses=POSES, names=("0_a", "0_b", "1_c", "1_d"), box=None, table=None):
    """A scene in NSVF's layout, with a matrix of 4 x 4 as intrinsics, or the text ``table``."""
    (folder / "rgb").mkdir(parents=True)
    (folder / "pose").mkdir()
    for name, pose, image in zip(names, poses, PICTURES, strict=False):
        image.save(folder / "rgb" / f"{name}.png")
        rows = (" ".join(f"{x:.17g}" for x in row) for row in opencv_from_opengl(pose).tolist())
        (folder / "pose" / f"{name}.txt").write_text("\n".join(rows))
    matrix = f"{FOCAL} 0 {WIDTH / 2} 0\n0 {FOCAL} {HEIGHT / 2} 0\n0 0 1 0\n0 0 0 1\n"
    (folder / "intrinsics.txt").write_text(table or matrix)
    if box is not None:
        (folder / "bbox.txt").write_text(" ".join(map(str, box)) + " 0.4\n")
    return str(folder)


PINHOLE = (FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2)


def colmap(
    folder,
    poses=POSES,
    model=("PINHOLE", 1, PINHOLE),
    text=False,
    points=(),
    place="sparse/0",
    images="images",
    pictures=PICTURES,
    size=(HEIGHT, WIDTH),
):
    """A scene of COLMAP. model: its name, its number and its parameters. points: (n, 3)."""
    (folder / place).mkdir(parents=True)
    (folder / images).mkdir(parents=True)
    name, number, numbers = model
    height, width = size
    quaternions = [to_quaternion(opencv_from_opengl(pose.double())) for pose in poses]
    posed = []
    for i, (pose, picture) in enumerate(zip(quaternions, pictures, strict=False)):
        picture.save(folder / images / f"v{i}.png")
        posed.append((len(poses) - i, pose, f"v{i}.png"))
    posed.reverse()  # numbers are in no order
    own = folder / place
    if text:
        words = lambda row: " ".join(f"{x:.17g}" for x in row)
        (own / "cameras.txt").write_text(f"# a\n3 {name} {width} {height} {words(numbers)}\n")
        lines = [
            f"{i} {words(pose)} 3 {file}\n{line}\n"
            for (i, pose, file), line in zip(posed, ["", "1.5 2 -1", "", ""], strict=False)
        ]
        (own / "images.txt").write_text("# two lines an image\n" + "".join(lines))
        lines = [f"{i} {words(at)} 9 9 9 0.5 1 0 2 0\n" for i, at in enumerate(points)]
        (own / "points3D.txt").write_text("".join(lines))
        return str(folder)
    file = struct.pack(f"<QiiQQ{len(numbers)}d", 1, 3, number, width, height, *numbers)
    (own / "cameras.bin").write_bytes(file)
    file = struct.pack("<Q", len(posed))
    for i, pose, image in posed:
        file += struct.pack("<I7dI", i, *pose, 3) + image.encode() + b"\0"
        file += struct.pack("<QddQ", 1, 1.5, 2.0, 2**64 - 1)
    (own / "images.bin").write_bytes(file)
    file = struct.pack("<Q", len(points))
    for i, at in enumerate(points):
        file += struct.pack("<Q3d3BdQ4i", i, *at, 9, 9, 9, 0.5, 2, 1, 0, 2, 0)
    (own / "points3D.bin").write_bytes(file)
    return str(folder)


def to_quaternion(c2w: torch.Tensor) -> tuple[float, ...]:
    """w, x, y, z and the translation of world-to-camera, from a camera-to-world."""
    turn = c2w[:3, :3].T
    # The largest eigenvector of Bar-Itzhack's matrix, which has no cases.
    (a, b, c), (d, e, f), (g, h, i) = turn.tolist()
    matrix = torch.tensor([[a - e - i, b + d, c + g, h - f], [b + d, e - a - i, f + h, c - g],
                           [c + g, f + h, i - a - e, d - b], [h - f, c - g, d - b, a + e + i]],
                          dtype=torch.float64)  # fmt: skip
    x, y, z, w = torch.linalg.eigh(matrix)[1][:, -1].tolist()
    return (w, x, y, z, *(-turn @ c2w[:3, 3]).tolist())
