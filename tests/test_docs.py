"""What the documents say is run, or looked up."""

import importlib
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

import fieldloom
from shared import shared

ROOT = Path(__file__).resolve().parents[1]
GLOSSARY = ROOT / "docs" / "glossary.md"
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", *DOCS, ROOT / "CHANGELOG.md"]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), re.S))


@pytest.mark.slow
def test_the_code_of_extending_runs(monkeypatch):
    monkeypatch.setattr("fieldloom.registry._registered", {})
    exec(compile(blocks(ROOT / "docs" / "extending.md"), "extending.md", "exec"), {})


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_the_python_of_a_page_runs(page, tiny_run, monkeypatch, tmp_path):
    import shutil

    (tmp_path / "outputs").mkdir()
    shutil.copytree(tiny_run, tmp_path / "outputs" / "demo")
    monkeypatch.chdir(tmp_path)
    code = blocks(ROOT / page)
    assert "fieldloom.load" in code
    exec(compile(code, page, "exec"), {})


def commands(page: Path) -> list[list[str]]:
    """Words of the commands of fieldloom: in blocks of ``sh`` and, of README, in its tables."""
    text = page.read_text()
    lines = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.S)).replace("\\\n", " ").splitlines()
    if page.name == "README.md":
        lines += re.findall(r"^\| .*`(fieldloom .+?)`", text, re.M)
    return [shlex.split(x, comments=True)[1:] for x in lines if x.startswith("fieldloom ")]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_of_the_documents_are_understood(page):
    """Verbs, options and their choices, recipes, and the keys that are set; nothing is run."""
    import typer

    from fieldloom import recipe
    from fieldloom.assembly import parse_overrides
    from fieldloom.cli import app

    group = typer.main.get_command(app)
    for words in commands(page):
        with typer.Context(group, info_name="fieldloom") as context:
            name, verb, rest = group.resolve_command(context, words)
        if words[0] == "analyse":
            name, verb, rest = verb.resolve_command(context, rest)
        given = verb.make_context(name, list(rest), parent=context).params
        if words[0] == "train" and given["recipe"] is not None:
            recipe.load(given["recipe"], given["set_"] or [], parse_overrides)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_excerpts_and_links_of_the_documents_exist(page):
    """`path` (`excerpt`): the file has that excerpt. Links and names of tests lead to files."""
    text = page.read_text()
    for path, excerpt in re.findall(r"`(src/[\w/.]+\.py)`\s\(`([^`]+)`\)", text):
        whole = re.sub(r"\n\s*", " ", excerpt)
        assert whole in (ROOT / path).read_text(), f"{path} does not say: {whole}"
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / link).exists(), f"{name_of(page)} links to {link}"
    for path in re.findall(r"`(tests/[^`]*)`", text):
        assert (ROOT / path).exists(), f"{name_of(page)} names {path}"


def test_the_glossary_has_every_name():
    """Names of parts, of metrics and of public functions, each in its own code span."""
    from fieldloom.assembly import TABLES
    from fieldloom.settings import METRICS

    told = set(re.findall(r"`([\w-]+)`", GLOSSARY.read_text()))
    names = {name for table in TABLES.values() for name in table}
    assert names | {*METRICS, *fieldloom.__all__} <= told


def test_the_glossary_is_alphabetical_and_its_terms_are_in_the_code():
    text = GLOSSARY.read_text()
    for section in re.split(r"^#+ ", text, flags=re.M):
        terms = [term.lower() for term in re.findall(r"^\* \**`?([\w-]+)", section, re.M)]
        assert terms == sorted(terms)
    for path in re.findall(r"`(fieldloom(?:\.\w+)+)`", text):
        assert resolve(path) is not None


def test_the_tree_has_every_module():
    tree = (ROOT / "docs" / "code.md").read_text().split("## The tree")[1]
    for path in sorted((ROOT / "src" / "fieldloom").iterdir()):
        if not path.name.startswith("_") and path.suffix in ("", ".py"):
            assert re.search(rf" {re.escape(path.name)}\b", tree), path.name


def resolve(path: str) -> Any:
    """What a dotted path names: a module, or what it holds."""
    parts = path.split(".")
    found: Any = importlib.import_module(parts[0])
    for i, part in enumerate(parts[1:], 2):
        if not hasattr(found, part):
            importlib.import_module(".".join(parts[:i]))
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_lines_of_documents_end_at_100_columns(page):
    """But of code, of tables, of images, and where a line is one word, as a long link."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    for line in text.splitlines():
        free = line.lstrip().startswith(("|", "![")) or " " not in line.strip()
        assert free or len(line) <= 100, line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("digits_as_tokens", ["--count", "40", "--fit-steps", "5", "--steps", "2"]),
        ("encode_and_enlarge", ["--size", "24", "--steps", "3"]),
        ("fit_one_image", ["--size", "24", "--steps", "20"]),
        ("fit_your_own", ["--steps", "3"]),
        ("mesh_to_field_and_back", ["--steps", "60", "--resolution", "24"]),
        ("mlp_siren_experts", ["--size", "24", "--steps", "5"]),
        ("mnif_by_hand", ["--steps", "5", "--prior-steps", "5"]),
    ],
)
def test_examples_run(cli, name, arguments, tmp_path):
    done = cli.script(ROOT / "examples" / f"{name}.py", *arguments, "--out", tmp_path / "out")
    assert "PSNR" in done.stdout or "volume" in done.stdout
    assert list((tmp_path / "out").glob("*.png"))


@pytest.mark.slow
def test_the_notebook_runs_and_holds_no_outputs(tmp_path, monkeypatch):
    """Its cells are plain Python, here with fewer steps on a smaller picture."""
    notebook = json.loads((ROOT / "examples" / "fit_your_own.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    code = "\n".join("".join(cell["source"]) for cell in cells)
    for long, short in (("STEPS = 300", "STEPS = 3"), ("SIZE = 256", "SIZE = 24")):
        assert long in code
        code = code.replace(long, short)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "fit_your_own.ipynb", "exec"), {})
    assert {path.name for path in tmp_path.iterdir()} == {"part.png", "runs", "sound.wav"}


def test_the_example_of_a_radiance_field_runs(cli, tmp_path):
    scene = shared("data", "nerf_lego400.npz")
    small = ["--size", "16", "--steps", "3", "--rays", "32", "--frames", "2"]
    path = ROOT / "examples" / "radiance_field.py"
    done = cli.script(path, scene, *small, "--out", tmp_path)
    assert "held out" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"held_out.png", "orbit.gif"}


@pytest.mark.parametrize("folder", ["docs", "docs/results", "docs/lab-notes"])
def test_the_list_of_documents_names_every_page(folder):
    listed = re.findall(r"\]\(([\w-]+\.md)\)", (ROOT / folder / "README.md").read_text())
    assert {page.name for page in (ROOT / folder).glob("*.md")} - {"README.md"} == set(listed)


def test_live_pages_are_small_and_ask_for_nothing():
    pages = sorted((ROOT / "docs" / "live").glob("*.html"))
    assert len(pages) >= 5
    for page in pages:
        text = page.read_text()
        assert page.stat().st_size < 150_000, page.name
        assert "default-src 'none'" in text
        assert not re.search(r"(src|href)=.https?:", text)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) < 150


def test_no_file_names_a_machine():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout
    for name in tracked.splitlines():
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".txt", ".json", ".cff", ""} and path.is_file():
            text = path.read_text(errors="ignore")
            for word in ("/" + "work/", "/" + "root/", "/opt/" + "pypi"):
                assert word not in text, f"{name} names {word}"
