"""Recipes: TOML files whose sections are the factors of a system.

``load("mnif:digits", ["field.width=32"])`` reads ``recipes/mnif.toml`` (or a path), merges the
variant's section over the rest and the overrides over both. A variant with ``base = "other"`` goes
over that variant of the file. ``[fields.NAME]`` is what comes with the field of that name: sections
beneath all of these, so that ``--set field=NAME`` brings rates and sizes that suit it.
``[sources.NAME]`` is the same of readers of data. ``about`` says what a file or a variant is.
"""

from __future__ import annotations

import tomllib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, time
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import tomli_w

from fieldloom import aliases
from fieldloom.errors import (
    InputError,
    call_fit,
    call_train,
    is_command,
    name_argument,
    printable,
    quote,
    shorten,
    unknown,
)

FORMAT = 3
"""The newest recipe format that this program reads; a recipe may state its own as ``format``.

2: recipes of runs hold the path of data relative to the run; the run's files have fingerprints.
3: names and keys are those on the right of ``aliases``; older ones are read in every format.
"""

SECTIONS = {
    "format", "paper", "recipe", "seed", "source", "modality", "renderer", "loss", "field",
    "conditioner", "encoder", "objective", "prior", "train", "evaluate", "expected", "dead",
    "known", "kernels",
}  # fmt: skip
STAGES = ("field", "codec", "prior")

LARGEST = 1 << 20
"""Bytes of a recipe file, at most."""

DEEPEST = 32
"""Tables and lists within one another, at most."""

Recipe = dict[str, Any]

Parse = Callable[[Recipe, Iterable[str]], list[Recipe]]
"""From a recipe and overrides of it, as text, to layers that are merged over the recipe."""


def load(
    name: str,
    overrides: Iterable[str] = (),
    parse: Parse | None = None,
    change: Mapping[str, Any] | None = None,
) -> Recipe:
    """The recipe ``NAME``, ``NAME:VARIANT``, ``PATH.toml`` or ``PATH.toml:VARIANT``, resolved.

    overrides: ``"a.b=value"`` strings, applied last. parse: how their values are read: by the types
    of their keys (``assembly.parse_overrides``); None: as TOML, or as plain text where that is
    none. change: sections or keys that are merged over the recipe, below ``overrides``. Raises
    InputError for what cannot be found or read.
    """
    stem, colon, variant = _split_variant(name)
    recipe = read(stem)
    variants = recipe.pop("variants", {})
    layers: list[Mapping[str, Any]] = [recipe]
    if not isinstance(variants, Mapping):
        raise InputError(f"variants = {quote(variants)} is not right: it is a table of tables.")
    if colon:
        layers += variant_layers(variants, variant, f"variant of recipe '{shorten(stem)}'")
    recipe = resolve(*layers, change or {})
    if parse is None:
        recipe = resolve(recipe, *map(parse_override, overrides))
    else:
        recipe = resolve(recipe, *parse(recipe, overrides))
    recipe = add_settings(recipe)
    validate(recipe)
    return {"recipe": printable(name)} | recipe


DEPENDENT = {"fields": "field", "sources": "source"}
"""Table of settings that come with a part of a name -> the section that names the part."""


def add_settings(recipe: Mapping[str, Any]) -> Recipe:
    """The recipe over the sections that come with its field and its source, where it has some.

    They are those of ``fields.NAME`` and ``sources.NAME``, which are gone from the result, as is
    ``about``. Raises InputError where these are no tables of tables, hold another part's settings
    under this one's name, or have a name that no part has.
    """
    recipe = dict(recipe)
    recipe.pop("about", None)
    for tables, section in DEPENDENT.items():
        found = recipe.pop(tables, {})
        recipe = _add_settings(recipe, tables, section, found) if found else recipe
    return resolve(recipe)


def _add_settings(recipe: Recipe, tables: str, section: str, found: Any) -> Recipe:
    """The recipe over the settings of its part, one of the tables that were found."""
    part = recipe.get(section)
    name = part.get("name") if isinstance(part, Mapping) else part
    own = found.get(name, {}) if isinstance(found, Mapping) else None
    if not isinstance(own, Mapping):
        raise InputError(f"{tables} = {quote(found)} is not right: it is a table of tables.")
    from fieldloom.names import read_kinds  # late: it parses modules
    from fieldloom.registry import list_offered

    known = [*read_kinds()[section], *list_offered().get(section, {})]
    for other in found:
        if other not in known and ":" not in other:
            raise unknown(f"{section} of [{tables}]", other, known)
    if not own:
        return recipe
    settings = own.get(section, {})
    if not isinstance(settings, Mapping) or settings.get("name", name) != name:
        raise InputError(
            f"{tables}.{shorten(str(name))}.{section} = {quote(settings)} is not right: it is a "
            f"table of this {section}'s settings."
        )
    return resolve({section: {"name": name}}, own, recipe)


def _split_variant(name: str) -> tuple[str, str, str]:
    """The name or path of a recipe, a colon where a variant follows, and the variant."""
    if _is_file(Path(name)):
        return name, "", ""
    path, colon, variant = name.rpartition(".toml:")  # the path may hold colons, too
    return (f"{path}.toml", ":", variant) if colon else name.partition(":")


def variant_layers(variants: Mapping[str, Any], name: str, what: str) -> list[Mapping[str, Any]]:
    """A variant's table and those that it builds on, from the lowest up, without ``base``.

    A variant does not inherit the ``expected`` metrics of its base, nor what that is about. what:
    what the error calls the variant. Raises InputError for unknown names and for circles.
    """
    chain: list[str] = []
    layers: list[Mapping[str, Any]] = []
    while True:
        if name not in variants:
            raise unknown(what, name, variants)
        layer = variants[name]
        if not isinstance(layer, Mapping):
            raise InputError(
                f"variants.{shorten(name)} = {quote(layer)} is not right: it is a table."
            )
        chain.append(shorten(name))
        left_out = {"base", "about", *(["expected"] if layers else [])}
        layers.insert(0, {key: value for key, value in layer.items() if key not in left_out})
        if "base" not in layer:
            return layers
        name, what = layer["base"], f"base of variants.{chain[-1]}"
        if not isinstance(name, str):
            raise InputError(
                f"variants.{chain[-1]}.base = {quote(name)} is not right: it is a name."
            )
        if shorten(name) in chain:
            circle = " -> ".join([*chain, shorten(name)])
            raise InputError(f"variants build on one another in a circle: {circle}.")


def resolve(*layers: Mapping[str, Any], warn: bool = True) -> Recipe:
    """The layers of a recipe merged, the later over the earlier, by today's names and keys.

    warn: whether one warning says which names and keys are old. Raises InputError for a key that a
    layer gives in its old and in its new form, with different values.
    """
    recipe: Recipe = {}
    old: list[str] = []
    for layer in layers:
        change, found = aliases.rewrite(layer, recipe)
        recipe = merge(recipe, change)
        old += [clause for clause in found if clause not in old]
    if old and warn:
        more = f", and {len(old) - 1} more" if len(old) > 1 else ""
        warnings.warn(f"recipe: {old[0]}{more}; old ones are still read.", stacklevel=3)
    return recipe


def list_recipes() -> dict[str, list[str]]:
    """Bundled recipe -> its variants."""
    return {name: list(found.get("variants", {})) for name, found in read_bundled().items()}


def read_bundled() -> dict[str, Recipe]:
    """Bundled recipe -> its file as a dict, its variants still inside."""
    return {name: _parse(file) for name, file in _list_files().items()}


def _list_files() -> dict[str, Path]:
    folder = resources.files("fieldloom") / "recipes"
    files = sorted(Path(str(f)) for f in folder.iterdir() if f.name.endswith(".toml"))
    return {f.stem: f for f in files}


def read(stem: str) -> Recipe:
    """The file of a recipe as a dict, its variants still inside."""
    path = Path(stem)
    if path.suffix != ".toml":
        bundled = _list_files()
        if stem not in bundled:
            raise _no_recipe(stem, bundled)
        path = bundled[stem]
    if not _is_file(path):
        why = "is no file" if _is_file(path, Path.exists) else "does not exist"
        raise InputError(f"recipe file '{shorten(stem)}' {why}.")
    return _parse(path)


def _no_recipe(stem: str, bundled: Iterable[str]) -> InputError:
    """The error for what is no recipe: data, a run, or a name that is not right."""
    path = Path(stem)
    if stem and _is_file(path / "recipe.toml"):
        return InputError(
            f"'{shorten(stem)}' is a run, not a recipe: {name_argument('resume', True)} with "
            f"{name_argument('run', shorten(stem))} goes on with it."
        )
    if stem and _is_file(path, Path.exists):
        return InputError(
            f"'{shorten(stem)}' is no recipe, but data: {call_fit(stem)} fits one file, "
            f"{call_train('mnif:faces64', stem)} learns a folder of images."
        )
    return unknown("recipe", stem, bundled)


def _is_file(path: Path, ask: Callable[[Path], bool] = Path.is_file) -> bool:
    try:
        return ask(path)
    except (OSError, ValueError):  # too long for a file name
        return False


def _parse(path: Path) -> Recipe:
    what = f"recipe file '{shorten(str(path))}'"
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise InputError(f"{what} cannot be read: {error.strerror}.") from None
    if len(content) > LARGEST:
        raise InputError(f"{what} has more than {LARGEST >> 20} MiB: it is no recipe.")
    try:
        recipe = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:  # of TOML, of UTF-8, of too long numbers
        raise InputError(f"{what} is not valid TOML: {shorten(str(error))}.") from None
    check_values(recipe, what)
    return recipe


def read_file(path: Path) -> Recipe:
    """A checked recipe without variants, as runs have it. Raises InputError."""
    recipe = _parse(path)
    validate(recipe)
    return recipe


def check_values(recipe: Any, what: str) -> None:
    """Raise InputError for values that are nested too deeply, and for dates."""
    level: list[tuple[str, Any]] = [("", recipe)]
    for _ in range(DEEPEST + 1):
        inner: list[tuple[str, Any]] = []
        for key, value in level:
            if isinstance(value, date | time):
                where = f"{shorten(key)} = " if key else ""
                raise InputError(
                    f"{what}: {where}{value} is a date to TOML, and no key takes one: a text needs "
                    f'quotes, {where}"{value}".'
                )
            if isinstance(value, Mapping):
                inner += [(f"{key}.{name}".lstrip("."), one) for name, one in value.items()]
            elif isinstance(value, list | tuple):
                inner += [(key, one) for one in value]
        if not inner:
            return
        level = inner
    raise InputError(f"{what}: more than {DEEPEST} tables and lists within one another.")


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> Recipe:
    """``change`` over ``base``: a table with another ``name`` replaces, others merge key by key."""
    merged = dict(base)
    for key, value in change.items():
        old: Any = merged.get(key)
        if isinstance(value, Mapping) and isinstance(old, str) and "name" not in value:
            old = {"name": old}
        if isinstance(value, str) and isinstance(old, Mapping) and value == old.get("name"):
            continue
        renamed = isinstance(value, Mapping) and "name" in value and isinstance(old, Mapping)
        if renamed and value["name"] != old.get("name"):
            old = None
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        merged[key] = merge(old or {}, value) if both else value
    return merged


def split_override(text: str) -> tuple[list[str], str]:
    """The keys and the value of ``a.b=value``, the value as it stands.

    Spaces after ``=`` belong to the value, unless there are some before it: ``a = value``, as files
    have it. Raises InputError for a text of another form.
    """
    path, equals, raw = text.partition("=")
    keys = [key.strip() for key in path.split(".", DEEPEST)]
    plain = all(key and key.isprintable() for key in keys)
    if not equals or not plain or "." in keys[-1]:
        what = "--set" if is_command() else "override"
        raise InputError(
            f"{what} '{shorten(text)}' is not of the form section.key=value, as field.width=64."
        )
    return keys, raw.strip() if path.endswith(" ") else raw


def parse_override(text: str) -> Recipe:
    """``a.b=value`` as the nested dict that it sets; the value is TOML, or else plain text."""
    keys, raw = split_override(text)
    return nest(keys, parse_toml(raw, f"override '{shorten(text)}'"))


def nest(keys: Sequence[str], value: Any) -> Any:
    """``["a", "b"]`` and a value as ``{"a": {"b": value}}``."""
    for key in reversed(keys):
        value = {key: value}
    return value


def parse_toml(raw: str, what: str) -> Any:
    """A value of TOML; text that is none is plain text. Raises InputError for dates."""
    value: Any = raw.strip()
    try:
        read = tomllib.loads(f"value = {raw}")
        value = read["value"] if len(read) == 1 else value
    except tomllib.TOMLDecodeError:
        pass
    except (ValueError, RecursionError):  # more digits, or deeper, than Python reads
        raise InputError(
            f"{what} is not right: its value is too long, or nested too deeply."
        ) from None
    check_values(value, what)
    return value


def parse_new_path(change: Mapping[str, Any]) -> str | None:
    """The new path of a run's data, where a change of its recipe has that and nothing else."""
    source = change.get("source") if len(change) == 1 else None
    path = source.get("path") if isinstance(source, Mapping) and len(source) == 1 else None
    return path if isinstance(path, str) else None


def change_stage(recipe: Recipe, stage: str, settings: Mapping[str, Any]) -> Recipe:
    """The recipe with other settings of a stage of training; None removes one."""
    train = dict(recipe.get("train", {}))
    changed = {**train.get(stage, {}), **settings}
    train[stage] = {key: value for key, value in changed.items() if value is not None}
    return recipe | {"train": train}


class Continuation(NamedTuple):
    """What a run that is resumed takes of a change of its recipe.

    path: where its data lie now; None: where they lay. steps: stage -> its new number of steps.
    """

    path: str | None
    steps: dict[str, Any]


def parse_continuation(change: Mapping[str, Any]) -> Continuation | None:
    """The change as a run that is resumed takes it; None where it has anything else in it."""
    source, train = change.get("source", {}), change.get("train", {})
    path = parse_new_path({"source": source}) if "source" in change else None
    stages = isinstance(train, Mapping) and all(
        name in STAGES and isinstance(spec, Mapping) and set(spec) == {"steps"}
        for name, spec in train.items()
    )
    if set(change) - {"source", "train"} or not stages or ("source" in change and path is None):
        return None
    return Continuation(path, {name: spec["steps"] for name, spec in train.items()})


def validate(recipe: Recipe) -> None:
    """Check what no constructor checks: format, section names, stages. Raises InputError."""
    version = recipe.get("format", FORMAT)
    if not isinstance(version, int) or isinstance(version, bool):
        raise InputError(f"format = {quote(version)} is not right: it is a whole number.")
    if version > FORMAT:
        raise InputError(
            f"this recipe has format {quote(version)}, and this program reads up to {FORMAT}: "
            "update fieldloom."
        )
    for section in recipe:
        if section not in SECTIONS:
            raise unknown("section of the recipe", str(section), SECTIONS)
    _check_whole("seed", recipe.get("seed", 0))
    if recipe.get("kernels", "auto") not in ("auto", "plain"):
        raise unknown("choice of kernels", str(recipe["kernels"]), ("auto", "plain"))
    for section in ("train", "evaluate", "expected", "known"):
        if not isinstance(recipe.get(section, {}), Mapping):
            raise InputError(f"{section} = {quote(recipe[section])} is not right: it is a table.")
    for section in ("loss", "recipe", "paper"):
        value = recipe.get(section, "")
        if not isinstance(value, str) or not value.isprintable():
            raise InputError(f"{section} = {quote(value)} is not right: it is plain text.")
    for section in ("source", "modality", "renderer", "field"):
        if not isinstance(recipe.get(section, ""), str | Mapping):
            raise InputError(
                f"{section} = {quote(recipe[section])} is not right: it is a name, or a table with "
                "a name."
            )
    known = recipe.get("known", {})
    for key in ("signals", "classes"):
        _check_whole(f"known.{key}", known.get(key, 0))
    classes = known.get("names", [])
    if not isinstance(classes, list | tuple) or not all(isinstance(x, str) for x in classes):
        raise InputError(f"known.names = {quote(classes)} is not right: it is a list of names.")
    for stage, spec in recipe.get("train", {}).items():
        if stage not in STAGES:
            raise unknown("training stage", str(stage), STAGES)
        if not isinstance(spec, Mapping):
            raise InputError(f"train.{stage} = {quote(spec)} is not right: it is a table.")
        for key in ("batch", "micro", "points"):  # parts ask for these, too
            if spec.get(key) is not None:
                _check_whole(f"train.{stage}.{key}", spec[key], 1)


def _check_whole(where: str, value: Any, least: int = 0) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**63:
        raise InputError(
            f"{where} = {quote(value)} is not right: it is a whole number, from {least} to "
            "2^63 - 1."
        )


def dump(recipe: Recipe) -> str:
    """The recipe as TOML text."""
    return tomli_w.dumps(recipe)
