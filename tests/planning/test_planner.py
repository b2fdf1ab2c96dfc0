"""A plan from end to end."""

import json
import math
import tempfile

import pytest
import torch
from PIL import Image

import fieldloom
from fieldloom import recipe
from fieldloom.errors import InputError
from fieldloom.planning import planner
from fieldloom.planning.trial import generate


@pytest.fixture(scope="module")
def made():
    return fieldloom.plan(
        "mnif:tiny", signals=1e6, workers=64, processes=32, price=0.5, seconds=0.5
    )


def test_a_plan_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    state = torch.random.get_rng_state()
    fieldloom.plan("mnif:tiny", signals=100, seconds=0.5)
    assert not [x.name for x in tmp_path.iterdir() if not x.name.startswith("torchinductor")]
    assert torch.equal(torch.random.get_rng_state(), state)


def test_its_hours_follow_from_what_was_measured(made):
    stages = {stage.name: stage for stage in made.stages}
    pieces = {piece.what: piece for piece in made.measured}
    assert list(stages) == ["train field", "find codes", "fit codec", "train prior", "encode",
                            "join codes", "sample codes", "decode"]  # fmt: skip
    field = recipe.load("mnif:tiny")["train"]["field"]
    each = pieces["train field"].seconds.middle  # 16 signals, one for each of 16 processes
    assert stages["train field"].hours.middle == pytest.approx(field["steps"] * each / 3600)
    rounds = math.ceil(math.ceil(1e6 / made.shard) / 64)
    one = pieces["encode"].seconds.middle + pieces["write codes"].seconds.middle
    assert stages["encode"].hours.middle == pytest.approx(rounds * made.shard * one / 3600)
    assert stages["find codes"].workers == 32
    rounds = math.ceil(math.ceil(1e6 / made.shard) / 32)
    each = rounds * made.shard * pieces["encode"].seconds.middle
    assert stages["find codes"].hours.middle == pytest.approx(each / 3600)
    for stage in made.stages:
        assert stage.hours.low <= stage.hours.middle <= stage.hours.high
        assert stage.cost is not None
        assert stage.cost.middle == pytest.approx(0.5 * stage.workers * stage.hours.middle)
        assert stage.memory > 50e6
    code = math.prod(fieldloom.build("mnif:tiny").family.code_shape)
    assert stages["encode"].disk >= 1e6 * (4 * code + 8 + 4)  # with place and error


def test_it_says_where_it_does_not_scale(made):
    said = "\n".join(made.limits)
    assert "train field: a batch of 16 is shared by 16 of 32 processes." in said
    assert "20 steps see 320 of the signals" in said


def test_a_plan_is_a_plain_value(made):
    told = json.loads(json.dumps(made.as_dict()))
    assert told["signals"] == 1_000_000
    assert told["stages"][0]["name"] == "train field"
    assert "torch" in told["environment"]["versions"]


def test_a_run_is_planned_without_training(tiny_run):
    made = fieldloom.plan(run=str(tiny_run), signals=1e6, workers=64, seconds=0.1)
    names = [stage.name for stage in made.stages]
    assert names == ["encode", "join codes", "sample codes", "decode"]


@pytest.mark.parametrize("name", ["gem:tiny", "fit:image", "hyperdiffusion:tiny"])
def test_plans_of_other_kinds(name):
    """Auto-decoding and penalties, one field for each signal, a critic, many fits."""
    made = fieldloom.plan(name, signals=1000, workers=4, seconds=0.1)
    names = [stage.name for stage in made.stages]
    assert ("fit" in names) == (name == "fit:image")
    assert ("encode" in names) == (name in ("gem:tiny", "hyperdiffusion:tiny"))
    assert all(0 < stage.hours.middle < math.inf for stage in made.stages)


@pytest.mark.parametrize("name", ["image", "voxel", "points", "views", "audio", "video", "sphere"])
def test_data_of_random_values_are_of_their_kind(name):
    from fieldloom.assembly import make_modality

    modality = make_modality({"name": name, "size": 8})
    source = generate(modality, 2)
    modality.check_data(source.data)
    assert len(modality.observe(source.data, points=5)) == 2


def test_a_large_folder_is_read_as_it_is_needed(tmp_path):
    """The few images of the trial are held, and a billion would not be."""
    for number in range(3):
        noise = torch.randint(256, (64, 64), dtype=torch.uint8).numpy()
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
    few, many = (
        fieldloom.plan("mnif:tiny", signals=n, source=str(tmp_path), seconds=0.1)
        for n in (1000, 1e9)
    )
    assert "3 of the data" in few.data
    assert any("every worker reads and holds all data" in line for line in few.limits)
    assert not any("every worker reads and holds all data" in line for line in many.limits)
    size = (tmp_path / "0.png").stat().st_size
    (said,) = (line for line in many.assumed if "bytes of reading" in line)
    counted = int(said.split()[3].replace(",", ""))
    assert size <= counted < 4 * size  # headers are read beforehand


def test_long_fits_are_measured_by_a_part():
    """With 5,000 steps a fit takes longer than its share; with 5 it is done whole."""
    steps = lambda n: fieldloom.plan(
        "hyperdiffusion:tiny", signals=100, seconds=0.1, encoder={"steps": n}
    )
    part, whole = (
        next(x for x in made.measured if x.what.startswith("encode"))
        for made in (steps(5000), steps(5))
    )
    assert whole.whole
    assert not part.whole
    assert part.what == "encode (100 steps of a fit, times 50)"
    assert part.seconds.middle > 50 * whole.seconds.middle


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"signals": 1.5}, "signals 1.5 is not right"),
        ({"signals": 1e6, "workers": 0}, "workers 0 is not right"),
        ({"signals": 1e6, "processes": "2.5"}, "processes '2.5' is not right"),
        ({"signals": 1e6, "price": -1}, "price -1 is not right"),
        ({"signals": 1e6, "price": math.nan}, "price"),
        ({"signals": 1e6, "seconds": 0}, "seconds 0 is not right"),
        ({"signals": 1e6, "shard": 0}, "shard 0 is not right"),
        ({"signals": 1e6, "source": "nowhere"}, "nowhere"),
        ({"signals": 1e6, "run": "runs/x"}, "and not both"),
        ({"signals": 1e6, "field": {"widht": 3}}, "did you mean 'width'"),
    ],
)
def test_refusals(given, said):
    with pytest.raises(InputError, match=said):
        fieldloom.plan("mnif:tiny", **given)


def test_neither_a_recipe_nor_a_run():
    with pytest.raises(InputError, match="a recipe, or run"):
        fieldloom.plan(signals=1e6)
    assert planner.SECONDS == 60
