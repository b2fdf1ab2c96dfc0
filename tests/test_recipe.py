"""Recipes merge as documented; what is wrong with one is said in one sentence."""

import tomllib

import pytest
import torch

import fieldloom
from fieldloom import recipe
from fieldloom.assembly import TABLES, parse_overrides
from fieldloom.errors import InputError
from fieldloom.registry import build

# -- overrides and files


OVERRIDES = {
    "a=" + "[" * 100_000: "too long, or nested too deeply",
    "a=" + "[" * 200 + "]" * 200: "more than 32 tables and lists",
    "a=" + "{a=" * 40 + "1" + "}" * 40: "more than 32 tables and lists",
    "a=" + "9" * 5000: "too long, or nested too deeply",
    "a=1979-05-27": "1979-05-27 is a date",
    "a=[07:32:00]": "07:32:00 is a date",
    ":": "not of the form",
    "=": "not of the form",
    "": "not of the form",
    ".": "not of the form",
    "a.=" + "x" * 10**6: "not of the form",
    "a\x1b[31m.b=3": "not of the form",
    ".".join("a" * 10_000) + "=1": "not of the form",
}


@pytest.mark.parametrize("case", range(len(OVERRIDES)))
def test_hostile_overrides(case):
    override = list(OVERRIDES)[case]
    with pytest.raises(InputError, match=OVERRIDES[override]) as caught:
        recipe.load("mnif:tiny", [override])
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


def test_an_override_is_one_value():
    assert recipe.parse_override("a=1\nb = 2") == {"a": "1\nb = 2"}  # text, and nothing more
    assert recipe.parse_override("a=" + "x" * 1000) == {"a": "x" * 1000}
    deep = ".".join("a" * 20)
    assert recipe.parse_override(f"{deep}=1")["a"]["a"]["a"]


def read(*overrides: str) -> dict:
    """``mnif:faces64`` with overrides, read as the command line reads them."""
    return recipe.load("mnif:faces64", overrides, parse_overrides)


AS_THEY_STAND = (
    "2024-05-01", "20240501", "1e5", "true", "07:30:00", "[a]", "[1]", "{x}", "{x=1}", "a=b",
    "a #b", "x y", " a", "a ", "inf", "nan", "0x10", "1_000", "'it''s'", "none", "", "a\nb",
    "['a', 2024-05-01]", "[" * 1000, "9" * 5000, '"a" or "b"', "\x1b[31m", "caf\u00e9",
)  # fmt: skip


@pytest.mark.parametrize("key", ["path", "name", "prefix"])
def test_a_text_key_takes_text_as_it_stands(key):
    named = [] if key == "name" else ["source.name=packed"]
    for text in AS_THEY_STAND:
        assert read(*named, f"source.{key}={text}")["source"][key] == text
    for text, value in {'"x y"': "x y", "'a'": "a", '" a "': " a ", r'"\u00e9\t"': "é\t"}.items():
        assert read(f"source.path={text}")["source"]["path"] == value
    assert read("source.path = /x y ")["source"]["path"] == "/x y"  # as files have it


def test_the_part_that_an_override_names_later_says_the_types():
    found = read("source.label=1", "source.key=2024-05-01", "source.name=array")["source"]
    assert found == {"name": "array", "label": "1", "key": "2024-05-01"}
    found = read("source.limit=5", "source.shuffle=true")["source"]
    assert (found["limit"], found["shuffle"]) == (5, True)


TYPED = {
    "seed=3": 3,
    "loss=2024": "2024",
    "train.field.steps=7": 7,
    "train.field.every=0.5": 0.5,
    "train.field.optimizer.rate=1e-3": 1e-3,
    "train.field.optimizer.name=1": "1",
    "evaluate.metrics=psnr": ["psnr"],
    "evaluate.metrics=['psnr', 'ssim']": ["psnr", "ssim"],
    "evaluate.detector=2024-05-01": "2024-05-01",
    "modality.size=[16, 0x10]": [16, 16],
    "modality.coords.place=corner": "corner",
    "modality.coords.low=-1": -1,
    "renderer={name = 'volume', near = 1, far = 2, last = 'step'}": None,
    "prior.denoiser.width=32": 32,
    "expected.psnr=30.5": 30.5,
    "field.widht=2024-05-01": "2024-05-01",  # build names the argument that there is not
}


@pytest.mark.parametrize("override", TYPED)
def test_other_keys_take_what_their_type_says(override):
    found = read(override)
    for key in override.partition("=")[0].split("."):
        found = found[key]
    expected = TYPED[override]
    if expected is None:
        expected = {"name": "volume", "near": 1, "far": 2, "last": "step"}
    assert found == expected
    assert type(found) is type(expected)


def test_a_key_that_takes_a_number_or_a_word():
    volume = ["renderer={name='volume', near=1, far=2}"]
    for text, value in {"step": "step", "1e5": 1e5, '"step"': "step"}.items():
        assert read(*volume, f"renderer.last={text}")["renderer"]["last"] == value


def test_an_old_key_in_an_override_has_the_type_of_the_new_one():
    found = read("source={name='skimage'}", "source.pictures=['cat']")["source"]
    assert found["images"] == ["cat"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("field.widht=2024-05-01", "'widht'; did you mean 'width'"),
        ("soruce.path=2024-05-01", "unknown section of the recipe 'soruce'; did you mean 'source'"),
        ("field.width=2024-05-01", "field.width = '2024-05-01' is not right: .*integer"),
        ("modality.coords=3", "modality.coords = 3 is not right: it is a table"),
        ("modality.coords=x", "modality.coords = 'x' is not right: it is a table"),
        ("field=3", "field = 3 is not right: it is a name"),
        ("field.name=3", "unknown field '3'"),
        ("field.width=" + "9" * 5000, "field.width = '999.* is not right"),
        ("evaluate.metrics=[psnr]", r"unknown metric '\[psnr\]'"),
        ("evaluate.metrics=FID", "unknown metric 'FID': 'frechet' with .*'inception' gives it"),
        ("evaluate.metrics=recall", "unknown metric 'recall': 'precision-recall' of images"),
    ],
)
def test_overrides_of_the_wrong_type(override, message):
    with pytest.raises(InputError, match=message) as caught:
        fieldloom.build(read(override))
    assert len(str(caught.value)) < 500


def test_a_date_in_a_file_names_its_key_and_the_quotes(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("source.name = 'folder'\nsource.path = 2024-05-01\n")
    right = 'needs quotes, source.path = "2024-05-01"'
    with pytest.raises(InputError, match=f"source.path = 2024-05-01 is a date.*{right}"):
        recipe.load(str(file))
    file.write_text("source.path = '2024-05-01'\n")
    assert recipe.load(str(file))["source"]["path"] == "2024-05-01"


@pytest.mark.parametrize("name", ["2024-05-01.toml", "07:30:00.toml", "a\nb.toml", " .toml", "~"])
def test_recipe_files_of_any_name(name, tmp_path):
    file = tmp_path / name
    file = file if name.endswith(".toml") else tmp_path / name / "a.toml"
    file.parent.mkdir(exist_ok=True)
    file.write_text("seed = 1\n[variants.big]\nseed = 2\n")
    assert recipe.load(str(file))["seed"] == 1
    assert recipe.load(f"{file}:big")["seed"] == 2
    assert recipe.load(str(file))["recipe"].isprintable()


FILES = {
    "binary": (b"\x00\xff\xfe", "not valid TOML"),
    "nul": (b"a = '\x00'", "not valid TOML"),
    "deep": (b"a = " + b"[" * 100_000, "not valid TOML"),
    "dotted": (b"modality = 1\n" + b".".join([b"a"] * 500) + b" = 1", "more than 32 tables"),
    "digits": (b"seed = " + b"9" * 5000, "not valid TOML"),
    "date": (b"seed = 1979-05-27", "is a date"),
    "large": (b"#" * (1 << 20) + b"\n#", "more than 1 MiB: it is no recipe"),
    "variants": (b"variants = 3", "variants = 3 is not right: it is a table of tables"),
    "variant": (b"[variants]\nx = 3", r"variants\.x = 3 is not right: it is a table"),
    "a list of stages": (b"train = [1]", r"train = \[1\] is not right: it is a table"),
    "format": (b"format = " + b"9" * 4000, "has format 99.* and this program reads"),
    "seed": (b"seed = -1", "seed = -1 is not right"),
    "markup": (b'recipe = "[/nope]\\u0007"', "recipe = .* it is plain text"),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_are_no_recipes(case, tmp_path):
    content, message = FILES[case]
    file = tmp_path / "mine.toml"
    file.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        recipe.validate(recipe.load(str(file) + (":x" if case.startswith("variant") else "")))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_names_that_are_no_recipes(tmp_path):
    (tmp_path / "folder.toml").mkdir()
    for name, message in {
        str(tmp_path / "folder.toml"): "is no file",
        str(tmp_path / "none.toml"): "does not exist",
        "x" * 5000: "unknown recipe",
        "x" * 5000 + ".toml": "does not exist",
        "a\0b": "unknown recipe",
        "../recipes/mnif": "unknown recipe",
        "mnif:": "unknown variant of recipe 'mnif' ''",
        "[/nope]": "unknown recipe",
        "": "unknown recipe",
    }.items():
        with pytest.raises(InputError, match=message) as caught:
            recipe.load(name)
        assert str(caught.value).isprintable()


def test_recipes_of_python_that_are_none():
    deep: dict = {}
    for _ in range(5000):
        deep = {"a": deep}
    with pytest.raises(InputError, match="more than 32"):
        fieldloom.build({"field": deep})
    for wrong in ({"x": 2}, {"field": {1: 2}, "modality": "image"}, {"field": "siren"}):
        with pytest.raises(InputError):
            fieldloom.build(wrong)
    with pytest.raises(InputError, match="more than 32"):
        fieldloom.build("mnif", "tiny", field=deep)
    with pytest.raises(InputError, match="'my_fields:Odd' cannot be imported"):
        fieldloom.build("mnif", "tiny", field={"name": "my_fields:Odd"}, trust="my_fields")


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


# -- settings that come with a field

OWN = """
field = "siren"
train.field = { steps = 7 }

[fields.siren]
field = { name = "siren", width = 16 }
train.field = { steps = 1, optimizer.rate = 1e-3 }

[fields.grid-mlp]
field = { name = "grid-mlp", width = 8 }
train.field = { groups.tables = { name = "row-adam", rate = 1e-2 } }

[variants.wide]
fields.grid-mlp.field.width = 64
"""


@pytest.fixture
def with_fields(tmp_path) -> str:
    path = tmp_path / "own.toml"
    path.write_text(OWN)
    return str(path)


def test_a_field_comes_with_its_settings_beneath_the_recipe(with_fields):
    plain = recipe.load(with_fields)
    assert plain["field"] == {"name": "siren", "width": 16}
    assert plain["train"]["field"] == {"steps": 7, "optimizer": {"rate": 1e-3}}
    assert "fields" not in plain
    other = recipe.load(f"{with_fields}:wide", ["field=grid-mlp", "field.depth=4"])
    assert other["field"] == {"name": "grid-mlp", "width": 64, "depth": 4}
    assert other["train"]["field"].keys() == {"steps", "groups"}
    named = recipe.load(with_fields, ["field={name='grid-mlp', width=4}"])
    assert named["field"] == {"name": "grid-mlp", "width": 4}
    python = fieldloom.assembly.read_recipe(with_fields, "wide", {"field": "grid-mlp"})
    assert python["field"] == {"name": "grid-mlp", "width": 64}
    assert recipe.load(with_fields, ["field=local"])["field"] == "local"  # which has none here


def test_fields_are_tables_of_sections(tmp_path):
    path = tmp_path / "own.toml"
    for wrong in ("fields = 3", "[fields]\nsiren = 3"):
        path.write_text(f"{wrong}\n" if "[" in wrong else f"field = 'siren'\n{wrong}\n")
        with pytest.raises(InputError, match="it is a table of tables"):
            recipe.load(str(path), ["field=siren"])
    for wrong in ("3", "'siren'", "{ name = 'local' }"):
        path.write_text(f"field = 'siren'\n[fields.siren]\nfield = {wrong}\n")
        with pytest.raises(InputError, match=r"fields.siren.field = .*: it is a table"):
            recipe.load(str(path))


def test_settings_of_a_field_need_not_repeat_its_name(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text("field = 'siren'\n[fields.siren]\nfield = { width = 19 }\n")
    assert recipe.load(str(path))["field"] == {"name": "siren", "width": 19}
    assert recipe.load(str(path), ["field.depth=3"])["field"]["width"] == 19


def test_settings_of_a_source_are_those_of_the_reader_that_is_taken():
    """Every eighth view is held out, whichever reader takes the scene."""
    for reader in ("transforms", "colmap", "nsvf", "srn", "multiview"):
        source = recipe.load("fit:scene", [f"source.name={reader}"])["source"]
        assert source == {"name": reader, "hold_out": 8}
    given = recipe.load("fit:scene", ["source.name=colmap", "source.hold_out=4"])["source"]
    assert given["hold_out"] == 4


def test_settings_of_a_part_that_there_is_not_are_refused(tmp_path):
    for line, sentence in {
        "[fields.sirn]": r"unknown field of \[fields\] 'sirn'; did you mean 'siren'\?",
        "[sources.clmap]": r"unknown source of \[sources\] 'clmap'; did you mean 'colmap'\?",
    }.items():
        (tmp_path / "a.toml").write_text(f"field = 'siren'\nmodality = 'image'\n{line}\nseed = 1\n")
        with pytest.raises(InputError, match=sentence):
            recipe.load(str(tmp_path / "a.toml"))


def test_what_a_recipe_is_about_is_not_kept():
    assert "about" not in recipe.load("mnif:digits")
    assert "about" not in recipe.load("mnif:digits-experts")


def test_data_and_runs_are_no_recipes(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.toml").write_text("seed = 0\n")
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match="is a run, not a recipe: resume=True"):
        recipe.load(str(tmp_path / "run"))
    with pytest.raises(InputError, match=r"is no recipe, but data: fieldloom.fit\('.*a.png'\)"):
        recipe.load(str(tmp_path / "a.png"))
