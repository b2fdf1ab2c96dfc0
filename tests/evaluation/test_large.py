"""Metrics of large data, from strips."""

import math

import pytest
import torch
from skimage.metrics import structural_similarity

from fieldloom.evaluation import evaluate, large
from fieldloom.modalities.sources import Source
from fieldloom.types import Data
from large_fits import fit, origin

pytestmark = pytest.mark.usefixtures("cached")


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
    how = {"metrics": ["psnr", "snr", "ws-psnr", "ssim", "mse"]}
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
    assert ("snr" in ours) == (modality == "audio")
    assert ("ws-psnr" in ours) == (modality == "sphere")
    for name in {"psnr", "snr", "ws-psnr", "ssim", "mse"} & set(ours):
        assert ours[name][1:] == theirs[name][1:]
        assert ours[name][0] == pytest.approx(theirs[name][0], abs=1e-6, rel=1e-6)
    assert streamed.originals.numel() == streamed.reconstructions.numel() == 0


def test_flip_is_of_what_is_held(monkeypatch):
    pytest.importorskip("flip_evaluator", reason="needs the extra [detector]: flip-evaluator")
    system = fit("image", (20, 16), evaluate={"metrics": ["psnr", "flip"]})
    source = source_of_one(torch.rand(system.modality.channels, 20, 16))
    value, _, how = figures(evaluate(system, source))["flip"]
    assert 0 < value <= 1
    assert "67 pixels per degree" in how
    monkeypatch.setattr(large, "LIMIT", 16 * 3 * 8)
    with pytest.warns(UserWarning, match="'flip' is left out"):
        assert "flip" not in figures(evaluate(system, source))


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
