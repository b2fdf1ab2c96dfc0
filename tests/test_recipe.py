"""Recipes merge as documented; specs are checked, and errors say what is right."""

import tomllib

import pytest
import torch

import fieldloom
from fieldloom import recipe
from fieldloom.errors import InputError
from fieldloom.registry import build
from fieldloom.assembly import TABLES


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


def test_every_bundled_recipe_builds_and_is_written_as_it_is():
    for name, variants in recipe.names().items():
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
    "newer": ({"format": 99}, "format 99, and this program reads up to 2: update fieldloom"),
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
