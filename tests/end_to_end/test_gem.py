"""GEM from its recipe: trained, resumed, sampled."""

import pytest
import torch

from fieldloom import recipe as recipes
from fieldloom.assembly import open_source
from fieldloom.engine.loop import Training
from fieldloom.engine.run import Run
from fieldloom.evaluation import evaluate
from fieldloom.training import train


@pytest.mark.slow
def test_gem_trains_and_samples(tmp_path):
    loaded = recipes.load("gem:tiny")
    system = train(loaded, str(tmp_path / "run"))
    log = [x for x in Run(tmp_path / "run").read_log() if x["stage"] == "field"]
    assert {"loss", "lle", "isometry"} <= set(log[-1])
    codes, labels, *_ = Run(tmp_path / "run").read_codes()
    torch.testing.assert_close(codes, system.encoder.table.detach())
    torch.testing.assert_close(system.prior.codes, codes)
    assert torch.equal(system.prior.labels, labels)
    drawn = system.sample(3, seed=2)
    assert drawn.shape == (3, 1, 8, 8)
    twin = Run(tmp_path / "run").read_system("cpu")
    assert torch.equal(twin.sample(3, seed=2).tensor, drawn.tensor)
    recipe = system.recipe | {"evaluate": {"metrics": ["psnr", "ssim"], "samples": 359}}
    system.recipe = recipe
    result = evaluate(system, open_source(recipe, system.modality))
    named = {metric.name for metric in result.metrics}
    assert any("psnr" in name for name in named)
    assert len(result.codes) == len(result.originals)


@pytest.mark.slow
def test_a_resumed_gem_goes_on_bit_for_bit(tmp_path, monkeypatch):
    loaded = recipes.load("gem:tiny")
    straight = train(loaded, str(tmp_path / "straight"), stage="field").state_dict()
    whole, calls = Training.advance, []

    class Stop(Exception):
        pass

    def dying(self, *rest):
        calls.append(1)
        if len(calls) == 8:
            raise Stop
        return whole(self, *rest)

    monkeypatch.setattr(Training, "advance", dying)
    with pytest.raises(Stop):
        train(loaded, str(tmp_path / "killed"), stage="field")
    monkeypatch.setattr(Training, "advance", whole)
    resumed = train(None, str(tmp_path / "killed"), stage="field", resume=True).state_dict()
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[n], resumed[n]) for n in straight)
