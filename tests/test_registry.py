"""Names of recipes: the tables', registered ones', and code of others only where it is trusted."""

import re
import shutil
import sys
import tomllib
from importlib.metadata import EntryPoint

import pytest
import tomli_w
import torch

import fieldloom
from fieldloom import recipe, registry
from fieldloom.assembly import TABLES
from fieldloom.engine.provenance import provenance
from fieldloom.engine.tensors import read_tensors, write_tensors
from fieldloom.errors import InputError
from fieldloom.fields import Fourier, FourierMlp, Siren
from fieldloom.permit import Permit
from fieldloom.registry import build, register

KNOWN = dict(coord_dim=2, value_dim=1, direction_dim=0)


class Own(Siren):
    """A part of the running program."""


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})


@pytest.fixture
def my_fields(tmp_path, monkeypatch):
    """A module in the current folder that says when it is imported."""
    text = "from fieldloom.fields import Siren\nopen('imported', 'w').close()\n"
    text += "class Gabor(Siren): pass\nclass Other: pass\ndef function(**rest): pass\n"
    (tmp_path / "my_fields.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "imported"
    sys.modules.pop("my_fields", None)


def test_a_module_that_is_not_trusted_is_not_imported(my_fields):
    with pytest.raises(InputError, match='trust="my_fields" allows it'):
        build("field", "my_fields:Gabor", TABLES, **KNOWN)
    with pytest.raises(InputError, match="not imported"):
        build("field", "my_fields:Gabor", TABLES, Permit(("my_field", "my_fields.x")), **KNOWN)
    assert not my_fields.exists()
    field = build("field", "my_fields:Gabor", TABLES, Permit(("my_fields",)), **KNOWN)
    assert type(field).__name__ == "Gabor"
    assert my_fields.exists()


def test_what_is_trusted_must_be_of_the_right_kind_before_it_is_called(my_fields):
    trusted = Permit(("my_fields", "os"))
    for name, said in {
        "my_fields:function": "is a function: it must be a class",
        "my_fields:Other": "has no method '__call__'",
        "my_fields:nothing": "cannot be imported",
        "my_fields:Gabor.sub": "cannot be imported",
    }.items():
        with pytest.raises(InputError, match=said):
            build("field", name, TABLES, trusted, **KNOWN)
    with pytest.raises(InputError, match="is a builtin_function_or_method: it must be a class"):
        build("renderer", {"name": "os:system", "command": "touch called"}, TABLES, trusted)
    with pytest.raises(InputError, match="it must be a Conditioner"):
        build("conditioner", "my_fields:Gabor", TABLES, trusted, slots={})
    with pytest.raises(InputError, match="has no argument 'modality'"):
        build("source", "my_fields:function", TABLES, trusted)


@pytest.mark.parametrize("kind", TABLES)
def test_every_kind_refuses_code_of_others(kind):
    with pytest.raises(InputError, match="which is not imported"):
        build(kind, {"name": "os:system", "command": "touch called"}, TABLES)


def test_a_recipe_cannot_give_itself_an_allowance():
    with pytest.raises(InputError, match="unknown argument of source 'huggingface' 'permit'"):
        build("source", {"name": "huggingface", "path": "x", "permit": {"network": True}}, TABLES,
              modality=None)  # fmt: skip
    with pytest.raises(InputError, match="unknown section of the recipe 'trust'"):
        recipe.validate({"trust": ["os"]})


def test_registered_parts_are_names():
    register("field", "own", Own)
    register("field", "own", Own)  # again is no fault
    assert type(build("field", "own", TABLES, **KNOWN)) is Own
    system = fieldloom.build("mnif", "tiny", field={"name": "own"})
    assert type(system.family.field) is Own
    with pytest.raises(InputError, match="there is a field 'own' already"):
        register("field", "own", Siren)
    with pytest.raises(InputError, match="is no name"):
        register("field", "os:system", Own)
    with pytest.raises(InputError, match="did you mean 'own'"):
        build("field", "ownn", TABLES, **KNOWN)
    register("conditioner", "wrong", Own)
    with pytest.raises(InputError, match="it must be a Conditioner"):
        build("conditioner", "wrong", TABLES, slots={})


def test_wrong_registrations():
    for given, said in {
        ("fields", "own", Own): "unknown kind of part 'fields'; did you mean 'field'?",
        ("field", "", Own): "register: '' is no name",
    }.items():
        with pytest.raises(InputError, match=re.escape(said)):
            fieldloom.register(*given)
    register("field", "siren", Own)  # beneath the public one, which refuses it
    with pytest.raises(InputError, match="was registered, and is the package's own"):
        build("field", "siren", TABLES, **KNOWN)


def test_a_registered_encoder_may_be_a_start():
    from fieldloom.encoders import Nothing

    class Mine(Nothing):
        pass

    register("encoder", "mine", Mine)
    fit = build("encoder", {"name": "fit", "start": "mine"}, TABLES)
    assert type(fit.start) is Mine


def test_parts_of_installed_packages(cli, monkeypatch):
    entry = EntryPoint("field.own", f"{__name__}:Own", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry])
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    assert type(build("field", "own", TABLES, **KNOWN)).__name__ == "Own"
    with pytest.raises(InputError, match="unknown conditioner 'own'"):
        build("conditioner", "own", TABLES, slots={})
    listed = cli("list", "fields").stdout
    assert f"  own: of an installed package, {__name__}:Own\n" in listed
    assert "  siren: " in listed


SECTIONS = {
    "renderer": {"name": "os:system", "command": "touch called"},
    "source": {"name": "runpy:run_path", "path_name": "inside.py"},
    "field": {"name": "runpy:run_path", "path_name": "inside.py"},
    "prior": {"name": "diffusion", "denoiser": {"name": "os:system", "command": "touch called"}},
    "objective": {"name": "os:system", "command": "touch called"},
}


@pytest.mark.slow
@pytest.mark.parametrize("section", SECTIONS)
def test_nothing_of_a_run_is_run(cli, section, tiny_run, tmp_path, monkeypatch):
    """Whatever section names a command, every way to look at the run refuses it, and runs none."""
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder)
    monkeypatch.chdir(folder)
    (folder / "inside.py").write_text("open('called', 'w').close()\n")
    held = tomllib.loads((folder / "recipe.toml").read_text())
    held |= {section: SECTIONS[section], "evaluate": {"samples": 8}}
    (folder / "recipe.toml").write_text(tomli_w.dumps(held))
    for name in ("model.safetensors", "codes.safetensors"):  # as one who means it would
        tensors, numbers, made_by = read_tensors(folder / name)
        write_tensors(folder / name, tensors, numbers, made_by | provenance(held))
    verbs = ["info .", "sample . --count 4", "evaluate .", "encode .", "render .",
             "interpolate . --steps 2", "reconstruct . --count 2", "ceiling . --count 2",
             "analyse judge . --count 2", "analyse influence . --count 1",
             "decode . codes.safetensors"]  # fmt: skip
    for verb in verbs:
        done = cli(*verb.split(), status=None)
        # not every verb asks for these, and info builds nothing
        late = section in ("source", "objective") or verb == "info ."
        assert done.returncode == 2 or (late and done.returncode == 0), (verb, done.stderr)
        assert done.returncode == 0 or "is not imported" in done.stderr, (verb, done.stderr)
    done = cli("train", "mnif:tiny", "--run", ".", "--resume", status=2)
    assert "is not imported" in done.stderr
    if section not in ("source", "objective"):
        with pytest.raises(InputError, match="not imported"):
            fieldloom.load(folder)
    assert not (folder / "called").exists()


@pytest.mark.slow
def test_the_command_line_finds_a_trusted_module_in_the_current_folder(cli, my_fields, tmp_path):
    arguments = ["train", "mnif:tiny", "--set", "field.name=my_fields:Gabor", "--run", "mine",
                 "--stage", "field", "--set", "train.field.steps=1",
                 "--set", "source.split=[16, 4]"]  # fmt: skip
    refused = cli(*arguments, cwd=tmp_path, status=2)
    assert refused.stderr.splitlines()[-1].startswith(
        "error: field 'my_fields:Gabor' is code of another module"
    )
    assert not (tmp_path / "mine").exists()
    cli.program(*arguments, "--trust", "my_fields", cwd=tmp_path)
    assert type(fieldloom.load(tmp_path / "mine", trust=["my_fields"]).family.field).__name__ == (
        "Gabor"
    )
    with pytest.raises(InputError, match="not imported"):
        fieldloom.load(tmp_path / "mine")


@pytest.mark.slow
def test_trust_in_a_module_is_none_in_what_lies_beside_it(cli, my_fields, tmp_path):
    """A folder that says it is an installed package, in the current folder."""
    told = tmp_path / "evil-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    (told / "entry_points.txt").write_text("[fieldloom.parts]\nfield.evil = evil:Gabor\n")
    (tmp_path / "evil.py").write_text("open('called', 'w').close()\nGabor = 3\n")
    asked = ["train", "mnif:tiny", "--set", "field.name=evil", "--trust", "my_fields"]
    refused = cli.program(*asked, cwd=tmp_path, status=2)
    assert "unknown field 'evil'" in refused.stderr
    assert not (tmp_path / "called").exists()


def test_a_module_of_the_current_folder_shadows_nothing(cli, tmp_path):
    """``python -m fieldloom`` in a folder that holds a ``json.py``."""
    (tmp_path / "json.py").write_text("open('called', 'w').close()\n")
    cli.program("list", "recipes", cwd=tmp_path)
    assert not (tmp_path / "called").exists()


def test_a_part_without_a_name_is_filled_up_from_its_default():
    """``encoding`` of a perceptron is log, 64; what a recipe leaves out stays so."""
    spec = {"name": "fourier-mlp", "width": 4, "depth": 3, "encoding": {"count": 5, "pi": False}}
    found = build("field", spec, TABLES, **KNOWN)
    same = FourierMlp(2, 1, width=4, depth=3, encoding=Fourier("log", 5, pi=False))
    assert torch.equal(found.encoding.frequencies, same.encoding.frequencies)
    assert found.encoding.features == "log"


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"encoding": "log"}, "field.encoding = 'log' is not right: it is a table"),
        ({"encoding": {"count": 1.5}}, "field.encoding.count = 1.5 is not right"),
        ({"encoding": {"counts": 3}}, "unknown argument of field.encoding 'counts'"),
        ({"encoding": {"grid": {"channels": 2}}}, "field.encoding.grid needs the argument 'size'"),
        ({"tiling": {"arrangement": "grey"}}, "unknown arrangement 'grey'; did you mean 'gray'"),
        ({"head": {"kind": "round"}}, "field.head.kind = 'round' is not right"),
    ],
)
def test_messages_about_a_part_without_a_name_say_where_it_stands(own, message):
    with pytest.raises(InputError, match=re.escape(message)):
        build("field", {"name": "experts", "width": 4, "depth": 3} | own, TABLES, **KNOWN)


def test_an_argument_may_be_called_like_a_kind_of_part():
    """Frames of a video have a start, and the start of ``fit`` is an encoder."""
    frames = {"name": "video", "path": "none.mp4", "frames": {"start": "late"}}
    with pytest.raises(InputError, match="source.frames.start = 'late' is not right: .*integer"):
        build("source", frames, TABLES, modality=None)
    assert build("encoder", {"name": "fit", "start": "nothing"}, TABLES).steps == 200
