"""Sets that are decoded once: interrupted, in parts, by several processes, on a full disk."""

import errno
import os
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fieldloom.errors import InputError
from fieldloom.modalities.sources import decoded

ITEM = (1, 4, 4)
CONTENTS = np.arange(20 * 16, dtype=np.uint8).reshape(20, 16)
GOOD = np.ones(20, bool)


def draw(number: int) -> np.ndarray:
    return np.full(ITEM, number + 1, np.uint8)


@pytest.fixture
def asked(monkeypatch) -> list[int]:
    """Two images a part, one thread; which images are decoded."""
    monkeypatch.setattr(decoded, "PART", 2 * 16)
    monkeypatch.setattr(decoded, "count_cores", lambda: 1)
    return []


def decode_set(asked, decode=draw, contents=CONTENTS, how="so", good=GOOD):
    def counted(number):
        asked.append(number)
        return decode(number)

    return decoded.decode_once(counted, contents, how, ITEM, good, "set")


def values(read) -> list[int]:
    found = [read(i) for i in range(20)]
    assert all((x == x.flat[0]).all() for x in found)
    return [int(x.flat[0]) for x in found]


ALL = list(range(1, 21))


def test_it_is_decoded_once(asked, cached, capfd):
    read, faults = decode_set(asked)
    assert values(read) == ALL
    assert faults == {}
    assert sorted(asked) == list(range(20))
    assert "20 images take 320 B decoded, in" in capfd.readouterr().err
    read, _ = decode_set(asked)
    assert values(read) == ALL
    assert len(asked) == 20
    assert capfd.readouterr().err == ""
    decode_set(asked, how="otherwise")
    decode_set(asked, contents=CONTENTS[::-1])
    assert len(asked) == 60
    assert len(list(cached.glob("decoded-set-*.images"))) == 3


def test_an_interrupted_process_goes_on(asked):
    def stopped(number):
        if len(asked) == 8:
            raise KeyboardInterrupt
        return draw(number)

    with pytest.raises(KeyboardInterrupt):
        decode_set(asked, stopped)
    begun = asked[:6]  # three parts of two; of the fourth the first was decoded
    asked.clear()
    read, _ = decode_set(asked)
    assert sorted([*begun, *asked]) == list(range(20))
    assert values(read) == ALL


def test_two_at_once_share_the_work(asked):
    """The second one begins and ends while the first is within a part."""
    others: list[int] = []

    def second(number):
        if number == 5 and not others:
            worker = threading.Thread(target=lambda: decode_set(others))
            worker.start()
            worker.join(30)
        return draw(number)

    read, _ = decode_set(asked, second)
    assert values(read) == ALL
    assert len(asked) + len(others) <= 20 + 2


def test_broken_images_are_told_and_tried_again(asked):
    broken = {3}

    def some(number):
        if number in broken:
            raise InputError(f"image {number} is broken.")
        return draw(number)

    good = GOOD.copy()
    good[7] = False  # its header could not be read
    read, faults = decode_set(asked, some, good=good)
    assert list(faults) == [3]
    assert read(4).flat[0] == 5
    asked.clear()
    _, faults = decode_set(asked, some, good=good)
    assert list(faults) == asked == [3]
    broken.clear()
    read, faults = decode_set(asked, some, good=good)
    assert faults == {}
    assert read(3).flat[0] == 4


def test_it_must_fit_on_the_disk(asked, cached, monkeypatch):
    usage = SimpleNamespace(free=319)
    monkeypatch.setattr(decoded.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(InputError, match=r"take 320 B decoded, and '.*cache' has 319 B free"):
        decode_set(asked)
    assert asked == []


def test_the_disk_becomes_full(asked, monkeypatch):
    def full(file, image, place):
        if len(asked) > 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(file, image, place)

    write = decoded.write_whole
    with monkeypatch.context() as patch:
        patch.setattr(decoded, "write_whole", full)
        with pytest.raises(InputError, match="No space left.*what was decoded is kept"):
            decode_set(asked)
    asked.clear()
    read, _ = decode_set(asked)
    assert values(read) == ALL
    assert len(asked) <= 20 - 6


def test_a_folder_that_cannot_be_written(asked, cached):
    cached.write_bytes(b"a file")
    with pytest.raises(InputError, match="cannot be written"):
        decode_set(asked)


@pytest.mark.parametrize("harm", ["cut", "seen", "strange"])
def test_a_damaged_cache_is_made_again(harm, asked, cached):
    decode_set(asked)
    (images,), (seen,) = cached.glob("*.images"), cached.glob("*.seen")
    if harm == "cut":
        os.truncate(images, 100)
    elif harm == "seen":
        seen.unlink()
    else:
        seen.write_bytes(b"\x09" * 20)
    asked.clear()
    read, _ = decode_set(asked)
    assert sorted(asked) == list(range(20))
    assert values(read) == ALL


def test_a_cache_that_is_cut_while_it_is_read(asked, cached):
    read, _ = decode_set(asked)
    (images,) = cached.glob("*.images")
    os.truncate(images, 100)
    with pytest.raises(InputError, match="ends too early: delete it"):
        read(19)


def test_a_cache_that_is_lost_while_it_is_read(asked, cached: Path):
    read, _ = decode_set(asked)
    for file in cached.iterdir():
        file.unlink()
    assert values(read) == ALL
