"""One loop for all objectives: reconstruction, adversarial, codec and prior training.

Everything in it is a function of (seed, step): the order of the data, the random numbers of a step,
the learning rate. So a run that was interrupted goes on as if it had not been.

An accelerator runs behind the program, and a number that is read waits for it. So losses and norms
stay there, and are read where a line is logged, at checkpoints and at stops.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fieldloom import stopping
from fieldloom.engine.device import keep_random, reads_at_once
from fieldloom.engine.execution import Execution
from fieldloom.engine.feed import Feed, InParts, Parts, feed_steps, fetch_step
from fieldloom.engine.ranks import Word, current_team
from fieldloom.engine.rows import Rows, divide_rows
from fieldloom.engine.rowwise import gradients, takes_rows
from fieldloom.engine.stage import MIXING, OPTIMIZERS, moments_of, rate_at, seed_everything
from fieldloom.errors import DivergedError, InputError, Interrupted, shorten
from fieldloom.nn.grids import sparse_gradients
from fieldloom.objectives import AnyBatch, Objective
from fieldloom.portion import Portion, computing
from fieldloom.progress import Progress
from fieldloom.registry import build, check_value
from fieldloom.settings import Schedule, Stage

State = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors and numbers: what a checkpoint holds."""


@dataclass
class Group:
    """One optimizer over the parameters of one group of a player.

    per_signal: whether each parameter row belongs to one signal (``Objective.per_signal``).
    """

    name: str
    parameters: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    rate: float
    schedule: str
    per_signal: bool = False


class Unread(NamedTuple):
    """What a player's step must be judged by, still on the device."""

    step: int
    player: str
    loss: Tensor
    norm: Tensor


MOST_UNREAD = 64
"""Players' steps that may be unread: a loss that is no number is found that late."""


class Training:
    """An objective, its optimizers and averaged weights, and the steps that are done.

    tag: seeds the random numbers, so that two stages never see the same. Where this process is one
    of several (``engine.ranks``), a step is theirs together.
    """

    def __init__(self, objective: Objective, stage: Stage, tag: int = 0) -> None:
        self.objective, self.stage, self.step, self.tag = objective, stage, 0, tag
        self.team, self.logged = current_team(), dict[str, list[str]]()
        self.unread: list[Unread] = []
        self.players: dict[str, list[Group]] = {
            player: [self._group(name, ps) for name, ps in groups.items() if ps]
            for player, groups in objective.players.items()
        }
        first = next(iter(objective.parameters()), torch.zeros(0))
        self.execution = Execution(objective, stage, first.device)
        used = {group.name for groups in self.players.values() for group in groups}
        for name in stage.groups:
            if name not in used:
                raise InputError(
                    f"train.groups: there is no group '{name}', only {', '.join(used)}."
                )
        self.rows: Rows | None = None
        self.paused: dict[str, Tensor] = {}
        self.averaged: dict[str, Tensor] = {}
        if stage.ema:
            self.averaged = {n: p.detach().clone() for n, p in objective.named_parameters()}

    def divide_rows(self) -> None:
        """Let each process own some rows of a table of codes; before the first step."""
        self.rows = divide_rows(self.objective, self.team)
        if self.rows is not None:
            self.execution.mode = "eager"  # a step reads other rows each time
            self.averaged = {
                name: self.rows.cut(x) if f"averaged/{name}" in self._of_rows else x
                for name, x in self.averaged.items()
            }

    @property
    def _of_rows(self) -> tuple[str, ...]:
        """How the names begin of what a checkpoint holds of each row of a table that is divided."""
        if self.rows is None:
            return ()
        table = self.rows.table
        name = next(n for n, p in self.objective.named_parameters() if p is table)
        kept = [
            f"optimizer/{player}/{group.name}/{i}/"
            for player, groups in self.players.items()
            for group in groups
            for i, p in enumerate(group.parameters)
            if p is table
        ]
        return f"model/{name}", f"averaged/{name}", *kept

    def _has_rows(self, name: str) -> bool:
        """Whether a tensor of a checkpoint has one row for each of the table's."""
        kept = self._of_rows
        return bool(kept) and name.startswith(kept) and not name.endswith("/step")

    def _group(self, name: str, parameters: list[nn.Parameter]) -> Group:
        own = dict(self.stage.groups.get(name, {}))
        schedule = check_value(
            "train.schedule",
            own.pop("schedule", self.stage.schedule),
            Schedule,
        )
        spec = dict(self.stage.optimizer)
        spec = own if own.get("name", spec.get("name")) != spec.get("name") else spec | own
        if name in self.objective.per_signal and spec.get("name") in MIXING:
            raise InputError(
                f"train.groups: '{name}' are of one signal each, and the optimizer "
                f"'{spec['name']}' would mix them: name another for them, as adamw "
                f"(train.*.groups.{name}.name)."
            )
        tables = {"optimizer": OPTIMIZERS}
        optimizer = build("optimizer", spec, tables, parameters=parameters)
        return Group(
            name,
            parameters,
            optimizer,
            optimizer.param_groups[0]["lr"],
            schedule,
            name in self.objective.per_signal,
        )

    def advance(
        self, batch: AnyBatch, micro: int, seed: int, device: torch.device
    ) -> dict[str, Tensor]:
        """One step of every player on a batch; returns numbers for the log, still on the device.

        micro: signals of a micro-batch, whose gradients are accumulated. On a device that
        ``reads_at_once``, raises DivergedError on a loss or gradient that is no number, before any
        weight changes; on others ``check`` does, later.
        """
        self.team.say(Word.STEP, self.step)
        self.team.within = True
        logs: dict[str, Tensor] = {}
        # paused in micro-batches of another size; or alone: each process would add its gradients
        if int(self.paused.get("size", micro)) != micro or self.team.count > 1:
            self.paused = {}
        for number, (player, groups) in enumerate(self.players.items()):
            parameters = self._hold_rows(groups, batch, micro)
            clipped = self.stage.clip is not None
            by_rows = [g for g in groups if takes_rows(g.optimizer, clipped)]
            # what is recorded has dense gradients alone
            eager = self.execution.mode == "eager" and self.team.count == 1
            tables = [p for g in by_rows if eager for p in g.parameters]
            done, totals = self._begin(number, parameters)
            for micro_step, micro_batch, portion in self._own_parts(batch, micro):
                if micro_step < done:
                    continue
                key = seed, self.tag, self.step, number + 1, micro_step + 1
                fraction = len(micro_batch) / len(batch)
                pausable = self._pausable(number, micro_step, micro, parameters, totals)
                with pausable, sparse_gradients(tables), computing(portion):
                    loss, numbers = self.execution.differentiate(
                        player, micro_batch, fraction, parameters, partial(seed_everything, *key)
                    )
                for name, value in {**numbers, "objective": loss}.items():
                    totals[name] = totals.get(name, 0) + value * fraction
            if self.team.count > 1:
                totals = self._add_up(player, parameters, totals)
            norm = nn.utils.get_total_norm(gradients(parameters))
            self.unread.append(Unread(self.step, player, totals["objective"], norm))
            if self.team.rank:
                self.unread.clear()  # the first process checks what all have added up
            elif reads_at_once(device):
                self.check(lambda step: batch)
            self._optimizer_step(groups, parameters, len(batch))
            prefix = "" if len(self.players) == 1 else f"{player}."
            logs |= {f"{prefix}{name}": value for name, value in totals.items()}
        self._update_average()
        self.step += 1
        self.team.within = False
        return logs

    def _hold_rows(self, groups: list[Group], batch: AnyBatch, micro: int) -> list[nn.Parameter]:
        """The parameters of a player's step; in place of a table whose rows processes own, the
        rows that the batch reads."""
        parameters = [p for group in groups for p in group.parameters]
        if self.rows is None or not any(p is self.rows.table for p in parameters):
            return parameters
        index = torch.zeros(len(batch), dtype=torch.int64, device=self.execution.device)
        for i in range(-(-len(batch) // micro)):
            if self.team.own(i):
                part: Any = batch.part(slice(i * micro, (i + 1) * micro))
                index[i * micro : (i + 1) * micro] = part.context.index
        self.team.add_up([index])
        held, table = self.rows.begin(index), self.rows.table
        return [held if p is table else p for p in parameters]

    def _own_parts(
        self, batch: AnyBatch, micro: int
    ) -> Iterator[tuple[int, AnyBatch, Portion | None]]:
        """What this process computes of a batch: micro-batches by their numbers, one after another,
        or all of its own at once where the objective compares signals."""
        count = -(-len(batch) // micro)
        own = [i for i in range(count) if self.team.own(i)]
        if not self.objective.joint:
            for i in own:
                yield i, batch.part(slice(i * micro, (i + 1) * micro)), None
            return
        rows = torch.arange(len(batch)).split(micro)
        mine = torch.cat([rows[0][:0], *(rows[i] for i in own)])
        busy, device = min(self.team.count, count), self.execution.device
        portion = self.team.portion(mine, len(batch), busy, device)
        if own:
            yield 0, batch.joined() if isinstance(batch, InParts) else batch, portion

    def _add_up(
        self, player: str, parameters: list[nn.Parameter], totals: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Add up gradients and log over all processes, some of which may have had nothing to do."""
        device = self.execution.device
        used = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32)
        used = used.to(device)
        if player not in self.logged:
            self.logged[player] = self.team.share(list(totals))
        names = self.logged[player]
        own = [torch.as_tensor(totals.get(name, 0.0)).double() for name in names]
        sums = torch.stack([x.to(device) for x in own])
        self.team.add_up([used, sums])
        there = [p for p, n in zip(parameters, used.tolist(), strict=True) if n]
        for parameter in there:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.team.add_up([p.grad for p in there if p.grad is not None])
        return dict(zip(names, sums, strict=True))

    def micro_of(self, asked: int) -> int:
        """Signals of a micro-batch: those asked for, or the whole batch where it cannot be cut."""
        cut = self.objective.independent or (self.stage.divided and self.objective.divisible)
        return asked if cut else self.stage.batch

    def parts_of(self, micro: int) -> Parts | None:
        """Which parts of batches are read where processes share them; None: they are read whole.

        micro: signals of a micro-batch. It depends on the recipe alone, so that one process and
        several draw the same.
        """
        divided = self.stage.divided and micro < self.stage.batch
        return Parts(micro, self.team.own) if divided else None

    def check(self, fetch: Callable[[int], AnyBatch]) -> None:
        """Read what is unread. Raises DivergedError for the first that was no number.

        fetch: the batch of a step, which the message describes.
        """
        unread, self.unread = self.unread, []
        if not unread:
            return
        fine = torch.stack([one.loss.isfinite() & one.norm.isfinite() for one in unread])
        if all(fine.tolist()):
            return
        step, player, loss, norm = unread[fine.tolist().index(False)]
        raise DivergedError(
            f"the loss of '{player}' became {float(loss)} (its gradient {norm:.3g}) at step "
            f"{step}: its batch was {fetch(step).describe()}. "
            "Train again with a smaller learning rate, or clip the gradient (train.*.clip).",
            step,
        )

    def _begin(self, player: int, parameters: list[nn.Parameter]) -> tuple[int, dict[str, Tensor]]:
        """How many micro-steps of a player were done before it paused, and their log's totals.

        Restores the gradients that these accumulated; where nothing was paused, clears gradients.
        """
        kept = {} if player else self.paused
        for i, parameter in enumerate(parameters):
            own = kept.get(f"grad/{i}")
            parameter.grad = None if own is None else own.to(parameter.device)
        return int(kept.get("micro", 0)), _under("total/", kept)

    @contextmanager
    def _pausable(
        self,
        player: int,
        micro_step: int,
        micro: int,
        parameters: list[nn.Parameter],
        totals: Mapping[str, Tensor],
    ) -> Iterator[None]:
        """A context in which the loss of a micro-batch may pause.

        Only the first player's may: no weight of the step has changed yet.
        """
        if player or self.team.count > 1:  # which stop together, between steps
            yield
            return
        try:
            with stopping.pausable(_under("loss/", self.paused)):
                yield
        except stopping.Paused as pause:
            own = {f"loss/{name}": x for name, x in pause.tensors.items()}
            own |= {f"total/{name}": torch.as_tensor(x).clone() for name, x in totals.items()}
            kept = ((f"grad/{i}", p.grad) for i, p in enumerate(parameters))
            grads = {name: grad.to_dense() for name, grad in kept if grad is not None}
            at = {"micro": torch.tensor(micro_step), "size": torch.tensor(micro)}
            self.paused = own | grads | at
            raise
        self.paused = {}

    def _optimizer_step(
        self, groups: list[Group], parameters: list[nn.Parameter], batch_size: int
    ) -> None:
        """Let every optimizer of a player take a step with the accumulated gradients.

        parameters: of all groups, in their order, as they were differentiated.
        """
        per_signal = [group.per_signal for group in groups for _ in group.parameters]
        for parameter, own in zip(parameters, per_signal, strict=True):
            if own and parameter.grad is not None:
                parameter.grad.mul_(batch_size)  # from the mean over the batch to the signal's own
        if self.stage.clip is not None:
            nn.utils.clip_grad_norm_(parameters, self.stage.clip)
        if self.rows is not None and self.rows.within:
            self.rows.end()
        for group in groups:
            for torch_group in group.optimizer.param_groups:
                torch_group["lr"] = group.rate * rate_at(self.step, self.stage, group.schedule)
            group.optimizer.step()

    @torch.no_grad()
    def _update_average(self) -> None:
        """Average weights with decay min(ema, (1 + n) / (10 + n)), n the steps that are done.

        The small decay of the first steps lets the average forget the initial weights soon.
        """
        if self.averaged:
            decay = min(self.stage.ema, (2 + self.step) / (11 + self.step))
            weights = dict(self.objective.named_parameters())
            now: list[Tensor] = [weights[name] for name in self.averaged]
            torch._foreach_lerp_(list(self.averaged.values()), now, 1 - decay)

    @torch.no_grad()
    def finish(self) -> None:
        """Copy the averaged weights, where there are any, into the objective."""
        self._put(self.averaged)

    @contextmanager
    def as_finished(self) -> Iterator[None]:
        """A context in which the objective has its averaged weights, and no part is in training.

        Afterwards all is as it was, torch's generators, too.
        """
        named = self.objective.named_parameters()
        own = {name: p.detach().clone() for name, p in named if name in self.averaged}
        modes = {module: module.training for module in self.objective.modules()}
        with keep_random(self.execution.device):
            try:
                self.finish()
                self.objective.eval()
                if self.rows is not None:
                    self.rows.averaged = bool(self.averaged)
                yield
            finally:
                if self.rows is not None:
                    self.rows.averaged = False
                self._put(own)
                for module, mode in modes.items():
                    module.training = mode

    @torch.no_grad()
    def _put(self, weights: Mapping[str, Tensor]) -> None:
        for name, parameter in self.objective.named_parameters():
            if name in weights:
                parameter.copy_(weights[name])

    # -- checkpoints

    def state(self) -> State:
        """The checkpoint: everything that the next step depends on."""
        if self.team.leads and self.rows is not None:
            self.team.say(Word.WHOLE)
        tensors, numbers = self._own_state()
        for name in filter(self._has_rows, list(tensors)):
            tensors[name] = self.rows.collect(tensors[name])  # type: ignore
        return tensors, numbers

    def join_rows(self) -> None:
        """Let the first process hold the whole of a table whose rows processes own."""
        if self.rows is None:
            return
        self.team.say(Word.JOIN)
        name = self._of_rows[1].removeprefix("averaged/")
        self.rows.join(self.averaged.get(name))
        self.rows = None

    def read_rows(self, averaged: bool) -> None:
        """Take part in reading rows for the first process, which has just said so."""
        index = torch.tensor(self.team.share(), dtype=torch.int64)
        if self.rows is not None:
            name = self._of_rows[1].removeprefix("averaged/")
            self.rows.fetch(index, self.averaged[name] if averaged else None)

    def _own_state(self) -> State:
        """As ``state``, with the rows that this process owns alone."""
        tensors = {f"model/{n}": t for n, t in self.objective.state_dict().items()}
        tensors |= {f"averaged/{n}": t for n, t in self.averaged.items()}
        tensors |= {f"paused/{n}": t for n, t in self.paused.items()}
        for player, groups in self.players.items():
            for group in groups:
                for i, entry in group.optimizer.state_dict()["state"].items():
                    for key, value in entry.items():
                        if value is not None:
                            tensors[f"optimizer/{player}/{group.name}/{i}/{key}"] = value
        return tensors, {"step": self.step, "steps": self.stage.steps}

    def restore(self, state: State) -> None:
        """Go on from a state. Raises InputError where it is another objective's."""
        whole, numbers = state
        self._load({n: self._cut(n, x) for n, x in whole.items()}, numbers)
        self._share(whole, kept=False)

    def _cut(self, name: str, tensor: Tensor) -> Tensor:
        """What this process keeps of a tensor of a checkpoint."""
        return tensor if self.rows is None or not self._has_rows(name) else self.rows.cut(tensor)

    def _load(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Go on from tensors, those of rows cut to this process's own."""
        self._check_state(tensors)
        load_weights(self.objective, _under("model/", tensors), "the checkpoint")
        self.paused = _under("paused/", tensors)
        for name, tensor in _under("averaged/", tensors).items():
            self.averaged[name].copy_(tensor)
        for player, groups in self.players.items():
            for group in groups:
                whole = group.optimizer.state_dict()
                entries: dict[int, dict[str, Tensor]] = {}
                for name, tensor in _under(f"optimizer/{player}/{group.name}/", tensors).items():
                    index, key = name.split("/")
                    entries.setdefault(int(index), {})[key] = tensor
                whole["state"] = entries
                group.optimizer.load_state_dict(whole)
        self.step = int(numbers["step"])

    def share_state(self) -> None:
        """Let the processes that follow go on from where this first one stands."""
        own = self._own_state()[0]
        self._share({n: x for n, x in own.items() if not self._has_rows(n)}, kept=True)

    def _share(self, tensors: Mapping[str, Tensor], kept: bool) -> None:
        """Tell the processes that follow a state. kept: whether they keep their rows of tables."""
        if self.team.leads:
            numbers = {"step": self.step, "steps": self.stage.steps}
            self.team.say(Word.STATE)
            self.team.share({"numbers": numbers, "stage": asdict(self.stage), "kept": kept})
            self.team.share_tensors(tensors)

    def take_state(self) -> None:
        """Go on from where the first process stands, which has just said so."""
        told = self.team.share()
        self.stage = Stage(**told["stage"])
        tensors = self.team.share_tensors(keep=self._cut)
        if told["kept"]:
            own = self._own_state()[0]
            tensors |= {n: x for n, x in own.items() if self._has_rows(n)}
        self._load(tensors, told["numbers"])

    def _check_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Raise InputError where averages or moments are not those of these weights."""
        shapes: dict[str, torch.Size] = {f"averaged/{n}": x.shape for n, x in self.averaged.items()}
        held = {name for name in tensors if name.startswith(("averaged/", "optimizer/"))}
        needed = set(shapes)
        for player, groups in self.players.items():
            for group in groups:
                for i, parameter in enumerate(group.parameters):
                    entry = f"optimizer/{player}/{group.name}/{i}/"
                    kept = moments_of(group.optimizer, parameter)
                    own = {f"{entry}{key}": shape for key, shape in kept.items()}
                    shapes |= own
                    if any(name.startswith(entry) for name in held):
                        needed |= set(own)
        wrong = [n for n in sorted(held) if n not in shapes or tensors[n].shape != shapes[n]]
        if wrong or needed - held:
            name = (wrong or sorted(needed - held))[0]
            raise InputError(
                f"the checkpoint does not fit its recipe: '{shorten(name)}' is "
                f"{list(tensors[name].shape) if name in tensors else 'missing'}."
            )


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, by the rest of their names."""
    return {n.removeprefix(prefix): x for n, x in tensors.items() if n.startswith(prefix)}


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Load a module's state, strictly. Raises InputError naming a tensor that does not fit."""
    try:
        module.load_state_dict(tensors)  # first, since some parts grow or shrink with their state
    except RuntimeError:
        own = module.state_dict()
        for name in sorted(own.keys() | tensors.keys()):
            needs, has = (list(t[name].shape) if name in t else None for t in (own, tensors))
            if needs != has:
                raise InputError(
                    f"{what} does not fit its recipe: "
                    f"'{name}' is {has or 'missing'}, not {needs or 'in it'}."
                ) from None
        raise


@torch.no_grad()
def load_checkpoint(objective: Objective, tensors: Mapping[str, Tensor]) -> None:
    """Load the weights of a checkpoint into an objective: the averaged ones, where there are any.

    Raises InputError for those of another objective.
    """
    load_weights(objective, _under("model/", tensors), "the checkpoint")
    averaged = _under("averaged/", tensors)
    for name, parameter in objective.named_parameters():
        if name in averaged:
            parameter.copy_(averaged[name])


RATIOS = {"psnr": "PSNR", "snr": "SNR"}
"""Ratios in dB of a log's lines, and how progress names them."""


def summarize(numbers: Mapping[str, float]) -> str:
    """One line on a step: the loss of every player and, where there is one, its PSNR or SNR."""
    losses = [f"{name} {value:.5f}" for name, value in numbers.items() if name.endswith("loss")]
    ratios = [f"{kind} {numbers[name]:.2f} dB" for name, kind in RATIOS.items() if name in numbers]
    return ", ".join([*losses, *ratios])


def loop(
    title: str,
    training: Training,
    feed: Feed[Any],
    count: int,
    *,
    seed: int,
    micro: int,
    device: torch.device,
    save: Callable[[State], None],
    log: Callable[[dict[str, Any]], None],
    look: Callable[[], None] = lambda: None,
) -> None:
    """Train to the last step of the stage.

    feed: how the batch of a step comes to the device, from ``count`` data. save: writes a
          checkpoint; log: writes a line; look: is called after each step, and changes nothing.

    Raises Interrupted, after a checkpoint, where the user asks to stop; DivergedError on a loss
    or a gradient that is no number, after which nothing is saved.
    """
    stage, objective = training.stage, training.objective
    objective.train()
    began, first = time.monotonic(), training.step
    micro = training.micro_of(micro)
    parts, steps = training.parts_of(micro), range(first, stage.steps)
    batches = feed_steps(feed, stage, seed, training.tag, steps, count, parts)
    numbers: dict[str, float] = {}

    def fetch(step: int) -> AnyBatch:
        batches.close()  # two threads must not read the data
        return fetch_step(feed, stage, seed, training.tag, step, count)

    def checkpoint() -> None:
        training.check(fetch)
        save(training.state())

    shown = Progress(f"training the {title}", stage.steps, first)
    with shown as progress, stopping.stoppable(), closing(batches):
        while training.step < stage.steps:
            try:
                found = training.advance(next(batches), micro, seed, device)
            except stopping.Paused:
                checkpoint()
                within = f"stopped within step {training.step + 1} of {stage.steps}"
                raise Interrupted(within) from None
            done, last = training.step, training.step == stage.steps
            logs, stops = done % stage.log_every == 0 or last, stopping.stop_requested()
            if logs or reads_at_once(device) or len(training.unread) >= MOST_UNREAD:
                training.check(fetch)
                numbers = {name: float(value) for name, value in found.items()}
            progress.update(done, summarize(numbers))
            if logs:
                seconds = (time.monotonic() - began) / (done - first)
                log({"stage": title, "step": done, **numbers, "seconds_a_step": round(seconds, 5)})
            if (done % stage.save_every == 0 and not last) or stops:
                checkpoint()
            if stops:
                raise Interrupted(f"stopped after step {done} of {stage.steps}")
            if not last:
                look()
    training.finish()
    training.join_rows()
    objective.eval()
