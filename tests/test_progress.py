"""Progress without a terminal: lines after a while, then now and then, and at the end."""

import time

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


def test_long_work_is_said_while_it_runs(capsys, monkeypatch):
    """Even before the first of its parts is done; later lines come with the parts."""
    monkeypatch.setattr(progress, "PATIENCE", 0.05)
    monkeypatch.setattr(progress, "APART", 0.1)
    with Progress("encoding", 3, unit="batches") as bar:
        time.sleep(0.2)
        assert capsys.readouterr().err == "encoding: 0 of 3 batches, 0 s\n"
        bar.update(1, "loss 0.5")
        first = capsys.readouterr().err
        assert first.startswith("encoding: 1 of 3 batches, ")
        assert first.endswith(" s left, loss 0.5\n")
        bar.update(2)
        assert capsys.readouterr().err == ""  # too soon
    with during("loading the mesh"):
        time.sleep(0.2)
    assert capsys.readouterr().err == "loading the mesh ...\n"


def test_a_part_of_work_is_quiet_and_the_whole_is_not(capsys, monkeypatch):
    """Also what a clock says, of the part and of the whole."""
    monkeypatch.setattr(progress, "PATIENCE", 0.05)
    with progress.Progress("whole", 2, unit="shards") as whole:
        with progress.quiet(), progress.during("reading"):
            for _ in progress.track(range(3), "part", 3):
                time.sleep(0.05)
            progress.announce("a line")
        whole.update(2)
    said = capsys.readouterr().err
    assert "whole: 0 of 2 shards" in said
    assert "whole: 2 of 2 shards" in said
    assert not any(word in said for word in ("part", "reading", "a line"))
