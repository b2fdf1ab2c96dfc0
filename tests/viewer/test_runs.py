"""Runs in any state: training, killed, damaged, empty, without data; one does not stop others."""

import json
import shutil
import socket
import subprocess
import sys

import pytest

from fieldloom import recipe
from fieldloom.engine.lock import NAME, find_writer, hold_lock
from fieldloom.engine.run import Run
from fieldloom.training import train
from viewing import viewing


class Killed(BaseException):
    """As a power cut: nothing is finished."""


@pytest.fixture(scope="module")
def dead():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture(scope="module")
def killed_run(tmp_path_factory, dead):
    """A run that was killed within its first stage: its checkpoint is there, and its lock."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    write = Run.append_log

    def append(self, line):
        if line["step"] == 15:
            raise Killed
        write(self, line)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "append_log", append)
        with pytest.raises(Killed):
            train(recipe.load("mnif:tiny"), str(folder))
    lock(folder, dead)
    return folder


def lock(folder, process, host=None):
    holder = {"host": host or socket.gethostname(), "process": process, "start": "2026-01-01"}
    (folder / NAME).write_text(json.dumps(holder))


def list_runs(client):
    return client.get("/api/runs")["runs"]


def test_a_killed_training_is_shown_as_far_as_it_came(killed_run):
    assert find_writer(killed_run) is None
    with viewing(killed_run) as client:
        (run,) = list_runs(client)
        assert (run["state"], run["draws"], run["samples"]) == ("unfinished", "browser", False)
        assert "after step 10 of 20 of the stage 'field'" in run["sentence"]
        told = client.get("/api/runs/0/training")
        assert (told["state"], told["stage"], told["step"], told["steps"]) == (
            "unfinished", "field", 10, 20,
        )  # fmt: skip
        assert told["seconds_left"] is None
        assert [line["step"] for line in told["lines"]] == [5, 10]
        (code,) = client.make(how="data", part="test", index=0)
        client.get(f"/api/runs/0/codes/{code['id']}/numbers")
        sample = {"how": "sample", "seed": 0}
        assert "not trained yet" in client.post("/api/runs/0/codes", 400, sample)["error"]


def test_a_training_is_followed(killed_run, tiny_run, tmp_path):
    run = shutil.copytree(killed_run, tmp_path / "run")
    with viewing(run) as client, hold_lock(run):
        (before,) = list_runs(client)
        assert before["state"] == "training"
        assert "step 10 of 20" in before["sentence"]
        told = client.get("/api/runs/0/training?after=1")
        assert [line["step"] for line in told["lines"]] == [10]
        assert told["version"] == before["version"]
        assert told["seconds_left"] == pytest.approx(10 * told["lines"][0]["seconds_a_step"])
        assert told["preview"] is None
        with (run / "log.jsonl").open("a") as log:
            log.write('{"stage": "field", "step": 20, "loss": NaN}\n{"stage": "fie')
        (run / "preview.png").write_bytes(b"\x89PNG\r\n\x1a\nnew")
        told = client.get(f"/api/runs/0/training?after={told['next']}")
        assert told["lines"] == [{"stage": "field", "step": 20, "loss": None}]
        assert told["preview"] is not None
        assert client.get("/api/runs/0/preview").endswith(b"new")
        for name in ("model.safetensors", "codes.safetensors"):
            shutil.copy(tiny_run / name, run / name)
        (run / "state.safetensors").unlink()
        again = client.get("/api/runs/0/training?after=99")
        assert again["version"] != before["version"]
        assert (len(again["lines"]), again["next"], again["log"]) == (3, 3, told["log"])
        (after,) = list_runs(client)
        assert (after["version"], after["samples"]) == (again["version"], True)
        shutil.copy(tiny_run / "log.jsonl", run / "new")
        (run / "new").rename(run / "log.jsonl")
        assert client.get("/api/runs/0/training?after=3")["log"] != told["log"]
    with viewing(run) as client:
        assert list_runs(client)[0]["state"] == "finished"


def test_another_hosts_training_may_still_run(tiny_run, tmp_path, dead):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    lock(run, dead, "elsewhere")
    assert find_writer(run).host == "elsewhere"
    with viewing(run) as client:
        (told,) = list_runs(client)
        assert told["state"] == "training"
        assert told["sentence"].endswith("It runs on elsewhere, or was killed there.")
    (run / NAME).write_text("no JSON")
    assert find_writer(run) is None


def damage(run, name, content):
    (run / name).write_bytes(content)


DAMAGES = {
    "weights": lambda run: damage(run, "model.safetensors", b"x" * 100),
    "cut weights": lambda run: damage(
        run, "model.safetensors", (run / "model.safetensors").read_bytes()[:-50]
    ),
    "recipe": lambda run: damage(run, "recipe.toml", b"<b>no recipe"),
    "recipe's parts": lambda run: damage(run, "recipe.toml", b'field = "evil:Class"\nformat = 3\n'),
    "checkpoint": lambda run: damage(run, "state.safetensors", b"\0" * 64),
    "another's recipe": lambda run: damage(
        run,
        "recipe.toml",
        (run / "recipe.toml").read_bytes().replace(b"width = 8", b"width = 9"),
    ),
    "deleted": lambda run: shutil.rmtree(run),
}


def test_damaged_runs_say_so_and_others_are_shown(tiny_run, tmp_path):
    folders = {name: shutil.copytree(tiny_run, tmp_path / name) for name in DAMAGES}
    for name, run in folders.items():
        DAMAGES[name](run)
    with viewing(*folders.values(), tiny_run) as client:
        *damaged, fine = list_runs(client)
        for run in damaged:
            assert run["state"] == "damaged", run
            assert run["draws"] == "nothing"
            assert run["sentence"].endswith(".")
            assert "fault of fieldloom" not in run["sentence"], run
            for path in ("field", "codes/c0/numbers", "directions", "data/test/0/image"):
                client.get(f"/api/runs/{run['id']}/{path}", 409)
            client.post(f"/api/runs/{run['id']}/codes", 409, {"how": "sample", "seed": 0})
            client.get(f"/api/runs/{run['id']}/training")
        assert fine["state"] == "finished"
        client.make(fine["id"], how="sample", seed=0)


def test_a_run_without_weights_or_without_data(tiny_run, tmp_path):
    empty = shutil.copytree(tiny_run, tmp_path / "empty")
    for name in ("model.safetensors", "codes.safetensors"):
        (empty / name).unlink()
    bare = shutil.copytree(tiny_run, tmp_path / "bare")
    text = (bare / "recipe.toml").read_text()
    (bare / "recipe.toml").write_text(
        text.replace('name = "digits"', 'name = "array"\npath = "gone.npy"')
    )
    with viewing(empty, bare) as client:
        first, second = list_runs(client)
        assert first["state"] == "empty"
        assert "first checkpoint" in first["sentence"]
        client.get("/api/runs/0/field", 409)
        assert second["state"] == "finished", second
        assert second["data"] is None
        assert "do not exist" in second["data_error"]
        client.make("1", how="sample", seed=0)
        client.post("/api/runs/1/codes", 409, {"how": "data", "part": "test", "index": 0})
        client.get("/api/runs/1/data/test/0/image", 409)
        client.get("/api/runs/1/codes/c0/nearest", 409)


def test_links_out_of_a_run_are_not_followed(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    (tmp_path / "secret.png").write_bytes(b"\x89PNG\r\n\x1a\nsecret")
    (run / "preview.png").symlink_to(tmp_path / "secret.png")
    with viewing(run) as client:
        client.get("/api/runs/0/preview", 404)
        (run / "preview.png").unlink()
        (run / "preview.png").write_bytes(b"<script>")
        client.get("/api/runs/0/preview", 404)


def test_figures_are_those_of_the_report(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    figures = [
        {"name": "psnr", "value": 31.25, "of": "x"},
        {"name": "<b>", "value": None},
        {"name": 3},
        {"name": "learnable", "value": 236912},
        7,
        {"name": "fid", "value": True},
    ]
    (run / "report.json").write_text(json.dumps({"figures": figures}))
    with viewing(run) as client:
        psnr, other, params, fid = list_runs(client)[0]["figures"]
        assert (psnr["name"], psnr["text"], psnr["higher_is_better"]) == ("PSNR", "31.25 dB", True)
        assert (other["name"], other["value"], other["text"]) == ("<b>", None, "not finite")
        assert params["text"] == "236,912"
        assert fid["value"] is None
        for content in ("[]", '{"figures": 3}', "no JSON", '{"figures": null}'):
            (run / "report.json").write_text(content)
            assert list_runs(client)[0]["figures"] == []
