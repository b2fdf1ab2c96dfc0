"""What shapes codes: L2, Lle and Isometry against slow twins."""

import numpy as np
import pytest
import torch
from torch import nn

from fieldloom import recipe as recipes
from fieldloom.assembly import TABLES, build
from fieldloom.conditioners.conditioner import FlatWeights
from fieldloom.conditioners.hyper import Hyper
from fieldloom.encoders import AutoDecode, Nothing
from fieldloom.engine.loop import Training
from fieldloom.engine.stage import Stage
from fieldloom.errors import InputError
from fieldloom.family import Family
from fieldloom.fields.mlp import Siren
from fieldloom.metrics.losses import mse
from fieldloom.objectives import Reconstruction
from fieldloom.objectives.penalties import L2, Isometry, Lle, project_onto_hull, signal_distances
from fieldloom.registry import build as make
from fieldloom.renderers import Direct as Render
from fieldloom.types import Batch, Signal
from portions import compute_in_portions

SIGNALS, WIDTH, POINTS = 9, 4, 6
ONCE = Stage(steps=9, optimizer={"name": "sgd", "rate": 0.1}, schedule="constant")


def encoder(std=1.0):
    return AutoDecode((1, WIDTH), SIGNALS, std=std).double().train()


def signals(index, values=None, coords=None):
    if coords is None:
        coords = torch.linspace(-1, 1, POINTS).double()[:, None].expand(len(index), -1, -1)
    if values is None:
        values = torch.randn(len(index), coords.shape[1], 1).double()
    target = Signal(coords, values, torch.tensor(index))
    return Batch(target, target)


def far_from_one(code, signal):
    return (code - 1).square().flatten(1).sum(1)


def family():
    field = Siren(1, 1, width=4, depth=3)
    return Family(field, Hyper(field.slots, width=WIDTH, hidden=(5,))).double()


# -- L2


def test_l2_is_half_the_weight_times_the_squares():
    code = torch.randn(3, 1, WIDTH).double()
    found = L2(0.3)(code, signals([0, 1, 2]), Nothing(), far_from_one)
    for i in range(3):
        assert found[i].item() == pytest.approx(0.15 * sum(x**2 for x in code[i, 0].tolist()))


# -- Lle


def hull(point, others, ridge):
    """Lagrange's conditions of min |z - sum w z_j|^2 + ridge Tr(C C^T) |w|^2, sum w = 1."""
    c = point[None] - others
    gram = c @ c.T
    gram = gram + (ridge * np.trace(gram) + 1e-12) * np.eye(len(c))
    whole = np.block([[2 * gram, np.ones((len(c), 1))], [np.ones((1, len(c))), np.zeros((1, 1))]])
    right = np.zeros(len(c) + 1)
    right[-1] = 1
    return np.linalg.solve(whole, right)[:-1]


@pytest.mark.parametrize("ridge", [1e-3, 0.1])
@pytest.mark.parametrize("count", [1, 3, 7])
def test_projection_solves_the_constrained_least_squares(count, ridge):
    points, others = torch.randn(5, WIDTH).double(), torch.randn(5, count, WIDTH).double()
    weights, projected = project_onto_hull(points, others, ridge)
    torch.testing.assert_close(weights.sum(1), torch.ones(5).double())
    for i in range(5):
        expected = hull(points[i].numpy(), others[i].numpy(), ridge)
        np.testing.assert_allclose(weights[i], expected, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(projected[i], expected @ others[i].numpy(), atol=1e-8)


def test_a_point_of_the_hull_is_its_own_projection():
    others = torch.randn(6, 3, WIDTH).double()
    shares = torch.tensor([1.6, -0.9, 0.3]).double()  # affine, not convex
    points = torch.einsum("k,nkd->nd", shares, others)
    weights, projected = project_onto_hull(points, others, 0.0)
    torch.testing.assert_close(projected, points, atol=1e-3, rtol=0)
    torch.testing.assert_close(weights, shares.expand(6, -1), atol=1e-3, rtol=0)
    _, near = project_onto_hull(points, others, 1e-6)
    assert (near - points).norm(dim=1).max() < 0.05 * points.norm(dim=1).min()


def test_equal_codes_have_equal_weights():
    weights, projected = project_onto_hull(torch.ones(2, WIDTH), torch.ones(2, 5, WIDTH), 1e-3)
    torch.testing.assert_close(weights, torch.full((2, 5), 0.2))
    torch.testing.assert_close(projected, torch.ones(2, WIDTH))


def slow_lle(table, index, neighbours, weight, ridge):
    """Of each signal the penalty, from sorted distances and Lagrange's conditions."""
    found = []
    for i in index:
        order = sorted(
            (j for j in range(len(table)) if j != i),
            key=lambda j: np.linalg.norm(table[j] - table[i]),
        )
        others = table[order[:neighbours]]
        w = hull(table[i], others, ridge)
        explained = ((w @ others - 1) ** 2).sum()
        found.append(weight * (explained + np.mean([min(max(-x, 0), 1000) for x in w])))
    return np.array(found)


@pytest.mark.parametrize("neighbours", [1, 3, SIGNALS - 1])
def test_lle_is_that_of_a_slow_twin(neighbours):
    knows, index = encoder(), [4, 0, 4, 7]
    batch, table = signals(index), knows.table.detach()[:, 0].numpy()
    penalty = Lle(0.7, neighbours, ridge=1e-2)
    found = penalty(knows.table[batch.target.index], batch, knows, far_from_one)
    expected = slow_lle(table, index, neighbours, 0.7, 1e-2)
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-8)


def test_weights_of_lle_can_be_negative_and_then_cost():
    knows = encoder()
    with torch.no_grad():
        knows.table.zero_()
        knows.table[:3, 0, 0] = torch.tensor([0.0, 1.0, 2.0]).double()
        knows.table[3:] += 100
    batch = signals([0])
    found = Lle(1.0, 2, ridge=0.0)(
        knows.table[:1], batch, knows, lambda code, signal: code.flatten(1).sum(1)
    )
    assert found.item() == pytest.approx(0.5, abs=1e-3)  # w = (2, -1)


def test_no_code_is_its_own_neighbour():
    """Codes are in pairs; the nearest of each is its twin, and never itself."""
    knows = encoder()
    with torch.no_grad():
        knows.table[:8:2] *= 10
        knows.table[1:8:2] = knows.table[:8:2] + 0.01
    seen = []

    def explain(code, signal):
        seen.append(code)
        return far_from_one(code, signal)

    batch = signals([0, 3])
    Lle(neighbours=1)(knows.table[batch.target.index], batch, knows, explain)
    torch.testing.assert_close(seen[0], knows.table[[1, 2]])


def test_the_gradient_of_lle_reaches_a_code_and_its_neighbours():
    knows, index = encoder(), [2, 5]
    batch, penalty = signals(index), Lle(1.0, 3, ridge=1e-2)
    value = lambda: penalty(knows.table[batch.target.index], batch, knows, far_from_one).sum()
    (slope,) = torch.autograd.grad(value(), knows.table)
    moved = 0
    with torch.no_grad():
        for row in range(SIGNALS):
            for column in range(WIDTH):
                before = knows.table[row, 0, column].item()
                ends = []
                for step in (1e-6, -1e-6):
                    knows.table[row, 0, column] = before + step
                    ends.append(value().item())
                knows.table[row, 0, column] = before
                by_hand = (ends[0] - ends[1]) / 2e-6
                assert slope[row, 0, column].item() == pytest.approx(by_hand, rel=1e-4, abs=1e-6)
                moved += abs(by_hand) > 1e-6
    assert 4 * WIDTH <= moved <= 8 * WIDTH  # two codes, at most three neighbours each


def test_lle_in_micro_batches_is_the_same():
    knows, batch, penalty = encoder(), signals([1, 5, 8]), Lle(1.0, 3)
    whole = penalty(knows.table[batch.target.index], batch, knows, far_from_one)
    for i in range(3):
        part = batch.part(slice(i, i + 1))
        alone = penalty(knows.table[part.target.index], part, knows, far_from_one)
        torch.testing.assert_close(alone, whole[i : i + 1])


def test_lle_refusals():
    knows, batch = encoder(), signals([0])
    code = knows.table[:1]
    with pytest.raises(InputError, match="'lle' needs encoder 'autodecode'"):
        Lle()(code, batch, Nothing(), far_from_one)
    with pytest.raises(InputError, match="9 neighbours need more than 9 signals"):
        Lle(neighbours=9)(code, batch, knows, far_from_one)
    for arguments in (dict(neighbours=0), dict(ridge=-1.0)):
        with pytest.raises(InputError, match="penalty 'lle'"):
            Lle(**arguments)


def test_lle_of_codes_around_an_origin():
    """A table holds differences from the origin; what is explained are codes."""
    field = Siren(1, 1, width=2, depth=2)
    whole = Family(field, FlatWeights(field.slots)).double()
    knows = AutoDecode(whole.code_shape, SIGNALS, std=0.01).double().train()
    batch, seen = signals([0, 1]), []

    def explain(code, signal):
        seen.append(code)
        return code.flatten(1).sum(1)

    code = knows.stored_codes(batch.target.index, whole)
    Lle(neighbours=3)(code, batch, knows, explain)
    torch.testing.assert_close(seen[0], code, atol=0.1, rtol=0)


# -- Isometry


def slow_isometry(codes, apart, pairs, scale, weight):
    """apart(i, j): how far two signals are from one another."""
    every = [(apart(i, j), i, j) for i in range(len(codes)) for j in range(i + 1, len(codes))]
    kept = sorted(every)[:pairs]
    terms = [abs(scale * np.mean((codes[i] - codes[j]) ** 2) - d) for d, i, j in kept]
    return weight * np.mean(terms)


@pytest.mark.parametrize("pairs", [1, 4, 32])
def test_isometry_of_values_on_one_grid(pairs):
    knows, batch = encoder(), signals([3, 1, 8, 2, 0])
    code = knows.table[batch.target.index]
    values = batch.target.values.numpy()
    found = Isometry(0.5, pairs, 2.0).double()(code, batch, knows, far_from_one)
    expected = slow_isometry(
        code.detach().numpy(), lambda i, j: np.mean((values[i] - values[j]) ** 2), pairs, 2.0, 0.5
    )
    assert found.shape == (5,)
    np.testing.assert_allclose(found.detach(), np.full(5, expected), rtol=1e-10)


@pytest.mark.parametrize("pairs", [1, 4, 32])
def test_isometry_of_scattered_points(pairs):
    """Two-sided mean squared distance of the occupied points, point by point."""
    coords = torch.rand(5, 12, 3).double()
    values = torch.where(torch.rand(5, 12, 1) < 0.5, -1.0, 1.0).double()
    values[:, 0], values[:, 1] = 1, -1  # none is empty, none full
    knows, batch = encoder(), signals([3, 1, 8, 2, 0], values, coords)
    code = knows.table[batch.target.index]
    inside = [
        [c for c, v in zip(coords[i].numpy(), values[i], strict=True) if v.item() > 0]
        for i in range(5)
    ]

    def one_sided(a, b):
        return np.mean([min(((p - q) ** 2).sum() for q in b) for p in a])

    def apart(i, j):
        return one_sided(inside[i], inside[j]) + one_sided(inside[j], inside[i])

    found = Isometry(1.0, pairs, 3.0).double()(code, batch, knows, far_from_one)
    expected = slow_isometry(code.detach().numpy(), apart, pairs, 3.0, 1.0)
    np.testing.assert_allclose(found.detach(), np.full(5, expected), rtol=1e-6)


def test_equal_shapes_are_nothing_apart():
    points, inside = torch.rand(60, 3), (torch.arange(60) > 9).float()[:, None]
    both = torch.stack([points, points.flip(0)]), torch.stack([inside, inside.flip(0)])
    found = signal_distances(Signal(*both, torch.arange(2)), torch.tensor([0]), torch.tensor([1]))
    assert found.tolist() == [0]


def test_an_isometric_table_costs_nothing():
    knows = encoder()
    index = [0, 3, 5, 6]
    grid = torch.linspace(-1, 1, WIDTH).double()[:, None].expand(4, -1, -1)
    values = 10 * knows.table.detach()[index].mT  # so d = 100 mean (z_i - z_j)^2
    batch = signals(index, values, grid)
    code = knows.table[batch.target.index]
    penalty = Isometry().double()
    assert penalty(code, batch, knows, far_from_one).max() < 1e-10
    assert penalty(1.1 * code, batch, knows, far_from_one).min() > 0.1


def test_one_signal_is_isometric():
    knows = encoder()
    found = Isometry()(knows.table[:1], signals([0]), knows, far_from_one)
    assert found.tolist() == [0]
    with pytest.raises(InputError, match="pairs = 0"):
        Isometry(pairs=0)


def test_the_scale_of_isometry_is_trained():
    knows, whole, penalty = encoder(), family(), Isometry(1.0, 2, 5.0).double()
    objective = Reconstruction(whole, knows, Render(), mse, penalty)
    assert any(p is penalty.scale for p in objective.players["field"]["shared"])
    assert not objective.independent
    batch = signals([0, 4, 7])
    code = knows.table.detach()[[0, 4, 7], 0]
    values = batch.target.values
    every = sorted(
        ((values[i] - values[j]).square().mean().item(), i, j) for i in range(3) for j in range(i)
    )
    codes = [(code[i] - code[j]).square().mean().item() for _, i, j in every[:2]]
    signs = [np.sign(5 * c - d) for c, (d, _, _) in zip(codes, every, strict=False)]
    slope = np.mean([s * c for s, c in zip(signs, codes, strict=True)])
    Training(objective, ONCE).advance(batch, 3, 0, torch.device("cpu"))
    assert penalty.scale.item() == pytest.approx(5 - 0.1 * slope, rel=1e-6)


def test_isometry_of_images_trained_on_some_of_their_points_compares_values():
    """As gem:celebahq64 trains: the nearest pair of pictures is that of the whole pictures."""
    built = build(recipes.load("gem:tiny") | {"known": {"signals": SIGNALS}})
    shades = torch.tensor([0.0, 0.1, 0.5, 1.0]).view(4, 1, 1, 1).expand(-1, 1, 8, 8)
    assert recipes.load("gem:celebahq64")["train"]["field"]["together"]
    batch = built.modality.observe(shades, points=40, together=True)
    code = torch.zeros(4, 1, WIDTH)
    found = Isometry(1.0, 1)(code, batch, Nothing(), far_from_one)
    assert found[0].item() == pytest.approx(0.2**2, rel=1e-4)  # in [-1, 1]


# -- several


def test_penalties_add_up_and_logs_name_them():
    knows, whole, batch = encoder(), family(), signals([0, 4, 7])
    penalties = (L2(0.1), Lle(0.2, 3), Isometry(0.3, 2).double())
    bare, _ = Reconstruction(whole, knows, Render(), mse).loss("field", batch)
    objective = Reconstruction(whole, knows, Render(), mse, penalties)
    loss, logs = objective.loss("field", batch)
    assert set(logs) == {"loss", "psnr", "l2", "lle", "isometry"}
    assert logs["loss"].item() == pytest.approx(bare.item(), rel=1e-12)
    parts = sum(value for name, value in logs.items() if name != "psnr")
    assert loss.item() == pytest.approx(parts.item(), rel=1e-12)
    for name, penalty in zip(("l2", "lle", "isometry"), penalties, strict=True):
        alone, _ = Reconstruction(whole, knows, Render(), mse, penalty).loss("field", batch)
        assert alone.item() - bare.item() == pytest.approx(logs[name].item(), rel=1e-9)
    code = knows.table[batch.target.index]
    fits = lambda z, signal: mse(whole(signal.coords, z), signal.values)
    expected = penalties[1](code, batch, knows, fits).mean()
    assert logs["lle"].item() == pytest.approx(expected.item(), rel=1e-12)


def test_recipes_list_penalties():
    known = dict(
        family=family(), encoder=encoder(), render=Render(), loss_fn=mse, prior=None, slots={}
    )
    spec = {"name": "reconstruction", "penalty": ["lle", {"name": "isometry", "pairs": 3}]}
    objective = make("objective", spec, TABLES, **known)
    assert [type(p) for p in objective.penalties] == [Lle, Isometry]
    assert objective.penalties[1].pairs == 3
    one = make("objective", spec | {"penalty": "l2"}, TABLES, **known)
    assert [type(p) for p in one.penalties] == [L2]
    for wrong, message in {
        "unknown": (["lle", "isometri"], "did you mean 'isometry'"),
        "argument": ([{"name": "lle", "neighbors": 3}], "did you mean 'neighbours'"),
    }.values():
        with pytest.raises(InputError, match=message):
            make("objective", spec | {"penalty": wrong}, TABLES, **known)


def test_a_list_is_refused_where_one_part_is_asked_for():
    with pytest.raises(InputError, match="codec"):
        make("prior", {"name": "gaussian", "codec": ["whiten"]}, TABLES, code_shape=(1, 3))


# -- the recipe


def test_penalties_are_modules():
    """So that what they learn is in the checkpoint."""
    objective = Reconstruction(family(), encoder(), Render(), mse, (Isometry(),))
    assert isinstance(objective.penalties, nn.ModuleList)
    assert "model/penalties.0.scale" in Training(objective, ONCE).state()[0]


@pytest.mark.parametrize("scattered", [False, True])
def test_isometry_of_portions_is_that_of_the_whole(scattered):
    coords = torch.rand(5, 12, 3).double() if scattered else None
    values = torch.randn(5, 12 if scattered else POINTS, 1).double()
    batch, penalty = signals([3, 1, 8, 2, 0], values, coords), Isometry(0.5, 4, 2.0).double()
    codes, rows = torch.randn(5, 1, WIDTH).double(), [[0, 3, 4], [1, 2]]
    whole = codes.clone().requires_grad_()
    loss = penalty(whole, batch, Nothing(), far_from_one).mean()
    to_code, to_scale = torch.autograd.grad(loss, [whole, penalty.scale])

    def compute(rank, portion):
        own, index = codes[rows[rank]].requires_grad_(), torch.tensor(rows[rank])
        place = None if coords is None else coords[index]
        part = signals(rows[rank], values[index], place)
        loss = penalty(own, part, Nothing(), far_from_one).sum() / 5
        return torch.autograd.grad(loss, [own, penalty.scale])

    found = compute_in_portions(rows, compute)
    for own, (grad, _) in zip(rows, found, strict=True):
        torch.testing.assert_close(grad, to_code[own])
    torch.testing.assert_close(sum(grad for _, grad in found), to_scale)
