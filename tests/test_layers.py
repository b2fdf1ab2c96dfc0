"""The layers: a module imports only from a lower level, or from its own sub-package."""

import ast
from pathlib import Path

import fieldloom

LEVELS = [
    [
        "errors",
        "types",
        "registry",
        "recipe",
        "aliases",
        "progress",
        "process",
        "permit",
        "stopping",
        "memory",
    ],
    ["nn", "metrics", "geometry", "export"],
    ["fields", "renderers", "modalities", "settings"],
    ["conditioners"],
    ["family"],
    ["encoders", "codecs", "denoisers"],
    ["priors"],
    ["objectives"],
    ["decoding"],
    ["system"],
    ["assembly"],
    ["engine"],
    ["preparation"],
    ["inputs"],
    ["codes"],
    ["training"],
    ["evaluation"],
    ["report", "drawing"],
    ["api"],
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


def imports(path: Path) -> set[str]:
    """The parts of fieldloom that a file imports, those under TYPE_CHECKING too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
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


def test_the_test_sees_a_violation(tmp_path):
    file = tmp_path / "bad.py"
    file.write_text("from fieldloom.system import build\nimport fieldloom.fields.mlp\n")
    assert imports(file) == {"system", "fields"}


def test_only_these_touch_the_disk_or_name_a_device():
    """open, read_text and friends, and the names of devices, stay where the design puts them."""
    disk = {"cli", "recipe", "memory", "engine", "codes", "export", "modalities", "report"}
    for path in ROOT.rglob("*.py"):
        own = path.relative_to(ROOT).parts[0].removesuffix(".py")
        text = path.read_text()
        if own not in disk and path.name != "features.py":
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
