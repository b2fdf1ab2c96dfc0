"""Small recipes learn."""

import pytest
import torch

from fieldloom.assembly import build, objective_of

RECIPES = ["laginr:tiny", "ipc:tiny", "transinr:tiny", "learned-init:tiny"]


@pytest.mark.parametrize("name", RECIPES)
def test_small_recipes_learn(name):
    """A few dozen steps on two pictures halve the error with which the untrained system starts."""
    system = build(name)
    objective = objective_of(system).train()
    system.train()
    torch.manual_seed(0)
    data = torch.rand(2, 1, 8, 8)
    adam = torch.optim.Adam(objective.players["field"]["shared"], 1e-2)
    losses = []
    for _ in range(60):
        batch = system.modality.observe(data, keep_grid=system.encoder.reads_grid)
        loss, _ = objective.loss("field", batch)
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    system.eval()
    larger = system.reconstruct(data, resolution=20).tensor
    assert larger.shape == (2, 1, 20, 20)
    assert torch.isfinite(larger).all()
