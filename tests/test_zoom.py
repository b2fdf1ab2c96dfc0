"""Large data: strips, figures from strips, any window at any resolution, what ends a fit."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import structural_similarity

import fieldloom
from commands import run
from fieldloom import recipe
from fieldloom.assembly import build, open_source
from fieldloom.cli.options import parse_crop
from fieldloom.drawing import WHOLE, Crop
from fieldloom.drawing.grids import shape_of
from fieldloom.errors import InputError
from fieldloom.evaluation import evaluate, large
from fieldloom.metrics.paired import psnr
from fieldloom.modalities import MODALITIES
from fieldloom.modalities.sources import Source
from fieldloom.training import train
from fieldloom.types import Data


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FIELDLOOM_CACHE", str(tmp_path / "cache"))


FIELD = {"name": "siren", "width": 12, "depth": 3}
SIZES = {"image": (23, 17), "audio": (301,), "video": (5, 6, 7), "sphere": (9, 12)}


def fit(modality="image", size=None, **more) -> fieldloom.System:
    """An untrained fit: no code."""
    own = {"name": modality, "size": list(size or SIZES[modality])}
    return build({"modality": own, "field": FIELD, **more})


def origin(system) -> torch.Tensor:
    return system.family.conditioner.origin(1).detach()


def joined(strips) -> torch.Tensor:
    reached, parts = 0, []
    for first, strip in strips:
        assert first == reached
        reached += strip.shape[1]
        parts.append(strip)
    return torch.cat(parts, 1)


@pytest.mark.parametrize("modality", SIZES)
@pytest.mark.parametrize("values", [1, 100, 1 << 22])
def test_strips_make_up_the_whole(modality, values):
    system = fit(modality)
    strips = list(system.strips(origin(system), values=values))
    row = math.prod(SIZES[modality][1:]) * system.modality.channels
    assert all(strip.numel() <= max(values, row) for _, strip in strips)
    whole = system.predict(origin(system)).tensor[0]
    torch.testing.assert_close(joined(strips), whole, atol=1e-6, rtol=0)


def test_a_window_is_what_the_field_says_there():
    """Against the formula of pixel centres, point by point; beyond the edges, too."""
    system = fit()
    rows, columns, (y0, y1), (x0, x1) = 4, 6, (-0.25, 0.5), (0.3, 1.1)
    found = joined(system.strips(origin(system), (rows, columns), ((y0, y1), (x0, x1)), 20))
    function = system.family.bind(origin(system))
    for i in range(rows):
        for j in range(columns):
            y = y0 + (y1 - y0) * (i + 0.5) / rows
            x = x0 + (x1 - x0) * (j + 0.5) / columns
            at = torch.tensor([[[2 * y - 1, 2 * x - 1]]])
            values = system.modality.denormalize(function(at))[0, 0]
            torch.testing.assert_close(found[:, i, j], values, atol=1e-5, rtol=0)


def test_a_frame_is_a_picture_at_its_time():
    system = fit("video")
    whole = system.predict(origin(system)).tensor[0]
    for i in range(5):
        still = joined(system.strips(origin(system), values=30, frame=(i + 0.5) / 5))
        torch.testing.assert_close(still, whole[:, i], atol=1e-6, rtol=0)
    part = joined(system.strips(origin(system), (3, 7), ((0.5, 1.0), (0.0, 1.0)), frame=0.1))
    torch.testing.assert_close(part, whole[:, 0, 3:], atol=1e-6, rtol=0)
    with pytest.raises(InputError, match="no video"):
        list(fit("sphere").strips(origin(system), frame=0.5))


def test_pieces_are_large_enough_for_their_tiles(monkeypatch):
    """A piece holds so many points that a tile's matrix serves several."""
    tiling, encoding = {"tiles": [2, 4, 1]}, {"count": 3}
    field = {"name": "experts", "width": 8, "depth": 3, "tiling": tiling, "encoding": encoding}
    system = fit(field=field)
    seen = []
    plain = type(system.render).__call__
    monkeypatch.setattr("fieldloom.decoding.CACHED", 8)
    monkeypatch.setattr("fieldloom.decoding.PER_TILE", 5)
    monkeypatch.setattr(
        type(system.render), "__call__",
        lambda self, function, coords, generator=None: (
            seen.append(coords.shape[1]), plain(self, function, coords, generator)
        )[1],
    )  # fmt: skip
    made = system.predict(origin(system)).tensor
    assert max(seen) == 5 * 16
    monkeypatch.undo()
    torch.testing.assert_close(made, system.predict(origin(system)).tensor, atol=1e-6, rtol=0)


# -- figures from strips


def source_of_one(data: torch.Tensor) -> Source:
    """One datum, (channel, *axes), in memory."""
    one = torch.tensor([0])
    return Source(Data(data[None]), (), one, one[:0])


def figures(result) -> dict[str, tuple[float, str, str]]:
    return {x.name: (x.value, x.of, x.how) for x in result.metrics}


@pytest.mark.parametrize(
    ("modality", "size"), [("image", (61, 43)), ("sphere", (30, 40)), ("video", (6, 14, 12)),
                           ("audio", (3000,))]
)  # fmt: skip
def test_figures_from_strips_are_the_plain_ones(modality, size, monkeypatch):
    how = {"metrics": ["psnr", "ssim", "mse"]}
    system = fit(modality, size, evaluate=how)
    dtype = torch.float32 if modality == "audio" else torch.uint8
    data = torch.rand(system.modality.channels, *size)
    made = (system.predict(origin(system)).tensor[0] + 0.2 * (data - 0.5)).clamp(
        0, 1
    )  # alike, not equal
    data = made if dtype == torch.float32 else (255 * made).byte()
    if modality == "image":  # as mapped from a file: channel last
        data = data.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    source = source_of_one(data)
    plain = evaluate(system, source)
    monkeypatch.setattr(large, "LIMIT", 43 * 3 * 8)
    monkeypatch.setattr(Source, "read", None)  # nothing is read as a whole
    streamed = evaluate(system, source)
    ours, theirs = figures(streamed), figures(plain)
    assert set(ours) == set(theirs)
    assert ("ssim" in ours) == (modality != "audio")
    for name in {"psnr", "ssim", "mse"} & set(ours):
        assert ours[name][1:] == theirs[name][1:]
        assert ours[name][0] == pytest.approx(theirs[name][0], abs=1e-6, rel=1e-6)
    assert streamed.originals.numel() == streamed.reconstructions.numel() == 0


def test_ssim_from_strips_is_that_of_the_whole():
    """Against scikit-image on the whole; strips of any height, of fewer rows than a window, too."""
    true, raw = torch.rand(3, 57, 33), torch.rand(3, 57, 33) * 1.4 - 0.2
    true[:, 10:] = (true[:, 10:] + 3 * raw[:, 10:].clamp(0, 1)) / 4
    whole = structural_similarity(
        raw.clamp(0, 1).numpy(), true.numpy(), channel_axis=0, data_range=1.0, sigma=1.5,
        gaussian_weights=True, use_sample_covariance=False,
    )  # fmt: skip
    for rows in (1, 4, 10, 11, 25, 57):
        likeness = large.StripSsim((57, 33))
        for first in range(0, 57, rows):
            part = slice(first, first + rows)
            likeness.add(true[:, part], raw[:, part])
        assert likeness.mean == pytest.approx(whole, abs=1e-6)


@pytest.mark.parametrize("longest", [5, 16, 100])
def test_boxes_against_loops(longest, monkeypatch):
    monkeypatch.setattr(large, "LONGEST", longest)
    data = torch.rand(2, 29, 37)
    boxes = large.BoxMeans((29, 37), 2)
    for first in (0, 3, 10, 11, 28):
        last = {0: 3, 3: 10, 10: 11, 11: 28, 28: 29}[first]
        boxes.add(first, data[:, first:last])
    side = math.ceil(37 / longest)
    found = boxes.mean()
    assert max(found.shape[1:]) <= longest
    for i in range(found.shape[1]):
        for j in range(found.shape[2]):
            box = data[:, i * side : (i + 1) * side, j * side : (j + 1) * side]
            torch.testing.assert_close(found[:, i, j], box.mean((1, 2)))


@pytest.mark.parametrize("film", [False, True])
def test_what_is_shown_of_large_data(film, monkeypatch):
    monkeypatch.setattr(large, "CROP", 10)
    monkeypatch.setattr(large, "LONGEST", 8)
    axes = (5, 24, 31) if film else (24, 31)
    true, raw = torch.rand(3, *axes), torch.rand(3, *axes) * 1.2
    pictures = large.StripImages(axes, 3)
    for first in range(0, axes[0], 3):
        part = slice(first, first + 3)
        pictures.add(first, true[:, part], raw[:, part])
    whole, crop = pictures.draw_pairs()
    frame = lambda x: x[:, 2] if film else x
    middle = (slice(None), slice(7, 17), slice(10, 20))
    torch.testing.assert_close(crop.images[0], frame(true)[middle])
    torch.testing.assert_close(crop.images[1], frame(raw).clamp(0, 1)[middle])
    assert whole.images.shape == (2, 3, 6, 8)
    torch.testing.assert_close(whole.images[0, :, 1, 2], frame(true)[:, 4:8, 8:12].mean((1, 2)))
    error = (raw - true).abs().mean((0, 1) if film else 0)
    map = pictures.draw_error()
    factor = int(map.caption.split(" times")[0].rsplit(" ", 1)[1])
    torch.testing.assert_close(map.images[0, 0, 1, 2], factor * error[4:8, 8:12].mean())
    assert "4 x 4" in map.caption


# -- fits from one command


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
def picture_run(tmp_path):
    Image.fromarray(gradient(30, 44)).save(tmp_path / "in.png")
    source = {"name": "image", "path": str(tmp_path / "in.png")}
    path = recipe_file(tmp_path, "image", source, evaluate={"metrics": ["psnr", "ssim"]})
    run("train", path, "--run", tmp_path / "run", "--device", "cpu")
    return tmp_path / "run"


def test_a_picture_from_training_to_zoom(picture_run, tmp_path, capsys):
    system = fieldloom.load(picture_run, "cpu")
    whole = system.predict(origin(system)).tensor[0]
    assert whole.shape == (3, 30, 44)
    as_pixels = lambda x: (x.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    fitted = np.asarray(Image.open(picture_run / "fitted.png"))
    np.testing.assert_array_equal(fitted, as_pixels(whole))
    run("train", tmp_path / "tiny.toml", "--run", tmp_path / "again", "--device", "cpu")
    said = capsys.readouterr().out
    source = open_source(system.recipe, system.modality)
    value = psnr(whole[None], source.read(source.train).tensor).item()
    assert f"PSNR over all points: {value:.2f} dB" in said
    assert "fitted.png (30 x 44)" in said

    run("render", picture_run)
    np.testing.assert_array_equal(np.asarray(Image.open(picture_run / "rendered.png")), fitted)
    for name in ("a.png", "a.tif"):
        run("render", picture_run, "--window", "0.25,0,0.75,0.2", "--resolution", 90,
            "--out", tmp_path / name)  # fmt: skip
        found = np.asarray(Image.open(tmp_path / name))
        assert found.shape == (round(90 * 30 * 0.2 / 22), 90, 3)  # square pixels
        wanted = joined(system.strips(origin(system), found.shape[:2], ((0, 0.2), (0.25, 0.75))))
        assert np.abs(found.astype(int) - as_pixels(wanted)).max() <= 1
    run("render", picture_run, "--window", "-0.5,0,0,1", "--resolution", "3x5")
    assert Image.open(picture_run / "rendered.png").size == (5, 3)

    capsys.readouterr()
    for words, sentence in {
        ("--window", "0,0,1"): "--window 0,0,1: x0,y0,x1,y1",
        ("--window", "0.5,0,0.5,1"): "with x0 < x1",
        ("--window", "0,0,nan,1"): "x0,y0,x1,y1",
        ("--frame", "0.5"): "no video",
        ("--held",): "are of views",
        ("--out", "a.gif"): "drawn as one of .png, .tif, .tiff",
        ("--resolution", "3x4x5"): "one number, or rows and columns",
        ("--index", "1"): "has no codes to find",
        ("--sample", "1"): "no prior",
    }.items():
        run("render", picture_run, *words, status=2)
        assert sentence in capsys.readouterr().err


def test_a_large_picture_is_measured_and_shown(picture_run, monkeypatch, capsys):
    run("evaluate", picture_run)
    plain = json.loads((picture_run / "report.json").read_text())["figures"]
    assert (picture_run / "error.png").is_file()
    monkeypatch.setattr(large, "LIMIT", 1000)
    monkeypatch.setattr(large, "LONGEST", 16)
    monkeypatch.setattr("fieldloom.evaluation.costs.LIMIT", 1000)
    monkeypatch.setattr(fieldloom.System, "predict", None)  # nothing is decoded as a whole
    run("evaluate", picture_run)
    streamed = json.loads((picture_run / "report.json").read_text())["figures"]
    assert [x["name"] for x in plain] == [x["name"] for x in streamed]
    for a, b in zip(plain[:2], streamed, strict=False):
        assert a["value"] == pytest.approx(b["value"], rel=1e-6)
    assert Image.open(picture_run / "error.png").size == (15, 10)
    assert Image.open(picture_run / "reconstructions.png").size == (2 * 17 + 2, 12 + 2)
    page = (picture_run / "report.html").read_text()
    for words in ("shrunk to 10 x 15", "of boxes of 3 x 3 pixels", "times as bright"):
        assert words in page


def test_another_picture_is_read_as_the_run_s_own(picture_run, tmp_path):
    Image.fromarray(gradient(50, 50, 1)).save(tmp_path / "other.png")
    run("evaluate", picture_run, "--source", tmp_path / "other.png")
    found = json.loads((picture_run / "other" / "report.json").read_text())["figures"]
    assert found[0]["of"] == "1 given data"


def test_a_film_from_training_to_a_frame(tmp_path, capsys):
    (tmp_path / "frames").mkdir()
    for i in range(6):
        Image.fromarray(gradient(16, 24, i)).save(tmp_path / "frames" / f"{i}.png")
    source = {"name": "video", "path": str(tmp_path / "frames")}
    path = recipe_file(tmp_path, "video", source)
    folder = tmp_path / "run"
    run("train", path, "--run", folder, "--device", "cpu")
    assert "6 x 16 x 24" in capsys.readouterr().out
    assert Image.open(folder / "fitted.png").size == (24, 16)
    assert (folder / "fitted.mp4").is_file()
    import av

    def frames_of(path):
        with av.open(str(path)) as film:
            return [x.to_ndarray(format="rgb24") for x in film.decode(video=0)]

    run("render", folder, "--resolution", 48)
    assert np.shape(frames_of(folder / "rendered.mp4")) == (6, 32, 48, 3)
    run("render", folder, "--window", "0,0,0.5,0.5", "--resolution", "4x8x10",
        "--out", tmp_path / "a.gif")  # fmt: skip
    gif = Image.open(tmp_path / "a.gif")
    assert gif.size == (10, 8)
    system = fieldloom.load(folder, "cpu")
    whole = system.predict(origin(system)).tensor[0].detach()
    run("render", folder, "--frame", 1.5 / 6)
    still = np.asarray(Image.open(folder / "rendered.png"))
    wanted = (whole[:, 1].clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()
    assert np.abs(still - wanted).max() <= 1
    run("render", folder, "--window", "0,0,1,0.5")  # the middle of the time
    assert Image.open(folder / "rendered.png").size == (24, 8)
    run("render", folder, "--frame", "0.5", "--out", tmp_path / "a.mp4", status=2)
    run("evaluate", folder)
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


def test_a_sound_from_training_to_a_file(tmp_path, capsys):
    soundfile = pytest.importorskip("soundfile")
    wave = 0.5 * np.sin(np.arange(800) / 9)
    soundfile.write(tmp_path / "in.wav", wave, 8000)
    source = {"name": "audio", "path": str(tmp_path / "in.wav")}
    folder = tmp_path / "run"
    run("train", recipe_file(tmp_path, "audio", source), "--run", folder, "--device", "cpu")
    assert "PSNR over all points" in capsys.readouterr().out
    system = fieldloom.load(folder, "cpu")
    made = system.decode(origin(system)).tensor[0, 0].detach().numpy() * 2 - 1
    for name in ("fitted.wav", "rendered.wav"):
        if name == "rendered.wav":
            run("render", folder)
        samples, rate = soundfile.read(folder / name)
        assert rate == 8000
        np.testing.assert_allclose(samples, made, atol=2 / 32768)
    assert (folder / "fitted.png").is_file()
    run("render", folder, "--window", "0,0,1,1", status=2)
    run("evaluate", folder)


def test_views_end_in_a_sheet(tmp_path, capsys):
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
    run("train", path, "--run", tmp_path / "run", "--device", "cpu")
    said = capsys.readouterr().out
    assert "8 views, 2 of them held out, 6 x 8" in said
    assert "PSNR of these views" in said
    sheet = np.asarray(Image.open(tmp_path / "run" / "fitted.png"))
    assert sheet.shape == (2 * 8 + 2, 8 * 10 + 2, 3)
    held = np.asarray(Image.open(tmp_path / "8.png").convert("RGB"))
    np.testing.assert_array_equal(sheet[2:8, 2:10], held)


def test_a_run_with_codes_ends_without_a_picture(tiny_run, tmp_path, capsys):
    shutil.copytree(tiny_run, tmp_path / "run")
    run("train", "mnif:tiny", "--run", tmp_path / "run", "--resume")
    assert capsys.readouterr().out == f"trained: {tmp_path / 'run'}\n"
    assert not (tmp_path / "run" / "fitted.png").exists()


# -- windows and shapes


def test_windows_are_parsed():
    assert parse_crop("0.1,0.2,0.3,1") == Crop(0.1, 0.2, 0.3, 1.0)
    assert parse_crop(None) is None
    for wrong in ("", "1,2,3", "0,0,1,1,1", "a,b,c,d", "0,0,inf,1", "1,0,0,1", "0,1,1,0"):
        with pytest.raises(InputError, match="--window"):
            parse_crop(wrong)


def test_one_number_keeps_pixels_square():
    picture, film = MODALITIES["image"](size=(20, 60)), MODALITIES["video"](size=(7, 20, 60))
    assert shape_of(picture, None) == (20, 60)
    assert shape_of(picture, 120) == (40, 120)
    narrow = Crop(0.0, 0.0, 0.1, 1.0)  # 20 x 6 of its pixels
    assert shape_of(picture, 100, narrow) == (100, 30)
    assert shape_of(picture, None, narrow) == (60, 18)
    assert shape_of(film, 120) == (7, 40, 120)
    assert shape_of(film, 120, WHOLE, True) == (40, 120)
    assert shape_of(film, (3, 4, 5)) == (3, 4, 5)
    assert shape_of(film, (4, 5)) == (7, 4, 5)
    with pytest.raises(InputError, match="rows and columns"):
        shape_of(film, (3, 4, 5), WHOLE, True)


# -- between samples


def test_between_codes():
    system = fit()
    a, b = torch.randn(2, 1, 3, 40).double().unbind()
    line = system.interpolate_codes(a, b, 5)
    torch.testing.assert_close(line, torch.cat([a + (b - a) * i / 4 for i in range(5)]))
    way = system.interpolate_codes(a, b, 5, spherical=True)
    torch.testing.assert_close(way[[0, 4]], torch.cat([a, b]))
    norms = way.flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, torch.linspace(norms[0], norms[4], 5).double())
    unit = way.flatten(1) / norms[:, None]
    steps = (unit[1:] * unit[:-1]).sum(1).arccos()
    torch.testing.assert_close(steps, steps[:1].expand(4))
    angle = torch.arccos(unit[0] @ unit[4])
    assert steps.sum() == pytest.approx(angle.item())
    assert (norms.min() > line.flatten(1).norm(dim=1).min()).item()
    torch.testing.assert_close(
        system.interpolate_codes(a, a, 3, spherical=True), a.expand(3, -1, -1)
    )
    zero = system.interpolate_codes(0 * a, b, 3, spherical=True)
    torch.testing.assert_close(zero[1:2], b / 2)


def test_samples_of_a_gan_are_joined_on_a_sphere(tmp_path, capsys):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "data.npy", rng.uniform(size=(6, 1, 8, 8)).astype(np.float32))
    overrides = [
        f"source={{name=\"array\",path=\"{tmp_path / 'data.npy'}\"}}",
        "modality.size=8", "modality.channels=1", "train.field.steps=2", "train.field.batch=3",
        "field.width=8", "field.encoding.count=4", "conditioner.hidden=[6,6]",
        "objective.critic.layers=[[16,4,4],[4,4],[1,4,1]]",
    ]  # fmt: skip
    system = train(recipe.load("gasp", overrides), str(tmp_path / "gan"), device="cpu")
    folder = tmp_path / "gan"
    run("interpolate", folder, "--from", 3, "--to", 4, "--steps", 5, "--out", tmp_path / "a.gif")
    gif = Image.open(tmp_path / "a.gif")
    codes = [system.sample_codes(1, seed=seed) for seed in (3, 4)]
    way = system.decode(system.interpolate_codes(*codes, 5, spherical=True))
    first = np.asarray(gif.convert("L")) / 255
    assert np.abs(first - way.tensor[0, 0].detach().numpy()).max() < 0.02
    run("interpolate", folder, "--steps", 3)
    assert (folder / "interpolation-seeds-0-1.gif").is_file()
    run("render", folder, "--sample", 3, "--resolution", 12)
    assert Image.open(folder / "rendered.png").size == (12, 12)
    capsys.readouterr()
    run("interpolate", folder, "--source", tmp_path / "data.npy", status=2)
    assert "samples come from the prior" in capsys.readouterr().err
    run("interpolate", folder, "--from", "-1", status=2)
    assert "seeds are at least 0" in capsys.readouterr().err


def test_samples_of_other_priors_are_joined_too(tiny_run, tmp_path):
    run("interpolate", tiny_run, "--sample", "--steps", 3, "--out", tmp_path / "b.gif")
    assert Image.open(tmp_path / "b.gif").size == (8, 8)
    run("render", tiny_run, "--index", 1, "--resolution", 20, "--out", tmp_path / "one.png")
    assert Image.open(tmp_path / "one.png").size == (20, 20)
