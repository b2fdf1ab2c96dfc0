"""One's own files: reconstructed, or refused with what is wrong; bounded in bytes and in time."""

import asyncio
import io
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldloom.engine.run import load, save
from fieldloom.errors import InputError
from fieldloom.viewer import reconstructing, uploads
from fieldloom.viewer.reconstructing import reconstruct_file
from fieldloom.viewer.refusals import Refused, explain
from fieldloom.viewer.requests import read_body
from fieldloom.viewer.uploads import Limits
from viewing import viewing


def png_of(size=(8, 8)):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, size, dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def png_that_claims(width, height):
    chunk = lambda kind, body: (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    )
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(b"\0" * 100)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def npy_of(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def zip_of():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../../evil.png", png_of())
    return buffer.getvalue()


BAD = {
    "empty.png": b"",
    "text.png": b"this is no picture",
    "truncated.png": png_of((64, 64))[:200],
    "sound.png": b"RIFF\x24\0\0\0WAVEfmt " + b"\0" * 20 + b"data\0\0\0\0",
    "nothing.png": png_that_claims(0, 0),
    "bomb.png": png_that_claims(100_000, 100_000),
    "archive.png": zip_of(),
    "mesh.png": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n",
    "text.npy": b"this is no array",
    "nan.npy": npy_of(np.full((1, 8, 8), np.nan, np.float32)),
    "objects.npy": npy_of(np.array([{"a": 1}], dtype=object)),
    "begun.npy": b"\x93NUMPY",
    "claims.npy": npy_of(np.zeros((1, 8, 8), np.uint8))[:100],
    "none.npy": npy_of(np.zeros((0, 8, 8), np.uint8)),
    "flat.npy": npy_of(np.float32(3)),
}


@pytest.fixture(scope="module")
def system(tiny_run):
    return load(tiny_run, "cpu")


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_by_one_sentence(name, system, tmp_path):
    path = tmp_path / f"upload{Path(name).suffix}"
    path.write_bytes(BAD[name])
    with pytest.raises(InputError) as error:
        reconstruct_file(system, path)
    status, sentence = explain(error.value)
    assert status == 400
    assert "\n" not in sentence


def test_a_good_file_has_the_code_of_its_datum(system, tmp_path):
    (tmp_path / "upload.png").write_bytes(png_of())
    found = reconstruct_file(system, tmp_path / "upload.png")
    pixels = np.array(Image.open(io.BytesIO(png_of())), dtype=np.float32)[None, None] / 255
    right = system.encode(pixels)
    assert (found.code - right).abs().max() < 1e-5
    assert found.signals == 1
    error = ((system.predict(right).tensor.numpy() - pixels) ** 2).mean()
    assert found.decibels == pytest.approx(-10 * np.log10(error), abs=1e-3)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Where the temporary files of uploads are."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return lambda: list(tmp_path.glob("fieldloom-view-*"))


def test_files_by_the_page(tiny_run, folders):
    with viewing(tiny_run, limits=Limits(5000, 120.0)) as client:
        client.get("/api/runs")
        good = client.upload("My Photo.PNG", png_of())
        assert good["state"] == "done", good
        (code,) = good["result"]["codes"]
        assert code["name"] == "file My Photo.PNG"
        assert good["result"]["figures"][0]["name"] == "psnr"
        assert good["sentence"] == f"PSNR {good['result']['figures'][0]['value']:.2f} dB."
        client.get(f"/api/runs/0/codes/{code['id']}/numbers")
        original = Image.open(io.BytesIO(client.get(good["result"]["original"])))
        assert np.array_equal(
            np.asarray(original)[..., 0], np.asarray(Image.open(io.BytesIO(png_of())))
        )
        assert "empty" in client.post("/api/runs/0/upload?name=a.png", 400)["error"]
        for name in ("a.zip", "a.wav", "a", "", "png", "a.png.exe", "a.png%00.zip", "recipe.toml"):
            client.post(f"/api/runs/0/upload?name={name}", 415, b"x")
        large = client.post("/api/runs/0/upload?name=a.png", 413, b"x" * 5001)["error"]
        assert large == "it is larger than 5 kB."
        client.get("/api/runs/0/uploads/u99/image", 410)
    assert not folders()


def test_a_file_that_takes_too_long_or_kills_its_reader(tiny_run, folders, monkeypatch):
    with viewing(tiny_run, limits=Limits(5000, 1.0)) as client:
        client.get("/api/runs")
        monkeypatch.setattr(uploads, "PROGRAM", "import os; os.abort()")
        told = client.upload("evil.png", b"x")
        assert (told["state"], told["sentence"]) == (
            "failed",
            "'evil.png' ended the process that read it: it is damaged, or needs more memory than "
            "there is.",
        )
        monkeypatch.setattr(uploads, "PROGRAM", "import time; time.sleep(600)")
        told = client.upload("slow.png", b"x")
        assert told["state"] == "failed"
        assert told["sentence"] == "it took longer than 1 s (--upload-seconds)."
    assert not folders()


def test_jobs_wait_are_cancelled_and_end_with_the_viewer(tiny_run, folders, monkeypatch):
    monkeypatch.setattr(uploads, "PROGRAM", "import time; time.sleep(600)")
    monkeypatch.setattr(uploads, "WAITING", 2)
    with viewing(tiny_run, limits=Limits(5000, 600.0)) as client:
        client.get("/api/runs")
        begin = lambda status=202: client.post("/api/runs/0/upload?name=a.png", status, b"x")
        first, second = begin()["job"], begin()["job"]
        assert "waiting already" in begin(429)["error"]
        for job in (second, first):
            client.post(f"/api/jobs/{job}/cancel")
            ended = lambda told: told["state"] == "cancelled"
            client.wait(lambda job=job: client.get(f"/api/jobs/{job}"), ended)
        client.get("/api/jobs/j99", 404)
        client.post("/api/jobs/j99/cancel", 404)
        begin()
    assert not folders()


def test_a_run_that_cannot_encode_takes_no_files(scenes, tmp_path):
    save(scenes[0], tmp_path / "scene")
    with viewing(tmp_path / "scene") as client:
        (run,) = client.get("/api/runs")["runs"]
        assert run["accepts"] == []
        client.post("/api/runs/0/upload?name=a.png", 409, b"x")


class Slow:
    """A request whose body comes byte by byte, and never ends."""

    headers = {}

    async def stream(self):
        while True:
            yield b"x"
            await asyncio.sleep(0.01)


def test_a_body_that_comes_too_slowly_is_left():
    with pytest.raises(Refused, match="within 0.1 s"):
        asyncio.run(read_body(Slow(), 1 << 20, 0.1))
    with pytest.raises(Refused, match="larger than 0.002 kB"):
        asyncio.run(read_body(Slow(), 2, 10))


def test_the_process_writes_what_it_finds(tiny_run, tmp_path, monkeypatch):
    """As in a process of its own; that it is one is seen above."""
    path = tmp_path / "upload.png"
    path.write_bytes(BAD["text.png"])
    asked = '{"run": "%s", "device": "cpu", "trust": [], "large": false, "path": "%s"}'
    monkeypatch.setattr("sys.argv", ["", asked % (tiny_run, path)])
    monkeypatch.setattr(reconstructing, "end_with_input", lambda: None)
    monkeypatch.setattr(reconstructing, "silence", lambda: None)
    reconstructing.main()
    with pytest.raises(Refused) as refused:
        uploads.read_found(tmp_path, str(path), "mine.png")
    assert "'mine.png'" in str(refused.value)
