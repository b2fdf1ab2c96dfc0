"""Constants on a device, each copied once."""

import gc
import weakref

import torch

from fieldloom import constants
from fieldloom.constants import place, row
from fieldloom.denoisers.conditions import embed_sinusoid
from fieldloom.renderers import sample_evenly


def test_a_constant_is_copied_once_for_each_device_and_dtype():
    own = torch.rand(3, dtype=torch.float64)
    cpu, other = torch.device("cpu"), torch.device("meta")
    assert place(own, cpu) is own
    single = place(own, cpu, torch.float32)
    assert torch.equal(single, own.float())
    assert place(own, cpu, torch.float32) is single
    assert place(own, other).device == other


def test_copies_go_with_their_constant():
    own = torch.rand(3, dtype=torch.float64)
    before = len(constants._copies)
    place(own, torch.device("cpu"), torch.float32)
    assert len(constants._copies) == before + 1
    del own
    gc.collect()
    assert len(constants._copies) == before


def test_a_constant_that_is_its_own_copy_is_not_kept():
    own = torch.rand(3)
    seen = weakref.ref(own)
    place(own, torch.device("cpu"))
    del own
    gc.collect()
    assert seen() is None


def test_constants_that_are_made_for_another_device_are_made_on_the_cpu():
    """Within ``torch.device("meta")`` tensors have no numbers, and these are kept."""
    rays, time = torch.zeros(1, 1, 6), torch.zeros(1)
    with torch.device("meta"):
        t = sample_evenly(0.5, 2.5, 3, rays)
        phases = embed_sinusoid(time, 6, 77.0)
    assert t.flatten().tolist() == [0.5, 1.5, 2.5]
    assert phases.tolist() == [[1, 1, 1, 0, 0, 0]]


def test_a_constant_that_inference_placed_first_serves_gradients():
    own = torch.rand(3, dtype=torch.float64)
    with torch.inference_mode():
        made = torch.rand(3)
        place(own, torch.device("cpu"), torch.float32), row((1, 2, 5), made)
    x = torch.rand(3, requires_grad=True)
    used = (place(own, x.device, x.dtype), row((1, 2, 5), x), place(made, x.device))
    (x * sum(used)).sum().backward()
    assert torch.equal(x.grad, sum(used))


def test_a_row_has_the_dtype_of_another_tensor():
    whole, half = torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.float64)
    assert row([1, 2], whole).tolist() == row([1.0, 2.0], half).tolist() == [1, 2]
    assert row([1, 2], whole).dtype == torch.long
    assert row([0.1], half).item() == 0.1
