"""Parameter counts and multiply-accumulates that papers print, from what the recipes build."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
import torch

from fieldloom import recipe as recipes
from fieldloom.assembly import build
from fieldloom.conditioners import Columns, Conditioner, Factor, Substitute
from fieldloom.denoisers import ResMlp
from fieldloom.encoders import Transformer
from fieldloom.evaluation.costs import count_metrics
from fieldloom.fields import Field, Fourier, FourierMlp, Local
from fieldloom.fields.mlp import Siren
from fieldloom.metrics.cost import count_field_weights, count_macs, count_parameters
from fieldloom.system import System

MNIF = [
    v for v in recipes.list_recipes()["mnif"] if v.startswith(("celebahq64", "table4", "table5"))
]


@cache
def system(name: str, variant: str) -> System:
    """The stage-1 part of a recipe: without its prior, where 270 M parameters would stand."""
    recipe = recipes.load(f"{name}:{variant}")
    recipe.pop("prior", None)
    recipe["known"] = {"signals": int(recipe["source"].get("split", [0])[0])}
    with torch.device("meta"):
        return build(recipe)


def learnable(built: System) -> int:
    """As the papers count: field and conditioner, without the learned rates of descent."""
    return count_parameters(built.family)


def rates(built: System) -> int:
    return count_parameters(built.encoder)


def cost(built: System) -> int:
    """Multiply-accumulates of one full sample, code to values."""
    points = built.modality.grid().shape[1]
    return count_macs(built.family.field.slots, built.family.conditioner.macs(), points)


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("celebahq64-S", (5_933_312, 1024, 17_027)),
        ("celebahq64-S-released", (5_933_312, 1024, 17_027)),
        ("celebahq64-S-printed", (4_557_056, 128, 17_027)),
        ("celebahq64-L", (33_378_048, 512, 83_331)),
        ("celebahq64-L-released", (33_378_048, 512, 83_331)),
        ("table4-shared", (557_248, 64, 8_707)),
        ("table4-layer", (557_248, 64, 8_707)),
        ("table4-latent16", (155_760, 256, 8_707)),
        ("table4-latent64", (623_040, 256, 8_707)),
        ("table4-latent256", (2_492_160, 256, 8_707)),
        ("table4-latent1024", (9_968_640, 256, 8_707)),
        ("table4-deep256", (21_793_280, 256, 83_331)),
        ("table4-deep512", (22_252_032, 512, 83_331)),
        ("table4-deep1024", (23_169_536, 1024, 83_331)),
        *[
            (f"table5-{order}-{steps}", (623_040, 256, 8_707))
            for order in ("first", "second")
            for steps in (1, 3, 10)
        ],
    ],
)
def test_mnif_counts(variant: str, expected: tuple[int, int, int]) -> None:
    """Learnable, learned rates apart, and inference parameters of one mixed network."""
    built = system("mnif", variant)
    assert (
        learnable(built),
        rates(built),
        count_field_weights(built.family.field.slots),
    ) == expected


def test_every_row_is_counted() -> None:
    """The table above leaves out no image row of the recipe."""
    marks = test_mnif_counts.pytestmark
    assert {row[0] for row in marks[0].args[1]} == set(MNIF)


@pytest.mark.parametrize("variant", [v for v in MNIF if v.startswith(("table4", "table5"))])
def test_recipes_state_what_they_build(variant: str) -> None:
    built = system("mnif", variant)
    assert learnable(built) == built.recipe["expected"]["learnable"]


@pytest.mark.parametrize(("depth", "count"), [(10, 2_104_323), (12, 2_629_635), (15, 3_417_603)])
def test_functa_field_counts(depth: int, count: int) -> None:
    assert count_field_weights(Siren(2, 3, width=512, depth=depth, offset=0.5).slots) == count


@pytest.mark.parametrize("variant", ["celebahq64", "celebahq64-port"])
def test_functa_counts(variant: str) -> None:
    """Depth 10 and codes of 256: "3.3M" with the map from codes to shifts, and 256 rates apart."""
    built = system("functa", variant)
    assert count_field_weights(built.family.field.slots) == 2_104_323
    assert (learnable(built), rates(built)) == (3_288_579, 256)


@pytest.mark.parametrize(
    ("name", "variant", "gmacs", "printed"),
    [
        ("mnif", "celebahq64-S-printed", 0.069, 0.069),
        ("mnif", "celebahq64-S", 0.070, 0.069),  # printed of codes of 128
        ("mnif", "celebahq64-L", 0.340, 0.340),
        ("mnif", "shapenet64-S", 4.363, 4.4),
        ("mnif", "shapenet64-L", 21.613, 21.6),
        ("mnif", "srncars", 8.825, 9.0),  # printed as 0.009
        ("functa", "celebahq64", 8.602, 8.602),
        ("functa", "srncars", 1788.586, 1789.0),  # printed as 1.789
        ("gasp", "celebahq64", 0.305, 0.305),
        ("gasp", "shapenet32", 1.108, 8.7),  # printed of 64^3: eight times the points
        ("gem", "celebahq64", 4.381, 3.299),  # printed of another field
        ("gem", "shapenet64", 69.031, 207.0),  # printed of another field
    ],
)
def test_macs(name: str, variant: str, gmacs: float, printed: float) -> None:
    """Ours, and what the tables print: they count multiply-accumulates, in 10^9."""
    built = system(name, variant)
    assert (round(macs_of(built), 3), built.recipe["expected"]["gmacs"]) == (gmacs, printed)


def macs_of(built: System) -> float:
    return next(f.value for f in count_metrics(built) if f.name == "gmacs")


def test_gasp_counts() -> None:
    """ "34.2 M", for voxels too; the printed 83.1 K would be those of one more hidden layer."""
    image, voxel = system("gasp", "celebahq64"), system("gasp", "shapenet32")
    assert (learnable(image), count_field_weights(image.family.field.slots)) == (34_163_715, 66_307)
    assert (learnable(voxel), count_field_weights(voxel.family.field.slots)) == (17_418_369, 33_665)


def test_gem_counts() -> None:
    """ "99.0 M" is the codes, both networks, the base field, a scale and what nothing uses."""
    built = system("gem", "celebahq64")
    assert count_field_weights(built.family.field.slots) == 1_053_187
    assert rates(built) == 29_000 * 1024
    assert learnable(built) == 5_248_000 + 59_881_525 + 1_053_187 - 2051
    scale = 1  # of the isometry
    dead = sum(built.recipe["dead"].values())
    assert learnable(built) + rates(built) + scale + dead == 99_032_121


def test_srn_cars_counts() -> None:
    mnif, functa = system("mnif", "srncars"), system("functa", "srncars")
    assert (learnable(mnif), count_field_weights(mnif.family.field.slots)) == (4_590_080, 17_156)
    assert learnable(functa) + rates(functa) == 3_884_612
    assert count_field_weights(functa.family.field.slots) == 3_418_628


def test_shapenet_counts() -> None:
    small, large = system("mnif", "shapenet64-S"), system("mnif", "shapenet64-L")
    assert (learnable(small), learnable(large)) == (5_129_984, 46_272_512)


def test_macs_are_of_weights_alone() -> None:
    """No bias and no sine, one sample, the projection of the code once."""
    assert cost(system("mnif", "celebahq64-S-printed")) == 4096 * 16_704 + 128 * 256 * 6
    assert cost(system("mnif", "celebahq64-L")) == 4096 * 82_560 + 512 * 384 * 7


@pytest.mark.parametrize(
    ("width", "millions"), [(64, 271.3), (128, 271.8), (256, 272.9), (512, 275.0), (1024, 279.2)]
)
def test_denoiser_counts(width: int, millions: float) -> None:
    """The denoiser of all mNIF runs, which the tables' learnable parameters leave out."""
    with torch.device("meta"):
        count = count_parameters(ResMlp((1, width)))
    block = 2 * (4096**2 + 4096) + 4 * 4096 + 64 * 4096 + 4096
    ends = (width + 1) * 4096 + 2 * 4096 + 4096 * width + width
    assert count == 8 * block + ends + 64 * 64 + 64
    assert round(count / 1e6, 1) == millions


def test_the_cost_of_recipes_whose_renderer_is_a_name_or_none(tmp_path):
    from fieldloom import recipe
    from fieldloom.evaluation.costs import cost_row

    assert cost_row("laginr:cars", "cpu", timed=False)["learnable"]["ours"] == 656_134
    own = recipe.load("mnif:tiny") | {"source": "digits"}
    del own["renderer"]
    (tmp_path / "own.toml").write_text(recipe.dump(own))
    found = cost_row(str(tmp_path / "own.toml"), "cpu", timed=False)
    assert found["learnable"] == cost_row("mnif:tiny", "cpu", timed=False)["learnable"]


def test_rows_of_descent_differ_in_their_order_and_their_steps():
    built = {v: system("mnif", v).encoder for v in MNIF if v.startswith("table5")}
    assert {v: (e.second_order, e.steps) for v, e in built.items()} == {
        f"table5-{name}-{steps}": (name == "second", steps)
        for name in ("first", "second")
        for steps in (1, 3, 10)
    }


def test_cifar_counts() -> None:
    """The published fields of images, at another size: mNIF's with codes of 512."""
    mnif, functa = system("mnif", "cifar10"), system("functa", "cifar10")
    assert learnable(mnif) == 256 * 17_027 + 513 * 256 * 6
    assert (learnable(functa), rates(functa)) == (3_288_579, 256)


# -- counts that papers and released code print


IPC_FIELD = dict(
    width=256, depth=5, encoding=Fourier("log", 64, 64.0), normalize=True, init="outputs"
)


def on_meta(conditioner: Any, field: Field, axes: tuple[int, ...], **own: Any) -> tuple[int, int]:
    """Parameters of a system, and of its encoder's blocks."""
    with torch.device("meta"):
        made: Conditioner = conditioner(field.slots)
        viewed = len(axes) == 3
        encoder = Transformer(made.code_shape, axes, 3, 6 if viewed else 2, grid_dim=2, **own)
    return count_parameters(made) + count_parameters(encoder), count_parameters(encoder.blocks)


def test_counts_of_ipc() -> None:
    """43,746,307, of which 65,536 are of a weight that the released code replaces and never reads;
    code that descends has a start of 65,536 where the encoder has one of its own."""
    field = FourierMlp(2, 3, bias="zero", offset=0.5, **IPC_FIELD)
    make = lambda slots: Factor(slots, "1.weight", rank=256, origin="zero")
    dead = math.prod(field.slots["1.weight"].shape)
    whole, blocks = on_meta(make, field, (178, 178), patch=9, pad=1, dropout=0.1)
    assert dead == 65_536
    assert (whole + dead, blocks) == (43_746_307, 42_527_232)
    learned = lambda slots: Factor(slots, "1.weight", rank=256)
    assert on_meta(learned, field, (178, 178), patch=9, pad=1)[0] == whole + 65_536


def test_counts_of_transinr() -> None:
    own = dict(width=256, normalize=True)
    image = FourierMlp(
        2, 3, depth=5, offset=0.5, encoding=Fourier("log", count=64, bandwidth=1024.0), **own
    )
    common = dict(bias=False, head=False)
    make = lambda slots: Columns(slots, width=768, groups=64)
    assert on_meta(make, image, (178, 178), patch=9, pad=1, **common)[0] == 44_462_851
    views = FourierMlp(
        3, 4, depth=6, encoding=Fourier("log", count=20, bandwidth=256.0, pi=False), **own
    )
    make = lambda slots: Columns(slots, width=768, groups=32)
    nvs = on_meta(make, views, (1, 128, 128), patch=8, positions="none", rays="origin", **common)
    assert nvs[0] == 44_463_484


@pytest.mark.parametrize(
    ("levels", "printed"), [(1, 461_315), (2, 659_462), (3, 857_609), (4, 1_055_756)]
)
def test_counts_of_la_ginr(levels: int, printed: int) -> None:
    """256 less than with a bias of the keys, which cancels; ``substitute`` adds a start."""
    field = Local(2, 3, bands=(128.0, 90.0, 64.0, 32.0)[:levels])
    with torch.device("meta"):
        conditioner = Substitute(field.slots, "tokens")
    assert count_parameters(conditioner) == printed - 256 + 256 * 256
    assert conditioner.start.numel() == 65_536


@pytest.mark.parametrize("size", ["", "-512", "-1024"])
def test_rows_of_the_number_of_levels(size: str) -> None:
    """LA-GINR's Table 6: 256 of each are a bias of the keys, which the recipes call dead."""
    for levels, count in ((1, 461_059), (2, 659_206), (3, 857_353), (4, 1_055_500)):
        built = system("laginr", f"table6-{levels}{size}")
        assert learnable(built) == count
        bands, top = built.recipe["field"]["bands"], 256 if size == "-1024" else 128
        assert (len(bands), bands[0]) == (levels, top)
        assert levels == 1 or bands[-1] == top / 4
        assert built.recipe["dead"] == {"bias_of_the_keys": 256}


@pytest.mark.parametrize("data", ["", "-ffhq", "-lamps"])
def test_rows_without_the_parts_of_la_ginr(data: str) -> None:
    """Table 3, on its three sets: one head, and what is left without attention and bands."""
    whole = system("laginr", f"table3{data}")
    field = whole.family.field
    assert field.heads == 1
    features = 252 if data == "-lamps" else 256  # of six numbers of a ray not all 256 divide
    assert learnable(whole) == 659_206 - 3 * 256 * (256 - features)
    attention, bands = (
        learnable(system("laginr", f"table3{data}-no-{part}")) for part in ("attention", "bands")
    )
    # four maps with three biases, and in their place one map that composes the query's weight
    assert learnable(whole) - attention == 4 * 256 * 256 + 3 * 256 - (256 * 256 + 256)
    assert bands == {"-lamps": 460_035}.get(data, 461_059)


def test_transinr_at_high_resolution() -> None:
    for variant, tokens in (("ffhq256", 256), ("ffhq512", 256)):
        built = system("transinr", variant)
        assert built.encoder.positions.shape == (tokens, 768)
        assert learnable(built) == 1_255_939


def test_counts_of_the_whole_of_la_ginr() -> None:
    """ "About 44.08M" at 178 x 178, with the start that no encoder needs."""
    make = lambda slots: Substitute(slots, "tokens")
    whole, blocks = on_meta(make, Local(2, 3), (178, 178), patch=9, pad=1)
    assert blocks == 42_527_232
    assert round((whole - 65_536) / 1e6, 2) == 44.08


@pytest.mark.parametrize(
    ("size", "patch", "pad", "tokens"),
    [(178, 9, 1, 400), (256, 16, 0, 256), (512, 32, 0, 256), (1024, 48, 16, 484)],
)
def test_tokens_of_published_sizes(size: int, patch: int, pad: int, tokens: int) -> None:
    with torch.device("meta"):
        encoder = Transformer((256, 256), (size, size), 3, 2, depth=1, patch=patch, pad=pad)
    assert encoder.positions.shape == (tokens, 768)
