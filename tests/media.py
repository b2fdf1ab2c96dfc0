"""Small images, audio and packed files."""

import io

import numpy as np
from PIL import Image


def gradient(width=24, height=20) -> np.ndarray:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([x, y, 255 - x], -1).astype(np.uint8)


def pack(path, count=5, **more):
    blobs = []
    for i in range(count):
        buffer = io.BytesIO()
        Image.fromarray(np.roll(gradient(16, 16), i, 0)).save(buffer, "PNG")
        blobs.append(buffer.getvalue())
    offsets = np.cumsum([0] + [len(b) for b in blobs])
    data = np.frombuffer(b"".join(blobs), np.uint8)
    np.savez(path, data=data, offsets=offsets, **more)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def wave(count=800, channels=2) -> np.ndarray:
    """Smooth sounds (count, channels) in [-1, 1] with a whole number of periods."""
    steps = np.arange(count)[:, None] / count
    return 0.9 * np.sin(2 * np.pi * steps * np.arange(3, 3 + channels))
