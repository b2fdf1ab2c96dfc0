"""The feed: batches in order, read ahead by a thread that ends with it."""

import threading
from itertools import pairwise

import pytest
import torch
from torch import nn

import fieldloom
from fieldloom import recipe, stopping
from fieldloom.engine import device as devices
from fieldloom.engine.feed import Feed, feed_steps, prefetch
from fieldloom.engine.loop import Training, loop
from fieldloom.engine.run import Run
from fieldloom.engine.stage import Stage
from fieldloom.errors import FieldloomError, Interrupted
from fieldloom.objectives import CodeBatch, Objective
from fieldloom.training import train

CPU = torch.device("cpu")
FEW = ["source.split=[0.05, 0.05]", "train.field.steps=7", "train.field.log_every=2"]


def threads():
    return [one for one in threading.enumerate() if one.name.startswith("prefetch")]


# -- reading ahead


@pytest.mark.parametrize("ahead", [1, 3, 100])
def test_items_come_in_order_and_are_made_ahead(ahead):
    made = []

    def make(item):
        made.append(item)
        return item**2

    found = prefetch(make, range(10), ahead)
    assert next(found) == 0
    assert [*found] == [n**2 for n in range(1, 10)]
    assert made == [*range(10)]
    assert not threads()


def test_no_more_is_made_than_asked_for():
    asked, made = threading.Semaphore(0), []

    def make(item):
        made.append(item)
        asked.release()

    found = prefetch(make, range(100), 3)
    next(found)
    for _ in range(4):
        assert asked.acquire(timeout=300)
    assert made == [0, 1, 2, 3]
    found.close()
    assert not threads()


def test_an_error_comes_where_its_item_would():
    def make(item):
        if item == 3:
            raise OSError("the disk is gone")
        return item

    found = prefetch(make, range(10), 4)
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        next(found)
    assert not threads()


def test_who_stops_listening_waits_for_one_item_at_most():
    began, ends = threading.Event(), threading.Event()

    def make(item):
        if item:
            began.set()
            ends.wait(60)
        return item

    found = prefetch(make, range(10), 4)
    next(found)
    assert began.wait(300)
    ends.set()
    found.close()
    assert not threads()


# -- the loop


class Line(Objective):
    """(w - x)^2 on codes; a draw in the loss, from torch's generator."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))
        self.players = {"line": {"weights": [self.w]}}

    def loss(self, player, batch):
        loss = (self.w - batch.codes - 0.01 * torch.rand(())).square().mean()
        return loss, {"loss": loss.detach()}


DATA = torch.arange(10.0)


def read(indices, generator):
    return DATA[indices] + torch.rand(len(indices), generator=generator)


class Ran:
    """What a loop did: its weights, lines and checkpoints, and how it ended."""

    def __init__(self, ahead=0, read=read, **stage):
        self.lines, self.saved, self.error = [], [], None
        objective = Line()
        plain = {"optimizer": {"name": "sgd", "rate": 0.1}, "batch": 3, "log_every": 5}
        self.training = Training(objective, Stage(steps=20, **plain | stage))
        try:
            loop(
                "field", self.training, Feed(read, CodeBatch, ahead), len(DATA), seed=7, micro=3,
                device=CPU, log=self.lines.append,
                save=lambda state: self.saved.append((self.training.step, objective.w.item())),
            )  # fmt: skip
        except FieldloomError as error:
            self.error = error
        self.weight = objective.w.item()

    @property
    def log(self):
        return [{k: v for k, v in x.items() if k != "seconds_a_step"} for x in self.lines]


def test_what_a_thread_reads_trains_as_ever():
    plain, ahead = Ran(save_every=7), Ran(ahead=3, save_every=7)
    assert plain.error is ahead.error is None
    assert (plain.weight, plain.log, plain.saved) == (ahead.weight, ahead.log, ahead.saved)
    assert not threads()


@pytest.mark.parametrize("points", [None, 20])
def test_a_recipe_trains_the_same_by_a_thread(tmp_path, monkeypatch, points):
    given = [] if points is None else [f"train.field.points={points}"]
    own = recipe.load("mnif:tiny", [*FEW, *given])
    train(own, str(tmp_path / "plain"), "field")
    monkeypatch.setattr(devices, "steps_ahead", lambda device, streamed=False: 3)
    monkeypatch.setattr("fieldloom.engine.loop.reads_at_once", lambda device: False)
    train(own, str(tmp_path / "ahead"), "field")
    same(tmp_path / "plain", tmp_path / "ahead")


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("points", [None, 20])
def test_a_recipe_trains_the_same_from_data_that_stay(tmp_path, monkeypatch, points, batch):
    given = [] if points is None else [f"train.field.points={points}"]
    own = recipe.load("functa:tiny", [*FEW, f"train.field.batch={batch}", *given])
    train(own, str(tmp_path / "plain"), "field")
    monkeypatch.setattr(devices, "holds", lambda device, size: True)
    train(own, str(tmp_path / "stays"), "field")
    same(tmp_path / "plain", tmp_path / "stays")


def same(first, second):
    ours, theirs = (fieldloom.load(folder).state_dict() for folder in (first, second))
    assert all(torch.equal(x, theirs[name]) for name, x in ours.items())
    logs = [Run(folder).read_log() for folder in (first, second)]
    strip = lambda log: [{k: v for k, v in x.items() if k != "seconds_a_step"} for x in log]
    assert strip(logs[0]) == strip(logs[1])
    assert not threads()


def test_errors_and_stops_reach_the_loop(monkeypatch):
    def dies(indices, generator):
        raise FieldloomError("the disk is gone")

    assert "the disk is gone" in str(Ran(ahead=3, read=dies).error)
    assert not threads()
    looks = []
    monkeypatch.setattr(stopping, "stop_requested", lambda: looks.append(1) or len(looks) == 4)
    ran = Ran(ahead=3)
    assert isinstance(ran.error, Interrupted)
    assert ran.saved == [(4, ran.weight)]
    assert not threads()


def test_data_larger_than_their_share_of_a_device_do_not_stay():
    assert not devices.holds(CPU, 1)
    assert devices.steps_ahead(CPU) == 0
    assert devices.pin(DATA, CPU) is DATA
    assert devices.send(DATA, CPU) is DATA


# -- nothing waits


class Waits(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts numbers that are read from tensors."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.count += name in ("_local_scalar_dense", "is_nonzero", "nonzero", "equal")
        return func(*args, **kwargs or {})


@pytest.fixture
def late(monkeypatch):
    """A device that is read late, as accelerators are: numbers that are read are counted."""
    waits = Waits()
    monkeypatch.setattr("fieldloom.engine.loop.reads_at_once", lambda device: False)
    plain = torch.Tensor.tolist

    def tolist(tensor):
        waits.count += 1
        return plain(tensor)

    monkeypatch.setattr(torch.Tensor, "tolist", tolist)
    return waits


def test_numbers_are_read_where_a_line_is_logged_alone(late, monkeypatch):
    counts, advance = [], Training.advance

    def counted(self, *rest):
        counts.append(late.count)
        return advance(self, *rest)

    monkeypatch.setattr(Training, "advance", counted)
    at_once = Ran(save_every=7)
    counts.clear()
    late.count = 0
    with late:
        ran = Ran(save_every=7)
    steps = [i + 1 for i, (a, b) in enumerate(pairwise(counts)) if a != b]
    assert steps == [5, 7, 10, 14, 15]  # lines, and checkpoints
    assert ran.weight == at_once.weight
    assert ran.log == at_once.log


@pytest.mark.parametrize("name", ["mnif:tiny", "functa:tiny", "laginr:tiny", "weights:tiny"])
def test_a_step_of_a_recipe_waits_for_nothing(late, tmp_path, monkeypatch, name):
    counts, advance = [], Training.advance

    def counted(self, *rest):
        before = late.count
        with late:
            found = advance(self, *rest)
        counts.append(late.count - before)
        return found

    monkeypatch.setattr(Training, "advance", counted)
    plain = {"optimizer": {"name": "sgd", "rate": 1e-3}, "steps": 3, "groups": {}}
    own = recipe.load(name)
    own["train"]["field"] |= plain  # Adam reads the number of its steps, which the host has
    train(own, str(tmp_path / "run"), "field")
    assert counts == [0, 0, 0]


@pytest.mark.parametrize("at", [3, 8, 18])
@pytest.mark.parametrize("ahead", [0, 3])
def test_a_loss_that_is_no_number_is_found_late_and_nothing_is_saved_after_it(late, at, ahead):
    steps = []

    def spoils(indices, generator):
        steps.append(1)
        return read(indices, generator) + (float("nan") if len(steps) - 1 == at else 0.0)

    ran = Ran(ahead=ahead, read=spoils, save_every=4)
    assert f"became nan (its gradient nan) at step {at}: its batch was 3 codes." in str(ran.error)
    good = Ran(save_every=4)
    assert ran.saved == [one for one in good.saved if one[0] <= at]
    assert ran.log == [line for line in good.log if line["step"] <= at]
    assert not threads()


def test_a_stop_after_a_bad_step_saves_nothing(late, monkeypatch):
    looks = []
    monkeypatch.setattr(stopping, "stop_requested", lambda: looks.append(1) or len(looks) == 3)
    ran = Ran(read=lambda indices, generator: DATA[indices] / 0, log_every=1000)
    assert "at step 0" in str(ran.error)
    assert ran.saved == []


def test_what_is_unread_is_bounded(late, monkeypatch):
    monkeypatch.setattr("fieldloom.engine.loop.MOST_UNREAD", 6)
    most, check = [], Training.check

    def checked(self, fetch):
        most.append(len(self.unread))
        return check(self, fetch)

    monkeypatch.setattr(Training, "check", checked)
    Ran(log_every=1000)
    assert most == [6, 6, 6, 2]


def test_steps_are_those_that_are_left():
    stage, seen = Stage(steps=9, batch=4), []
    codes = lambda indices, generator: seen.append(indices.tolist()) or DATA[indices]
    for ahead in (0, 2):
        feed = Feed(codes, CodeBatch, ahead)
        assert len([*feed_steps(feed, stage, 0, 0, range(5, 9), 10)]) == 4
    assert seen[:4] == seen[4:]
