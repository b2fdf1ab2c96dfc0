"""One large image, video or audio from training to a window of it, by the command line."""

import json
import math
import shutil

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import structural_similarity

import fieldloom
from fieldloom import recipe
from fieldloom.assembly import open_source
from fieldloom.evaluation import large
from fieldloom.metrics.paired import psnr
from fieldloom.pages import still
from large_fits import FIELD, joined, origin

pytestmark = pytest.mark.usefixtures("cached")


def recipe_file(folder, modality, source, **more):
    """A recipe of a tiny fit."""
    whole = {
        "seed": 0,
        "source": source,
        "modality": modality,
        "field": FIELD,
        "train": {"field": {"steps": 4, "batch": 1, "points": 50}},
        **more,
    }
    path = folder / "tiny.toml"
    path.write_text(recipe.dump(whole))
    return path


def gradient(height, width, shift=0) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    wave = np.stack([y / height, x / width, 0.5 + 0.4 * np.sin(y + shift)], -1)
    return (255 * wave).astype(np.uint8)


@pytest.fixture
def picture_run(cli, tmp_path):
    Image.fromarray(gradient(30, 44)).save(tmp_path / "in.png")
    source = {"name": "image", "path": str(tmp_path / "in.png")}
    path = recipe_file(tmp_path, "image", source, evaluate={"metrics": ["psnr", "ssim"]})
    cli("train", path, "--run", tmp_path / "run", "--device", "cpu")
    return tmp_path / "run"


def test_a_picture_from_training_to_zoom(cli, picture_run, tmp_path, capsys):
    system = fieldloom.load(picture_run, "cpu")
    whole = system.predict(origin(system)).tensor[0]
    assert whole.shape == (3, 30, 44)
    as_pixels = lambda x: (x.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    fitted = np.asarray(Image.open(picture_run / "fitted.png"))
    np.testing.assert_array_equal(fitted, as_pixels(whole))
    cli("train", tmp_path / "tiny.toml", "--run", tmp_path / "again", "--device", "cpu")
    said = capsys.readouterr().out
    source = open_source(system.recipe, system.modality)
    value = psnr(whole[None], source.read(source.train).tensor).item()
    assert f"PSNR over all points: {value:.2f} dB" in said
    assert "fitted.png (30 x 44)" in said

    cli("render", picture_run)
    np.testing.assert_array_equal(np.asarray(Image.open(picture_run / "rendered.png")), fitted)
    for name in ("a.png", "a.tif"):
        cli("render", picture_run, "--window", "0.25,0,0.75,0.2", "--resolution", 90,
            "--out", tmp_path / name)  # fmt: skip
        found = np.asarray(Image.open(tmp_path / name))
        assert found.shape == (round(90 * 30 * 0.2 / 22), 90, 3)  # square pixels
        wanted = joined(system.strips(origin(system), found.shape[:2], ((0, 0.2), (0.25, 0.75))))
        assert np.abs(found.astype(int) - as_pixels(wanted)).max() <= 1
    cli("render", picture_run, "--window", "0.5,0,1,1", "--resolution", "3x5")
    assert Image.open(picture_run / "rendered.png").size == (5, 3)

    capsys.readouterr()
    for words, sentence in {
        ("--window", "0,0,1"): "--window 0,0,1 is not right: it is x0,y0,x1,y1",
        ("--window", "0.5,0,0.5,1"): "with x0 < x1",
        ("--window", "0,0,nan,1"): "x0,y0,x1,y1",
        ("--window", "-0.5,0,0,1"): "from 0 to 1",
        ("--window", "0,0,0.0001,1"): "less than one",
        ("--frames", "12"): "turns around shapes and scenes",
        ("--frame", "0.5"): "no video",
        ("--held",): "are for scenes",
        ("--out", "a.gif"): "drawn as one of .png, .tif, .tiff",
        ("--resolution", "3x4x5"): "it is one number, or rows and columns",
        ("--index", "1"): "leave --source and --index out",
        ("--sample", "1"): "no prior",
    }.items():
        cli("render", picture_run, *words, status=2)
        assert sentence in capsys.readouterr().err


def test_a_large_picture_is_measured_and_shown(cli, picture_run, monkeypatch, capsys):
    cli("evaluate", picture_run)
    plain = json.loads((picture_run / "report.json").read_text())["figures"]
    assert (picture_run / "error.png").is_file()
    monkeypatch.setattr(large, "LIMIT", 1000)
    monkeypatch.setattr(large, "LONGEST", 16)
    monkeypatch.setattr("fieldloom.evaluation.costs.LIMIT", 1000)
    monkeypatch.setattr(still, "POINTS", 100)
    predict, whole = fieldloom.System.predict, 30 * 44

    def predict_small(self, code=None, resolution=None, cameras=None):
        assert math.prod(resolution) < whole / 4  # nothing is decoded as a whole
        return predict(self, code, resolution, cameras)

    monkeypatch.setattr(fieldloom.System, "predict", predict_small)
    cli("evaluate", picture_run)
    streamed = json.loads((picture_run / "report.json").read_text())["figures"]
    assert [x["name"] for x in plain] == [x["name"] for x in streamed]
    for a, b in zip(plain[:2], streamed, strict=False):
        assert a["value"] == pytest.approx(b["value"], rel=1e-6)
    assert Image.open(picture_run / "error.png").size == (15, 10)
    assert Image.open(picture_run / "reconstructions.png").size == (2 * 17 + 2, 12 + 2)
    page = (picture_run / "report.html").read_text()
    for words in ("shrunk to 10 x 15", "of boxes of 3 x 3 pixels", "times as bright"):
        assert words in page


def test_another_picture_is_read_as_the_run_s_own(cli, picture_run, tmp_path):
    Image.fromarray(gradient(50, 50, 1)).save(tmp_path / "other.png")
    cli("evaluate", picture_run, "--source", tmp_path / "other.png")
    found = json.loads((picture_run / "other" / "report.json").read_text())["figures"]
    assert found[0]["of"] == "1 given data"


def test_a_film_from_training_to_a_frame(cli, tmp_path, capsys):
    (tmp_path / "frames").mkdir()
    for i in range(6):
        Image.fromarray(gradient(16, 24, i)).save(tmp_path / "frames" / f"{i}.png")
    source = {"name": "video", "path": str(tmp_path / "frames")}
    path = recipe_file(tmp_path, "video", source)
    folder = tmp_path / "run"
    cli("train", path, "--run", folder, "--device", "cpu")
    assert "6 x 16 x 24" in capsys.readouterr().out
    assert Image.open(folder / "fitted.png").size == (24, 16)
    assert (folder / "fitted.mp4").is_file()
    import av

    def frames_of(path):
        with av.open(str(path)) as film:
            return [x.to_ndarray(format="rgb24") for x in film.decode(video=0)]

    cli("render", folder, "--resolution", 48)
    assert np.shape(frames_of(folder / "rendered.mp4")) == (6, 32, 48, 3)
    cli("render", folder, "--window", "0,0,0.5,0.5", "--resolution", "4x8x10",
        "--out", tmp_path / "a.gif")  # fmt: skip
    gif = Image.open(tmp_path / "a.gif")
    assert gif.size == (10, 8)
    system = fieldloom.load(folder, "cpu")
    whole = system.predict(origin(system)).tensor[0].detach()
    cli("render", folder, "--frame", 1.5 / 6)
    still = np.asarray(Image.open(folder / "rendered.png"))
    wanted = (whole[:, 1].clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()
    assert np.abs(still - wanted).max() <= 1
    cli("render", folder, "--window", "0,0,1,0.5")  # the middle of the time
    assert Image.open(folder / "rendered.png").size == (24, 8)
    cli("render", folder, "--frame", "0.5", "--out", tmp_path / "a.mp4", status=2)
    cli("evaluate", folder)
    report = json.loads((folder / "report.json").read_text())
    ssim = next(x for x in report["figures"] if x["name"] == "ssim")
    data = np.stack([gradient(16, 24, i) for i in range(6)]) / 255
    made = whole.clamp(0, 1).permute(1, 2, 3, 0).double().numpy()
    each = [
        structural_similarity(a, b, channel_axis=2, data_range=1.0, sigma=1.5,
                              gaussian_weights=True, use_sample_covariance=False)
        for a, b in zip(made, data, strict=True)
    ]  # fmt: skip
    assert ssim["value"] == pytest.approx(np.mean(each), abs=1e-6)
    assert ssim["how"].startswith("mean of frames")


def test_a_sound_from_training_to_a_file(cli, tmp_path, capsys):
    soundfile = pytest.importorskip("soundfile")
    wave = 0.5 * np.sin(np.arange(800) / 9)
    soundfile.write(tmp_path / "in.wav", wave, 8000)
    source = {"name": "audio", "path": str(tmp_path / "in.wav")}
    folder = tmp_path / "run"
    cli("train", recipe_file(tmp_path, "audio", source), "--run", folder, "--device", "cpu")
    assert "\nSNR over all points" in capsys.readouterr().out
    system = fieldloom.load(folder, "cpu")
    made = system.decode(origin(system)).tensor[0, 0].detach().numpy() * 2 - 1
    for name in ("fitted.wav", "rendered.wav"):
        if name == "rendered.wav":
            cli("render", folder)
        samples, rate = soundfile.read(folder / name)
        assert rate == 8000
        np.testing.assert_allclose(samples, made, atol=2 / 32768)
    assert (folder / "fitted.png").is_file()
    cli("render", folder, "--window", "0,0,1,1", status=2)
    cli("evaluate", folder)


def test_views_end_in_a_sheet(cli, tmp_path, capsys):
    rng = np.random.default_rng(0)
    from fieldloom.geometry.cameras import orbit

    frames = []
    for i, pose in enumerate(orbit(10, 1.6, 20.0)):
        Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
        frames.append({"file_path": f"{i}.png", "transform_matrix": pose.tolist()})
    (tmp_path / "transforms.json").write_text(
        json.dumps({"camera_angle_x": 0.8, "w": 8, "h": 6, "frames": frames})
    )
    source = {"name": "transforms", "path": str(tmp_path / "transforms.json")}
    modality = {"name": "views", "size": [6, 8], "held": 2, "range": "unit"}
    renderer = {"name": "volume", "near": 0.5, "far": 3.0, "samples": 4, "range": "unit"}
    path = recipe_file(tmp_path, modality, source, renderer=renderer)
    cli("train", path, "--run", tmp_path / "run", "--device", "cpu")
    said = capsys.readouterr().out
    assert "8 views, 2 of them held out, 6 x 8" in said
    assert "PSNR of 2 views held out: " in said
    assert "PSNR of 6 views trained on: " in said
    sheet = np.asarray(Image.open(tmp_path / "run" / "fitted.png"))
    assert sheet.shape == (2 * 8 + 2, 8 * 10 + 2, 3)
    held = np.asarray(Image.open(tmp_path / "8.png").convert("RGB"))
    np.testing.assert_array_equal(sheet[2:8, 2:10], held)


def test_a_run_with_codes_ends_without_a_picture(cli, tiny_run, tmp_path, capsys):
    shutil.copytree(tiny_run, tmp_path / "run")
    cli("train", "mnif:tiny", "--run", tmp_path / "run", "--resume")
    said = capsys.readouterr().out.splitlines()
    run = tmp_path / "run"
    assert said == [f"trained: {run}", f"next: fieldloom evaluate {run}, fieldloom sample {run}"]
    assert not (tmp_path / "run" / "fitted.png").exists()
