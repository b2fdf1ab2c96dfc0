"""Optimizers that see matrices: Muon beside AdamW, and SOAP (``engine/soap.py``)."""

import json

import pytest
import torch
from torch import nn

from fieldloom.engine import stage as stages
from fieldloom.engine.loop import Training
from fieldloom.engine.matrixwise import as_matrix, is_matrix
from fieldloom.engine.stage import OPTIMIZERS, Stage
from fieldloom.errors import InputError
from fieldloom.objectives import CodeBatch, Objective

SHAPES = {"bases": (5, 3, 4), "layer": (1, 6, 2), "bias": (1, 1, 4), "rate": (), "vector": (7,)}


class Fit(Objective):
    """The squared distance of a cubic function of weights of many shapes from codes."""

    def __init__(self, per_signal=()):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        weights = {n: torch.randn(shape, generator=generator) for n, shape in SHAPES.items()}
        self.weights = nn.ParameterDict(weights)
        self.players = {"only": {"all": list(self.weights.values())}}
        self.per_signal = frozenset(per_signal)

    def loss(self, player, batch):
        found = sum((w**3).mean() + (w**2).sum() for w in self.weights.values())
        loss = (batch.codes - found).square().mean()
        return loss, {"loss": loss.detach()}


def advance(training, steps):
    for _ in range(steps):
        codes = torch.randn(2, generator=torch.Generator().manual_seed(training.step))
        training.advance(CodeBatch(codes, torch.arange(2)), 2, 0, torch.device("cpu"))
    return {name: w.detach().clone() for name, w in training.objective.weights.items()}


SPECS = {
    "muon": {"name": "muon", "rate": 0.01, "weight_decay": 0.1},
    "soap": {"name": "soap", "rate": 0.01, "every": 2, "largest": 5},
}


@pytest.mark.parametrize("name", SPECS)
def test_an_interrupted_run_goes_on_bit_for_bit(name):
    if name == "soap":
        pytest.importorskip("pytorch_optimizer")
    stage = Stage(steps=10, optimizer=SPECS[name], clip=1.0)
    straight = advance(Training(Fit(), stage), 9)
    first = Training(Fit(), stage)
    advance(first, 4)
    tensors, numbers = first.state()
    second = Training(Fit(), stage)
    second.restore(({k: v.clone() for k, v in tensors.items()}, json.loads(json.dumps(numbers))))
    resumed = advance(second, 5)
    for key, weight in straight.items():
        assert torch.equal(resumed[key], weight), key
    wrong = dict(tensors)
    entry = next(key for key in wrong if key.startswith("optimizer/only/all/0/"))
    wrong[entry] = torch.zeros(3)
    with pytest.raises(InputError, match="does not fit its recipe: 'optimizer/only/all/0/"):
        second.restore((wrong, numbers))


def test_soap_goes_on_bit_for_bit_before_and_after_its_bases_turn():
    """The first bases lay in memory by columns, and were read back by rows, which rounds apart."""
    pytest.importorskip("pytorch_optimizer")

    def step(weights, optimizer, steps):
        for i in steps:
            generator = torch.Generator().manual_seed(i)
            for weight in weights:
                weight.grad = torch.randn(weight.shape, generator=generator)
            optimizer.step()

    def begin(values):
        weights = [nn.Parameter(x.clone()) for x in values]
        return weights, OPTIMIZERS["soap"](weights, every=4)

    start = [torch.ones(8, 12), torch.ones(4, 8, 8), torch.ones(12)]
    straight, optimizer = begin(start)
    step(straight, optimizer, range(9))
    for stop in (1, 2, 3, 6):
        weights, optimizer = begin(start)
        step(weights, optimizer, range(stop))
        held = optimizer.state_dict()
        for own in held["state"].values():
            own |= {name: x.clone(memory_format=torch.contiguous_format) for name, x in own.items()}
        resumed, optimizer = begin([w.detach() for w in weights])
        optimizer.load_state_dict(held)
        step(resumed, optimizer, range(stop, 9))
        assert all(map(torch.equal, resumed, straight)), stop


def test_muon_steps_matrices_and_adamw_the_rest():
    gradients = {n: torch.randn(shape) for n, shape in SHAPES.items()}
    ours = {n: nn.Parameter(torch.ones(shape)) for n, shape in SHAPES.items()}
    optimizer = OPTIMIZERS["muon"](list(ours.values()), rate=0.1, weight_decay=0.5)
    theirs = {n: nn.Parameter(torch.ones(shape)) for n, shape in SHAPES.items()}
    matrices = [nn.Parameter(torch.ones(5, 12)), nn.Parameter(torch.ones(6, 2))]
    rest = [theirs[n] for n in ("bias", "rate", "vector")]
    muon = torch.optim.Muon(matrices, 0.1, 0.5, 0.95, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(rest, 0.1, (0.9, 0.999), 1e-8, 0.5)
    for _ in range(3):
        for name, gradient in gradients.items():
            ours[name].grad, theirs[name].grad = gradient.clone(), gradient.clone()
        matrices[0].grad = gradients["bases"].reshape(5, 12)
        matrices[1].grad = gradients["layer"].reshape(6, 2)
        for each in (optimizer, muon, adamw):
            each.step()
    assert [n for n, p in ours.items() if is_matrix(p)] == ["bases", "layer"]
    for name, matrix in zip(("bases", "layer"), matrices, strict=True):
        assert torch.equal(as_matrix(ours[name].detach()), matrix.detach())
    for name in ("bias", "rate", "vector"):
        assert torch.equal(ours[name], theirs[name])


def test_soap_steps_by_the_polar_factor_of_a_gradient():
    """Adam's first step is the sign of the gradient, here in the bases of its singular vectors."""
    pytest.importorskip("pytorch_optimizer")
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(1, 4, 4, dtype=torch.float64, generator=generator)
    weight = nn.Parameter(torch.zeros_like(gradient))
    optimizer = OPTIMIZERS["soap"]([weight], rate=0.1)
    steps = []
    for _ in range(2):
        weight.grad = gradient.clone()
        optimizer.step()
        steps.append(weight.detach().clone())
    assert not steps[0].any()  # the first begins the preconditioner
    left, _, right = torch.linalg.svd(gradient)
    torch.testing.assert_close(steps[1], -0.1 * left @ right, rtol=1e-5, atol=1e-6)


def test_what_they_refuse(monkeypatch):
    weights = [nn.Parameter(torch.ones(2, 2))]
    with pytest.raises(InputError, match="'all' are of one signal each, and the optimizer 'muon'"):
        Training(Fit(per_signal={"all"}), Stage(optimizer=SPECS["muon"]))
    with pytest.raises(InputError, match="every = 0, largest = 4096: at least 1 each"):
        OPTIMIZERS["soap"](weights, every=0)
    monkeypatch.setitem(__import__("sys").modules, "fieldloom.engine.soap", None)
    with pytest.raises(InputError, match=r"pip install 'fieldloom\[optimizers\]'"):
        OPTIMIZERS["soap"](weights)
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(InputError, match="needs torch 2.9 or later"):
        stages.muon(weights)
