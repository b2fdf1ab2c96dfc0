"""Systems on a device: nothing is on the wrong one, nobody waits, and results are the CPU's.

The device is that of ``apart``, in a process of its own: no accelerator is needed.
"""

import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import torch

import apart
import captures
import faults
import journeys

pytestmark = pytest.mark.filterwarnings("ignore:set metrics need more")


def prepare():
    apart.register()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")


@pytest.fixture(scope="module")
def start():
    """Start work in a process that has the device: ``start(function, ...).result()``."""
    with ProcessPoolExecutor(1, get_context("spawn"), prepare) as pool:
        yield pool.submit


@pytest.mark.parametrize("fault", faults.FAULTS)
def test_faults_are_found(start, fault):
    error = ERRORS.get(fault, "WrongDevice")
    assert start(faults.meet, fault).result().startswith(f"{error}: ")


ERRORS = {"numpy": "RuntimeError", "float64": "TypeError", "float64 from the CPU": "TypeError"}
"""Torch's own."""


def test_what_is_right_is_no_fault(start):
    assert start(faults.meet, "none").result() == ""


@pytest.mark.parametrize("work", [journeys.resume, journeys.draw_points, journeys.analyse])
def test_what_is_beside_the_journey_is_the_cpus(start, work):
    there = start(work, apart.NAME)
    assert work("cpu") == pytest.approx(there.result(), rel=1e-4)


@pytest.mark.parametrize("name", ["functa", "hyperdiffusion", "ipc", "laginr", "laginr of views"])
def test_steps_can_be_captured(start, name):
    """No step copies from the processor, or waits for the device: fields, encoders and priors."""
    assert start(captures.captured_journey, name).result() == []


WAITS = {
    "gem": (3, 1, "distances of signals are in float64, which this device, as MPS, has not"),
    "gem of shapes": (1, 0, "how many points of each shape are occupied"),
    "gasp of views": (0, 2, "both players' jitter is of one generator, which this device has not"),
}
"""How often a step may read the device and send it something, and why. All others never do."""


@pytest.mark.slow
@pytest.mark.parametrize("name", journeys.JOURNEYS | journeys.BYWAYS)
def test_a_device_makes_what_the_cpu_makes(start, name):
    """Without a step that waits for the device."""
    there = start(journeys.travel, name, apart.NAME, steps=2)
    here = journeys.travel(name, "cpu", steps=2)
    found = there.result()
    check_same(found.made, here.made, 1e-4)
    read, sent, _ = WAITS.get(name, (0, 0, ""))
    assert found.waits.get("read", 0) <= read
    assert found.waits.get("sent", 0) <= sent
    assert not here.waits


@pytest.mark.slow
@pytest.mark.parametrize("name", journeys.JOURNEYS)
def test_a_device_under_autocast(start, name):
    """bfloat16 has three digits; operations round at other places than on the CPU."""
    there = start(journeys.travel, name, apart.NAME, "bfloat16")
    here = journeys.travel(name, "cpu", "bfloat16")
    check_same(there.result().made, here.made, 0.05)


def test_waits_are_counted(start):
    waits = {"read": 6, "sent": 3}
    assert start(faults.wait_for_the_device).result() == waits


def check_same(there, here, tolerance):
    """Steps of Adam follow the sign of gradients near zero, so that samples differ by more."""
    assert there.keys() == here.keys()
    for key, value in here.items():
        allowed = max(tolerance, 0.02) if key == "samples" else tolerance
        np.testing.assert_allclose(there[key], value, rtol=allowed, atol=allowed, err_msg=key)
