"""Recipes merge as documented; specs are checked, and errors say what is right."""

import copy
import tomllib
import warnings

import pytest
import torch

import fieldloom
from fieldloom import aliases, recipe
from fieldloom.assembly import TABLES
from fieldloom.errors import InputError
from fieldloom.registry import build


def test_merge_key_by_key_and_replace_by_name():
    base = {"field": {"name": "siren", "width": 64}, "renderer": "direct", "seed": 0}
    assert recipe.merge(base, {"field": {"width": 32}})["field"] == {"name": "siren", "width": 32}
    other = {"name": "fourier-mlp", "count": 3}
    assert recipe.merge(base, {"field": other})["field"] == other
    same = recipe.merge(base, {"field": {"name": "siren", "depth": 2}})["field"]
    assert same == {"name": "siren", "width": 64, "depth": 2}
    assert recipe.merge(base, {"renderer": {"near": 1}})["renderer"] == {
        "name": "direct",
        "near": 1,
    }
    assert recipe.merge(base, {"field": "siren"})["field"] == base["field"]
    assert recipe.merge(base, {"field": "fourier-mlp"})["field"] == "fourier-mlp"
    assert base["field"] == {"name": "siren", "width": 64}  # untouched


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.b=3", {"a": {"b": 3}}),
        ("a.b=0.5", {"a": {"b": 0.5}}),
        ("a=word", {"a": "word"}),
        ("a=/some/path with space", {"a": "/some/path with space"}),
        ("a=true", {"a": True}),
        ('a=["x", "y"]', {"a": ["x", "y"]}),
        ("a.b.c={ d = 1 }", {"a": {"b": {"c": {"d": 1}}}}),
    ],
)
def test_overrides(text, value):
    assert recipe.parse_override(text) == value


@pytest.mark.parametrize("text", ["a", "=3", "a..b=3"])
def test_overrides_that_are_none(text):
    with pytest.raises(InputError, match=r"section\.key=value"):
        recipe.parse_override(text)


@pytest.mark.slow
def test_every_bundled_recipe_builds_and_is_written_as_it_is():
    for name, variants in recipe.list_recipes().items():
        for variant in variants:
            loaded = recipe.load(f"{name}:{variant}")
            assert tomllib.loads(recipe.dump(loaded)) == loaded
            small = {k: v for k, v in loaded.items() if k != "prior"}
            small["known"] = {"signals": 12}  # what only its data know
            if not isinstance(loaded["renderer"], str):
                small["renderer"] = {"near": 1.0, "far": 2.0} | loaded["renderer"]
            with torch.device("meta"):
                fieldloom.build(small)


def test_a_file_with_a_variant(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(
        'modality = "image"\nfield = "siren"\n[variants.big]\nfield = { width = 512 }\n'
    )
    assert recipe.load(str(file))["field"] == "siren"
    assert recipe.load(f"{file}:big")["field"] == {"name": "siren", "width": 512}
    with pytest.raises(InputError, match=r"variant.*'bigg'; did you mean 'big'\?"):
        recipe.load(f"{file}:bigg")


WRONG = {
    "name": ({"field": "sirn"}, r"unknown field 'sirn'; did you mean 'siren'\?"),
    "argument": (
        {"field": {"widht": 3}},
        r"argument of field 'siren' 'widht'; did you mean 'width'\?",
    ),
    "type": ({"field": {"width": "wide"}}, r"field\.width = 'wide' is not right.*integer"),
    "bool is no int": ({"field": {"width": True}}, r"field\.width = True is not right.*integer"),
    "float is no int": ({"field": {"width": 3.0}}, r"field\.width = 3\.0 is not right.*integer"),
    "choice": ({"field": {"output": "sin"}}, r"field\.output = 'sin' is not right.*'sine'"),
    "nested": (
        {"prior": {"denoiser": {"name": "resmpl"}}},
        "unknown denoiser 'resmpl'; did you mean",
    ),
    "nested dataclass": (
        {"modality": {"coords": {"plac": "left"}}},
        "'plac'; did you mean 'place'",
    ),
    "section": ({"feild": {}}, "unknown section of the recipe 'feild'; did you mean 'field'"),
    "stage": ({"train": {"feild": {}}}, "unknown training stage 'feild'"),
    "loss": ({"loss": "msee"}, "unknown loss 'msee'; did you mean 'mse'"),
    "newer": ({"format": 99}, "format 99, and this program reads up to 3: update fieldloom"),
    "seed": ({"seed": -1}, "seed = -1 is not right"),
    "range": ({"field": {"depth": 1}}, "depth at least 2"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_recipes_get_one_clear_sentence(case):
    overrides, message = WRONG[case]
    with pytest.raises(InputError, match=message) as caught:
        fieldloom.build("mnif", "tiny", **overrides)
    assert "\n" not in str(caught.value)


def test_an_int_serves_as_a_float_and_a_list_as_a_tuple():
    spec = {"name": "siren", "depth": 2, "frequency": [3, 4.5]}
    field = build("field", spec, TABLES, coord_dim=2, value_dim=1)
    assert field.frequencies == (3.0, 4.5)


def test_known_values_cannot_be_set_and_missing_ones_are_named():
    with pytest.raises(InputError, match="'coord_dim'"):
        build("field", {"name": "siren", "coord_dim": 3}, TABLES, coord_dim=2, value_dim=1)
    with pytest.raises(InputError, match="source 'folder' needs the argument 'path'"):
        build("source", "folder", TABLES, modality=None)
    with pytest.raises(InputError, match="a table needs a name"):
        build("field", {"width": 3}, TABLES)


def test_overrides_of_build_are_sections():
    system = fieldloom.build("mnif", "tiny", field={"width": 5}, seed=3)
    assert system.family.field.slots["0.weight"].shape == (2, 5)
    assert system.recipe["seed"] == 3


def test_a_seed_builds_the_same_weights_and_leaves_the_generator_alone():
    import torch

    before = torch.get_rng_state()
    a, b = (fieldloom.build("mnif", "tiny") for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    for x, y in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(x, y)
    c = fieldloom.build("mnif", "tiny", seed=1)
    assert not torch.equal(next(a.parameters()), next(c.parameters()))


RENAMED = {
    "field[experts, fourier-mlp].count": "field.encoding.count",
    "field[experts, fourier-mlp].features": "field.encoding.name",
    "codec.levels": "codec.bins",
    "train.field.micro": "train.field.at_once",
    "known": "facts",
}
"""Keys that a future version might have renamed."""

EXPERTS = {"name": "experts", "encoding": {"name": "octaves", "count": 12}}


@pytest.fixture
def renamed(monkeypatch):
    monkeypatch.setattr(aliases, "KEYS", RENAMED)
    monkeypatch.setattr(aliases, "NAMES", {"codec": {"square": "grid"}, "encoder": {"old": "fit"}})


@pytest.mark.usefixtures("renamed")
@pytest.mark.parametrize(
    ("below", "layer", "expected"),
    [
        ({}, {"field": EXPERTS}, {"field": EXPERTS}),
        (
            {},
            {"field": {"name": "experts", "features": "octaves", "count": 12}},
            {"field": EXPERTS},
        ),
        ({}, {"field": {"name": "local", "count": 12}}, {"field": {"name": "local", "count": 12}}),
        ({"field": EXPERTS}, {"field": {"count": 3}}, {"field": {"encoding": {"count": 3}}}),
        ({"field": "local"}, {"field": {"count": 3}}, {"field": {"count": 3}}),
        (  # what stands beside a name in the old form stayed when the name changed
            {"field": EXPERTS},
            {"field": {"features": "log"}},
            {"field": {"encoding": {"name": "log", "count": 12}}},
        ),
        (
            {},
            {"prior": {"name": "tokens", "codec": {"name": "square", "levels": 4}}},
            {"prior": {"name": "tokens", "codec": {"name": "grid", "bins": 4}}},
        ),
        ({}, {"prior": {"codec": "square"}}, {"prior": {"codec": "grid"}}),
        ({}, {"encoder": {"start": "old"}}, {"encoder": {"start": "fit"}}),
        (
            {},
            {"encoder": {"unseen": [{"name": "old"}]}},
            {"encoder": {"unseen": [{"name": "fit"}]}},
        ),
        ({}, {"train": {"field": {"micro": 2}}}, {"train": {"field": {"at_once": 2}}}),
        ({}, {"train": {"field": {"count": 2}}}, {"train": {"field": {"count": 2}}}),
        ({}, {"known": {"signals": 2}}, {"facts": {"signals": 2}}),
        ({}, {"codec": {"levels": 2, "bins": 2}}, {"codec": {"bins": 2}}),
    ],
)
def test_old_names_and_keys_are_rewritten(below, layer, expected):
    before = copy.deepcopy(layer)
    found, clauses = aliases.rewrite(layer, below)
    assert found == expected
    assert bool(clauses) == (found != layer)
    assert layer == before
    assert aliases.rewrite(found, below) == (found, [])


@pytest.mark.usefixtures("renamed")
def test_layers_of_old_and_new_keys_meet():
    old = {"field": {"name": "experts", "features": "octaves", "count": 12}}
    new = {"field": EXPERTS}
    for below in (old, new):
        for change in ({"count": 3}, {"encoding": {"count": 3}}):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = recipe.resolve(below, {"field": change})
            assert found["field"]["encoding"] == {"name": "octaves", "count": 3}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = recipe.resolve(old, {"field": {"name": "siren", "width": 4}})
    assert other == {"field": {"name": "siren", "width": 4}}


@pytest.mark.usefixtures("renamed")
def test_one_sentence_says_what_is_old():
    with pytest.warns(UserWarning, match="recipe") as said:
        recipe.resolve({"field": {"name": "experts", "count": 1}}, {"known": {}, "train": {}})
    assert [str(x.message) for x in said] == [
        "recipe: `field.count` is now `field.encoding.count`, and 1 more; old ones are still read."
    ]


@pytest.mark.usefixtures("renamed")
def test_a_key_in_both_forms_with_different_values_is_refused():
    both = {"field": {"name": "experts", "count": 1, "encoding": {"count": 2}}}
    with pytest.raises(InputError, match=r"field\.count = 1 .*field\.encoding\.count = 2"):
        recipe.resolve(both)
    with pytest.raises(InputError, match=r"encoding = 3"):
        recipe.resolve({"field": {"name": "experts", "count": 1, "encoding": 3}})


def test_the_flat_weights_are_found_by_their_old_name(tmp_path):
    file = tmp_path / "old.toml"
    file.write_text('modality = "image"\nfield = "siren"\nconditioner = "direct"\n')
    with pytest.warns(UserWarning, match='`conditioner = "direct"` is now `"flat-weights"`'):
        found = recipe.load(str(file), ["conditioner.only=0.*"])
    assert found["conditioner"] == {"name": "flat-weights", "only": "0.*"}
    with pytest.warns(UserWarning, match="flat-weights"):
        system = fieldloom.build({"modality": "image", "field": "siren"}, conditioner="direct")
    assert system.recipe["conditioner"] == "flat-weights"


FLAT = {"name": "experts", "width": 4, "depth": 3, "tiles": [2, 1, 2], "count": 3, "low": 0.0}
NESTED = {
    "name": "experts",
    "width": 4,
    "depth": 3,
    "tiling": {"tiles": [2, 1, 2], "low": 0.0},
    "encoding": {"count": 3},
}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({}, {}),
        ({"blend": "linear"}, {"tiling": {"blend": "linear"}}),
        ({"arrangement": "gray"}, {"tiling": {"arrangement": "gray"}}),
        ({"grid": {"size": 3}}, {"encoding": {"grid": {"size": 3}}}),
        ({"head": "radiance"}, {"head": {"kind": "radiance"}}),
        ({"view_count": 2, "view_width": 8}, {"head": {"octaves": 2, "width": 8}}),
        (
            {"head": {"kind": "radiance"}, "view_width": 8},
            {"head": {"kind": "radiance", "width": 8}},
        ),
    ],
)
def test_flat_keys_of_fields_are_those_of_their_parts(old, new):
    with pytest.warns(UserWarning, match=r"`field\.\w+` is now `field\.\w+\.\w+`"):
        found = recipe.resolve({"field": FLAT}, {"field": old})
    assert found == recipe.resolve({"field": NESTED}, {"field": new})


def test_keys_of_other_fields_of_the_same_name_stay():
    layers = {"field": {"name": "local", "features": 8}}, {"field": {"features": 12}}
    assert recipe.resolve(*layers) == {"field": {"name": "local", "features": 12}}
    registered = {"field": {"name": "gabor", "count": 3, "head": "plain"}}
    assert recipe.resolve(registered) == registered


VARIANTS = """
modality = "image"
field = { name = "siren", width = 8, depth = 4 }
expected = { parameters = 9 }
[variants.small]
field.width = 4
expected = { psnr = 30.0, ssim = 0.9 }
[variants.deep]
base = "small"
field.depth = 6
[variants.deeper]
base = "deep"
field.depth = 7
conditioner = "shared"
expected.psnr = 31.0
[variants.none]
base = "smal"
[variants.number]
base = 3
[variants.one]
base = "two"
[variants.two]
base = "one"
[variants.own]
base = "own"
"""


@pytest.fixture
def variants(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(VARIANTS)
    return lambda name: recipe.load(f"{file}:{name}")


def test_a_variant_builds_on_another(variants):
    assert variants("small")["field"] == {"name": "siren", "width": 4, "depth": 4}
    assert variants("deep")["field"] == {"name": "siren", "width": 4, "depth": 6}
    deeper = variants("deeper")
    assert deeper["field"] == {"name": "siren", "width": 4, "depth": 7}
    assert deeper["conditioner"] == "shared"
    assert "base" not in deeper


def test_what_is_expected_of_a_variant_is_of_it_alone(variants):
    assert variants("small")["expected"] == {"parameters": 9, "psnr": 30.0, "ssim": 0.9}
    assert variants("deep")["expected"] == {"parameters": 9}
    assert variants("deeper")["expected"] == {"parameters": 9, "psnr": 31.0}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("none", "unknown base of variants.none 'smal'; did you mean 'small'"),
        ("number", "variants.number.base = 3 is not right: it is a name"),
        ("one", "in a circle: one -> two -> one"),
        ("own", "in a circle: own -> own"),
        ("deap", "unknown variant of recipe .*; did you mean .deep."),
    ],
)
def test_bases_that_are_none(variants, name, sentence):
    with pytest.raises(InputError, match=sentence):
        variants(name)
