"""Progress without a terminal: lines after a while, then now and then, and at the end."""

import sys
import time
from contextvars import Context
from functools import partial
from threading import Event
from types import SimpleNamespace

import pytest

from fieldloom import progress
from fieldloom.progress import Progress, during, track


def test_quick_work_says_only_its_end(capsys):
    assert list(track("ab", "reading", 2, "files")) == ["a", "b"]
    said = capsys.readouterr().err
    assert said.startswith("reading: 2 of 2 files in ")
    assert said.count("\n") == 1
    assert list(track("ab", "reading", 2, least=5.0)) == ["a", "b"]
    with during("loading the mesh"):
        pass
    assert capsys.readouterr().err == ""


class Clock:
    """Time that a test moves, and timers that go off with it."""

    def __init__(self):
        self.now, self.timers = 100.0, []

    def monotonic(self):
        return self.now

    def pass_by(self, seconds):
        self.now += seconds
        due = [timer for timer in self.timers if timer.end <= self.now]
        self.timers = [timer for timer in self.timers if timer not in due]
        for timer in due:
            Context().run(timer.call)  # as in a thread of its own


class Timer:
    """``threading.Timer`` by such a clock."""

    def __init__(self, clock, seconds, call, given=()):
        self.clock, self.end, self.call = clock, clock.now + seconds, lambda: call(*given)

    def start(self):
        self.clock.timers.append(self)

    def cancel(self):
        self.clock.timers = [timer for timer in self.clock.timers if timer is not self]


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr(progress, "time", found)
    monkeypatch.setattr(progress, "Timer", partial(Timer, found))
    return found


def test_long_work_is_said_while_it_runs(capsys, clock):
    """Even before the first of its parts is done; later lines come with the parts."""
    with Progress("encoding", 9, unit="batches") as bar:
        clock.pass_by(1.9)
        assert capsys.readouterr().err == ""
        clock.pass_by(0.2)
        assert capsys.readouterr().err == "encoding: 0 of 9 batches, 2 s\n"
        clock.pass_by(9.9)
        bar.update(1, "loss 0.5")
        assert capsys.readouterr().err == ""  # too soon
        clock.pass_by(1.0)
        bar.update(2, "loss 0.5")
        said = "encoding: 2 of 9 batches, 6.5 s each, 46 s left, loss 0.5\n"
        assert capsys.readouterr().err == said
    with during("loading the mesh"):
        clock.pass_by(1.9)
        assert capsys.readouterr().err == ""
        clock.pass_by(0.2)
    assert capsys.readouterr().err == "loading the mesh ...\n"
    assert not clock.timers


def test_a_part_of_work_is_quiet_and_the_whole_is_not(capsys, clock):
    """Also what a clock says, of the part and of the whole."""
    with progress.Progress("whole", 2, unit="shards") as whole:
        with progress.quiet(), progress.during("reading"):
            for _ in progress.track(range(3), "part", 3):
                clock.pass_by(1.0)
            progress.announce("a line")
        whole.update(2)
    said = capsys.readouterr().err
    assert "whole: 0 of 2 shards" in said
    assert "whole: 2 of 2 shards" in said
    assert not any(word in said for word in ("part", "reading", "a line"))


def test_timers_are_those_of_threads(capsys, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 0.01)
    said = Event()
    monkeypatch.setattr(progress, "announce", lambda text: said.set())
    with during("loading the mesh"):
        assert said.wait(300)


@pytest.fixture
def notebook(monkeypatch):
    """What a stand-in for IPython in a kernel was told to show: lines, each with its versions."""
    lines = []

    def display(told, raw, display_id):
        assert raw
        assert display_id
        lines.append([told])
        return SimpleNamespace(update=lambda told, raw: lines[-1].append(told))

    shell = SimpleNamespace(kernel="a kernel")
    shown = SimpleNamespace(display=display)
    own = SimpleNamespace(get_ipython=lambda: shell, display=shown)
    monkeypatch.setitem(sys.modules, "IPython", own)
    monkeypatch.setattr(progress, "MOVED", -1.0)
    return lines


def test_a_notebook_shows_one_line_that_moves_and_is_closed(notebook, capsys):
    with Progress("fit <b>", 4) as bar:
        bar.update(2, "loss 0.5")
        time.sleep(0.02)
        bar.update(4, "loss 0.1")
    (line,) = notebook
    assert '<progress value="0" max="4">' in line[0]["text/html"]
    assert '<progress value="2" max="4">' in line[1]["text/html"]
    assert line[1]["text/plain"].startswith("fit <b>: 2 of 4 steps, ")
    assert line[1]["text/plain"].endswith(" s left, loss 0.5")
    assert "fit &lt;b&gt;: 4 of 4 steps in 0 s, loss 0.1" in line[-1]["text/html"]
    assert "<progress" not in line[-1]["text/html"]
    assert capsys.readouterr() == ("", "")


def test_a_notebook_says_where_work_ended_by_an_error(notebook):
    def break_off():
        yield 1
        raise KeyError

    with pytest.raises(KeyError):
        list(track(break_off(), "encoding", 3, "batches"))
    assert notebook[0][-1]["text/plain"] == "encoding: 1 of 3 batches, ended after 0 s"


def test_a_notebook_shows_nothing_of_quick_or_quiet_work(notebook, capsys):
    assert list(track("ab", "reading", 2, least=5.0)) == ["a", "b"]
    with progress.quiet():
        assert list(track("ab", "a part", 2)) == ["a", "b"]
    assert notebook == []
    assert capsys.readouterr().err == ""


def test_ipython_in_a_terminal_is_no_notebook(monkeypatch, capsys):
    """Nor is a program that has loaded IPython."""
    for found in (SimpleNamespace(), None):
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda x=found: x))
        list(track("ab", "reading", 2))
        assert capsys.readouterr().err.startswith("reading: 2 of 2 steps in ")
