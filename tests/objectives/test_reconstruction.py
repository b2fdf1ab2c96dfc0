"""What the reconstruction objective asks of its renderer."""

import torch

from fieldloom.assembly import build, objective_of
from fieldloom.metrics.losses import mse
from fieldloom.objectives import Reconstruction
from fieldloom.renderers import Direct
from pictures import picture


class Diary(Direct):
    """A renderer of others that looks at the function before each step."""

    def __init__(self):
        self.seen = []

    def look(self, function):
        self.seen.append(function(torch.zeros(1, 1, 2)))


def test_a_renderer_that_looks_does_so_before_each_loss_and_is_not_recorded(tmp_path):
    system, diary = build(picture(tmp_path)), Diary()
    plain = objective_of(system)
    looking = Reconstruction(system.family, system.encoder, diary, mse)
    assert plain.capturable
    assert not looking.capturable
    batch = system.modality.observe(torch.rand(1, 3, 24, 24))
    losses = [objective.loss("field", batch)[0] for objective in (looking, plain, looking)]
    assert losses[0] == losses[1] == losses[2]
    assert len(diary.seen) == 2
    at = system.family(torch.zeros(1, 1, 2), system.family.conditioner.origin(1))
    assert torch.equal(diary.seen[0], at)
