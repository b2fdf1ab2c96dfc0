"""Codes as a data set of torch."""

import torch
from torch.utils.data import DataLoader

from code_sets import write_job
from fieldloom.codes.dataset import CodeDataset
from fieldloom.codes.files import open_codes
from refusals import refused


def test_a_model_of_ones_own_trains_on_them(tmp_path):
    """Two worker processes, shuffled; the classes of the codes are learned."""
    labels = torch.arange(300) % 3
    codes = torch.randn(300, 1, 4) * 0.1 + torch.eye(4)[labels][:, None]
    data = CodeDataset(open_codes(write_job(tmp_path / "job", codes, 40, labels=labels)), True)
    model = torch.nn.Linear(4, 3)
    steps = torch.optim.Adam(model.parameters(), 0.1)
    seen = []
    for code, label in DataLoader(data, 50, shuffle=True, num_workers=2):
        seen.append(code)
        loss = torch.nn.functional.cross_entropy(model(code[:, 0]), label)
        steps.zero_grad()
        loss.backward()
        steps.step()
    assert sorted(torch.cat(seen).flatten().tolist()) == sorted(codes.flatten().tolist())
    assert (model(codes[:, 0]).argmax(1) == labels).float().mean() > 0.9
    code, label = data[7]
    assert torch.equal(code, codes[7])
    assert int(label) == 1


def test_codes_alone(tmp_path):
    codes = torch.randn(30, 2, 3)
    stored = open_codes(write_job(tmp_path / "job", codes, 7))
    assert torch.equal(next(iter(DataLoader(CodeDataset(stored), 30))), codes)
    refused("have no classes beside them", CodeDataset, stored, labels=True)
