"""What is read of the tables without importing them is what they hold."""

import inspect

import pytest

import fieldloom
from fieldloom import names, registry
from fieldloom.assembly import TABLES
from fieldloom.engine.stage import OPTIMIZERS
from fieldloom.metrics.cloud_features import CLOUD_DETECTORS
from fieldloom.metrics.detectors import DETECTORS
from fieldloom.metrics.losses import LOSSES
from fieldloom.registry import parameters_of
from fieldloom.settings import SCHEDULES

OTHERS = {
    "optimizers": OPTIMIZERS,
    "schedules": SCHEDULES,
    "losses": LOSSES,
    "detectors": DETECTORS,
    "cloud detectors": CLOUD_DETECTORS,
}


def texts(table):
    """Name -> text, or the docstring of the part itself."""
    return {
        name: entry if isinstance(entry, str) else inspect.cleandoc(of(entry).__doc__ or "")
        for name, entry in table.items()
    }


def of(entry):
    return getattr(entry, "func", entry)  # of a partial one


def test_what_is_read_of_parts_is_what_the_tables_hold():
    assert names.read_kinds() == {kind: texts(table) for kind, table in TABLES.items()}
    assert names.OTHERS.keys() == OTHERS.keys()
    for name, table in OTHERS.items():
        assert names.read_table(*names.OTHERS[name]) == texts(table)


def test_a_table_that_cannot_be_read_is_no_empty_one():
    with pytest.raises(TypeError, match="no literal"):
        names.read_table("fieldloom.names", "PACKAGE")
    with pytest.raises(KeyError):
        names.read_table("fieldloom.names", "NOWHERE")


# Keys.


def all_parts():
    """(kind, name, part) of every entry that has keys; a start is an encoder."""
    tables = {kind: table for kind, table in TABLES.items() if kind not in ("start", "unseen")}
    return [(k, n, part) for k, table in (tables | OTHERS).items() for n, part in table.items()]


@pytest.mark.parametrize(
    ("kind", "name", "part"), all_parts(), ids=lambda x: x if isinstance(x, str) else ""
)
def test_every_key_has_a_meaning(kind, name, part):
    """Those that are read are the constructor's, with its defaults; each is explained."""
    keys = names.read_keys(kind, name)
    assert [key.name for key in keys if not key.meaning] == []
    if isinstance(part, str):
        assert keys == []
        return
    provided = {"permit", "generator"} | names.PROVIDED.get(names.WITHIN.get(kind, kind), set())
    settable = {
        key: value for key, value in parameters_of(part).items()
        if key not in provided and "Tensor" not in str(value.annotation)
    }  # fmt: skip
    own = {key.name: key for key in keys if "." not in key.name}
    assert list(own) == list(settable)
    scope = vars(inspect.getmodule(of(part)))
    for key, parameter in settable.items():
        if own[key].default is not None:
            assert eval(own[key].default, dict(scope)) == parameter.default, key


def test_sections_and_nested_keys_are_explained():
    stage = {key.name: key for key in names.read_keys("train", "train")}
    assert stage["steps"].default == "1000"
    assert all(key.meaning for kind in names.SECTIONS for key in names.read_keys(kind, kind))
    experts = {key.name: key for key in names.read_keys("field", "experts")}
    assert experts["tiling.blend"].values == "'nearest' | 'linear'"
    assert experts["encoding.features"].default == "'octaves'"
    with pytest.raises(KeyError):
        names.read_keys("field", "nowhere")


def test_what_the_program_provides_is_no_key(monkeypatch):
    """What parts are really handed is listed, kind by kind."""
    handed, build = {}, registry.build

    def spy(kind, spec, tables, permit=registry.NOTHING, **provided):
        handed.setdefault(kind, set()).update(provided)
        return build(kind, spec, tables, permit, **provided)

    monkeypatch.setattr(registry, "build", spy)
    system = fieldloom.build("functa", "tiny")
    fieldloom.assembly.objective_of(system)
    for kind in ("field", "conditioner", "encoder", "prior", "objective"):
        assert handed[kind] - {"permit"} == names.PROVIDED[kind]


def test_no_meaning_ends_within_a_sentence():
    """Words before a colon are a key only where they begin a line or a sentence."""
    meanings = {key.name: key.meaning for key in names.read_keys("field", "experts")}
    assert meanings["context"].endswith("which conditioner ``substitute`` provides.")
    assert meanings["head"] == "the output head: the last layer, or a radiance head."


def test_limits_of_a_key_are_signs():
    values = {key.name: key.values for key in names.read_keys("source", "folder")}
    assert values["limit"] == "int >= 1 | None"


def test_every_bundled_recipe_says_what_it_is():
    for name, about in names.describe_recipes().items():
        assert about.text.endswith("."), name
        assert all(text == "" or text.endswith(".") for text in about.variants.values()), name
    assert "minutes on two cores" in names.describe_recipes()["mnif"].variants["digits"]
