"""A decoding in pieces is the whole."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import fieldloom
from fieldloom.conditioners import Shared
from fieldloom.decoding import evaluate_codes
from fieldloom.errors import InputError
from fieldloom.family import Family
from fieldloom.fields import FIELDS
from fieldloom.process import multiplies_bfloat16, rounded_products
from fieldloom.renderers import Direct

BFLOAT16 = torch.bfloat16


def test_pieces_of_a_decoding_make_the_whole(tiny_run, monkeypatch):
    system = fieldloom.load(tiny_run, device="cpu")
    codes = torch.randn(2, *system.family.code_shape)
    whole = system.decode(codes, resolution=20).tensor
    monkeypatch.setattr("fieldloom.decoding.CACHED", 56)
    torch.testing.assert_close(system.decode(codes, resolution=20).tensor, whole)


@pytest.mark.parametrize("dtype", [torch.float16, torch.int8])
def test_types_that_a_processor_does_not_multiply_are_refused(tiny_run, dtype):
    system = fieldloom.load(tiny_run, device="cpu")
    code, words = system.family.conditioner.origin(1).detach(), str(dtype).split(".")[1]
    right = "values are computed in float32, float64, bfloat16"
    with pytest.raises(InputError, match=f"dtype = {words}: on 'cpu' {right}\\."):
        next(system.evaluate(code, system.modality.grid(), dtype))


@pytest.mark.skipif(not multiplies_bfloat16(), reason="the processor has no bfloat16 products")
@pytest.mark.parametrize("name", ["siren", "fourier-mlp", "experts", "local"])
def test_bfloat16_rounds_products_alone(name):
    """Values are float32 and near; afterwards products are as before."""
    torch.manual_seed(0)
    field = FIELDS[name](2, 3, width=32)
    family = Family(field, Shared(field.slots))
    coords = torch.rand(1, 400, 2)
    decode = lambda dtype: next(
        evaluate_codes(family, Direct(), lambda x: x, torch.zeros(1, 0, 0), coords, dtype)
    )
    whole, rounded = decode(None), decode(BFLOAT16)
    assert rounded.dtype == torch.float32
    assert 0 < (whole - rounded).norm() / whole.norm() < 0.03
    assert torch.equal(decode(None), whole)


@pytest.mark.skipif(
    not hasattr(torch.backends.mkldnn, "matmul"), reason="torch before 2.9 has one setting for all"
)
def test_rounded_products_of_two_threads_end_with_the_last(monkeypatch):
    """The second waits for the first: else it would put back what the first one has set."""
    monkeypatch.setattr("fieldloom.process.multiplies_bfloat16", lambda: True)
    states, second = [], threading.Event()

    def round_beside():
        second.set()
        with rounded_products():
            states.append("second")

    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    with ThreadPoolExecutor(1) as pool:
        with rounded_products():
            beside = pool.submit(round_beside)
            second.wait()
            time.sleep(0.05)
            states.append("first")
        beside.result()
    assert states == ["first", "second"]
    assert matmul.fp32_precision == before
    with pytest.raises(ZeroDivisionError), rounded_products():
        1 / (matmul.fp32_precision != "bf16")
    assert matmul.fp32_precision == before


def test_bfloat16_is_refused_without_instructions(tiny_run, monkeypatch):
    monkeypatch.setattr("fieldloom.process.multiplies_bfloat16", lambda: False)
    system = fieldloom.load(tiny_run, device="cpu")
    with pytest.raises(InputError, match="bfloat16: this processor has no matrix instructions"):
        next(system.evaluate(system.family.conditioner.origin(1), system.modality.grid(), BFLOAT16))
