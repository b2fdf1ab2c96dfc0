"""Progress without a terminal: lines after a while, then now and then, and at the end."""

from contextvars import Context
from functools import partial
from threading import Event

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
