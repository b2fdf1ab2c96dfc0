"""GASP from its recipe: trained, killed and resumed, sampled, measured."""

import pytest
import torch

from fieldloom import recipe as recipes
from fieldloom.assembly import open_source
from fieldloom.engine.loop import Training
from fieldloom.engine.run import Run
from fieldloom.errors import InputError
from fieldloom.evaluation import evaluate
from fieldloom.training import train


class Stop(Exception):
    pass


@pytest.mark.slow
def test_a_killed_gasp_goes_on_bit_for_bit(tmp_path, monkeypatch):
    loaded = recipes.load("gasp:tiny", ["train.field.ema=0.9", "objective.points=40"])
    straight = train(loaded, str(tmp_path / "straight"))
    whole, states = Training.advance, []
    for kill_at in (3, 8):
        calls = []

        def dying(self, *rest, calls=calls, kill_at=kill_at):
            calls.append(1)
            if len(calls) == kill_at:
                raise Stop
            return whole(self, *rest)

        folder = str(tmp_path / str(kill_at))
        with monkeypatch.context() as patch:
            patch.setattr(Training, "advance", dying)
            with pytest.raises(Stop):
                train(loaded, folder)
        states.append(train(None, folder, resume=True).state_dict())
    for state in states:
        assert state.keys() == straight.state_dict().keys()
        assert all(torch.equal(state[n], t) for n, t in straight.state_dict().items())
    logs = [Run(tmp_path / name).read_log() for name in ("straight", "3", "8")]
    strip = lambda log: [{k: v for k, v in x.items() if k != "seconds_a_step"} for x in log]
    assert strip(logs[0]) == strip(logs[1]) == strip(logs[2])
    assert {"critic.loss", "generator.loss"} <= set(logs[0][-1])


def test_gasp_trains_and_samples(tmp_path):
    folder = tmp_path / "run"
    system = train(recipes.load("gasp:tiny"), str(folder))
    assert not (folder / "codes.safetensors").exists()
    assert system.finished == ["field", "codec", "prior"]
    assert torch.equal(system.prior.mean, torch.zeros(1, 8))
    assert torch.equal(system.prior.factor, torch.eye(8)[None])
    drawn = system.sample(3, seed=2)
    assert drawn.shape == (3, 1, 8, 8)
    twin = Run(folder).read_system("cpu")
    assert torch.equal(twin.sample(3, seed=2).tensor, drawn.tensor)
    assert torch.equal(system.sample_codes(5, seed=1), torch.randn(5, 8, 1, generator=_first(5)).mT)
    finished = system.finished
    system.finished = ["field"]
    with pytest.warns(UserWarning, match="samples are not measured"):
        bare = evaluate(system, open_source(system.recipe, system.modality))
    system.finished = finished
    assert len(bare.reconstructions) == 0
    assert not {"psnr", "ssim", "mse"} & {metric.name for metric in bare.metrics}
    with pytest.raises(InputError, match="holds a run already"):
        train(recipes.load("gasp:tiny"), str(folder))


@pytest.mark.slow
def test_samples_of_gasp_are_measured(tmp_path):
    system = train(recipes.load("gasp:tiny"), str(tmp_path / "run"))
    result = evaluate(system, open_source(system.recipe, system.modality))
    named = {metric.name for metric in result.metrics}
    assert any("frechet" in name for name in named)
    assert len(result.samples) == 64


def _first(count):
    """The prior's stream after its draw of classes."""
    generator = torch.Generator().manual_seed(1)
    torch.ones(1).multinomial(count, replacement=True, generator=generator)
    return generator
