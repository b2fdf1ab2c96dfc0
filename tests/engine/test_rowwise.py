"""Adam on rows: equal to Adam where all rows are reached, exact to resume, dense and sparse."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from fieldloom.conditioners import Shared
from fieldloom.encoders import Nothing
from fieldloom.engine import rowwise
from fieldloom.engine.loop import Training
from fieldloom.engine.rowwise import RowAdam
from fieldloom.engine.stage import Stage
from fieldloom.family import Family
from fieldloom.fields import GridMlp
from fieldloom.fields.grids import HashGrid
from fieldloom.metrics.losses import mse
from fieldloom.modalities import Grid
from fieldloom.nn import grids
from fieldloom.objectives import Reconstruction
from fieldloom.renderers import Direct

HOW = {"lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-8}


def pair(shape):
    start = torch.randn(shape, dtype=torch.float64)
    return nn.Parameter(start.clone()), nn.Parameter(start.clone())


@pytest.mark.parametrize("shape", [(1, 6, 2), (6, 3), (2, 4, 2), (5,)])
def test_where_all_rows_are_reached_it_is_adam(shape):
    ours, theirs = pair(shape)
    rows, adam = RowAdam([ours], **HOW), torch.optim.Adam([theirs], **HOW)
    for _ in range(7):
        ours.grad = torch.randn_like(ours)
        theirs.grad = ours.grad.clone()
        rows.step()
        adam.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_row_that_is_not_reached_stays_and_counts_its_own_steps():
    """A row that steps 1 and 4 reach is where Adam is after two steps with these gradients."""
    ours, theirs = pair((1, 5, 2))
    rows, adam = RowAdam([ours], **HOW), torch.optim.Adam([theirs], **HOW)
    for step in range(6):
        grad = torch.randn(1, 5, 2, dtype=torch.float64)
        before = ours.detach().clone()
        ours.grad = grad.clone()
        if step not in (1, 4):
            ours.grad[0, 3] = 0
        else:
            theirs.grad = grad
            adam.step()
        rows.step()
        assert torch.equal(ours[0, 3], before[0, 3]) == (step not in (1, 4))
    torch.testing.assert_close(ours[0, 3], theirs[0, 3])
    assert rows.state[ours]["counts"].tolist() == [[6, 6, 6, 2, 6]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sparse_dense_and_masked_steps_are_the_same(dtype, monkeypatch):
    start, found = torch.randn(1, 9, 2, dtype=dtype), []
    monkeypatch.setattr(rowwise, "BLOCK", 2)
    for kind in ("dense", "sparse", "masked"):
        generator = torch.Generator().manual_seed(1)
        parameter = nn.Parameter(start.clone())
        optimizer = RowAdam([parameter], **HOW)
        for _ in range(4):
            grad = torch.randn(1, 9, 2, generator=generator, dtype=dtype)
            grad[0, torch.randperm(9, generator=generator)[:4]] = 0
            parameter.grad = grad.to_sparse(2) if kind == "sparse" else grad
            if kind == "masked":  # as on an accelerator
                state = optimizer.state_of(parameter)
                with torch.no_grad():
                    rowwise.step_all(state, grad[0], *HOW.values())
            else:
                optimizer.step()
        found.append(parameter.detach())
    assert torch.equal(found[0], found[1])
    torch.testing.assert_close(found[2], found[0])


def training(few, monkeypatch, clip=None, fused=False):
    monkeypatch.setattr(grids, "FEW", few)
    torch.manual_seed(0)
    field = GridMlp(2, 3, grid=HashGrid(levels=4, coarsest=2, log2_hashmap_size=5), width=8)
    family = Family(field, Shared(field.slots))
    stage = Stage(
        steps=8,
        optimizer={"name": "adam", "rate": 1e-2, "fused": fused},
        groups={"tables": {"name": "row-adam", "rate": 0.1}},
        points=5,
        clip=clip,
    )
    return Training(Reconstruction(family, Nothing(), Direct(), mse), stage)


def advance(of, steps, micro=2):
    image = Grid(axes=2, size=8, channels=3)
    for _ in range(steps):
        generator = torch.Generator().manual_seed(of.step)
        data = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(9))
        batch = image.observe(data, points=5, generator=generator)
        of.advance(batch, micro, 0, torch.device("cpu"))
    return dict(of.objective.state_dict())


@pytest.mark.parametrize(("micro", "clip"), [(2, None), (1, None), (2, 1e-3)])
def test_training_does_not_depend_on_how_gradients_are_held(micro, clip, monkeypatch):
    """With micro-batches, and with clipping, too. The network has a rate of its own."""
    dense = advance(training(0.0, monkeypatch, clip), 4, micro)
    sparse = advance(training(1e9, monkeypatch, clip), 4, micro)
    for name, tensor in dense.items():
        torch.testing.assert_close(sparse[name], tensor)


@pytest.mark.parametrize("fused", [False, True])
def test_an_interrupted_run_goes_on_bit_for_bit(fused, monkeypatch):
    straight = advance(training(1e9, monkeypatch, fused=fused), 6)
    first = training(1e9, monkeypatch, fused=fused)
    advance(first, 3)
    tensors, numbers = first.state()
    assert "optimizer/field/tables/0/counts" in tensors
    second = training(1e9, monkeypatch, fused=fused)
    second.restore(({k: v.clone() for k, v in tensors.items()}, json.loads(json.dumps(numbers))))
    resumed = advance(second, 3)
    for name, tensor in straight.items():
        assert torch.equal(resumed[name], tensor), name
