"""The program: it starts, answers, and ends by its button and by Ctrl-C, without a traceback."""

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest

import fieldloom
from fieldloom.errors import InputError
from fieldloom.viewer import serving
from fieldloom.viewer.guard import Place


@contextmanager
def started(*words):
    """``fieldloom view``, and its address."""
    command = [sys.executable, "-m", "fieldloom", "view", *map(str, words), "--port", "0"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
    try:
        said = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/(\?token=\S+)?", said)
        assert found, said + process.stderr.read()
        yield process, found[0]
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ask(address, data=None):
    request = urllib.request.Request(address, data, {"X-Fieldloom": "view"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def ended(process):
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err) == (0, "closed\n", "")


def test_the_button_ends_it(tiny_run):
    with started(tiny_run, tiny_run) as (process, address):
        assert [run["state"] for run in ask(f"{address}api/runs")["runs"]] == ["finished"] * 2
        assert ask(f"{address}api/close", b"") == {"sentence": "closed"}
        ended(process)
        with pytest.raises(urllib.error.URLError):
            ask(f"{address}api/runs")


def test_ctrl_c_ends_it(tiny_run):
    with started(tiny_run) as (process, address):
        with pytest.raises(urllib.error.HTTPError) as error:
            ask(f"{address}api/runs/9/field")
        assert json.load(error.value)["error"] == "there is no such run."
        process.send_signal(signal.SIGINT)
        ended(process)


def test_a_call_of_python_returns_when_it_is_closed(tiny_run, monkeypatch, capsys):
    wait, opened = serving.wait, []

    def close_soon(running, viewer):
        assert len(ask(f"{opened[0]}api/runs")["runs"]) == 2
        assert ask(f"{opened[0]}api/close", b"") == {"sentence": "closed"}
        ended = wait(running, viewer)
        assert not running.thread.is_alive()
        return ended

    monkeypatch.setattr(serving, "wait", close_soon)
    monkeypatch.setattr(serving.webbrowser, "open", lambda address: opened.append(address))
    fieldloom.view([tiny_run, str(tiny_run)], 0, open=True)
    said = capsys.readouterr()
    assert f"viewing 2 runs at {opened[0]}" in said.out
    assert said.out.endswith("open the address yourself\nclosed\n")
    with pytest.raises(InputError, match="at least one run"):
        fieldloom.view([])


def test_the_token_that_is_printed_lets_in(tiny_run):
    with started(tiny_run, "--token") as (process, address):
        with urllib.request.urlopen(address, timeout=120) as answer:
            cookie = answer.headers["set-cookie"].partition(";")[0]
        runs = f"{address.partition('?')[0]}api/runs"
        with pytest.raises(urllib.error.HTTPError) as error:
            ask(runs)
        assert "?token=..." in json.load(error.value)["error"]
        request = urllib.request.Request(runs, headers={"Cookie": cookie})
        with urllib.request.urlopen(request, timeout=120) as answer:
            assert len(json.load(answer)["runs"]) == 1
        process.send_signal(signal.SIGINT)
        ended(process)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--port", "70000"], "--port"),
        (["--host", "192.0.2.1"], "is no address of this machine"),
        (["--upload-limit", "0"], "--upload-limit = 0"),
        (["--upload-seconds", "nan"], "--upload-seconds = nan"),
    ],
)
def test_wrong_options_are_named(options, words, tiny_run, cli):
    assert words in cli("view", tiny_run, *options, status=2).stderr


def test_a_folder_that_is_no_run_is_named(tiny_run, tmp_path, cli):
    assert "is not a run" in cli("view", tiny_run, tmp_path, status=2).stderr
    assert "fieldloom view" in cli("view", status=2).stderr


def test_a_port_in_use_and_the_next_free_one(monkeypatch):
    with serving.listen(None, 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match="in use"):
            serving.listen(None, port)
        monkeypatch.setattr(serving, "FIRST", port)
        with serving.listen(None, None) as other:
            assert port < other.getsockname()[1] < port + serving.TRIED


def test_addresses():
    assert serving.address_of(Place("127.0.0.1", 8000)) == "http://127.0.0.1:8000/"
    assert serving.address_of(Place("::1", 80, "x")) == "http://[::1]:80/?token=x"
    assert socket.gethostname() in serving.address_of(Place("0.0.0.0", 8000, "x"))
