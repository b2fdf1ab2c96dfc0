"""The layers: a module imports only from a lower level, or from its own sub-package."""

import ast
import importlib
import importlib.util
from functools import cache
from pathlib import Path

import pytest

import fieldloom

LEVELS = [
    [
        "errors",
        "constants",
        "types",
        "registry",
        "recipe",
        "aliases",
        "progress",
        "process",
        "threads",
        "permit",
        "stopping",
        "memory",
        "arguments",
        "interpolation",
        "atomic",
        "names",
        "unfinished",
        "portion",
    ],
    ["nn", "metrics", "geometry", "export", "executors"],
    ["fields", "renderers", "modalities", "settings"],
    ["conditioners", "sizing", "programs"],
    ["family"],
    ["encoders", "codecs", "denoisers"],
    ["priors"],
    ["objectives"],
    ["decoding"],
    ["system"],
    ["thumbnail"],
    ["pages"],
    ["assembly"],
    ["engine"],
    ["preparation", "budget", "previews"],
    ["inputs", "fitting"],
    ["codes"],
    ["feeding"],
    ["gathering"],
    ["sharing"],
    ["training"],
    ["launching"],
    ["evaluation"],
    ["planning"],
    ["report", "drawing"],
    ["bulk"],
    ["viewer"],
    ["api", "inspection", "demo"],
    ["cli"],
]
APART = {
    "fields",
    "conditioners",
    "renderers",
    "modalities",
    "codecs",
    "denoisers",
    "priors",
    "metrics",
}
ROOT = Path(fieldloom.__file__).parent
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    """Every node of a file's syntax, parsed once for all tests."""
    return [*ast.walk(ast.parse(path.read_text()))]


def imports(path: Path) -> set[str]:
    """The parts of fieldloom that a file imports, those under TYPE_CHECKING too."""
    found = set()
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    parts = {name.split(".")[1] for name in found if name.startswith("fieldloom.")}
    return {part for part in parts if (ROOT / part).is_dir() or (ROOT / f"{part}.py").is_file()}


def violations() -> list[str]:
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        own = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if own in ("__init__", "__main__"):
            continue
        for other in imports(path) - {own}:
            if LEVEL[own] <= LEVEL[other] and not (LEVEL[own] == LEVEL[other] == 0):
                wrong.append(f"{path.relative_to(ROOT)} imports {other}")
            if {own, other} <= APART and {own, other} != {"priors", "codecs"}:
                wrong.append(f"{path.relative_to(ROOT)}: {own} and {other} never meet")
    return wrong


def test_every_module_has_a_level():
    modules = {p.relative_to(ROOT).parts[0].removesuffix(".py") for p in ROOT.rglob("*.py")}
    assert modules - {"__init__", "__main__"} == set(LEVEL)


def test_layers():
    assert violations() == []


APART_FROM_MODULES = {"end_to_end", "fuzz", "vectors"}
"""Folders of tests that are about the whole."""


def test_tests_mirror_the_source_tree():
    """``tests/nn/test_tiles.py`` tests ``nn/tiles.py``, ``tests/cli/test_cli.py`` the package."""
    tests = Path(__file__).parent
    for path in tests.glob("*/**/test_*.py"):
        folder, name = path.parent.relative_to(tests), path.stem.removeprefix("test_")
        if folder.parts[0] in APART_FROM_MODULES:
            continue
        own = ROOT / folder
        module = (own / f"{name}.py").is_file() or (own / name / "__init__.py").is_file()
        assert module or (name == folder.name and own.is_dir()), path


def test_the_test_sees_a_violation(tmp_path):
    file = tmp_path / "bad.py"
    file.write_text("from fieldloom.system import build\nimport fieldloom.fields.mlp\n")
    assert imports(file) == {"system", "fields"}


def test_only_these_touch_the_disk_or_name_a_device():
    """open, read_text and friends, and the names of devices, stay where the design puts them."""
    disk = {
        "atomic",
        "names",
        "cli",
        "recipe",
        "memory",
        "engine",
        "codes",
        "executors",
        "export",
        "modalities",
        "pages",
        "programs",
        "report",
        "viewer",
    }
    for path in ROOT.rglob("*.py"):
        own = path.relative_to(ROOT).parts[0].removesuffix(".py")
        text = path.read_text()
        if own not in disk:
            for word in (".write_text(", ".read_text(", ".write_bytes(", " open("):
                assert word not in text, f"{path.name} touches the disk: {word}"
        if path.name != "device.py" and own != "cli":
            assert '"cuda"' not in text, f"{path.name} names a device"


def test_the_command_line_knows_no_kind_of_data():
    for path in (ROOT / "cli").glob("*.py"):
        text = path.read_text()
        for word in ("from fieldloom.modalities import", "modality.kind", "modality, "):
            assert word not in text, f"{path.name} knows modalities: {word}"


def test_no_drawers():
    names = {path.stem for path in ROOT.rglob("*.py")}
    assert not names & {"utils", "util", "helpers", "misc", "common"}


# -- data are values, recipes are parsed once

KINDS_OF_DATA = {"Grid", "Points", "Views", "Voxels"}
READERS = {
    "recipe.py", "aliases.py", "settings.py", "assembly.py", "preparation.py", "inspection.py",
    "engine/folder.py", "engine/run.py", "engine/provenance.py", "engine/inherit.py",
    "engine/glance.py", "planning/trial.py",
}  # fmt: skip
"""Modules that read the raw recipe; all others ask ``System.settings``."""


def name_of(node: ast.expr | None) -> str:
    """The last part of a dotted name: ``system.recipe`` -> ``recipe``."""
    return getattr(node, "id", getattr(node, "attr", ""))


def asks_for_a_modality(node: ast.AST) -> bool:
    """``isinstance(x, Voxels)``: what a kind of data does is a method of its modality."""
    return (
        isinstance(node, ast.Call)
        and name_of(node.func) in ("isinstance", "issubclass")
        and bool(KINDS_OF_DATA & {name_of(x) for x in ast.walk(node.args[1])})
    )


def takes_a_dimension_for_a_type(node: ast.AST) -> bool:
    """``coord_dim == 6``: rays are called ``types.RAY``, and a modality says what it is."""
    if not isinstance(node, ast.Compare) or not all(
        isinstance(one, ast.Eq | ast.NotEq | ast.In | ast.NotIn) for one in node.ops
    ):
        return False
    sides = [node.left, *node.comparators]
    numbers = (x for side in sides for x in ast.walk(side) if isinstance(x, ast.Constant))
    dimension = any(name_of(side).endswith("_dim") for side in sides)
    return dimension and any(type(x.value) is int and x.value > 1 for x in numbers)


def pairs_cameras_by_hand(node: ast.AST) -> bool:
    """``("c2w", "intrinsics")``: they are ``types.Cameras``."""
    if not isinstance(node, ast.Tuple | ast.List | ast.Set):
        return False
    return {getattr(x, "value", None) for x in node.elts} == {"c2w", "intrinsics"}


def passes_what_is_beside_data(node: ast.AST) -> bool:
    """``f(data, **meta)``: data carry it."""
    return isinstance(node, ast.keyword) and node.arg is None and name_of(node.value) == "meta"


def reads_a_recipe(node: ast.AST) -> bool:
    """``recipe["train"]``, ``system.recipe.get("seed")``: it was parsed into ``Settings``."""
    get = isinstance(node, ast.Attribute) and node.attr == "get"
    asked = node.value if get or isinstance(node, ast.Subscript) else None
    return name_of(asked) in ("recipe", "written")


RULES = {
    asks_for_a_modality: "isinstance(system.modality, (Grid, modalities.Views))",
    takes_a_dimension_for_a_type: "modality.coord_dim in (2, 6)",
    pairs_cameras_by_hand: 'names = {"c2w", "intrinsics"}',
    passes_what_is_beside_data: "system.encode(data, **meta)",
    reads_a_recipe: 'system.recipe.get("train")',
}
"""A rule -> code that breaks it."""

ALLOWED = {
    asks_for_a_modality: lambda path: path.startswith("modalities/"),
    reads_a_recipe: lambda path: path in READERS,
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rules_of_the_code(rule):
    allowed = ALLOWED.get(rule, lambda path: False)
    for file in sorted(ROOT.rglob("*.py")):
        path = file.relative_to(ROOT).as_posix()
        lines = [node.lineno for node in nodes_of(file) if rule(node)]
        assert not lines or allowed(path), f"{path}: lines {lines} break '{rule.__doc__}'"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_rules_see_a_violation(rule):
    assert any(rule(node) for node in ast.walk(ast.parse(RULES[rule])))
    fine = "isinstance(x, Volume); a.coord_dim == RAY; ('c2w', 'offsets'); f(**rest); spec.get('a')"
    assert not any(rule(node) for node in ast.walk(ast.parse(fine)))


def test_benchmarks_import_what_is_there():
    """They are run by hand, and would fail long after a name has moved."""
    root = Path(__file__).parents[1] / "benchmarks"
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or "fieldloom" not in (node.module or ""):
                continue
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                there = hasattr(module, alias.name)
                there = there or importlib.util.find_spec(f"{node.module}.{alias.name}")
                assert there, f"{path.name}: {node.module} has no {alias.name}"
