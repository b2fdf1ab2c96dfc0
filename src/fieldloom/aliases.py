"""Old names of parts and old keys of recipes, and what they are called now: one table.

Whoever renames a part or a key adds a line here: old recipes and run folders are read as before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from fieldloom.errors import InputError, quote

Layer = Mapping[str, Any]

NAMES: Mapping[str, Mapping[str, str]] = {
    "conditioner": {"direct": "flat-weights"},
    "denoiser": {"tensors": "weight-transformer"},
    "source": {"picture": "image", "film": "video", "sound": "audio"},
}
"""Kind of part -> its old name -> its name."""

KEYS: Mapping[str, str] = {
    **{
        f"field[experts, fourier-mlp].{key}": f"field.encoding.{key}"
        for key in ("features", "count", "bandwidth", "pi", "include_input", "grid")
    },
    **{
        f"field[experts].{key}": f"field.tiling.{key}"
        for key in ("tiles", "blend", "centred", "arrangement", "low", "high")
    },
    "field[experts].head": "field.head.kind",
    "field[experts].view_count": "field.head.octaves",
    "field[experts].view_width": "field.head.width",
    "source[meshes].reach": "source.extent",
    "source[meshes].grow": "source.dilation",
    "source[meshes].near": "source.near_surface",
    "encoder[transformer].known": "encoder.mask_channel",
    "codec[quantize].codes": "codec.codebook_size",
    "source[skimage].pictures": "source.images",
    "source[array].bounds": "source.range",
    "prior[autoregressive].places": "prior.positions",
}
"""Old dotted path -> path, from a kind of part: ``"field.count": "field.encoding.count"``.

``"field[experts, fourier-mlp].count"`` is of these parts alone (their names of today). A path that
begins with a kind holds wherever such a part stands (``codec`` is inside ``prior``); one that
begins with a plain section, or leaves its section, is read from the top of the recipe.
"""

KINDS = {"start": "encoder", "unseen": "encoder"}
"""Keys that hold a part of another kind than their own name says."""

PLAIN = {"train", "evaluate", "expected", "known", "variants"}
"""Sections that hold no parts."""


class Rule(NamedTuple):
    """One entry of ``KEYS``. kind: "" for paths from the top of a recipe; parts: () for all."""

    kind: str
    parts: tuple[str, ...]
    old: tuple[str, ...]
    new: tuple[str, ...]


def parse_rule(old: str, new: str) -> Rule:
    """The rule of one entry of ``KEYS``."""
    head, bracket, rest = old.partition("[")
    names, _, tail = rest.partition("]")
    parts = tuple(name.strip() for name in names.split(",")) if bracket else ()
    before, after = (head + tail).split("."), new.split(".")
    if before[0] in PLAIN or before[0] != after[0]:
        return Rule("", parts, tuple(before), tuple(after))
    return Rule(before[0], parts, tuple(before[1:]), tuple(after[1:]))


def rewrite(layer: Layer, below: Layer | None = None) -> tuple[dict[str, Any], list[str]]:
    """A layer of a recipe by today's names and keys, and a clause for each old one that it had.

    below: the recipe that the layer is merged over, by today's names: it names the part of a table
    where the layer does not. Raises InputError for a key that is given in both
    forms, with different values.
    """
    changed: list[str] = []
    rules = [parse_rule(old, new) for old, new in KEYS.items()]
    found = _rewrite_part("", dict(layer), below or {}, "", rules, changed)
    return found, changed


def _rewrite_part(
    kind: str, spec: dict[Any, Any], below: Any, path: str, rules: list[Rule], changed: list[str]
) -> dict[Any, Any]:
    """A part's table by today's names (kind "": the whole layer). below: what it is merged over."""
    below = {"name": below} if isinstance(below, str) else below
    below = below if isinstance(below, Mapping) else {}
    if "name" in spec:
        spec["name"] = _rewrite_name(kind, spec["name"], path, changed)
        if spec["name"] != below.get("name"):
            below = {}  # another part replaces it
    name = spec.get("name", below.get("name"))
    for rule in rules:
        if rule.kind == kind and (not rule.parts or name in rule.parts):
            _move(spec, below, rule, path, changed)
    for key, value in spec.items():
        inner = f"{path}.{key}".lstrip(".")
        inner_kind = KINDS.get(key, key)
        if isinstance(value, str):
            spec[key] = _rewrite_name(inner_kind, value, inner, changed)
        elif isinstance(value, Mapping) and not (kind == "" and key in PLAIN):
            spec[key] = _rewrite_part(
                inner_kind, dict(value), below.get(key), inner, rules, changed
            )
        elif isinstance(value, list | tuple):
            spec[key] = type(value)(
                _rewrite_part(inner_kind, dict(one), None, inner, rules, changed)
                if isinstance(one, Mapping)
                else _rewrite_name(inner_kind, one, inner, changed)
                for one in value
            )
    return spec


def _rewrite_name(kind: str, name: Any, path: str, changed: list[str]) -> Any:
    new = NAMES.get(kind, {}).get(name) if isinstance(name, str) else None
    if new is None:
        return name
    changed.append(f'`{path} = "{name}"` is now `"{new}"`')
    return new


def _move(spec: dict[Any, Any], below: Layer, rule: Rule, path: str, changed: list[str]) -> None:
    """Move the value of an old key, where there is one, to its new path."""
    table: Any = spec
    for key in rule.old[:-1]:
        table = table.get(key) if isinstance(table, Mapping) else None
    if not isinstance(table, Mapping) or rule.old[-1] not in table:
        return
    if isinstance(table[rule.old[-1]], Mapping) and rule.new[: len(rule.old)] == rule.old:
        return  # the new form: a table where the old key had a value
    value = _take(spec, rule.old)
    under: Any = below
    table = spec
    for key in rule.new[:-1]:
        inner = table.get(key, {})
        if not isinstance(inner, str | Mapping):
            raise InputError(f"{key} = {quote(inner)} is not right: it is a table.")
        table[key] = {"name": inner} if isinstance(inner, str) else dict(inner)
        table, under = table[key], under.get(key) if isinstance(under, Mapping) else None
    old, new = (".".join(filter(None, (path, *keys))) for keys in (rule.old, rule.new))
    if table.setdefault(rule.new[-1], value) != value:
        raise InputError(
            f"the recipe gives both {old} = {quote(value)} and, as it is called now, {new} = "
            f"{quote(table[rule.new[-1]])}: keep the second."
        )
    if rule.new[-1] == "name" and isinstance(under, Mapping):  # keep the other keys of that part
        table.update({key: x for key, x in under.items() if key not in table})
    changed.append(f"`{old}` is now `{new}`")


def _take(spec: dict[Any, Any], path: tuple[str, ...]) -> Any:
    """Remove the value at a path, and the tables that it leaves empty; the rest is not touched."""
    first, *rest = path
    if not rest:
        return spec.pop(first)
    spec[first] = dict(spec[first])
    value = _take(spec[first], tuple(rest))
    if not spec[first]:
        del spec[first]
    return value
