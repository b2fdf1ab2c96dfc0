"""Between codes and between samples, by the command line."""

import numpy as np
import pytest
import torch
from PIL import Image

from fieldloom import recipe
from fieldloom.training import train
from large_fits import fit


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


def test_samples_of_a_gan_are_joined_on_a_sphere(cli, tmp_path, capsys):
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
    cli("interpolate", folder, "--from", 3, "--to", 4, "--steps", 5, "--out", tmp_path / "a.gif")
    gif = Image.open(tmp_path / "a.gif")
    codes = [system.sample_codes(1, seed=seed) for seed in (3, 4)]
    way = system.decode(system.interpolate_codes(*codes, 5, spherical=True))
    first = np.asarray(gif.convert("L")) / 255
    assert np.abs(first - way.tensor[0, 0].detach().numpy()).max() < 0.02
    cli("interpolate", folder, "--steps", 3)
    assert (folder / "interpolation-seeds-0-1.gif").is_file()
    cli("render", folder, "--sample", 3, "--resolution", 12)
    assert Image.open(folder / "rendered.png").size == (12, 12)
    capsys.readouterr()
    cli("interpolate", folder, "--source", tmp_path / "data.npy", status=2)
    assert "they come from the prior" in capsys.readouterr().err
    cli("interpolate", folder, "--from", "-1", status=2)
    assert "they are at least 0" in capsys.readouterr().err


def test_samples_of_other_priors_are_joined_too(cli, tiny_run, tmp_path):
    cli("interpolate", tiny_run, "--sample", "--steps", 3, "--out", tmp_path / "b.gif")
    assert Image.open(tmp_path / "b.gif").size == (8, 8)
    cli("render", tiny_run, "--index", 1, "--resolution", 20, "--out", tmp_path / "one.png")
    assert Image.open(tmp_path / "one.png").size == (20, 20)
