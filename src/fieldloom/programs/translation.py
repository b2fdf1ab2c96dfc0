"""GLSL as WGSL: the views and renderers of pages are written once, in the part of GLSL that both
languages have but for how things are declared.

That part: one type for all arguments of a function (``max(x, vec3(0.0))``), brackets where ``&``,
``|`` and ``>>`` meet other operators, parameters that are not assigned to, no names that WGSL keeps
for itself (``pass``, ``target``, ``from``, ...), ``if`` with braces but before a single statement.
A shader's ``uniform``, ``out`` and ``gl_FragCoord`` are variables of the module.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from fieldloom.programs.dialects import WGSL, wgsl_type

TYPE = r"(?:float|int|uint|bool|[iu]?vec[234]|mat[34])(?:\[\d+\])?"
COMMENT = re.compile(r"\s*//.*")
BRACKETS = re.compile(r"\([^()]*\)|\[[^\[\]()]*\]")
HELD = re.compile("\0(\\d+)\0")
CHOICE = re.compile(
    r"(\s*(?:return\s)?)((?:[^,;{}=?:]|[=!<>]=)+)\?([^,;{}?:]+):([^,;{}?:]+)(?=[,;{}]|$)"
)
SINGLE = re.compile("\\b(if \0\\d+\0|else)\\s+(?!if )([^{};]+;)")
HEAD = re.compile(rf"^({TYPE}|void) (\w+)\(([^)]*)\) {{", re.M)
DECLARED = re.compile(rf"(?<![\w.])(const |uniform |out )?({TYPE}) (\w[^;]*);")
ARRAY = re.compile(r"\b(\w+\[\d+\])\(")
VECTOR = re.compile(r"\b([iu]?)vec([234])\(")


def translate(glsl: str) -> str:
    """Functions of the part of GLSL above as WGSL, without its aliases of types (``WGSL.head``)."""
    text = _write_statements(COMMENT.sub("", glsl))
    text = HEAD.sub(lambda found: _write_head(*found.groups()), text)
    text = DECLARED.sub(lambda found: _write_declared(*found.groups()), text)
    text = ARRAY.sub(lambda found: f"{wgsl_type(found[1])}(", text)
    return VECTOR.sub(lambda found: f"vec{found[2]}{found[1] or 'f'}(", text)


def _write_statements(text: str) -> str:
    """``c ? a : b`` as ``select(b, a, c)``, and braces around single statements.

    What stands in brackets is held apart, from the innermost on: it is one word where it stands.
    """
    held: list[str] = []

    def hold(found: re.Match[str]) -> str:
        held.append(found[0][0] + _write_choices(found[0][1:-1]) + found[0][-1])
        return f"\0{len(held) - 1}\0"

    text = _until_same(lambda x: BRACKETS.sub(hold, x), text)
    text = SINGLE.sub(r"\1 { \2 }", _write_choices(text))
    return _until_same(lambda x: HELD.sub(lambda found: held[int(found[1])], x), text)


def _write_choices(text: str) -> str:
    """Choices outside brackets, from the last, since what follows ``:`` may be another."""

    def write(found: re.Match[str]) -> str:
        condition, yes, no = (part.strip() for part in found.groups()[1:])
        return f"{found[1]}select\1{no}\2 {yes}\2 {condition}\3"

    text = _until_same(lambda x: CHOICE.sub(write, x), text)
    return text.translate({1: "(", 2: ",", 3: ")"})


def _until_same(change: Callable[[str], str], text: str) -> str:
    while (changed := change(text)) != text:
        text = changed
    return text


def _write_head(result: str, name: str, given: str) -> str:
    pairs = [tuple(reversed(part.split())) for part in given.split(",")] if given else []
    head = WGSL.function(name, [(kind, own) for own, kind in pairs], result)
    return head.replace(" -> void", "")


def _write_declared(how: str | None, kind: str, rest: str) -> str:
    """``const vec3 a = b, c = d;`` and ``vec3 a;``, which variables of the module have as well."""
    keyword = {None: "var", "const ": "const"}.get(how, "var<private>")
    return " ".join(f"{keyword} {_annotate(part, kind)};" for part in _split(rest))


def _annotate(part: str, kind: str) -> str:
    name, *value = part.split("=", 1)
    return " =".join([f"{name.strip()}: {wgsl_type(kind)}", *value])


def _split(text: str) -> list[str]:
    """The parts of a list, at the commas outside brackets."""
    found, depth = [""], 0
    for c in text:
        depth += (c in "([") - (c in ")]")
        if c == "," and not depth:
            found.append("")
        else:
            found[-1] += c
    return [part.strip() for part in found]
