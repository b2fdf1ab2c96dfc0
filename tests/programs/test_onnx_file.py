"""ONNX Runtime gives the field's values, for any number of points."""

import sys

import pytest
import torch

from fieldloom.errors import InputError
from fieldloom.programs import compile_field, run
from fieldloom.programs.onnx_file import OPSET, write_onnx
from programs.test_fields import FIELDS, draw_weights


@pytest.mark.parametrize("name", FIELDS)
def test_the_runtime_gives_the_values_of_the_field(name, tmp_path):
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    kind, settings = FIELDS[name]
    field = kind(2, 3, **settings)
    weights = draw_weights(field)
    if "grid.weight" in weights:
        weights["grid.weight"] *= 1e3
    program = compile_field(field, weights, 2)
    path = write_onnx(program, tmp_path / "field.onnx")
    model = onnx.load(path)
    assert model.opset_import[0].version == OPSET
    assert model.producer_name == "fieldloom"
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for points in (1, 50):
        coords = torch.rand(points, 2, generator=torch.Generator().manual_seed(points)) * 2.2 - 1.1
        (found,) = session.run(["values"], {"coords": coords.numpy()})
        torch.testing.assert_close(
            torch.from_numpy(found), run(program, coords), atol=3e-4, rtol=3e-4
        )


def test_without_the_package_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    field = FIELDS["siren"][0](2, 3, width=8, depth=3)
    with pytest.raises(InputError, match=r"fieldloom\[onnx\]"):
        write_onnx(compile_field(field, draw_weights(field), 2), tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())
