"""``benchmarks/accelerator.py``: killed and resumed, its parts, its goals, what it carries."""

import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fieldloom.process import alive
from fieldloom.threads import run_pieces

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
SECTION = "ipc of faces"


@pytest.fixture
def part_of(monkeypatch):
    """Import a module of the sections: ``part_of("parts")``."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return lambda name: importlib.import_module(f"accelerator_sections.{name}")


@pytest.fixture
def command(monkeypatch):
    """The command itself as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    found = importlib.util.spec_from_file_location("accelerator", BENCHMARKS / "accelerator.py")
    module = importlib.util.module_from_spec(found)
    monkeypatch.setitem(sys.modules, "accelerator", module)
    found.loader.exec_module(module)
    return module


def write_faces(folder: Path) -> None:
    """Twenty pictures of noise, packed as the faces are."""
    draw, files = np.random.default_rng(0), []
    for _ in range(20):
        file = io.BytesIO()
        pixels = draw.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file, "PNG")
        files.append(np.frombuffer(file.getvalue(), np.uint8))
    offsets = np.cumsum([0, *map(len, files)])
    np.savez(folder / "faces64.npz", data=np.concatenate(files), offsets=offsets)


def start(folder: Path) -> subprocess.Popen:
    words = ["--device", "cpu", "--minutes", "1", "--sections", SECTION, "--data", str(folder)]
    words += ["--vectors", str(folder), "--out", str(folder / "out")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(BENCHMARKS / "accelerator.py"), *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_killed_call_is_resumed(tmp_path):
    """What was done stays done, the training goes on, and a few files are left.

    The section of the killed call does not run beside the next one.
    """
    write_faces(tmp_path)
    kept = tmp_path / "out.work" / f"{SECTION}.json"
    first = start(tmp_path)
    end = time.monotonic() + 600
    while time.monotonic() < end and "training" not in read(kept):
        time.sleep(0.05)
    section = children_of(first.pid)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    while time.monotonic() < end and any(map(alive, section)):
        time.sleep(0.02)
    assert not any(map(alive, section))
    before = read(kept)
    assert before["pace"]["state"] == "done"
    assert before["training"]["state"] in ("running", "done")
    said, _ = start(tmp_path).communicate(timeout=600)
    after = read(kept)
    assert after["pace"] == before["pace"]
    assert after["steps"] == before["steps"]
    assert {part["state"] for part in after.values()} == {"done"}, said
    assert after["training"]["result"]["last"]["field"]["step"] == after["steps"]["result"]["field"]
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["unfinished"] == []
    (psnr,) = [row for row in results["goals"] if row["goal"] == "IPC of faces, PSNR"]
    assert psnr["measured"] == after["evaluation"]["result"]["psnr"]
    there = {path.name for path in (tmp_path / "out").iterdir()}
    assert there == {"results.json", "log.txt", "ipc-faces.png"}


def children_of(process: int) -> list[int]:
    """The processes that it has started, where the system tells (Linux)."""
    path = Path(f"/proc/{process}/task/{process}/children")
    return list(map(int, path.read_text().split())) if path.exists() else []


def read(path: Path) -> dict:
    return json.loads(path.read_text()) if path.is_file() else {}


# -- parts


def fail():
    raise ValueError("too small")


def test_parts(part_of, tmp_path):
    """A part that is done is not done again; others are, by a later call."""
    parts = part_of("parts")
    path, times = tmp_path / "a.json", []
    work = lambda: times.append(1) or {"x": 1}
    absent = lambda: parts.Plan("cpu", 1, "tiny", str(tmp_path), "", "", "", 1).data_file("a.npz")
    for call in (1, 1, 2):
        held = parts.Parts(path, call)
        assert held.do("good", work) == {"x": 1}
        assert held.do("bad", fail) is None
        assert held.do("none", absent) is None
    assert len(times) == 1
    assert held.all["bad"]["why"] == "ValueError: too small"
    assert held.all["none"]["state"] == "absent"
    assert "--data" in held.all["none"]["why"]


def test_what_ended_its_process_is_not_tried_again_by_the_same_call(part_of, tmp_path):
    parts = part_of("parts")
    path = tmp_path / "a.json"
    parts.write_json({"deadly": {"state": "running", "call": 1}}, path)
    assert parts.Parts(path, 1).do("deadly", lambda: {"x": 1}) is None
    assert parts.Parts(path, 2).do("deadly", lambda: {"x": 1}) == {"x": 1}


def test_a_signal_stops_a_section(part_of, tmp_path):
    parts = part_of("parts")

    def stop():
        raise KeyboardInterrupt("by a signal")

    held = parts.Parts(tmp_path / "a.json", 1)
    with pytest.raises(parts.Stopped):
        held.do("long", stop)
    assert held.all["long"]["state"] == "stopped"
    assert held.do("long", lambda: {"x": 2}) == {"x": 2}


def test_a_device_that_is_lost_ends_the_process(part_of, tmp_path, monkeypatch):
    parts = part_of("parts")
    monkeypatch.setattr(parts, "answers", lambda: False)
    with pytest.raises(parts.DeviceLost):
        parts.Parts(tmp_path / "a.json", 1).do("bad", fail)


HANGS = """
import json, signal, sys, time
signal.signal(signal.SIGTERM, lambda *given: None)
json.dump({"good": {"state": "done", "call": 1}, "slow": {"state": "running", "call": 1}},
          open(sys.argv[1], "w"))
print("written", flush=True)
time.sleep(600)
"""


def test_a_part_that_hangs_is_killed_and_counts_as_failed(command, part_of, tmp_path, monkeypatch):
    """Even where it does not listen to SIGTERM."""
    parts, path, kept = part_of("parts"), tmp_path / "a.json", []
    monkeypatch.setattr(command, "GRACE", 0.2)
    plan = parts.Plan("cpu", 30, "tiny", "", "", "", "", 1)
    process = subprocess.Popen([sys.executable, "-c", HANGS, str(path)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"written\n"
    keep = lambda: kept.append(1)
    assert command.end_in_time(process, plan, path, 0.5, keep) == command.LOST
    assert process.returncode == -signal.SIGKILL
    assert kept
    found = read(path)
    assert found["good"]["state"] == "done"
    assert found["slow"]["state"] == "failed"
    assert "more than" in found["slow"]["why"]
    assert command.failures(path, 1) == 1
    assert command.failures(path, 2) == 0


def test_too_many_files_are_refused(command, tmp_path):
    for number in range(9):
        (tmp_path / f"{number}.txt").touch()
    with pytest.raises(SystemExit, match="9 files"):
        command.check_files(tmp_path)


def test_what_would_spend_the_minutes_in_vain_is_refused_at_once(command, tmp_path, monkeypatch):
    def ask(*words):
        monkeypatch.setattr(sys, "argv", ["accelerator.py", *words])
        args = command.parse()
        command.check_asked(args, tmp_path / "work")

    for minutes in ("0", "-1", "nan", "inf"):
        with pytest.raises(SystemExit, match=f"--minutes {minutes}: above 0"):
            ask("--minutes", minutes, "--out", str(tmp_path / "out"))
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="file' cannot hold results: File exists"):
        ask("--out", str(tmp_path / "file"))
    for name in ("results.json", "results.json.part", "log.txt", "profiles.txt", "a.png", ".x"):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / name).touch()
    ask("--out", str(tmp_path / "out"))
    (tmp_path / "out" / "results.json").write_text('{"minutes": 2.0}')
    ask("--minutes", "3", "--out", str(tmp_path / "out"))
    words = r"out' holds a short pass \(--minutes 2\), .* is long: give .* as out-long\."
    with pytest.raises(SystemExit, match=words):
        ask("--minutes", "8", "--out", str(tmp_path / "out"))
    (tmp_path / "out" / "file").touch()
    with pytest.raises(SystemExit, match="holds other files, such as 'file': take another"):
        ask("--out", str(tmp_path / "out"))


# -- goals


def test_goals(part_of):
    """Speed is judged on a GPU alone; what was not measured is not judged."""
    goals = part_of("goals")
    speed = {"mnif S, training": {"result": {"ratio": 12.0}},
             "mnif S, decoding": {"result": {"64": {"bound": 0.4}, "1": {"rate": 3000.0}}},
             "bounds": {"result": {"device": "cuda"}}}  # fmt: skip
    judged = {row["goal"]: row for row in goals.judge({"speed": speed})}
    assert judged["mNIF S training, times plain"]["met"] is True
    assert judged["mNIF S decoding, of the bound"]["met"] is False
    assert judged["mNIF S decoding at 1, pictures/s"]["met"] is None
    assert judged["laws that hold"]["measured"] is None
    speed["bounds"]["result"]["device"] = "cpu"
    judged = {row["goal"]: row for row in goals.judge({"speed": speed})}
    assert judged["mNIF S training, times plain"]["met"] is None
    lines = goals.table(list(judged.values()))
    assert len(lines) == 1 + len(goals.GOALS)


# -- what is carried


def test_missing_packages_come_from_wheels(part_of, tmp_path, monkeypatch):
    """Only what Python lacks, from files alone; into a folder of its own."""
    packing = part_of("packing")
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    name = "carried-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheels / name, "w") as wheel:
        wheel.writestr("carried.py", "there = True\n")
        wheel.writestr("carried-1.0.dist-info/METADATA", "Name: carried\nVersion: 1.0\n")
        wheel.writestr("carried-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
        wheel.writestr("carried-1.0.dist-info/RECORD", "")
    monkeypatch.setattr(packing, "WHEELS", {"carried": (), "numpy": ()})
    find = packing.find_spec
    monkeypatch.setattr(packing, "find_spec", lambda name: None if name == "pip" else find(name))
    assert [packing.is_there(name) for name in ("carried", "numpy")] == [False, True]
    target = packing.install_missing(wheels, tmp_path / "packages")
    assert (target / "carried.py").is_file()
    assert not (target / "numpy").exists()
    (wheels / name).unlink()
    with pytest.raises(SystemExit, match="no wheels of carried"):
        packing.install_missing(wheels, tmp_path / "others")


REFUSED = ("av", "trimesh", "soundfile")


class Refuse:
    """An importer that lets nobody import packages that a machine with a GPU may lack."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in REFUSED:
            raise ImportError(f"{name} is refused")


def step_each_recipe():
    """A training step of every tiny recipe of pictures, and the device's stand-in for vectors."""
    sys.meta_path.insert(0, Refuse())
    import torch

    import apart
    import fieldloom
    from fieldloom.assembly import objective_of
    from fieldloom.engine.loop import Training
    from fieldloom.types import Data

    torch.set_num_threads(1)
    apart.register()  # before autograd has counted the devices
    recipes = ("mnif", "functa", "ipc", "laginr", "transinr", "learned-init")
    for name in recipes:
        system = fieldloom.build(name, "tiny")
        images = torch.rand(2, 1, 8, 8)
        data = Data(images, index=torch.arange(2))
        batch = system.modality.observe(data, keep_grid=system.encoder.reads_grid)
        training = Training(objective_of(system), system.settings.field_stage)
        training.advance(batch, 2, 0, torch.device("cpu"))
    sys.path.insert(0, str(BENCHMARKS))
    from accelerator_sections import conformance

    vectors = ROOT / "tests" / "data" / "vectors"
    names = ("mnif_image_latent_zero_init", "ipc_rays_render")
    found = [conformance.check_file(vectors / f"{n}.npz", torch.device("apart")) for n in names]
    return [name for name in REFUSED if name in sys.modules], found


def test_what_a_machine_may_lack_is_not_imported():
    """Nor does a check of vectors mix devices."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        imported, found = pool.submit(step_each_recipe).result()
    assert imported == []
    assert all(own["agrees"] for own in found), found


def test_what_threads_compute_is_counted(monkeypatch):
    """The products of a field's layers, whichever threads compute them."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    arithmetic = importlib.import_module("arithmetic")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        a = torch.ones(20, 30)
        pieces = [lambda: a @ a.mT] * 4
        with torch.inference_mode():
            found = arithmetic.count(lambda: run_pieces(pieces))
        assert found["flops"] == 4 * 2 * 20 * 20 * 30
    finally:
        torch.set_num_threads(before)
