"""Samples beside baselines: slow references, degenerate sets, what was copied, the command."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from torch import Generator, Tensor

import fieldloom
from commands import run
from fieldloom.engine.run import Run
from fieldloom.errors import InputError
from fieldloom.evaluation import comparison, evaluator_of
from fieldloom.evaluation.baselines import baseline_codes
from fieldloom.evaluation.comparison import (
    ComparisonOptions,
    collect_sets,
    compare_with_baselines,
    sample_count,
)
from fieldloom.evaluation.measures import MEASURES
from fieldloom.evaluation.memorisation import (
    NearestNeighbours,
    Novelty,
    nearest_codes,
    nearest_signals,
)
from fieldloom.evaluation.neighbours import draw_neighbours
from fieldloom.evaluation.set_metrics import SET_METRICS, SetPair, bootstrap_metrics, compare_sets
from fieldloom.evaluation.shapes import ShapeEvaluator, surface_clouds
from fieldloom.metrics.cloud_distances import chamfer, normalize_clouds
from fieldloom.metrics.cloud_features import CloudStatistics
from fieldloom.metrics.features import Gabor
from fieldloom.metrics.paired import ssim, ssim_between
from fieldloom.metrics.sets import frechet
from fieldloom.modalities import Voxels
from fieldloom.modalities.grid import Placement
from fieldloom.modalities.shapes import Points
from fieldloom.modalities.sources import Source
from fieldloom.modalities.sources.meshes import read_meshes
from fieldloom.types import Data


def pictures(count: int, seed: int = 0, channels: int = 1) -> Tensor:
    return torch.rand(count, channels, 9, 8, generator=Generator().manual_seed(seed))


def clouds(count: int, seed: int = 0) -> Tensor:
    x = torch.randn(count, 24, 3, dtype=torch.float64, generator=Generator().manual_seed(seed))
    return 0.4 * x / x.norm(dim=2, keepdim=True) * torch.linspace(0.5, 1, count)[:, None, None]


def without(signals: Tensor, *places: int) -> Tensor:
    changed = signals.clone()
    changed[list(places)] = math.nan
    return changed


# -- slow references


def far(a: Tensor, b: Tensor, measure: str) -> float:
    """The distance of two signals; infinite where one failed."""
    if a.isnan().any() or b.isnan().any():
        return math.inf
    if measure == "ssim":
        return (1 - ssim(a[None], b[None]).item()) / 2
    if measure == "pixels":
        return (a.double() - b.double()).square().sum().sqrt().item()
    return chamfer(normalize_clouds(a[None], "cloud"), normalize_clouds(b[None], "cloud")).item()


def slow(made: list[Tensor], true: list[Tensor], measure: str, known: dict) -> dict[str, float]:
    """The figures, signal by signal. known: what was found before of the same tensors."""

    def apart(a: Tensor, b: Tensor) -> float:
        key = (id(a), id(b))
        if key not in known:
            known[key] = 0.0 if a is b and not a.isnan().any() else far(a, b, measure)
        return known[key]

    mmd = sum(min(apart(r, s) for s in made) for r in true) / len(true)
    matched = set()
    for s in made:
        if not s.isnan().any():
            matched.add(min(range(len(true)), key=lambda i: apart(true[i], s)))
    both = [(x, True) for x in true] + [(x, False) for x in made]
    right = []
    for i, (x, real) in enumerate(both):
        others = [j for j in range(len(both)) if j != i]
        near = min(others, key=lambda j: apart(x, both[j][0]))
        lost = math.isinf(apart(x, both[near][0]))
        right.append((lost and not x.isnan().any()) == real if lost else both[near][1] == real)
    there = [s for s in made if not s.isnan().any()]
    detector = CloudStatistics(0.5) if measure == "chamfer" else Gabor()
    for x in [*true, *there]:
        if id(x) not in known:
            known[id(x)] = detector(x[None])
    real, fake = (torch.cat([known[id(x)] for x in own]) for own in (true, there))
    return {
        "mmd": mmd,
        "coverage": len(matched) / len(true),
        "1nna": sum(right) / len(right),
        "1nna.reference": sum(right[: len(true)]) / len(true),
        "1nna.sample": sum(right[len(true) :]) / len(made),
        "frechet": frechet(real, fake),
    }


def sets(measure: str) -> tuple[Tensor, Tensor]:
    """Samples, of which two are alike, one is a reference's copy and one failed; references."""
    make = clouds if measure == "chamfer" else pictures
    made, true = make(7, seed=1), make(7, seed=2)
    made[1], made[2] = made[0], true[3]
    return without(made, 5), true


@pytest.mark.parametrize("measure", MEASURES)
def test_both_protocols_are_their_definitions(measure):
    made, true = sets(measure)
    full, rounds = compare_sets({"made": made}, {"true": true}, measure, seed=3)
    assert [x.protocol for x in (full, rounds)] == ["full", "bootstrap"]
    assert [(x.set, x.reference, x.size, x.failures) for x in (full, rounds)] == [
        ("made", "true", 7, 1)
    ] * 2
    a, b, known = list(made), list(true), {}
    said = slow(a, b, measure, known)
    assert full.metrics == pytest.approx(said, rel=1e-6, abs=1e-9)
    assert tuple(said) == SET_METRICS

    generator, found = Generator().manual_seed(3), []
    for _ in range(32):
        r, s = (torch.randint(7, (32,), generator=generator).tolist() for _ in range(2))
        found.append(slow([a[i] for i in s], [b[i] for i in r], measure, known))
    means = {name: sum(one[name] for one in found) / 32 for name in SET_METRICS}
    assert rounds.metrics == pytest.approx(means, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("size", "channels"), [((8, 9), 1), ((13, 12), 3)])
def test_ssim_of_all_pairs(size, channels):
    """The uniform window and the Gaussian one, against one pair at a time."""
    a, b = torch.rand(3, channels, *size), torch.rand(4, channels, *size)
    found = ssim_between(a, b)
    for i in range(3):
        each = ssim(a[i : i + 1].expand_as(b), b)
        torch.testing.assert_close(found[i].float(), each, atol=1e-6, rtol=1e-6)


def test_twins_raise_1nna_of_a_perfect_generator():
    """Half the mean chance of a twin, 1 - (1 - 1 / pool)^31: 0.1 for pools of 100 and 202."""
    found = []
    for seed in range(8):
        x = torch.randn(302, 8, dtype=torch.float64, generator=Generator().manual_seed(seed))
        r, s = x[:202], x[202:]
        pair = SetPair(torch.cdist(r, r), torch.cdist(r, s), torch.cdist(s, s), r, s)
        found.append(bootstrap_metrics(pair, seed)["1nna"])
    twins = sum(1 - (1 - 1 / pool) ** 31 for pool in (100, 202)) / 4
    assert sum(found) / 8 == pytest.approx(0.5 + twins, abs=0.03)


# -- degenerate sets


@pytest.mark.parametrize("measure", MEASURES)
def test_copies_and_one_sample_again_and_again(measure):
    true = (clouds if measure == "chamfer" else pictures)(6)
    one = true[:1].expand(6, *true.shape[1:])
    copies, same = compare_sets({"copies": true, "one": one}, {"true": true}, measure, ["full"])
    assert copies.metrics == {
        "mmd": 0.0,
        "coverage": 1.0,
        "1nna": 0.0,
        "1nna.reference": 0.0,
        "1nna.sample": 0.0,
        "frechet": pytest.approx(0, abs=1e-9),
    }
    assert same.metrics["coverage"] == 1 / 6
    # each copy hears that reference first, and it hears a copy: both are told wrong. The others
    # hear a reference, which of equals (that one, and its copies) comes first
    assert same.metrics["1nna.sample"] == 0
    assert same.metrics["1nna.reference"] == 5 / 6


@pytest.mark.parametrize("measure", MEASURES)
def test_failures_are_told_apart_and_never_skipped(measure):
    true = (clouds if measure == "chamfer" else pictures)(6)
    none = without(true, *range(6))
    some = without(true, 0, 1, 2)
    for one_set in compare_sets({"none": none}, {"true": true}, measure):
        assert one_set.failures == 6
        assert one_set.metrics["mmd"] == math.inf
        assert one_set.metrics["coverage"] == 0
        assert one_set.metrics["1nna.sample"] == 1
        assert math.isnan(one_set.metrics["frechet"])
    (one_set,) = compare_sets({"some": some}, {"true": true}, measure, ["full"])
    assert (one_set.failures, one_set.metrics["coverage"]) == (3, 0.5)
    assert one_set.metrics["1nna.sample"] == 0.5  # copies are called references
    with pytest.raises(InputError, match="'true' holds 3 failures"):
        compare_sets({"made": true}, {"true": some}, measure)


def test_sizes_are_made_equal_and_names_are_checked():
    a, b = pictures(6), pictures(4, seed=1)
    (cut,) = compare_sets({"made": a}, {"true": b}, "pixels", ["full"])
    (own,) = compare_sets({"made": a[:4]}, {"true": b}, "pixels", ["full"])
    assert cut == own
    assert cut.size == 4
    for ask in (
        lambda: compare_sets({"a": a}, {"b": b}, "emd"),
        lambda: compare_sets({"a": a}, {"b": b}, "ssim", ["half"]),
        lambda: compare_sets({"a": a[:0]}, {"b": b}, "ssim"),
    ):
        with pytest.raises(InputError, match="unknown measure|unknown protocol|'a' is empty"):
            ask()


def test_draws_are_those_of_the_seed():
    ask = lambda seed: compare_sets({"a": pictures(6)}, {"b": pictures(6, 1)}, "pixels", seed=seed)
    assert ask(0) == ask(0)
    assert ask(0)[0] == ask(1)[0]  # whole sets draw nothing
    assert ask(0)[1] != ask(1)[1]


# -- what was copied


@pytest.mark.parametrize("measure", MEASURES)
def test_the_nearest_signals(measure):
    make = clouds if measure == "chamfer" else pictures
    queries, known = without(make(5, seed=1), 2), without(make(9, seed=2), 4)
    queries[3] = known[7]
    found = nearest_signals(queries, known, measure)
    for i, query in enumerate(queries):
        each = [far(query, one, measure) for one in known]
        place = -1 if i == 2 else each.index(min(each))
        assert found.indices[i] == place
        assert found.distances[i].item() == pytest.approx(min(each), rel=1e-6)
    assert (found.indices[2], found.distances[2]) == (-1, math.inf)
    assert (found.indices[3], found.distances[3]) == (7, 0)


def test_the_nearest_codes():
    queries, known = torch.randn(5, 2, 3), torch.randn(9, 2, 3)
    queries[1], queries[4, 0, 0] = known[6], math.nan
    found = nearest_codes(queries, known)
    for i in range(4):
        each = [(queries[i] - one).double().square().sum().sqrt().item() for one in known]
        assert found.indices[i] == each.index(min(each))
        assert found.distances[i].item() == pytest.approx(min(each), rel=1e-6)
    assert found.distances[1] == 0
    assert (found.indices[4], found.distances[4]) == (-1, math.inf)


def test_novelty_is_beside_held_out_fields():
    near = lambda *x: NearestNeighbours(
        torch.tensor(x, dtype=torch.float64), torch.zeros(len(x)).long()
    )
    found = Novelty(near(0.0, 1.0, math.inf), near(2.0, 4.0, 8.0))
    assert (found.ratio, found.nearer) == (0.25, pytest.approx(2 / 3))
    alone = Novelty(near(0.0), None)
    assert math.isnan(alone.ratio)
    assert math.isnan(alone.nearer)


# -- baselines


def test_baselines_are_what_they_say():
    mixing = torch.tensor([[2.0, 0.0, 0.0], [1.0, 0.5, 0.0], [0.0, -1.0, 0.1]])
    known = (torch.randn(4000, 3) @ mixing.T + torch.tensor([5.0, 0.0, -5.0]))[:, None]
    made = baseline_codes(known, torch.ones(1, 1, 3), 4000, 1.0, Generator().manual_seed(0))
    assert {name: code.shape for name, code in made.items()} == dict.fromkeys(
        ("start", "noise", "gaussian", "fields"), (4000, 1, 3)
    )
    assert (made["start"] == 1).all()
    assert sorted(made["fields"][:, 0, 0].tolist()) == sorted(known[:, 0, 0].tolist())
    drawn, flat = made["gaussian"][:, 0], known[:, 0]
    torch.testing.assert_close(drawn.mean(0), flat.mean(0), atol=0.15, rtol=0)
    torch.testing.assert_close(drawn.T.cov(), flat.T.cov(), atol=0.2, rtol=0.1)
    spread = made["noise"].var(0)[0] / flat.var(0)
    torch.testing.assert_close(spread, torch.full((3,), 2.0), atol=0.1, rtol=0)


def test_noise_is_added_to_each_number_by_its_own_deviation():
    known = torch.randn(50, 2, 100) * torch.tensor([1e-3, 10.0])[:, None]
    known[:, :, 7] = 0  # padding
    made = baseline_codes(known, known[:1], 50, 0.1, Generator().manual_seed(0))
    base = baseline_codes(known, known[:1], 50, 0.0, Generator().manual_seed(0))
    assert {tuple(x) for x in base["noise"].flatten(1).tolist()} == {
        tuple(x) for x in known.flatten(1).tolist()
    }
    added = (made["noise"] - base["noise"]) / known.std(0).clamp_min(1e-9)
    assert added[:, :, 7].eq(0).all()
    assert added.std().item() == pytest.approx(0.1, rel=0.03)
    assert not torch.equal(base["noise"], base["fields"])  # other draws


def test_a_gaussian_of_few_codes_stays_in_their_span():
    known = torch.randn(5, 1, 100)
    drawn = baseline_codes(known, known[:1], 5, 0.1)["gaussian"][:, 0]
    centred = (known - known.mean(0))[:, 0]
    inside = torch.linalg.lstsq(centred.T, (drawn - known.mean(0)[0]).T).solution
    torch.testing.assert_close(centred.T @ inside, (drawn - known.mean(0)[0]).T, atol=1e-4, rtol=0)
    known = torch.randn(20, 1, 3000)
    drawn = baseline_codes(known, known[:1], 20)["gaussian"] - known.mean(0)
    energy = drawn.square().sum(2).mean() / known.var(0).sum()
    assert energy.item() == pytest.approx(1, abs=0.3)
    for ask in (dict(count=21), dict(count=2, noise=-1.0)):
        with pytest.raises(InputError, match="at least 2 and as many"):
            baseline_codes(known, known[:1], **ask)


# -- from a system


@pytest.fixture(scope="module")
def digits(tiny_run):
    system = fieldloom.load(tiny_run, device="cpu")
    return system, fieldloom.assembly.open_source(system.recipe, system.modality)


def rows(data: Tensor) -> list[tuple[float, ...]]:
    return [tuple(x) for x in data.flatten(1).tolist()]


def test_references_are_data_and_sets_are_drawn_apart_from_them(digits, monkeypatch):
    system, source = digits
    known = torch.arange(len(source.train)).float().view(-1, 1, 1).expand(-1, 1, 8)
    decode = lambda code: Data(code[:, :, :1, None].expand(-1, 1, 8, 8))
    monkeypatch.setattr(system, "decode", decode)
    found = collect_sets(
        system, source, known, {"samples": known[:50]}, options=ComparisonOptions(noise=0.0)
    )
    assert set(found.sets) == {"samples", "start", "noise", "gaussian", "fields", "held-out"}
    assert set(found.references) == {"training", "held-out"}
    assert all(len(x) == 50 for x in [*found.sets.values(), *found.references.values()])
    train, test = (rows(source.read(part).tensor) for part in (source.train, source.test))
    drawn = [train.index(x) for x in rows(found.references["training"])]
    for name in ("noise", "fields"):
        copied = set(found.sets[name][:, 0, 0, 0].int().tolist())
        assert len(copied) == 50
        assert len(copied & set(drawn)) < 15  # by chance
    held = set(rows(found.references["held-out"]))
    assert held <= set(test)
    assert set(rows(found.sets["held-out"])) <= set(test) - held
    assert rows(source.read(found.held_out).tensor) == rows(found.references["held-out"])
    assert found.absent == {"training": 0, "held-out": 0}


def test_a_class_is_judged_against_itself(digits, tiny_run):
    system, source = digits
    known, labels, *_ = Run(tiny_run).read_codes()
    found = collect_sets(
        system, source, known, {"samples": known[:9]}, labels, ComparisonOptions(label=3)
    )
    for name, part in {"training": source.train, "held-out": source.test}.items():
        own = rows(source.read(part[source.labels[part] == 3]).tensor)
        assert set(rows(found.references[name])) <= set(own)
    assert sample_count(source, 3) == min(64, int((source.labels[source.test] == 3).sum()) // 2)
    assert sample_count(source) == 64
    many = known[:400]
    with pytest.raises(InputError, match="as many training data: there are"):
        collect_sets(system, source, known, {"samples": many}, labels, ComparisonOptions(label=3))


@pytest.mark.slow
def test_several_sets_of_samples_are_judged_as_each_alone(digits, tiny_run):
    system, source = digits
    known, labels, *_ = Run(tiny_run).read_codes()
    sets = {"a": known[:10], "b": known[10:20] + 0.1}
    pixels = ComparisonOptions("pixels")
    both = compare_with_baselines(system, source, known, sets, labels, pixels)
    for name, codes in sets.items():
        alone = compare_with_baselines(system, source, known, {name: codes}, labels, pixels)
        assert alone.sets == [x for x in both.sets if x.set not in sets or x.set == name]
        near = [x.novelty[name]["weights"].samples.indices.tolist() for x in (both, alone)]
        assert near[0] == near[1]
    for wrong, match in [
        ({"a": known[:10], "b": known[:9]}, r"equally large: these have \[9, 10\]"),
        ({"noise": known[:10]}, "cannot be called 'noise'"),
    ]:
        with pytest.raises(InputError, match=match):
            collect_sets(system, source, known, wrong, labels)


def test_training_codes_as_samples_are_found_out(digits, tiny_run):
    system, source = digits
    known, labels, *_ = Run(tiny_run).read_codes()
    found = compare_with_baselines(
        system, source, known, {"ours": known[5:15]}, labels, ComparisonOptions("pixels")
    )
    assert found.novelty["ours"]["weights"].samples.indices.tolist() == list(range(5, 15))
    for space in ("weights", "signals"):
        own = found.novelty["ours"][space]
        assert own.samples.distances.max() < 1e-6  # decoding rounds by its batch
        assert own.ratio < 0.05
        assert own.nearer > 0.5
        assert len(own.held_out.distances) == 10


def test_data_that_cannot_be_judged(digits):
    system, source = digits
    bare = fieldloom.build("functa", "tiny", conditioner="shared", encoder="nothing", prior="none")
    with pytest.raises(InputError, match="have no codes"):
        evaluator_of(bare, source).choose_measure()
    samples = {"samples": torch.zeros(2, 1, 8)}
    with pytest.raises(InputError, match="measure of these data 'chamfer'"):
        compare_with_baselines(
            system, source, torch.zeros(9, 1, 8), samples, options=ComparisonOptions("chamfer")
        )
    film = fieldloom.build("functa", "tiny", modality={"name": "video", "size": [2, 8, 8]})
    with pytest.raises(InputError, match="pictures and of shapes"):
        evaluator_of(film, source).choose_measure()


# -- shapes


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """An untrained system of 8^3 voxels; twelve balls, the last training one empty."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 8)] * 3, indexing="ij"), -1)
    draw = np.random.default_rng(0)
    cells = [np.linalg.norm(grid, axis=-1) < draw.uniform(0.5, 0.9) for _ in range(12)]
    cells[5] = np.zeros_like(cells[5])
    path = tmp_path_factory.mktemp("shapes") / "balls.npz"
    np.savez(path, bits=np.packbits(np.reshape(cells, (12, -1)), axis=1), shape=[8, 8, 8])
    source = {"name": "voxels", "path": str(path), "split": [6, 6], "shuffle": False}
    field, encoder = {"width": 4, "depth": 3}, {"steps": 2}
    modality = {"size": 8}
    own = dict(source=source, field=field, encoder=encoder, modality=modality)
    system = fieldloom.build("hyperdiffusion", "chairs32", **own)
    return system, fieldloom.assembly.open_source(system.recipe, system.modality)


def test_surfaces_that_are_not_there_are_failures(shapes):
    system, source = shapes
    data = source.read(source.train[:3]).tensor.clone()
    data[1], data[2, 0, 0, 0, 0] = 0, math.nan
    found = surface_clouds(system.modality, data, 16)
    assert found.shape == (3, 16, 3)
    assert found.isnan().flatten(1).all(1).tolist() == [False, True, True]


def test_few_shapes_are_held_at_a_time(shapes, monkeypatch):
    system, source = shapes
    origin = system.family.conditioner.origin(1).detach()
    codes = origin + torch.randn(5, *origin.shape[1:], generator=Generator().manual_seed(0))
    whole = surface_clouds(system.modality, system.decode(codes).tensor, 16)
    assert not whole[1:].isnan().all()
    monkeypatch.setattr("fieldloom.evaluation.shapes.HELD", 1)
    torch.testing.assert_close(
        ShapeEvaluator(system, source).decode_clouds(codes, 16), whole, equal_nan=True
    )


def surfaces(modality: Voxels, source: Source, indices: Tensor, points: int) -> Tensor:
    """Clouds of a source's data, which need nothing else of a system."""
    system = fieldloom.build("hyperdiffusion", "chairs32")
    system.modality = modality
    return evaluator_of(system, source).read_for_measure(indices, points)


def test_surfaces_of_scattered_samples_are_those_of_the_grid(tmp_path):
    for radius in (1.0, 2.0):
        trimesh.creation.icosphere(3, radius).export(tmp_path / f"{radius}.ply")
    trimesh.creation.box((1, 1, 2)).export(tmp_path / "box.ply")
    scattered, grid = Points(24, Placement("corner")), Voxels(24, Placement("corner"))
    how = dict(path=str(tmp_path), split=(2, 1), shuffle=False)
    some = read_meshes(scattered, samples=50, surface=900, **how)
    whole = read_meshes(grid, target="distance", **how)
    places = torch.arange(3)
    ours = surfaces(scattered, some, places, 800)
    theirs = surfaces(grid, whole, places, 800)
    assert ours.abs().max() <= 0.5
    assert (ours[0].norm(dim=1) - 0.45).abs().max() < 4e-3  # of a ball's flat faces
    near = chamfer(ours, theirs, squared=True)
    assert (near < 4e-3).all()
    assert chamfer(ours[:1], ours[2:], squared=True) > 1e-2
    with pytest.raises(InputError, match="keeps 900 of each"):
        surfaces(scattered, some, places, 901)


def test_shapes_are_judged_by_their_surfaces(shapes):
    system, source = shapes
    origin = system.family.conditioner.origin(1).detach()
    known = origin + torch.randn(6, *origin.shape[1:])
    samples = torch.cat([known[:2], torch.full_like(known[:1], math.nan)])
    found = compare_with_baselines(
        system, source, known, {"samples": samples}, options=ComparisonOptions(points=16)
    )
    assert found.measure == "chamfer"
    failures = {x.set: x.failures for x in found.sets}
    assert failures["samples"] >= 1
    assert failures["held-out"] == 0
    drawn = torch.randperm(6, generator=Generator().manual_seed(0))[:3].tolist()
    empty = int(5 in drawn)
    assert found.absent == {"training": empty, "held-out": 0}
    assert {x.size for x in found.sets if x.reference == "training"} == {3 - empty}
    assert found.novelty["samples"]["weights"].samples.indices.tolist() == [0, 1, -1]
    assert found.novelty["samples"]["signals"].samples.indices[2] == -1
    shown = draw_neighbours(system, samples, known, found.novelty["samples"])
    assert shown.shape == (9, 3, 128, 128)
    assert shown[7:].eq(1).all()  # a failure has no neighbours
    said = json.dumps(comparison.as_json(found), allow_nan=False)
    assert '"failures"' in said
    assert "means of 32 rounds of 32 samples" in said


# -- the command line


@pytest.mark.slow
def test_the_command(tiny_run, tmp_path, capsys):
    own = shutil.copytree(tiny_run, tmp_path / "run")
    words = ["analyse", "judge", own, "--count", 6, "--steps", 5]
    run(*words)
    said = capsys.readouterr().out
    for word in ("6 each against training data, full, by ssim", "bootstrap", "gaussian", "ratio"):
        assert word in said
    numbers = json.loads((own / "judge.json").read_text())
    assert numbers["options"] == {"steps": 5}
    assert numbers["measure"] == "ssim"
    assert len(numbers["verdicts"]) == 6 * 2 * 2
    assert set(numbers["verdicts"][0]["figures"]) == set(SET_METRICS)
    for space in ("weights", "signals"):
        near = numbers["nearest training fields"]["samples"][space]
        assert len(near["samples"]) == len(near["held-out"]) == 6
    assert Image.open(own / "judge.png").size == (3 * 98 + 2, 6 * 98 + 2)

    run(*words, "--out", tmp_path / "again")
    assert json.loads((tmp_path / "again" / "judge.json").read_text()) == numbers
    run(*words, "--metric", "pixels", "--seed", 1, "--label", 3, "--out", tmp_path / "other")
    other = json.loads((tmp_path / "other" / "judge.json").read_text())
    assert (other["measure"], other["label"], other["seed"]) == ("pixels", "3", 1)
    assert other["verdicts"] != numbers["verdicts"]

    capsys.readouterr()
    for more, message in (
        (["--metric", "emd"], "unknown measure of these data 'emd'"),
        (["--count", 400], "as many held-out data: there are"),
        (["--top-k", 3], "unknown sampling option"),
    ):
        run("analyse", "judge", own, *more, status=2)
        assert message in capsys.readouterr().err
