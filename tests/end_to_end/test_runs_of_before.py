"""Run folders of format 2, one of each kind: they load, give the same numbers, and go on.

``data/runs-of-format-2/README.md`` says how they were made. Numbers are compared at what kernels of
other processors need.
"""

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import fieldloom
from fieldloom.engine.run import Run
from fieldloom.preparation import prepare
from fieldloom.training import train
from shared import OWN

RUNS = OWN / "runs-of-format-2"
KINDS = sorted(folder.parent.name for folder in RUNS.glob("*/finished"))
INTERRUPTED = sorted(folder.parent.name for folder in RUNS.glob("*/interrupted"))

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
SAMPLED = {"rtol": 1e-4, "atol": 1e-4}
"""Of samplers, whose oracle is another program."""


@pytest.fixture
def kind(request, tmp_path) -> Path:
    """A copy of all that there is of a kind."""
    return shutil.copytree(RUNS / request.param, tmp_path / request.param)


def results(run: Path, expected: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What the package gives of all that is expected of a run, by the same names."""
    system = fieldloom.load(run, "cpu")
    _, source = prepare(Run(run).read_recipe(), torch.device("cpu"))
    found = {}
    if "sampled" in expected:
        count, label = len(expected["sampled"]), [0, 1, 1] if system.prior.classes else None
        options = system.settings.evaluation.options()
        found["sampled"] = system.sample_codes(count, label, seed=0, **options)
    if "encoded" in expected:
        found["encoded"] = system.encode(source.read(torch.arange(len(expected["encoded"]))))
    code = expected.get("encoded", expected.get("sampled"))
    code = torch.zeros(1, *system.family.code_shape) if code is None else code[:1]
    cameras = source.read(torch.arange(1)).cameras
    found["decoded"] = system.decode(code, cameras=cameras).values
    return found


@pytest.mark.parametrize("kind", KINDS, indirect=True)
def test_a_run_gives_what_it_gave(kind):
    expected = load_file(kind / "expected.safetensors")
    found = results(kind / "finished", expected)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        close = SAMPLED if name == "sampled" else CLOSE
        torch.testing.assert_close(found[name], value, **close, msg=lambda m, n=name: f"{n}: {m}")


REPORTED = {"audio-experts", "images-mixture", "points-direct", "video-experts", "views-volume"}
"""One of each kind of data: their reports are written, too."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, indirect=True)
def test_a_run_measures_what_it_measured(cli, kind):
    if kind.name in REPORTED:
        cli("evaluate", kind / "finished")
        report = json.loads((kind / "finished" / "report.json").read_text())
        metrics = {x["name"]: x["value"] for x in report["figures"]}
    else:
        result = fieldloom.evaluate(kind / "finished")
        metrics = {x.name: x.value for x in result.metrics}
    expected = json.loads((kind / "expected.json").read_text())
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS, indirect=True)
def test_a_finished_run_has_nothing_left_to_train(kind):
    run = kind / "finished"
    before = {file.name: file.read_bytes() for file in run.glob("*.safetensors")}
    system = train(None, str(run), device="cpu", resume=True)
    assert {file.name: file.read_bytes() for file in run.glob("*.safetensors")} == before
    assert system.finished == (["field"] if system.prior is None else ["field", "codec", "prior"])
    if Run(run).has_codes:
        assert Run(run).read_codes(system).codes.shape[1:] == system.family.code_shape


@pytest.mark.parametrize("kind", INTERRUPTED, indirect=True)
def test_an_interrupted_run_ends_as_the_uninterrupted_one(kind):
    run = kind / "interrupted"
    assert (run / "state.safetensors").is_file()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*older version")
        train(None, str(run), device="cpu", resume=True)
    assert not (run / "state.safetensors").exists()
    ours, theirs = (fieldloom.load(x, "cpu").state_dict() for x in (run, kind / "finished"))
    torch.testing.assert_close(ours, theirs, **CLOSE)
