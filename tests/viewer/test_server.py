"""What the page is answered: runs, codes, numbers, pictures, data, and the end."""

import io
import os
import shutil
import struct
import threading

import numpy as np
import pytest
import torch
from PIL import Image

import fieldloom
from fieldloom.engine.run import save
from fieldloom.pages import make_page
from fieldloom.pages.page import pack
from viewing import viewing


@pytest.fixture(scope="module")
def client(tiny_run):
    with viewing(tiny_run) as client:
        client.get("/api/runs")
        yield client


def system_of(client):
    return client.viewer.runs["0"].system


def code_of(client, id):
    return client.viewer.runs["0"].keep.find(id).code


def pixels_of(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def test_a_run_says_what_it_has(client, tiny_run):
    (run,) = client.get("/api/runs")["runs"]
    assert (run["id"], run["name"], run["kind"]) == ("0", tiny_run.name, "images")
    assert (run["state"], run["draws"], run["codes"], run["samples"]) == (
        "finished", "browser", True, True,
    )  # fmt: skip
    assert run["data"] == {"count": 359, "trained": 1438}
    assert run["classes"] == [str(i) for i in range(10)]
    assert (run["guidance"], run["shape"], run["channels"]) == (1.0, [8, 8], 1)
    assert ".png" in run["accepts"]
    assert ".zip" not in run["accepts"]


def test_the_numbers_are_those_of_the_exported_page(client):
    field = client.get("/api/runs/0/field")
    (code,) = client.make(how="sample", seed=5)
    content = client.get(f"/api/runs/0/codes/{code['id']}/numbers")
    numbers = struct.unpack(f"<{len(content) // 4}f", content)
    assert len(numbers) == field["numbers"]
    page = make_page(system_of(client), code_of(client, code["id"]), [code["name"]])
    assert pack(torch.tensor(numbers), half=False) in page
    assert field["shader"] in page
    assert client.get(f"/api/runs/0/stage?code={code['id']}").decode() == page


def test_samples_are_those_of_the_system(client):
    codes = client.make(how="sample", seed=3, count=2, label="7", guidance=2.0)
    right = system_of(client).sample_codes(2, "7", 3, guidance=2.0)
    assert torch.equal(torch.cat([code_of(client, one["id"]) for one in codes]), right.cpu())
    assert [one["name"] for one in codes] == ["sample 3.0, 7", "sample 3.1, 7"]


def test_data_are_encoded_and_training_data_have_their_stored_codes(client):
    viewed, system = client.viewer.runs["0"], system_of(client)
    held_out = client.make(how="data", part="test", index=4, count=2)
    right = system.encode(viewed.source.read(viewed.source.test[4:5]))
    assert torch.allclose(code_of(client, held_out[0]["id"]), right, atol=1e-6)
    assert held_out[1]["datum"] == {"part": "test", "index": 5}
    (trained,) = client.make(how="data", part="train", index=3)
    stored = viewed.run.read_codes(system).codes[3:4]
    assert torch.equal(code_of(client, trained["id"]), stored)
    beyond = {"how": "data", "part": "test", "index": 359}
    assert "0 to 358" in client.post("/api/runs/0/codes", 404, beyond)["error"]


def test_between_two_codes_lies_a_mixture(client):
    a, b = client.make(how="sample", seed=1, count=2)
    (made,) = client.make(how="between", first=a["id"], second=b["id"], at=0.25)
    first, second = (code_of(client, one["id"]) for one in (a, b))
    assert torch.allclose(code_of(client, made["id"]), 0.75 * first + 0.25 * second, atol=1e-6)


def test_directions_are_principal(client):
    asked = {"how": "directions", "amounts": [2.0, -1.0]}
    ready = lambda told: told["ready"]
    path = "/api/runs/0/directions"

    def ask():
        answer = client.http.get(path)
        assert answer.status_code in (200, 202)
        return answer.json()

    share = client.wait(ask, ready)["share"]
    viewed = client.viewer.runs["0"]
    codes = viewed.run.read_codes(system_of(client)).codes.flatten(1).double()
    assert share == sorted(share, reverse=True)
    assert sum(share) <= 1.001
    found = viewed.directions.found
    assert torch.allclose(found.mean.flatten().double(), codes.mean(0), atol=0.05)  # of 1,000
    along = found.steps.flatten(1).double()
    unit = torch.nn.functional.normalize(along, dim=1)
    assert torch.allclose(unit @ unit.mT, torch.eye(len(unit)).double(), atol=1e-4)
    measured = (codes @ unit.mT).std(0)
    assert torch.allclose(along.norm(dim=1)[:3], measured[:3], rtol=0.1)
    (moved,) = client.make(**asked)
    right = found.mean + 2 * found.steps[0] - found.steps[1]
    assert torch.allclose(code_of(client, moved["id"])[0], right, atol=1e-5)


def test_the_nearest_of_a_training_datum_is_itself(client):
    viewed, system = client.viewer.runs["0"], system_of(client)
    told = client.get("/api/runs/0/codes/c0/nearest?count=3")
    distances = [one["distance"] for one in told["nearest"]]
    assert distances == sorted(distances)
    assert (len(distances), told["compared"], told["of"]) == (3, 1438, 1438)
    search = client.viewer.nearest
    datum = viewed.source.read(viewed.source.train[17:18]).tensor
    assert search.evaluator.system is system
    distances = torch.cat([search.compare(datum, part) for part in search.parts])
    assert int(distances.argmin()) == 17
    assert float(distances.min()) == 0


def test_a_picture_of_a_part_is_that_part(client):
    system, path = system_of(client), "/api/runs/0/codes/c0/image"
    whole = pixels_of(client.get(f"{path}?width=16&height=16"))
    right = system.decode(code_of(client, "c0"), 16).tensor[0, 0]
    assert np.abs(whole[..., 0] - (right * 255).round().numpy()).max() <= 1
    part = pixels_of(client.get(f"{path}?width=8&height=4&x0=0.25&x1=0.75&y0=0&y1=0.25"))
    assert np.abs(part.astype(int) - whole[:4, 4:12]).max() <= 1
    beside = pixels_of(client.get(f"{path}?width=32&height=16&x0=-0.5&x1=1.5"))
    assert (beside[:, :8] == 128).all()
    assert np.abs(beside[:, 8:24].astype(int) - whole).max() <= 1
    assert (pixels_of(client.get(f"{path}?width=4&height=4&x0=2&x1=3")) == 128).all()


def test_a_datum_is_shown_as_it_is(client):
    viewed = client.viewer.runs["0"]
    content = client.get("/api/runs/0/data/test/2/image")
    right = viewed.source.read(viewed.source.test[2:3]).tensor[0, 0]
    assert np.abs(pixels_of(content)[..., 0] / 255 - right.numpy()).max() < 0.01


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("codes/c0/image?width=5000", "from 1 to 4,096"),
        ("codes/c0/image?width=2000&height=2000", "at most 1,048,576"),
        ("codes/c0/image?width=1e3", "no whole number"),
        ("codes/c0/image?x0=nan", "a number from"),
        ("codes/c0/image?x0=0.5&x1=0.5", "is empty"),
        ("codes/c0/image?time=2", "from 0 to 1"),
        ("codes/c0/nearest?count=0", "from 1 to 64"),
        ("training?after=-1", "from 0"),
    ],
)
def test_wrong_numbers_are_named(path, words, client):
    assert words in client.get(f"/api/runs/0/{path}", 400)["error"]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ([], "object"),
        ({"how": "dream"}, "dream"),
        ({"how": "sample", "seed": 0, "count": 65}, "count: 65"),
        ({"how": "sample", "seed": True}, "seed"),
        ({"how": "sample", "seed": 0, "path": "/etc"}, "path"),
        ({"how": "sample", "seed": 0, "label": "<b>"}, "unknown class"),
        ({"how": "directions", "amounts": [1] * 17}, "amounts"),
        ({"how": "between", "first": "c0", "second": "c1", "at": 1.5}, "at: 1.5"),
    ],
)
def test_wrong_requests_for_codes_are_named(asked, words, client):
    assert words in client.post("/api/runs/0/codes", 400, asked)["error"]


def test_a_body_that_is_no_json(client):
    for body in (b"", b"{", b"[" * 60_000, b"9" * 60_000):
        client.post("/api/runs/0/codes", 400, body)
    assert "larger than" in client.post("/api/runs/0/codes", 413, b" " * 70_000)["error"]


def test_old_codes_are_gone_and_others_never_were(client, monkeypatch):
    monkeypatch.setattr("fieldloom.viewer.kept.MOST", 4)
    made = client.make(how="sample", seed=0, count=5)
    keep = client.viewer.runs["0"].keep
    assert len(keep.codes) == 4
    assert keep.bytes == sum(one.code.nbytes for one in keep.codes.values())
    client.get(f"/api/runs/0/codes/{made[0]['id']}/numbers", 410)
    client.get(f"/api/runs/0/codes/{made[1]['id']}/numbers")
    client.get("/api/runs/0/codes/c99999/numbers", 404)


def test_a_code_goes_to_another_run_of_the_same_shape(tiny_run, scenes, tmp_path):
    save(scenes[0], tmp_path / "scene")
    with viewing(tiny_run, tiny_run, tmp_path / "scene") as client:
        runs = client.get("/api/runs")["runs"]
        assert [run["name"] for run in runs] == [str(tiny_run), str(tiny_run), "scene"]
        (code,) = client.make(how="sample", seed=2)
        (same,) = client.make("1", how="other", run="0", code=code["id"])
        numbers = [client.get(f"/api/runs/{i}/codes/{one['id']}/numbers")
                   for i, one in ((0, code), (1, same))]  # fmt: skip
        assert numbers[0] == numbers[1]
        other = {"how": "other", "run": "0", "code": code["id"]}
        assert "this run's are" in client.post("/api/runs/2/codes", 409, other)["error"]
        client.post("/api/runs/1/codes", 404, other | {"run": "7"})


def test_two_clients_at_once_get_their_own(client):
    found = {}

    def ask(seed):
        (code,) = client.make(how="sample", seed=seed)
        found[seed] = code_of(client, code["id"])

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, code in found.items():
        assert torch.equal(code, system_of(client).sample_codes(1, None, seed).cpu())
    assert len(found) == 8


def test_the_nearest_are_those_of_the_newest_weights(own_run):
    with viewing(own_run) as client:
        (code,) = client.make(how="sample", seed=0)
        path = f"/api/runs/0/codes/{code['id']}/nearest"
        client.get(path)
        os.utime(own_run / "model.safetensors")
        client.get(path)
        assert client.viewer.nearest.evaluator.system is system_of(client)


def test_another_run_is_trained_in_the_folder(own_run, tmp_path):
    image = torch.rand(3, 12, 16)
    field = {"name": "siren", "width": 8, "depth": 2}
    fieldloom.fit(image, tmp_path / "fit", steps=2, device="cpu", field=field)
    with viewing(own_run) as client:
        client.make(how="sample", seed=0, count=3)
        shutil.move(own_run, tmp_path / "old")
        client.get("/api/runs")
        shutil.copytree(tmp_path / "fit", own_run)
        (run,) = client.get("/api/runs")["runs"]
        assert (run["shape"], run["data"]["trained"]) == ([12, 16], 1)
        client.get("/api/runs/0/codes/c0/numbers")
        shutil.rmtree(own_run)
        shutil.copytree(tmp_path / "old", own_run)
        (run,) = client.get("/api/runs")["runs"]
        assert run["data"]["trained"] == 1438
        client.get("/api/runs/0/codes/c0/numbers", 410)
        client.make(how="data", part="train", index=3)


def test_a_closed_viewer_refuses(tiny_run):
    with viewing(tiny_run) as client:
        assert client.post("/api/close") == {"sentence": "closed"}
        client.get("/api/runs", 503)
        client.get("/", 503)
    assert not client.viewer.worker.thread.is_alive()


def test_a_fit_of_one_datum_has_one_code(tmp_path):
    image = torch.rand(3, 12, 16)
    field = {"name": "siren", "width": 8, "depth": 2}
    fieldloom.fit(image, tmp_path / "fit", steps=2, device="cpu", field=field)
    with viewing(tmp_path / "fit") as client:
        (run,) = client.get("/api/runs")["runs"]
        assert (run["codes"], run["samples"], run["accepts"]) == (False, False, [])
        client.get("/api/runs/0/codes/c0/numbers")
        (code,) = client.make(how="data", part="train", index=0)
        assert code == {"id": "c0", "name": "fit", "datum": {"part": "train", "index": 0}}
        client.post("/api/runs/0/codes", 409, {"how": "sample", "seed": 0})
        client.get("/api/runs/0/directions", 409)
        datum = pixels_of(client.get("/api/runs/0/data/train/0/image"))
        assert np.abs(datum / 255 - image.permute(1, 2, 0).numpy()).max() < 0.01
