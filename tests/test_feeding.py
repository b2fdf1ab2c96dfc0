"""Codes as batches: from memory, and from files."""

import torch

from code_sets import write_job
from fieldloom.codes.files import open_codes
from fieldloom.engine.feed import feed_steps
from fieldloom.feeding import feed_codes
from fieldloom.settings import Stage


def test_batches_from_files_are_those_from_memory(tmp_path):
    codes, labels = torch.randn(60, 2, 3), torch.arange(60) % 4
    stored = open_codes(write_job(tmp_path / "job", codes, 7))
    there, found = torch.device("cpu"), []
    for one in (codes, stored):
        feed = feed_codes(one, labels, there)
        found.append(list(feed_steps(feed, Stage(batch=16), 3, 2, range(8), 60)))
    for memory, files in zip(*found, strict=True):
        assert torch.equal(memory.codes, files.codes)
        assert torch.equal(memory.labels, files.labels)
