"""A kernel is used where it has proved itself."""

from contextlib import nullcontext

import pytest
import torch

from fieldloom.nn.kernels.proof import Device, Proven, wave


def proven(kernel, capturing=lambda: False, tiny=lambda x: (wave(x, 5),)):
    device = Device(lambda x: nullcontext(), capturing, lambda: "ieee")
    return Proven("squares", kernel, lambda x: x * x, tiny, lambda x: x.dtype, device)


def fails(x):
    raise RuntimeError("no compiler\nof this kind")


WRONG = {
    "fails": (fails, "it fails (RuntimeError: of this kind)"),
    "differs": (lambda x: x * x + 1e-3, "its numbers are off by 1.0e-03 of the largest"),
    "shape": (lambda x: x[1:] * x[1:], "its numbers are off by inf of the largest"),
    "no number": (lambda x: x * float("nan"), "its numbers are off by inf of the largest"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_kernel_gives_way_and_says_so_once(fault, capsys):
    kernel, why = WRONG[fault]
    square = proven(kernel)
    for dtype in (torch.float32, torch.float32, torch.float16):
        x = torch.full((3,), 2.0, dtype=dtype)
        assert square(x).tolist() == [4, 4, 4]
    assert capsys.readouterr().err == f"squares: computed without the kernel, since {why}.\n"


def test_a_right_kernel_is_used_and_proven_once(capsys):
    calls = []
    square = proven(lambda x: calls.append(len(x)) or x**2)
    for _ in range(2):
        assert square(torch.ones(3)).tolist() == [1, 1, 1]
    assert calls == [5, 3, 3]
    assert capsys.readouterr().err == ""


def test_nothing_is_proved_in_a_capture():
    calls, capturing = [], [True]
    square = proven(lambda x: calls.append(len(x)) or x**2, lambda: capturing[0])
    square(torch.ones(3))
    assert calls == []
    capturing[0] = False
    square(torch.ones(3))
    assert calls == [5, 3]


def test_bfloat16_may_round():
    square = proven(lambda x: x * x * 1.01)
    calls = square(torch.full((3,), 2.0, dtype=torch.bfloat16))
    assert calls[0] > 4
    assert square(torch.full((3,), 2.0)).tolist() == [4, 4, 4]
