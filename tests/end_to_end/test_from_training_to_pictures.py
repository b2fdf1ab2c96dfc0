"""From training to images, by the command line alone."""

import json
import shutil

import pytest
from PIL import Image


@pytest.mark.slow
def test_from_training_to_pictures(cli, tmp_path):
    """Every verb on an own folder of pictures, in another working directory."""
    pictures = tmp_path / "pictures"
    for kind in ("dark", "light"):
        (pictures / kind).mkdir(parents=True)
        for i in range(10):
            level = 10 * i if kind == "dark" else 255 - 10 * i
            Image.new("RGB", (12 + i, 15), (level, level, 128)).save(pictures / kind / f"{i}.png")
    (pictures / "dark" / "broken.jpg").write_bytes(b"no")
    done = cli.program(
        "train", "mnif:tiny", "--run", "mine", "--seed", 3, "--set", "source.name=folder",
        "--set", f"source.path={pictures}", "--set", "modality.channels=3",
        "--set", "train.field.steps=5", "--set", "train.prior.steps=5",
        "--set", "evaluate.steps=5", cwd=tmp_path,
    )  # fmt: skip
    assert "skipped 1 unreadable images" in done.stderr
    folder = tmp_path / "mine"
    assert {p.name for p in folder.iterdir()} == {
        "recipe.toml", "env.json", "data.json", "log.jsonl", "model.safetensors",
        "codes.safetensors",
    }  # fmt: skip
    moved = tmp_path / "elsewhere" / "moved"
    shutil.move(folder, moved.parent / "x") if moved.parent.exists() else shutil.copytree(
        folder, moved
    )
    shutil.rmtree(folder, ignore_errors=True)

    info = cli("info", moved)
    assert "mnif:tiny" in info.stdout
    assert "field, codec, prior" in info.stdout
    cli.program(
        "sample", moved, "--count", 4, "--resolution", 24, "--label", "light", "--guidance", 2
    )
    assert Image.open(moved / "sampled.png").size == (2 * 26 + 2, 2 * 26 + 2)
    cli("sample", moved, "--count", 4, "--resolution", 24, "--label", "light", "--guidance", 2,
        "--out", tmp_path / "again.png")  # fmt: skip
    assert (tmp_path / "again.png").read_bytes() == (moved / "sampled.png").read_bytes()
    cli("reconstruct", moved, "--source", pictures, "--resolution", "10x20")
    assert Image.open(moved / "reconstructions" / "0003.png").size == (20, 10)
    cli("interpolate", moved, "--steps", 5, "--resolution", 16)
    assert Image.open(moved / "interpolation-0-1.gif").n_frames >= 2
    cli("encode", moved, "--source", pictures / "dark" / "1.png", "--out",
        tmp_path / "c.safetensors")  # fmt: skip
    assert (tmp_path / "c.safetensors").is_file()
    cli("evaluate", moved, "--set", "evaluate.samples=20")
    report = json.loads((moved / "report.json").read_text())
    names = {f["name"] for f in report["figures"]}
    assert {
        "psnr",
        "ssim",
        "frechet",
        "precision",
        "recall",
        "novelty",
        "agreement",
        "gmacs",
    } <= names
    assert all(f["of"] for f in report["figures"])
    frechet = next(f for f in report["figures"] if f["name"] == "frechet")
    assert "gabor" in frechet["how"]
    assert "20 samples" in frechet["of"]
    assert len(report["nearest"]) == 20
    cli("evaluate", moved, "--source", pictures / "dark")
    own = {
        f["name"]: f for f in json.loads((moved / "dark" / "report.json").read_text())["figures"]
    }
    assert own["psnr"]["of"] == "10 given data"
    assert "agreement" not in own
    page = (moved / "report.html").read_text()
    assert page.count("data:image/") > 20 + 2  # a tile each of samples and reconstructions
    assert "<figcaption>20 samples, drawn at 8 x 8</figcaption>" in page
    assert "http" not in page.replace("http-equiv", "")
