"""The parts of an evaluation in shards: the figures of one process."""

import shutil

import pytest
import torch

import fieldloom
from fieldloom import evaluation, recipe
from fieldloom.bulk import evaluating
from fieldloom.codes import jobs, shards
from fieldloom.codes.bulk import Origin
from fieldloom.codes.shards import How
from fieldloom.inputs import source_of
from fieldloom.training import train

TIMED = {"decoded", "memory"}


def figures(result) -> dict[str, float]:
    """What was measured, but for speed and memory."""
    return {x.name: x.value for x in result.metrics if x.name not in TIMED}


def measured(run, where, how=None, origin=None):
    system = fieldloom.load(run, device="cpu")
    find = None if how is None else evaluating.finder(where, how, origin)
    return evaluation.evaluate(system, source_of(system, quiet=True), find=find)


def test_figures_of_shards_are_those_of_one_process(own_run, tmp_path):
    plain = measured(own_run, tmp_path)
    found = measured(own_run, tmp_path / "job", How(128))
    parts = {x.name: len(list(x.glob("[0-9]*.safetensors"))) for x in (tmp_path / "job").iterdir()}
    assert parts == {"reconstructing": 3, "drawing": 1, "sampling": 1}
    assert figures(found) == figures(plain)
    assert torch.equal(found.codes, plain.codes)
    assert torch.equal(found.samples, plain.samples)
    assert torch.equal(found.sample_codes, plain.sample_codes)
    evaluating.remove(tmp_path / "job")
    assert not (tmp_path / "job").exists()


def test_an_evaluation_goes_on_and_another_one_begins_anew(own_run, tmp_path, monkeypatch):
    plain, folder = measured(own_run, tmp_path), tmp_path / "job"
    write, written = shards.write_tensors, []

    def dies(path, *rest):
        written.append(path)
        if len(written) == 3:
            raise KeyboardInterrupt
        return write(path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "write_tensors", dies)
        with pytest.raises(KeyboardInterrupt):
            measured(own_run, folder, How(128))
    assert jobs.read_state(folder / "reconstructing").done == 2
    spared = (folder / "reconstructing" / "00000.json").stat().st_mtime_ns
    assert figures(measured(own_run, folder, How(128))) == figures(plain)
    assert (folder / "reconstructing" / "00000.json").stat().st_mtime_ns == spared
    shutil.rmtree(own_run)
    train(recipe.load("mnif:tiny", ["seed=3"]), str(own_run), device="cpu")
    assert figures(measured(own_run, folder, How(128))) == figures(measured(own_run, folder))


@pytest.mark.slow
def test_workers_find_the_same_figures(own_run, tmp_path):
    found = measured(own_run, tmp_path / "job", How(128, "processes", 2), Origin(str(own_run)))
    assert figures(found) == figures(measured(own_run, tmp_path))
