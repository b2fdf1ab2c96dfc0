"""Source and numbers as files."""

import numpy as np
import pytest

from fieldloom.errors import InputError
from fieldloom.fields import Siren
from fieldloom.programs import compile_field
from fieldloom.programs.files import write_program, write_source
from fieldloom.programs.shader import write_shader
from programs.test_fields import draw_weights


@pytest.mark.parametrize("language", ["glsl", "wgsl"])
def test_a_source_names_its_numbers(language, tmp_path):
    field = Siren(2, 3, width=8, depth=3)
    program = compile_field(field, draw_weights(field), 2)
    path, numbers = write_source(program, tmp_path / f"field.{language}", language)
    shader, text = write_shader(program, language), path.read_text()
    assert text.endswith(shader.source)
    assert "'field.bin'" in text
    assert "2 coordinates" in text
    found = np.fromfile(numbers, "<f4").reshape(-1, 4)
    assert np.array_equal(found, shader.numbers.numpy())
    assert f"holds {len(found)} times" in text


def test_wgsl_declares_as_wgsl_does():
    field = Siren(2, 3, width=8, depth=3)
    source = write_shader(compile_field(field, draw_weights(field), 2), "wgsl").source
    assert "fn field(x: array<vec4f, 1>) -> array<vec4f, 1> {" in source
    assert "var r1: array<vec4f, 2>;" in source
    assert "for (var o: int = 0; o < 2; o++) {" in source
    assert source.count("{") == source.count("}")


def test_every_format_is_written_by_its_name(tmp_path):
    field = Siren(2, 3, width=8, depth=3)
    program = compile_field(field, draw_weights(field), 2)
    for format, suffixes in {"torch": [".py", ".safetensors"], "glsl": [".glsl", ".bin"]}.items():
        path = tmp_path / f"field{suffixes[0]}"
        assert [x.suffix for x in write_program(program, path, format)] == suffixes
        assert path.is_file()
    with pytest.raises(InputError, match="'glsl'"):
        write_program(program, tmp_path / "x", "gls")
