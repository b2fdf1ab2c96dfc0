"""Codes in files, read as far as they are asked for: indices, mapping, processes."""

import pickle
from pathlib import Path

import pytest
import torch

import fieldloom
from code_sets import write_job
from fieldloom.codes.files import open_codes
from fieldloom.codes.stored import StoredCodes
from fieldloom.engine.provenance import fingerprint_weights
from fieldloom.engine.tensors import write_tensors
from refusals import refused

FAILED = (3, 64, 65)


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> tuple[StoredCodes, torch.Tensor]:
    """A job of 200 codes in shards of 30, of which three failed, and its codes in memory."""
    codes = torch.randn(200, 2, 3, generator=torch.Generator().manual_seed(0))
    folder = tmp_path_factory.mktemp("job")
    write_job(folder, codes, 30, FAILED, labels=torch.arange(200) % 5)
    good = [i for i in range(200) if i not in FAILED]
    return open_codes(folder), codes[good]


WHICH = [
    slice(None), slice(5, 120), slice(29, 31), slice(190, 900), slice(50, 20), slice(None, None, 7),
    slice(100, 10, -9), slice(-5, None), [], [0, 0, 196, 1], torch.arange(180, 5, -25),
    torch.tensor([-1, -197, 3]), 0, -1, 196,
]  # fmt: skip


@pytest.mark.parametrize("which", WHICH, ids=str)
def test_indices_and_slices_are_those_of_a_tensor(job, which):
    stored, whole = job
    if isinstance(which, slice) and which.step == -9:
        expected = whole[torch.arange(100, 10, -9)]
    else:
        expected = whole[torch.tensor(which, dtype=torch.int64) if which == [] else which]
    assert torch.equal(stored[which], expected)


def test_what_stands_beside_codes(job):
    stored, whole = job
    assert (len(stored), stored.shape, stored.nbytes) == (197, (197, 2, 3), whole.nbytes)
    assert stored.names == {"codes", "places", "errors", "labels"}
    good = torch.tensor([i for i in range(200) if i not in FAILED])
    assert torch.equal(stored.read(slice(None), "places"), good)
    assert torch.equal(stored.read([4, 2], "labels"), good[[4, 2]] % 5)
    assert torch.equal(torch.stack(list(stored)), whole)
    refused(
        "has no .hue. of its codes: it has codes, errors, labels, places", stored.read, 0, "hue"
    )


def test_a_notebook_shows_what_they_are_and_the_first_fields(job, tmp_path, monkeypatch):
    stored, _ = job
    told = stored._repr_html_()
    assert "197 codes of 2 x 3 numbers in" in told
    assert "with errors, labels, places" in told
    assert "<iframe" not in told
    system = fieldloom.build("mnif", "tiny", prior="none")
    codes = torch.randn(20, *system.family.code_shape)
    made_by = {"weights": fingerprint_weights(system)}
    write_tensors(tmp_path / "<b>", {"codes": codes}, {}, made_by)
    own = open_codes(tmp_path / "<b>", system)
    shown = own._repr_html_()
    assert "&lt;b&gt;" in shown
    assert "<b>" not in shown
    assert shown.count("&lt;option value=") == 8
    assert pickle.loads(pickle.dumps(own)).system is None
    monkeypatch.setattr("fieldloom.codes.stored.NUMBERS", 3 * system.family.numbers)
    assert own._repr_html_().count("&lt;option value=") == 3
    monkeypatch.setattr("fieldloom.codes.stored.NUMBERS", 1)
    assert "<iframe" not in own._repr_html_()


@pytest.mark.parametrize("which", [197, -198, [3, 400], torch.tensor([0.5]), torch.ones(197) > 0])
def test_indices_that_are_none(job, which):
    with pytest.raises(IndexError):
        job[0][which]


def test_what_stays_mapped_is_bounded(job):
    stored, whole = job
    few = StoredCodes(stored.path, stored.parts, mapped=3000)
    some = torch.randint(0, 197, (500,), generator=torch.Generator().manual_seed(1))
    assert torch.equal(few[some], whole[some])
    assert few.held <= 3000
    assert 1 <= len(few.opened) < 7
    assert len(stored.opened) <= 7


def test_another_process_opens_the_files_itself(job):
    stored, whole = job
    stored[0]
    again = pickle.loads(pickle.dumps(stored))
    assert not again.opened
    assert torch.equal(again[:], whole)
    assert again.fingerprint() == stored.fingerprint()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_codes_come_in_float32(tmp_path, dtype):
    codes = torch.randn(5, 1, 4).to(dtype)
    stored = open_codes(write_tensors(tmp_path / "a.safetensors", {"codes": codes}, {}))
    assert torch.equal(stored[[4, 1]], codes[[4, 1]].float())


def test_shards_of_different_codes(tmp_path):
    for name, width in (("a", 3), ("b", 4)):
        write_job(tmp_path / "jobs" / name, torch.randn(10, 1, width), 5)
    stored = open_codes(tmp_path / "jobs")
    refused("holds codes of several shapes", stored.__getitem__, slice(None))


def test_codes_of_a_wrong_kind(tmp_path):
    for name, codes in (("whole", torch.ones(4, 1, 2).int()), ("flat", torch.ones(4, 2))):
        path = write_tensors(tmp_path / f"{name}.safetensors", {"codes": codes}, {})
        refused("codes are floating-point, .tokens, width. each", open_codes, path)


def test_no_codes(tmp_path):
    empty = write_tensors(tmp_path / "a.safetensors", {"codes": torch.ones(0, 1, 2)}, {})
    refused("holds no codes", open_codes, empty)
    write_job(tmp_path / "job", torch.randn(4, 1, 2), 2, fail=(0, 1, 2, 3))
    refused("holds no codes", open_codes, tmp_path / "job")
    refused("does not exist", open_codes, Path(tmp_path / "nowhere"))
