"""Data of a tensor and what it has beside it, as tests write them; seeded draws."""

from torch import Generator, Tensor

from fieldloom.types import Cameras, Data


def data_of(
    data: Tensor, c2w: Tensor | None = None, intrinsics: Tensor | None = None, **beside: Tensor
) -> Data:
    cameras = None if c2w is None and intrinsics is None else Cameras(c2w, intrinsics)
    return Data(data, cameras, **beside)


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)
