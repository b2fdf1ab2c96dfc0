"""Rows of a stream, written once: whole archives, and how far they go."""

import json
import threading
from contextlib import contextmanager

import pytest

from fieldloom.modalities.sources import streams
from fieldloom.modalities.sources.streams import Row, Stream, read_note, write_stream
from refusals import refused

ROWS = [Row(bytes([i]) * 1000, i % 3) for i in range(20)]


def begin_of(rows, opened: list, **more):
    @contextmanager
    def begin(written):
        opened.append(written.rows)
        yield Stream(iter(rows[written.rows :]), lambda: None, {"a": 1}, **more)

    return begin


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(streams, "SHARD", 5000)


def contents(folder) -> list[int]:
    from fieldloom.modalities.sources.stored import find_stored
    from fieldloom.modalities.sources.tars import Wanted, index_archive

    found = []
    for name in read_note(folder).shards:
        file = find_stored(folder / name)
        samples = index_archive(file, Wanted(streams.KEY, streams.LABEL), 1 << 13)
        for at, size, label in zip(samples.offsets, samples.sizes, samples.labels, strict=True):
            content = file.read(at, size)
            assert len(set(content)) == 1
            assert label == content[0] % 3
            found.append(content[0])
    return found


def test_more_rows_are_added_behind_those_that_are_there(tmp_path):
    opened = []
    for limit, rows in ((3, 3), (2, 3), (8, 8), (None, 20), (9, 20), (None, 20)):
        written = write_stream(tmp_path / "a", limit, "s", begin_of(ROWS, opened))
        assert (written.rows, written.whole) == (rows, rows == 20)
        assert contents(tmp_path / "a") == [*range(rows)]
        assert written == read_note(tmp_path / "a")
        assert written.size == sum(f.stat().st_size for f in tmp_path.glob("a/*.tar"))
    assert opened == [0, 3, 8]
    assert write_stream(tmp_path / "b", 99, "s", begin_of(ROWS, opened)).whole


@pytest.mark.parametrize("after", range(1, 6))
def test_a_killed_writer_loses_nothing(after, tmp_path, monkeypatch):
    """It is stopped before the note, or the archive, of any step is written."""

    class Killed(BaseException):
        pass

    write, calls = streams.atomic.write_atomically, []

    def killed(*given):
        calls.append(1)
        if len(calls) == after:
            raise Killed
        return write(*given)

    with monkeypatch.context() as patch:
        patch.setattr(streams.atomic, "write_atomically", killed)
        with pytest.raises(Killed):
            write_stream(tmp_path, None, "s", begin_of(ROWS, []))
    write_stream(tmp_path, None, "s", begin_of(ROWS, []))
    assert contents(tmp_path) == [*range(20)]


def test_of_several_writers_one_writes(tmp_path):
    opened = []
    begin = begin_of(ROWS, opened)
    threads = [
        threading.Thread(target=write_stream, args=(tmp_path, None, "s", begin)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened == [0]
    assert contents(tmp_path) == [*range(20)]


def test_what_was_written_is_not_believed_blindly(tmp_path):
    begin = begin_of(ROWS, [])
    write_stream(tmp_path / "a", None, "s", begin)
    note = json.loads((tmp_path / "a" / streams.NOTE).read_text())
    outside = tmp_path / "000000000000-5.tar"
    outside.write_bytes(b"")
    for wrong in (note | {"shards": ["../000000000000-5.tar"]}, note | {"shards": 3}, [], {"x": 1}):
        (tmp_path / "a" / streams.NOTE).write_text(json.dumps(wrong))
        assert read_note(tmp_path / "a").rows == 0
    next(tmp_path.glob("a/*.tar")).unlink()
    (tmp_path / "a" / streams.NOTE).write_text(json.dumps(note))
    assert write_stream(tmp_path / "a", None, "s", begin).rows == 20
    assert contents(tmp_path / "a") == [*range(20)]


def test_the_size_is_said_beforehand(tmp_path, capsys):
    write_stream(tmp_path / "a", 5, "s", begin_of(ROWS, [], count=20, size=40 << 30))
    assert "s: the first 5 rows are written to " in (said := capsys.readouterr().err)
    assert "once, about 10.7 GB" in said
    write_stream(tmp_path / "b", None, "s", begin_of(ROWS, []))
    assert "all rows are written to " in (said := capsys.readouterr().err)
    assert "of a size that is not known beforehand" in said
    begin = begin_of(ROWS, [], count=20, size=1 << 60)
    refused(
        "takes about .* has room for .*source.limit", write_stream, tmp_path / "c", None, "s", begin
    )
