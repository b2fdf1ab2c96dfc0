"""Stacks of fits against separate fits."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from fieldloom.conditioners import FlatWeights, Mixture
from fieldloom.encoders import Fit, Plateau, reconstruction_loss_in_stacks, stacks
from fieldloom.encoders.draws import point_sampler, select_signals
from fieldloom.encoders.fit import steps_between_looks
from fieldloom.errors import InputError
from fieldloom.family import Family
from fieldloom.fields import Siren
from fieldloom.metrics.losses import mse
from fieldloom.objectives import Reconstruction
from fieldloom.renderers import Direct as Plain
from fieldloom.types import Batch, Signal
from fits import POINTS, signals

HOW = (Plain(), mse)


def family(width=6) -> Family:
    torch.manual_seed(0)
    field = Siren(2, 1, width=width, depth=3, frequency=4.0)
    return Family(field, FlatWeights(field.slots)).double()


def alone(fit: Fit, family: Family, signal: Signal) -> torch.Tensor:
    """A fit of one signal as it is commonly written: torch's Adam and ReduceLROnPlateau."""
    code = nn.Parameter(family.conditioner.origin(1).detach().clone())
    adam = torch.optim.AdamW([code], fit.rate, weight_decay=fit.weight_decay)
    anew = fit.draw == "anew" and fit.points is not None
    seen = point_sampler(signal, fit.points or POINTS, fit.seed)
    a_pass = POINTS // fit.points if anew else 1
    how = fit.plateau
    if how is not None:
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            adam, "min", how.factor, how.patience, how.threshold, min_lr=how.least
        )
    met, record, stale = [], float("inf"), 0
    for step in range(fit.steps):
        adam.zero_grad()
        batch = seen(step)
        loss = (family(batch.coords, code) - batch.values).square().mean()
        loss.backward()
        adam.step()
        met.append(loss.item())
        if how is not None and (step + 1) % a_pass == 0:
            mean = sum(met[-a_pass:]) / a_pass
            scheduler.step(mean)
            record, stale = min(record, mean), 0 if mean < record else stale + 1
            if how.stop is not None and stale >= how.stop:
                break
    return code.detach()


BRISK = Plateau(patience=1, factor=0.5, threshold=0.02, least=1e-3)
CASES = {
    "plain": dict(),
    "decay": dict(weight_decay=0.1),
    "anew": dict(points=7, draw="anew"),
    "plateau": dict(plateau=BRISK, rate=0.3),
    "stop": dict(plateau=replace(BRISK, stop=3), rate=0.3),
    "all": dict(plateau=replace(BRISK, stop=4), rate=0.2, points=10, draw="anew", weight_decay=0.1),
}


@pytest.mark.parametrize("case", CASES)
def test_a_stack_is_its_separate_fits(case, monkeypatch):
    signal, own = signals(), family()
    fit = Fit(**{"steps": 60, "rate": 0.02, "keep": "last"} | CASES[case])
    together = fit(signal, own, *HOW)
    separate = torch.cat([alone(fit, own, signal.part(slice(i, i + 1))) for i in range(5)])
    close = dict(rtol=1e-5, atol=1e-7)  # 60 steps: a product's rounding grows
    torch.testing.assert_close(together, separate, **close)
    # whatever the company and the order, and in stacks of two
    order = torch.tensor([3, 0, 4, 2])
    part = Signal(signal.coords[order], signal.values[order], signal.index[order])
    monkeypatch.setattr(stacks, "CPU_LAYER", 2 * 4 * 6 * (fit.points or POINTS))
    torch.testing.assert_close(fit(part, own, *HOW), together[order], **close)


def test_the_best_of_random_draws_is_measured_on_all_points():
    signal, own = signals(), family()
    begun = reconstruction_loss_in_stacks(own.conditioner.origin(5), signal, own, *HOW)
    wild = dict(steps=40, rate=1.0, points=7, draw="anew")  # far too large a rate
    best, last = (Fit(**wild, keep=keep)(signal, own, *HOW) for keep in ("best", "last"))
    assert (reconstruction_loss_in_stacks(best, signal, own, *HOW) <= begun).all()
    assert (reconstruction_loss_in_stacks(last, signal, own, *HOW) > begun).any()


def test_the_plateau_is_torchs():
    """Any sequence of errors, no number among them, gives torch's rates."""
    generator = torch.Generator().manual_seed(3)
    sequence = torch.rand(80, generator=generator).tolist()
    sequence[5:5], sequence[40] = [float("nan")] * 3, 0.0
    for how in (Plateau(), Plateau(2, 0.8, 0.0, 1e-5), Plateau(0, 0.5, 0.2, 0.01)):
        adam = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.3)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            adam, "min", how.factor, how.patience, how.threshold, min_lr=how.least
        )
        stack = stacks.Stack.begin(torch.zeros(2, 1, 1, dtype=torch.float64), 0.3)
        for error in sequence:
            scheduler.step(error)
            stack.lower_rates(torch.tensor([error, 1.0], dtype=torch.float64), how)
            assert stack.rate[0].item() == pytest.approx(adam.param_groups[0]["lr"], rel=1e-12)
        assert stack.rate[0] < 0.3


def test_what_has_stopped_is_left_out():
    """Fields without any error stop at once; the arithmetic is then that of the others."""
    signal, own = signals(8), family()
    still = own(signal.coords, own.conditioner.origin(8)).detach()
    easy = torch.arange(8) < 5
    signal = replace(signal, values=torch.where(easy[:, None, None], still, signal.values))
    sizes = []

    class Counting(Plain):
        def __call__(self, function, coords, generator=None):
            sizes.append(len(coords))
            return super().__call__(function, coords, generator)

    fit = Fit(20, 1e-3, keep="last", plateau=Plateau(stop=2))
    code = fit(signal, own, Counting(), mse)
    assert set(sizes) == {8, 3}
    assert sizes.count(8) == 3  # 0, and twice not below it
    rest = fit(select_signals(signal, torch.arange(5, 8)), own, *HOW)
    torch.testing.assert_close(code[~easy], rest, rtol=1e-9, atol=1e-12)
    sizes.clear()
    fit(select_signals(signal, torch.arange(5)), own, Counting(), mse)
    assert len(sizes) == 3  # nothing goes on


def test_what_has_stopped_may_be_noticed_late(monkeypatch):
    """As on an accelerator, which is asked only so often."""
    signal, own = signals(8), family()
    still = own(signal.coords, own.conditioner.origin(8)).detach()
    easy = torch.arange(8) < 5
    signal = replace(signal, values=torch.where(easy[:, None, None], still, signal.values))
    fit = Fit(30, 1e-3, keep="last", plateau=Plateau(stop=2))
    soon = fit(signal, own, *HOW)
    assert steps_between_looks(3, on_cpu=True) == 3
    late = steps_between_looks(3, on_cpu=False)
    assert late % 3 == 0
    assert late > 30
    monkeypatch.setattr("fieldloom.encoders.fit.steps_between_looks", lambda *which: 7)
    torch.testing.assert_close(fit(signal, own, *HOW), soon, rtol=1e-9, atol=1e-12)


def test_one_bad_signal_spoils_no_other():
    signal, own = signals(), family()
    values = signal.values.clone()
    values[2, 4] = float("nan")
    fit = Fit(10, 0.02, keep="last", plateau=BRISK)
    spoilt, right = (fit(replace(signal, values=v), own, *HOW) for v in (values, signal.values))
    assert spoilt[2].isnan().all()
    others = torch.tensor([0, 1, 3, 4])
    torch.testing.assert_close(spoilt[others], right[others])


def test_signals_on_one_grid_share_it():
    signal = signals(4)
    grid = replace(signal, coords=signal.coords[:1].expand(4, -1, -1))
    whole = replace(grid, coords=grid.coords.contiguous())
    for step in (0, 3):
        one, other = (point_sampler(x, 9, 0)(step) for x in (grid, whole))
        assert torch.equal(one.coords, other.coords)
        assert torch.equal(one.values, other.values)
    rows = torch.tensor([0, 2, 3])
    assert select_signals(grid, rows).coords.stride(0) == 0
    assert torch.equal(select_signals(grid, rows).values, grid.values[rows])


def test_random_origins():
    """Each place its own draw of the field, the same in any batch."""
    signal, own = signals(3), family()
    fit = Fit(0, origin="random")
    begun = fit(signal, own, *HOW)
    assert begun[0].ne(begun[1]).any()
    assert torch.equal(fit(signal.part(slice(2, 3)), own, *HOW), begun[2:])
    assert begun[0].ne(Fit(0, origin="random", seed=1)(signal, own, *HOW)[0]).any()
    bound = own.field.slots["1.weight"].init(None).abs().max() * 1.5  # of a uniform draw
    assert begun.abs().max() < max(1.0, bound)
    assert torch.equal(Fit(0)(signal, own, *HOW), own.conditioner.origin(3))
    mixture = Family(own.field, Mixture(own.field.slots, experts=2, width=3))
    with pytest.raises(InputError, match="flat-weights"):
        fit(signal, mixture, *HOW)
    with pytest.raises(InputError, match="start"):
        Fit(origin="random", start=Fit())


@pytest.mark.parametrize("wrong", [dict(factor=1.0), dict(patience=-1), dict(stop=0)])
def test_wrong_plateaus(wrong):
    with pytest.raises(InputError, match="plateau"):
        Plateau(**wrong)


def test_training_a_fit_trains_its_start():
    """Reconstruction moves the origin towards what explains the signals by itself."""
    own, signal = family(), signals(2)
    objective = Reconstruction(own, Fit(5), *HOW)
    loss, _ = objective.loss("field", Batch(signal, signal))
    loss.backward()
    plain = reconstruction_loss_in_stacks(own.conditioner.origin(2), signal, own, *HOW).mean()
    torch.testing.assert_close(loss.detach(), plain)
    assert own.conditioner.start.grad.abs().max() > 0


def test_the_best_code_may_be_looked_for_at_intervals():
    signal, own, seen = signals(), family(), []
    wild = dict(steps=25, rate=0.5)
    Fit(**wild, keep="last")(signal, own, *HOW, on_step=lambda at: seen.append(at.code.clone()))
    best = Fit(**wild, keep_every=10)(signal, own, *HOW)
    looked = torch.stack([seen[step] for step in (0, 10, 20, 25)])
    losses = [reconstruction_loss_in_stacks(code, signal, own, *HOW) for code in looked]
    lowest = torch.stack(losses).argmin(0)
    assert torch.equal(best, looked[lowest, torch.arange(5)])
    with pytest.raises(InputError, match="keep_every = 0"):
        Fit(keep_every=0)
