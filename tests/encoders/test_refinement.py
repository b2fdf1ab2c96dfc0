"""Test-time optimisation of codes, against slow and obvious ways to the same numbers."""

import math
from dataclasses import replace

import pytest
import torch

import fieldloom
from fieldloom.encoders import Encoder, Fit, Plateau, fit, refine, stacks
from fieldloom.errors import InputError
from fieldloom.evaluation.views import psnr_of_held_out
from fieldloom.metrics.losses import mse
from fieldloom.metrics.paired import psnr
from fieldloom.renderers import Direct
from fieldloom.types import Cameras, Data, Signal
from fits import family

POINTS = 12
HOW = (Direct(), mse)


def signals(count: int = 3) -> Signal:
    coords = torch.rand(count, POINTS, 2, dtype=torch.float64) * 2 - 1
    values = torch.randn(count, POINTS, 1, dtype=torch.float64)
    return Signal(coords, values, torch.arange(count))


class Given(Encoder):
    """Codes by the signals' indices."""

    def __init__(self, codes):
        super().__init__()
        self.codes = codes

    def forward(self, signal, family, render, loss_fn):
        return self.codes[signal.index]


# -- from given codes, step by step


def test_refinement_is_a_fit_that_starts_at_the_encoders_answer():
    own, signal, codes = family(), signals(), torch.randn(3, 1, 4, dtype=torch.float64)
    for how in (dict(keep="best"), dict(keep="last", points=5, draw="anew")):
        started = Fit(6, 0.05, start=Given(codes), **how)(signal, own, *HOW)
        assert torch.equal(Fit(6, 0.05, **how).refine(codes, signal, own, *HOW), started)
    assert torch.equal(Fit(0).refine(codes, signal, own, *HOW), codes)


def test_given_codes_go_to_their_stacks(monkeypatch):
    own, signal, codes = family(), signals(5), torch.randn(5, 1, 4, dtype=torch.float64)
    fit, seen = Fit(4, 0.05), []
    whole = fit.refine(codes, signal, own, *HOW)
    monkeypatch.setattr(stacks, "CPU_LAYER", 2 * 4 * 6 * POINTS)  # stacks of two
    parts = fit.refine(codes, signal, own, *HOW, on_step=seen.append)
    torch.testing.assert_close(parts, whole)
    assert [at.step for at in seen] == [0, 1, 2, 3, 4] * 3
    assert torch.equal(torch.cat([at.code for at in seen if at.step == 0]), codes)
    assert [len(at.losses) for at in seen if at.step == 0] == [2, 2, 1]


def test_a_descent_ends_where_it_is_told_to():
    own, signal = family(), signals()
    for keep in ("best", "last"):
        told = Fit(50, 0.05, keep=keep)(signal, own, *HOW, on_step=lambda at: at.step == 3)
        assert torch.equal(told, Fit(3, 0.05, keep=keep)(signal, own, *HOW))


def test_only_signals_that_go_on_are_told_of():
    own, signal = family(), signals()
    signal = replace(signal, values=torch.full_like(signal.values, torch.nan))
    seen = []
    Fit(9, 0.05, plateau=Plateau(stop=2))(signal, own, *HOW, on_step=seen.append)
    assert [at.step for at in seen] == [0, 1]  # a loss that is no number is never a new lowest


def test_codes_whose_quality_did_not_rise_stay():
    own, signal, codes = family(), signals(), torch.randn(3, 1, 4, dtype=torch.float64)
    rise = torch.tensor([1.0, 0.0, -1.0])
    quality = lambda _, code, __: torch.zeros(3) if torch.equal(code, codes) else rise
    found = refine(codes, signal, own, *HOW, quality, steps=2)
    assert found.family is own
    assert [torch.equal(a, b) for a, b in zip(found.code, codes, strict=True)] == [
        False,
        True,
        True,
    ]
    assert found.before.tolist() == [0, 0, 0]
    assert found.after.tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    "wrong", [dict(steps=-1), dict(rate=0.0), dict(rate=math.nan), dict(points=0)]
)
def test_refinement_takes_no_wrong_numbers(wrong):
    codes = torch.zeros(3, 1, 4, dtype=torch.float64)
    with pytest.raises(InputError, match="refine: steps"):
        refine(codes, signals(), family(), *HOW, lambda *_: torch.zeros(3), **wrong)


@pytest.fixture(params=["functa", "mnif", "transinr", "ipc", "laginr"])
def system(request):
    return fieldloom.build(request.param, "tiny")


@pytest.fixture
def images():
    return torch.rand(3, 1, 8, 8)


def descend(system, signal, code, steps, rate, points=None):
    """What ``on_step`` is told of one stack."""
    seen, parts = [], (system.family, system.render, system.loss_fn)
    how = dict(keep="last", points=points, draw="anew")
    Fit(steps, rate, **how).refine(code, signal, *parts, on_step=seen.append)
    return seen


def test_descent_is_adam_on_each_code_alone(system, images):
    signal, code = system.modality.encoding(images), system.encode(images)
    seen = descend(system, signal, code, 4, 1e-2)
    assert [at.step for at in seen] == [0, 1, 2, 3, 4]
    for i in range(len(images)):
        own, alone = code[i : i + 1].clone().requires_grad_(), signal.part(slice(i, i + 1))
        adam = torch.optim.Adam([own], 1e-2)
        for at in seen:
            torch.testing.assert_close(at.code[i : i + 1], own.detach(), atol=1e-5, rtol=1e-4)
            loss = (system.family(alone.coords, own) - alone.values).square().mean()
            torch.testing.assert_close(at.losses[i], loss.detach(), atol=1e-6, rtol=1e-4)
            adam.zero_grad()
            loss.backward()
            adam.step()


def test_the_clock_stands_still_while_the_caller_has_a_moment(images, monkeypatch):
    """A step takes 1 (its forward pass), the caller 100 each time."""
    system, now = fieldloom.build("functa", "tiny"), [0.0]
    plain = fit.reconstruction_loss

    def error(*given):
        now[0] += 1
        return plain(*given)

    def wait(at):
        seconds.append(at.seconds)
        now[0] += 100

    monkeypatch.setattr(fit, "reconstruction_loss", error)
    monkeypatch.setattr(fit.time, "perf_counter", lambda: now[0])
    signal, seconds = system.modality.encoding(images), []
    parts = (system.family, system.render, system.loss_fn)
    Fit(3, 1e-3, keep="last")(signal, *parts, on_step=wait)
    assert seconds == [0, 1, 2, 3]


def test_points_are_drawn_anew_from_what_is_known(images):
    system = fieldloom.build("functa", "tiny")
    whole = system.modality.encoding(images)
    known = torch.rand(3, 64) < 0.3
    wrong = torch.where(known.unsqueeze(-1), whole.values, 1e6)
    signal = fieldloom.types.Signal(whole.coords, wrong, whole.index, whole.grid).hide(known)
    code = system.encode(images)
    errors = [at.losses for at in descend(system, signal, code, 3, 1e-9, points=8)]
    assert all(error.max() < 10 for error in errors)
    assert not torch.allclose(errors[0], errors[1])
    again = [at.losses for at in descend(system, signal, code, 3, 1e-9, points=8)]
    assert all(torch.equal(a, b) for a, b in zip(errors, again, strict=True))


@pytest.mark.parametrize("what", ["codes", "weights"])
def test_refined_data_are_closer_and_say_how_much(system, images, what):
    before = system.encode(images)
    found = system.refine(images, what, steps=20, rate=1e-2, points=1000)
    assert torch.equal(found.start, before)
    for code, own, said in (
        (found.start, system, found.before),
        (found.code, found.system, found.after),
    ):
        torch.testing.assert_close(psnr(own.predict(code).tensor, images), said)
    assert (found.after > found.before + 0.1).all()
    torch.testing.assert_close(system.encode(images), before)  # nothing shared was touched
    assert found.system.decode(found.code, 11).shape == (3, 1, 11, 11)


def test_weights_fit_what_codes_cannot(images):
    system = fieldloom.build("functa", "tiny")
    codes, weights = (system.refine(images, w, 60, 3e-3) for w in ("codes", "weights"))
    assert (weights.after > codes.after + 3).all()


@pytest.mark.parametrize("what", ["codes", "weights"])
def test_each_signal_is_refined_alone_and_never_for_the_worse(images, what):
    system = fieldloom.build("functa", "tiny", train={"field": {"micro": 2}})
    together = system.refine(images, what, steps=5)
    for i in range(3):
        alone = system.refine(images[i : i + 1], what, steps=5)
        torch.testing.assert_close(together.code[i : i + 1], alone.code, atol=1e-5, rtol=1e-4)
    wild = system.refine(images, what, steps=3, rate=1e3)
    kept = wild.after == wild.before
    assert kept.any()
    assert (wild.after[~kept] > wild.before[~kept]).all()
    torch.testing.assert_close(
        wild.system.decode(wild.code).tensor[kept], system.reconstruct(images).tensor[kept]
    )


def test_unfolded_functions_are_the_same(system, images):
    code = system.encode(images)
    other, weights = system.unfold(code)
    torch.testing.assert_close(
        other.predict(weights).tensor, system.predict(code).tensor, atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(
        other.predict(weights[1:2], 5).tensor, system.predict(code, 5).tensor[1:2]
    )


def test_closeness_is_of_known_points(images):
    system = fieldloom.build("functa", "tiny")
    code, signal = system.encode(images), system.modality.encoding(images)
    made, known = system.predict(code).tensor, torch.rand(3, 64) < 0.5
    torch.testing.assert_close(system.fidelity(code, signal), psnr(made, images))
    found = system.fidelity(code, signal.hide(known))
    for i in range(3):
        squares = (made[i].flatten() - images[i].flatten())[known[i]].square()
        assert found[i].item() == pytest.approx(-10 * math.log10(squares.mean()), abs=1e-4)


def test_refining_needs_a_code(images):
    plain = {"field": {"name": "siren", "width": 8}, "conditioner": "shared"}
    system = fieldloom.build("functa", "tiny", encoder={"name": "nothing"}, **plain, prior="none")
    with pytest.raises(InputError, match="have no codes; refine weights"):
        system.refine(images, steps=1)
    assert (
        system.refine(images, "weights", 5).after > system.refine(images, "weights", 1).after
    ).all()
    with pytest.raises(InputError, match="rate = 0"):
        system.refine(images, "weights", rate=0.0)


@pytest.mark.parametrize("what", ["codes", "weights"])
def test_codes_and_weights_have_rates_of_their_own(images, what):
    system = fieldloom.build("functa", "tiny")
    unsaid = system.refine(images, what, 3)
    for i in range(3):
        size = unsaid.start[i].square().mean().sqrt().item()
        rate = size / 10 if what == "codes" else 1e-4
        said, other = (system.refine(images[i : i + 1], what, 3, x) for x in (rate, 3 * rate))
        torch.testing.assert_close(unsaid.code[i], said.code[0], atol=1e-6, rtol=1e-5)
        assert not torch.allclose(unsaid.code[i], other.code[0], atol=1e-6, rtol=1e-5)


def test_codes_that_are_weights_have_the_rate_of_weights(images):
    system = fieldloom.build("learned-init", "tiny")
    unsaid, said = (system.refine(images, "codes", 3, rate) for rate in (None, 1e-4))
    assert torch.equal(unsaid.code, said.code)
    assert not torch.equal(unsaid.code, unsaid.start)


def test_a_relative_rate_is_of_the_code_where_descent_begins():
    codes = torch.tensor([[[3.0, 4.0]], [[0.0, 0.0]], [[-0.03, 0.04]]])
    found = Fit(1, 0.1, relative=True).rates_of(codes)
    torch.testing.assert_close(
        found, torch.tensor([0.5 / math.sqrt(2), 0.01, 0.005 / math.sqrt(2)])
    )
    assert Fit(1, 0.1).rates_of(codes).tolist() == pytest.approx([0.1] * 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert Fit(1, 0.1, relative=True).rates_of(codes.bfloat16()).dtype == torch.bfloat16


def test_what_is_sampled_does_not_depend_on_the_index_in_a_set(images):
    system = fieldloom.build("functa", "tiny")
    plain = system.refine(images, steps=5, points=8)
    placed = system.refine(Data(images, index=torch.tensor([9, 4, 7])), steps=5, points=8)
    assert torch.equal(plain.code, placed.code)
    with pytest.raises(InputError, match="there are no data"):
        system.refine(images[:0])


def test_held_out_views_are_never_refined_on(scenes):
    system, data = scenes
    views, cameras = data.tensor, data.cameras
    other = views.clone()
    other[:, 4] = 0
    changed = Data(other, cameras)
    found = system.refine(data, "weights", steps=3, rate=1e-3)
    again = system.refine(changed, "weights", steps=3, rate=1e-3)
    assert torch.equal(found.code, again.code)
    values = psnr_of_held_out(found.system, found.code, data)
    assert values.shape == (2,)
    assert (values != psnr_of_held_out(found.system, found.code, changed)).all()


def test_codes_share_the_cameras_of_one():
    system = fieldloom.build("laginr", "tiny", source={"name": "multiview"}, renderer="plucker",
                             modality={"name": "views", "size": 8, "support": [1, 3], "query": 1},
                             field={"features": 12}, prior="none")  # fmt: skip
    orbit = system.modality.cameras(2)
    one = Cameras(orbit.c2w[None], orbit.intrinsics[None])
    codes = torch.randn(3, *system.family.code_shape)
    made, same = (system.predict(codes, cameras=x) for x in (one, orbit))
    assert torch.equal(made.tensor, same.tensor)
    assert made.cameras.c2w.shape == (3, 2, 4, 4)
