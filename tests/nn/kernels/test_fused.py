"""Triton's kernels by its interpreter, in a process of its own, and compiled for GPUs elsewhere.

What they make is compared with float64. What gives way to the plain path fails here.
"""

import importlib.util
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

import interpreted

if importlib.util.find_spec("triton") is None:
    pytest.skip(
        "triton is not installed: it has no build for this platform", allow_module_level=True
    )


@pytest.fixture(scope="module")
def start():
    """Start work in a process that interprets kernels: ``start(function, ...).result()``."""
    with ProcessPoolExecutor(1, get_context("spawn"), interpreted.prepare) as pool:
        yield pool.submit


@pytest.mark.parametrize(
    ("inputs", "outputs", "shared"),
    [(2, 10, "own"), (10, 33, "shared"), (33, 1, "own biases")],
)
def test_a_layer_and_its_gradients(start, inputs, outputs, shared):
    """Of both orders; sizes are no powers of two, and 71 points no multiple of a block."""
    assert start(interpreted.layer, inputs, outputs, shared).result() < 1e-5


def test_a_layer_in_bfloat16(start):
    assert start(interpreted.layer, 16, 20, "own", "bfloat16").result() < 0.06


FIELDS = {
    "mnif": (dict(width=64, depth=4, codes=2, output="sine", offset=0.5), 1e-5),
    "narrow": (dict(width=10, depth=2, codes=1), 1e-6),
    "frequencies": (dict(width=33, depth=4, codes=1, frequency=(30.0, 9.0, 9.0, 1.0)), 1e-5),
    "bfloat16": (dict(width=20, depth=3, codes=2, precision="bfloat16"), 0.02),
}


@pytest.mark.parametrize("kind", FIELDS)
def test_a_whole_field(start, kind):
    about, allowed = FIELDS[kind]
    assert start(interpreted.field, **about).result() < allowed


@pytest.mark.parametrize(
    ("inputs", "outputs", "sort", "precision", "allowed"),
    [
        (20, 70, True, "float32", 1e-5),
        (65, 3, False, "float32", 1e-5),
        (20, 10, True, "bfloat16", 0.04),
    ],
)
def test_tiles_and_their_gradients(start, inputs, outputs, sort, precision, allowed):
    assert start(interpreted.tiles, inputs, outputs, sort, precision).result() < allowed


def test_a_step_of_cavia(start):
    fused, plain = (start(interpreted.descend, way).result() for way in (True, False))
    assert fused == pytest.approx(plain, rel=1e-4)


def test_kernels_compile_for_gpus_elsewhere(tmp_path):
    """To machine code of NVIDIA's 8.0 and 9.0: the compiler needs no device."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        sizes = pool.submit(interpreted.compile_all, str(tmp_path)).result()
    assert len(sizes) == 6
    assert min(sizes.values()) > 1000
