"""What is written in GLSL, in WGSL's words."""

import pytest

from fieldloom.programs.translation import translate

CASES = {
    "float a = 1.0, b = max(a, 2.0);": "var a: float = 1.0; var b: float = max(a, 2.0);",
    "vec3 n;": "var n: vec3f;",
    "ivec3 n = ivec3(floor(p));": "var n: vec3i = vec3i(floor(p));",
    "return vec4(uvec4(b) & uvec4(255u));": "return vec4f(vec4u(b) & vec4u(255u));",
    "const int N = 3;": "const N: int = 3;",
    "uniform vec4 window; // a corner": "var<private> window: vec4f;",
    "vec3 f(vec2 p, mat3 m) { return g(p); }": "fn f(p: vec2f, m: mat3) -> vec3f { return g(p); }",
    "void show() {\n}": "fn show() {\n}",
    "vec4[2] x = vec4[2](a, b);": "var x: array<vec4f, 2> = array<vec4f, 2>(a, b);",
    "for (int i = 0; i < 3; i++) {": "for (var i: int = 0; i < 3; i++) {",
    "a = b <= c ? d : e;": "a = select(e, d, b <= c);",
    "return a == b ? 1.0 : c ? 2.0 : 3.0;": "return select(select(3.0, 2.0, c), 1.0, a == b);",
    "f((a ? b : c) * 2.0, d ? g[e ? 0 : 1] : h);":
        "f((select(c, b, a)) * 2.0, select(h, g[select(1, 0, e)], d));",
    "if (a) b = c; else d = e ? f : g;": "if (a) { b = c; } else { d = select(g, f, e); }",
    "if (a) { b = c; } else if (d) break;": "if (a) { b = c; } else if (d) { break; }",
}  # fmt: skip


@pytest.mark.parametrize("glsl", CASES)
def test_a_form_of_glsl(glsl):
    assert translate(glsl) == CASES[glsl]
