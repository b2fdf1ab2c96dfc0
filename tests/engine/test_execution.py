"""Captured and compiled steps: on a stand-in for CUDA graphs, and by inductor on the CPU."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch._inductor import config as inductor
from torch._inductor import cpu_vec_isa

import captures
from fieldloom.assembly import build, objective_of
from fieldloom.engine import device as devices
from fieldloom.engine.execution import Constants, choose_execution, rebuild, shape_of, tensors_of
from fieldloom.engine.loop import Training
from fieldloom.errors import FieldloomError, InputError
from fieldloom.objectives import CodeBatch, Objective
from fieldloom.settings import Stage

CPU = torch.device("cpu")


class Descent(Objective):
    """A step of noisy descent on x from w, differentiated through; a weight that nothing uses."""

    capturable = True

    def __init__(self, scale=1.0):
        super().__init__()
        self.w, self.idle = nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(2))
        self.register_buffer("scale", torch.tensor(scale))
        self.players = {"only": {"shared": [self.w, self.idle]}}

    def loss(self, player, batch):
        start = self.w + 0.1 * torch.randn_like(batch.codes)
        loss = lambda x: ((self.scale * x).sin() - batch.codes).square()
        (grad,) = torch.autograd.grad(loss(start).sum(), start, create_graph=True)
        losses = loss(start - 0.1 * grad).flatten(1).mean(1)
        return losses.mean(), {"loss": losses.detach().mean(), "idle": losses.detach().amax()}


STAGE = Stage(steps=9, optimizer={"name": "adamw", "rate": 0.02}, ema=0.9, clip=1.0)


def batches(count=6, size=5):
    generator = torch.Generator().manual_seed(1)
    return [CodeBatch(torch.rand(size, 3, 2, generator=generator)) for _ in range(count)]


def train(stage, some, objective=None, micro=2):
    training = Training(objective or Descent(), stage)
    logs = [training.advance(batch, micro, 0, CPU) for batch in some]
    return training, logs


def weights(training):
    return torch.cat([p.flatten() for p in training.objective.parameters()]).detach()


def test_captured_steps_are_the_eager_ones():
    """Two shapes of micro-batches (2, 2, 1), noise, clipping, averages, a parameter unused."""
    eager, logs = train(replace(STAGE, execution="eager"), batches())
    with captures.stand_in() as said:
        captured, own = train(STAGE, batches())
    assert not said
    assert captured.execution.mode == "captured"
    assert len(captured.execution.recorded) == 2
    assert torch.equal(weights(captured), weights(eager))
    assert captured.averaged.keys() == eager.averaged.keys()
    assert all(torch.equal(captured.averaged[n], x) for n, x in eager.averaged.items())
    assert own == logs
    assert captured.objective.idle.grad is None


def test_a_captured_batch_that_is_not_cut():
    eager, _ = train(replace(STAGE, execution="eager"), batches(), micro=5)
    with captures.stand_in():
        captured, _ = train(replace(STAGE, execution="captured"), batches(), micro=5)
    assert torch.equal(weights(captured), weights(eager))


def test_captured_training_resumes_to_the_same_weights():
    with captures.stand_in():
        straight, _ = train(STAGE, batches())
        first, _ = train(STAGE, batches()[:3])
        tensors, numbers = first.state()
        second = Training(Descent(), STAGE)
        second.restore(({name: x.clone() for name, x in tensors.items()}, numbers))
        for batch in batches()[3:]:
            second.advance(batch, 2, 0, CPU)
    assert torch.equal(weights(second), weights(straight))


def refuse(device, run):
    run()
    raise RuntimeError("operation not permitted when stream is capturing")


def lose_numbers(device, run):
    graph, made = captures.capture(device, run)
    run, graph.run = graph.run, lambda: [1.1 * x for x in run()]
    return graph, made


@pytest.mark.parametrize(
    ("capture", "reason"), [(refuse, "stream is capturing"), (lose_numbers, "loss would be off by")]
)
def test_what_cannot_be_captured_is_said_once_and_runs_eagerly(capture, reason):
    eager, _ = train(replace(STAGE, execution="eager"), batches())
    with captures.stand_in(capture) as said:
        other, _ = train(STAGE, batches())
    assert len(said) == 1
    assert reason in said[0]
    assert torch.equal(weights(other), weights(eager))


def test_the_first_loss_that_is_no_number_is_what_is_said():
    training = Training(Descent(scale=float("nan")), STAGE)
    words = "the loss of 'only' became nan"
    with captures.stand_in() as said, pytest.raises(FieldloomError, match=words):
        training.advance(batches()[0], 2, 0, CPU)
    assert not said
    assert not training.execution.recorded


def test_recorded_steps_are_bounded(monkeypatch):
    """Of two shapes of micro-batches one is recorded; the other runs eagerly, and it is said."""
    monkeypatch.setattr("fieldloom.engine.execution.MOST", 1)
    eager, _ = train(replace(STAGE, execution="eager"), batches())
    with captures.stand_in() as said:
        captured, _ = train(STAGE, batches())
    assert said == ["Steps of 1 shapes are captured; others run eagerly."]
    assert len(captured.execution.recorded) == 1
    assert torch.equal(weights(captured), weights(eager))


def test_how_a_stage_runs():
    fine, other = Descent(), Descent()
    other.capturable = False
    choose = lambda how, objective=fine: choose_execution(Stage(execution=how), objective, CPU)
    assert [choose(how) for how in ("auto", "eager", "compiled")] == ["eager", "eager", "compiled"]
    with pytest.raises(InputError, match="'captured' needs CUDA, and the device is 'cpu'"):
        Training(fine, Stage(execution="captured"))
    with pytest.raises(InputError, match="steps of this objective differ in more than their data"):
        choose("compiled", other)
    with captures.stand_in():
        assert choose("auto") == choose("captured") == "captured"
        assert choose("auto", other) == "eager"


@pytest.mark.parametrize(
    ("name", "captured"),
    [("mnif", True), ("laginr", True), ("gem", False), ("gasp", False), ("learned-init", True)],
)
def test_which_objectives_are_captured(name, captured):
    assert objective_of(build(name, "tiny", known={"signals": 4})).capturable == captured


def test_a_batch_as_its_tensors():
    system = build("mnif", "tiny")
    batch = system.modality.observe(torch.rand(3, 1, 8, 8))
    coords, values, index = tensors_of(batch)  # target and context are one
    assert len(coords) == 1
    assert values.shape == (3, 64, 1)
    assert index.shape == (3,)
    again = rebuild(batch, [coords, values + 1, index])
    assert again.context is again.target
    assert again.context.grid == (8, 8)
    assert torch.equal(again.target.coords, batch.target.coords)
    assert torch.equal(again.target.values, batch.target.values + 1)
    assert shape_of(again) == shape_of(batch) != shape_of(batch.part(slice(1)))


def test_numbers_of_the_processor_may_not_change():
    constants = Constants()
    bring = lambda x: torch.tensor(x, device="meta")
    for _ in range(2):
        with constants:
            first = bring([1.0, 2.0])
            bring(3.0)
    with constants:
        assert bring([1.0, 2.0]) is first

    def bring_others():
        with constants:
            bring([1.0, 3.0])

    with pytest.raises(FieldloomError, match="other numbers"):
        bring_others()


def test_tf32_is_for_one_step_alone():
    allowed = lambda: (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    before = allowed()
    for precision, inside in {"tf32": (True, True), "float32": (False, False)}.items():
        with devices.matmul_precision(torch.device("cuda"), precision):
            assert allowed() == inside
        assert allowed() == before


@pytest.mark.slow
def test_compiled_steps_are_the_eager_ones_to_rounding(capsys, monkeypatch):
    # without vectors: inductor would first compile a program for each kind, to try it
    monkeypatch.setattr(cpu_vec_isa, "valid_vec_isa_list", list)
    eager, _ = train(replace(STAGE, execution="eager"), batches(), micro=5)
    # and in this process: others would first import torch
    with inductor.patch(cpp_cache_precompile_headers=False, compile_threads=1):
        compiled, _ = train(replace(STAGE, execution="compiled"), batches(), micro=5)
    assert compiled.execution.mode == "compiled", capsys.readouterr().err
    torch.testing.assert_close(weights(compiled), weights(eager), rtol=1e-5, atol=1e-5)


def test_without_a_compiler_steps_run_eagerly(monkeypatch, capsys):
    monkeypatch.setattr(torch._inductor, "compile", refuse)
    eager, _ = train(replace(STAGE, execution="eager"), batches())
    other, _ = train(replace(STAGE, execution="compiled"), batches())
    assert capsys.readouterr().err.startswith("Steps cannot be compiled here, and run eagerly:")
    assert torch.equal(weights(other), weights(eager))
