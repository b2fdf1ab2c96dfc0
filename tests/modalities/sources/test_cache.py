"""The cache: decoded once, memory-mapped from a file, made anew where it is damaged."""

import hashlib
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from fieldloom.errors import InputError
from fieldloom.modalities.sources import cache
from fieldloom.modalities.sources.cache import cache_folder, memory_map, memory_map_by_parts
from fieldloom.modalities.sources.source import Source, _pieces, make_source
from fieldloom.types import Data
from fuzz import good
from media import noise
from refusals import READERS, draw, write

# -- the cache


def test_the_cache_knows_content_not_places_and_times(tmp_path, cached):
    first, second = (good.picture(np.random.default_rng(i), "png") for i in range(2))
    second = second + bytes(max(0, len(first) - len(second)))  # the same number of bytes
    first = first + bytes(len(second) - len(first))
    path = write(tmp_path / "a.png", first)
    before, shown = path.stat(), READERS["image"](str(path)).data.tensor.clone()
    write(path, second)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    replaced = READERS["image"](str(path)).data.tensor
    assert not torch.equal(replaced, shown)
    assert len(list(cached.iterdir())) == 2
    moved = write(tmp_path / "elsewhere" / "b.png", first)
    assert torch.equal(READERS["image"](str(moved)).data.tensor, shown)
    assert len(list(cached.iterdir())) == 2


def test_of_large_files_blocks_and_the_time_are_known(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "WHOLE", 1000)
    monkeypatch.setattr(cache, "BLOCK", 10)
    content = bytearray(draw().bytes(5000))
    path = write(tmp_path / "a.bin", bytes(content))
    os.utime(path, ns=(0, 0))
    known = {cache._content(path)}
    for place in (0, 9, 4990, 4999):  # of the first block, and of the last
        changed = content.copy()
        changed[place] ^= 1
        write(path, bytes(changed))
        os.utime(path, ns=(0, 0))
        known.add(cache._content(path))
    write(path, bytes(content))
    os.utime(path, ns=(0, 1))
    known.add(cache._content(path))
    assert len(known) == 6


@pytest.mark.parametrize("place", [0, 40, 150, -1, -40, -70])
def test_a_damaged_cache_is_made_anew(place, tmp_path, cached):
    path = write(tmp_path / "a.png", good.picture(draw(), "png"))
    shown = READERS["image"](str(path)).data.tensor.clone()
    (kept,) = cached.iterdir()
    content = bytearray(kept.read_bytes())
    content[place] ^= 1
    kept.write_bytes(content)
    assert torch.equal(READERS["image"](str(path)).data.tensor, shown)
    assert kept.read_bytes() != bytes(content)


def test_a_cached_array_of_another_file_is_not_taken(tmp_path, cached):
    paths = [
        write(tmp_path / f"{i}.png", good.picture(np.random.default_rng(i), "png")) for i in (0, 1)
    ]
    shown = [READERS["image"](str(path)).data.tensor.clone() for path in paths]
    kept = sorted(cached.iterdir())
    kept[0].write_bytes(kept[1].read_bytes())
    for path, data in zip(paths, shown, strict=True):
        assert torch.equal(READERS["image"](str(path)).data.tensor, data)


def test_names_in_the_cache_are_plain(tmp_path, cached):
    for i, name in enumerate(("..", "a b\x1b[31m/c", "é" * 100, "-")):
        path = write(
            tmp_path / f"{i}" / f"{name}.png", good.picture(np.random.default_rng(i), "png")
        )
        READERS["image"](str(path))
    kept = [file.name for file in cached.iterdir()]
    assert len(kept) == 4
    assert all(name.isprintable() and len(name.encode()) < 140 and " " not in name for name in kept)
    assert not [name for name in kept if name.startswith(".")]


# -- Lazy


def test_memory_mapped_values_stay_in_their_file(tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).integers(0, 256, (9, 1, 8, 8), np.uint8))
    mapped = torch.from_numpy(np.load(tmp_path / "a.npy", mmap_mode="c"))
    held = torch.from_numpy(np.load(tmp_path / "a.npy"))
    sources = [make_source(x, None, (0.8, 0.2), shuffle=True, limit=7) for x in (mapped, held)]
    assert sources[0].facts() == sources[1].facts()
    inside = sources[0].take(torch.tensor([3])).tensor
    assert inside.untyped_storage().data_ptr() == mapped.untyped_storage().data_ptr()
    assert torch.equal(inside, held[[3]])


# -- the cache


class Decoder:
    """Three blocks of an array; counts how often it was asked."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.asked = array, 0

    def __call__(self):
        self.asked += 1
        yield from np.array_split(self.array, 3)


@pytest.fixture
def file(tmp_path) -> Path:
    (tmp_path / "file.bin").write_bytes(b"content")
    return tmp_path / "file.bin"


def test_a_file_is_decoded_once(file, cached):
    decode = Decoder(noise(13, 4, 3))
    for _ in range(2):
        found = memory_map([file], {"size": (13, 4)}, decode)
        np.testing.assert_array_equal(found, decode.array)
    assert decode.asked == 1
    (kept,) = cached.iterdir()
    assert kept.name.startswith("file-")
    np.testing.assert_array_equal(np.load(kept), decode.array)
    memory_map([file], {"size": (13, 5)}, decode)
    assert decode.asked == 2
    file.write_bytes(b"longer content")
    memory_map([file], {"size": (13, 4)}, decode)
    assert decode.asked == 3


def test_a_mapped_array_can_be_a_tensor_but_the_file_never_changes(file, cached, recwarn):
    decode = Decoder(noise(6, 2))
    torch.from_numpy(memory_map([file], {}, decode)).zero_()
    assert not recwarn.list
    np.testing.assert_array_equal(memory_map([file], {}, decode), decode.array)
    assert decode.asked == 1


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_broken_cache_is_decoded_again(file, cached, keep):
    decode = Decoder(noise(6, 2))
    memory_map([file], {}, decode)
    (kept,) = cached.iterdir()
    kept.write_bytes(kept.read_bytes()[:keep])
    np.testing.assert_array_equal(memory_map([file], {}, decode), decode.array)
    assert decode.asked == 2


def test_a_cache_that_cannot_be_written(file, monkeypatch):
    monkeypatch.setenv("FIELDLOOM_CACHE", str(file / "cache"))  # below a file is no folder
    decode = Decoder(noise(6, 2))
    with pytest.warns(UserWarning, match=r"cannot be written .*'file.bin' is held in memory"):
        found = memory_map([file], {}, decode)
    np.testing.assert_array_equal(found, decode.array)


def test_parts_are_kept_where_the_whole_is_not(file, cached, monkeypatch):
    """A disk that is full of parts: hours of work stay, and are not done again."""
    array, asked = noise(4, 2), []
    write = cache._write

    def part(i):
        def decode():
            asked.append(i)
            yield array[2 * i : 2 * i + 2]

        return [file], decode

    def full(to, blocks):
        blocks = list(blocks)
        if len(blocks) > 1:
            raise OSError(28, "No space left on device")
        write(to, blocks)

    monkeypatch.setattr(cache, "_write", full)
    for _ in range(2):
        with pytest.warns(UserWarning, match="No space left"):
            found = memory_map_by_parts([file], {}, [part(0), part(1)])
        np.testing.assert_array_equal(found, array)
    assert asked == [0, 1]


def test_parts_without_a_cache_are_held(file, monkeypatch):
    monkeypatch.setenv("FIELDLOOM_CACHE", str(file / "cache"))
    array = noise(6, 2)
    parts = [([file], lambda i=i: iter([array[i : i + 2]])) for i in (0, 2, 4)]
    with pytest.warns(UserWarning, match="cannot be written"):
        found = memory_map_by_parts([file], {}, parts)
    np.testing.assert_array_equal(found, array)


def test_decoding_that_fails_leaves_nothing(file, cached):
    def decode():
        yield noise(2, 2)
        raise InputError("broken in the middle")

    with pytest.raises(InputError, match="broken in the middle"):
        memory_map([file], {}, decode)
    assert list(cached.iterdir()) == []


def test_what_is_stopped_goes_on_with_its_part(file, cached):
    array, asked = noise(8, 3), []

    def part(number, broken):
        def decode():
            asked.append(number)
            if number == broken:
                raise KeyboardInterrupt
            if number != 1:  # one part is empty
                yield array[2 * number : 2 * number + 2]

        return [file], decode

    parts = lambda broken: [part(number, broken) for number in range(4)]
    with pytest.raises(KeyboardInterrupt):
        memory_map_by_parts([file], {"a": 1}, parts(2))
    assert len(list(cached.iterdir())) == 2
    found = memory_map_by_parts([file], {"a": 1}, parts(None))
    np.testing.assert_array_equal(found, np.delete(array, [2, 3], 0))
    assert asked == [0, 1, 2, 2, 3]
    assert len(list(cached.iterdir())) == 1
    np.testing.assert_array_equal(memory_map_by_parts([file], {"a": 1}, parts(0)), found)
    assert asked == [0, 1, 2, 2, 3]


def test_several_at_a_time(file):
    """Each is at its first block before any goes on: every one writes, and every one is whole."""
    array, together = noise(9, 5), threading.Barrier(3, timeout=300)
    found: list[np.ndarray] = []

    def decode():
        together.wait()
        yield from np.array_split(array, 3)

    threads = [
        threading.Thread(target=lambda: found.append(memory_map([file], {}, decode)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    for one in found:
        np.testing.assert_array_equal(one, array)


def test_where_the_cache_lies(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("FIELDLOOM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "fieldloom"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "fieldloom"


# -- sources


def test_one_place_is_taken_without_a_copy():
    source = make_source(torch.from_numpy(noise(4, 3, 5, 5)), None, (4, 0), shuffle=False)
    for place in (2, -1):
        one = source.take(torch.tensor([place])).tensor
        assert one.data_ptr() == source.data.tensor[place].data_ptr()
        assert torch.equal(one, source.data.tensor[[place]])
    some = torch.tensor([3, 0, 3])
    assert torch.equal(source.take(some).tensor, source.data.tensor[some])
    assert source.take(some).tensor.dtype == torch.uint8
    torch.testing.assert_close(source.read(some).tensor, source.data.tensor[some] / 255)


def test_fingerprints_stay_what_they_were():
    """A stream of pieces gives the digest of the whole, row-major."""
    data, labels = torch.rand(4, 3, 5, 5), torch.tensor([0, 1, 0, 1])
    frame = torch.rand(4, 4)
    whole = Data(data.transpose(2, 3), frame=frame, label=labels)
    source = Source(whole, ("a", "b"), labels[:3], labels[3:])
    parts = [data.transpose(2, 3), labels, labels, frame]
    whole = b"".join(x.numpy().tobytes() for x in parts)
    digest = hashlib.blake2b(whole, digest_size=8).hexdigest()
    assert source.facts()["fingerprint"] == digest
    array = np.moveaxis(noise(6, 7, 3), -1, 0)
    pieces = list(_pieces(array, limit=10))
    assert b"".join(pieces) == array.tobytes()
    assert max(len(piece) for piece in pieces) <= 10
    assert [len(piece) for piece in _pieces(noise(6, 7), limit=10)] == [42]  # lies together: whole
