"""Reptile pulls the origin of codes."""

import pytest
import torch

from fieldloom.assembly import build, objective_of
from fieldloom.metrics.losses import mse
from fieldloom.objectives import Reptile
from fieldloom.renderers import Direct


def test_reptile_pulls_the_origin_towards_the_end_of_descent():
    system = build("learned-init:tiny", objective="reptile")
    objective = objective_of(system).train()
    system.train()
    batch = system.modality.observe(torch.rand(2, 1, 8, 8))
    loss, _ = objective.loss("field", batch)
    loss.backward()
    code = system.encoder(batch.context, system.family, Direct(), mse).detach()
    start = system.family.conditioner.start
    torch.testing.assert_close(start.grad, (start - code).mean(0, keepdim=True).detach())
    with pytest.raises(ValueError, match="needs an encoder that descends"):
        objective_of(build("laginr:tiny", objective="reptile"))
    assert isinstance(objective, Reptile)
