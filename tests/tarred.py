"""Tar archives of images as people have them, and as nobody should."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def picture(level: int, size: int = 16) -> bytes:
    """A PNG of one grey level."""
    content = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), level, np.uint8)).save(content, "PNG")
    return content.getvalue()


def pack(path: Path, files: Mapping[str, bytes], form: int = tarfile.USTAR_FORMAT) -> Path:
    """An archive of members with these names, in this order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def samples(levels: range | list[int], classes: bool = True) -> dict[str, bytes]:
    """``0020.png`` of the level 20, with its class (0 of even tens, 1 of odd ones) beside it."""
    found = {}
    for level in levels:
        found[f"{level:04}.png"] = picture(level)
        if classes:
            found[f"{level:04}.cls"] = f"{level // 10 % 2}".encode()
            found[f"{level:04}.json"] = f'{{"of": {{"kind": "k{level // 10 % 2}"}}}}'.encode()
    return found


def levels_of(source) -> list[int]:
    """The grey levels of the images of a source, in their order."""
    values = source.data.tensor
    assert (values == values[:, :1, :1, :1]).all()
    return values[:, 0, 0, 0].tolist()
