"""A file of plain PyTorch gives the field's values, without fieldloom."""

import runpy
import subprocess
import sys

import pytest
import torch

from fieldloom.programs import compile_field, run
from fieldloom.programs.torch_file import write_torch
from programs.test_fields import FIELDS, draw_weights

LOAD = """
import sys
sys.modules["fieldloom"] = None
sys.path.insert(0, {folder!r})
import torch
coords = torch.load("coords.pt", weights_only=True)
found = [__import__(f"field{{i}}").Field()(coords) for i in range({count})]
torch.save(found, "found.pt")
"""


def test_files_give_the_values_of_all_fields(tmp_path):
    coords = torch.rand(60, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.save(coords, tmp_path / "coords.pt")
    right = []
    for i, (kind, settings) in enumerate(FIELDS.values()):
        field = kind(2, 3, **settings)
        program = compile_field(field, draw_weights(field), 2)
        path, weights = write_torch(program, tmp_path / f"field{i}.py")
        assert weights.suffix == ".safetensors"
        assert "import fieldloom" not in path.read_text()
        right.append(run(program, coords))
    code = LOAD.format(folder=str(tmp_path), count=len(right))
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    for name, own, same in zip(FIELDS, right, found, strict=True):
        torch.testing.assert_close(same, own, msg=lambda text, name=name: f"{name}: {text}")


def test_a_module_moves_and_differentiates(tmp_path):
    kind, settings = FIELDS["siren"]
    field = kind(2, 3, **settings)
    path, _ = write_torch(compile_field(field, draw_weights(field), 2), tmp_path / "own.py")
    namespace = {"__file__": str(path), "__name__": "own"}
    exec(compile(path.read_text(), str(path), "exec"), namespace)
    module = namespace["Field"]().double()
    coords = torch.rand(5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, coords)
    with pytest.raises(FileNotFoundError):
        namespace["Field"](tmp_path / "none.safetensors")


@pytest.mark.parametrize("name", ["hash", "tri-plane", "fourier, grid", "experts, linear", "local"])
def test_a_module_computes_where_its_tensors_are(name, tmp_path):
    kind, settings = FIELDS[name]
    field = kind(2, 3, **settings)
    path, _ = write_torch(compile_field(field, draw_weights(field), 2), tmp_path / "own.py")
    module = runpy.run_path(str(path))["Field"]().to("meta")
    assert module(torch.zeros(5, 2, device="meta")).shape == (5, 3)


@pytest.mark.parametrize("name", ["two words", 'a"b', "3.of", "class", "plain"])
def test_names_of_files(name, tmp_path, monkeypatch):
    kind, settings = FIELDS["siren"]
    field = kind(2, 3, **settings)
    path, _ = write_torch(compile_field(field, draw_weights(field), 2), tmp_path / f"{name}.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    line = path.read_text().splitlines()[2].strip()
    held = {}
    exec(f"import runpy\n{line}", held)
    assert held["Field"]()(torch.zeros(5, 2)).shape == (5, 3)
