"""Old recipe names and keys are read, with one sentence."""

import copy
import warnings

import pytest

import fieldloom
from fieldloom import aliases, recipe
from fieldloom.errors import InputError
from fieldloom.modalities import Grid
from fieldloom.modalities.sources import SOURCES
from fieldloom.registry import build

# -- old recipes


def test_the_old_key_of_the_mask_channel_is_read():
    with pytest.warns(match="encoder.known.*is now.*encoder.mask_channel"):
        old = recipe.load("laginr:tiny", ["encoder.known=true"])
    assert old["encoder"]["mask_channel"] is True
    assert "known" not in old["encoder"]


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


RGB, GREY = Grid(size=16), Grid(size=16, channels=1)


def test_the_old_option_of_bundled_images_is_read():
    with pytest.warns(UserWarning, match="`source.pictures` is now `source.images`"):
        found = recipe.resolve({"source": {"name": "skimage", "pictures": ["cat"]}})
    source = build("source", found["source"], {"source": SOURCES}, modality=RGB)
    assert source.data.shape == (1, 3, 16, 16)
