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


@pytest.mark.slow
@pytest.mark.parametrize("name", journeys.JOURNEYS | journeys.BYWAYS)
def test_a_device_makes_what_the_cpu_makes(start, name):
    there = start(journeys.travel, name, apart.NAME)
    here = journeys.travel(name, "cpu")
    check_same(there.result(), here, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", journeys.JOURNEYS)
def test_a_device_under_autocast(start, name):
    """bfloat16 has three digits; operations round at other places than on the CPU."""
    there = start(journeys.travel, name, apart.NAME, "bfloat16")
    here = journeys.travel(name, "cpu", "bfloat16")
    check_same(there.result(), here, 0.05)


SORTED = "a segment of points for each tile: where it ends is read, once for layers sorted together"
WAITS = {
    "gem": (3, 1, "distances of signals are in float64, which this device, as MPS, has not"),
    "gem of shapes": (1, 0, "how many points of each shape are occupied"),
    "gasp of views": (0, 2, "both players' jitter is of one generator, which this device has not"),
    "loe": (15, 12, SORTED),
    "loe of views": (10, 8, SORTED),
    "loe by linear blends": (33, 30, SORTED),
    "loe as a GAN": (70, 56, SORTED),
    "mixed experts": (105, 78, SORTED),
}
"""How often a step may read the device and send it something, and why. All others never do."""


@pytest.mark.slow
@pytest.mark.parametrize("name", journeys.JOURNEYS | journeys.BYWAYS)
def test_a_step_does_not_wait_for_the_device(start, name):
    found = start(journeys.count_waits, name).result()
    read, sent, _ = WAITS.get(name, (0, 0, ""))
    assert found.get("read", 0) <= read
    assert found.get("sent", 0) <= sent


def test_waits_are_counted(start):
    waits = {"read": 6, "sent": 3}
    assert start(faults.wait_for_the_device).result() == waits


def check_same(there, here, tolerance):
    """Steps of Adam follow the sign of gradients near zero, so that samples differ by more."""
    assert there.keys() == here.keys()
    for key, value in here.items():
        allowed = max(tolerance, 0.02) if key == "samples" else tolerance
        np.testing.assert_allclose(there[key], value, rtol=allowed, atol=allowed, err_msg=key)
