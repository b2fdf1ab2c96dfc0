"""Tables of codes whose rows belong to processes: auto-decoding of more signals than one can hold.

Process r of N owns the rows i with i % N = r, their averages and their moments. In a step every
process holds the rows that the batch reads, and what it finds out about them is added up; then
each steps its own rows. Checkpoints hold whole tables, so that any number of processes goes on.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fieldloom.encoders import AutoDecode
from fieldloom.engine.ranks import Team
from fieldloom.objectives import Objective


class Rows:
    """The rows of an encoder's table that this process owns; ``encoder.table`` holds no others.

    count: rows of the whole table. held: (n, tokens, width), the rows that a step reads, in place
    of the table as what it differentiates; those of the step before stay until the next. averaged:
    whether between steps averages are read, which the table holds then.
    """

    def __init__(self, encoder: AutoDecode, team: Team, neighbours: int = 0) -> None:
        self.encoder, self.team, self.neighbours = encoder, team, neighbours
        self.table, self.count = encoder.table, len(encoder.table)
        self.table.data = self.cut(self.table.data)
        self.held, self.within = nn.Parameter(self.table.data[:0]), False
        self.averaged = False
        self.places = self.near = self.asked = torch.zeros(0, dtype=torch.int64)
        encoder.rows = self

    def cut(self, whole: Tensor) -> Tensor:
        """Of all rows those of this process."""
        return whole[self.team.rank :: self.team.count].clone()

    def collect(self, own: Tensor) -> Tensor | None:
        """All rows, on the CPU of the first process; None on the others, which give theirs."""
        team = self.team
        if team.rank:
            team.give(0, None, {"rows": own})
            return None
        whole = torch.empty(self.count, *own.shape[1:], dtype=own.dtype, device="cpu")
        whole[:: team.count] = own.cpu()
        for rank in range(1, team.count):
            whole[rank :: team.count] = team.take(rank)[1]["rows"]
        return whole

    @torch.no_grad()
    def fetch(self, index: Tensor, own: Tensor | None = None) -> Tensor:
        """Rows of these indices (n,), the same for all processes: (n, tokens, width).

        own: the rows of this process; None: those of the table.
        """
        own = self.table.detach() if own is None else own
        index, mine = index.to(own.device), (index % self.team.count == self.team.rank)
        found = own.new_zeros(len(index), *own.shape[1:])
        mine = mine.to(own.device)
        found[mine] = own[index[mine] // self.team.count]
        self.team.add_up([found])
        return found

    # -- a step

    def begin(self, index: Tensor) -> nn.Parameter:
        """Hold the rows of a batch of these indices (batch,) and of their nearest neighbours."""
        self.asked = index.unique()
        places = self.asked
        if self.neighbours:
            self.near = self.search(self.asked)
            places = torch.cat([places, self.near.flatten()]).unique()
        self.places = places
        self.held, self.within = nn.Parameter(self.fetch(places)), True
        return self.held

    def end(self) -> None:
        """Give the table the gradient of the rows that were held, as far as they are its own."""
        gradient, self.within, self.table.grad = self.held.grad, False, None
        if gradient is None:
            return
        mine = self.places % self.team.count == self.team.rank
        self.table.grad = torch.zeros_like(self.table)
        self.table.grad[self.places[mine] // self.team.count] = gradient[mine]

    def read(self, index: Tensor) -> Tensor:
        """Rows of these indices: in a step with their gradient, and of the batch alone."""
        if self.within:
            return self.held[self.place(index)]
        self.team.ask_rows(index, self.averaged)
        return self.fetch(index)

    def place(self, index: Tensor) -> Tensor:
        """Where rows of the table are among those that are held."""
        return torch.searchsorted(self.places, index.to(self.places.device))

    def nearest(self, index: Tensor) -> Tensor:
        """The nearest rows of each of these rows of the batch: indices (batch, neighbours)."""
        return self.near[torch.searchsorted(self.asked, index.to(self.asked.device))]

    @torch.no_grad()
    def search(self, index: Tensor) -> Tensor:
        """The nearest other rows of the whole table: indices (n, neighbours).

        Each process looks among its own; the nearest of all that they find are the nearest.
        """
        team, own = self.team, self.table.detach().flatten(1)
        far = torch.cdist(self.fetch(index).flatten(1), own)
        mine = index % team.count == team.rank
        far[mine, index[mine] // team.count] = torch.inf  # no code is its own neighbour
        found = far.topk(min(self.neighbours, len(own)), largest=False)
        shape = (team.count, len(index), self.neighbours)
        distances, places = far.new_zeros(shape), index.new_zeros(shape)
        distances[team.rank] = torch.inf
        distances[team.rank, :, : found.values.shape[1]] = found.values
        places[team.rank, :, : found.values.shape[1]] = found.indices * team.count + team.rank
        team.add_up([distances])
        team.add_up([places])
        rank = distances.movedim(0, 1).flatten(1).topk(self.neighbours, largest=False).indices
        return places.movedim(0, 1).flatten(1).gather(1, rank)

    # -- checkpoints

    def join(self, own: Tensor | None = None) -> None:
        """Let the first process hold the whole table again. own: rows in place of the table's."""
        whole = self.collect(self.table.detach() if own is None else own)
        if whole is not None:
            self.table.data = whole.to(self.table.device)
            self.table.grad, self.encoder.rows = None, None


def divide_rows(objective: Objective, team: Team) -> Rows | None:
    """Let the processes of a team own the rows of an objective's table of codes, if it has one."""
    encoder = getattr(objective, "encoder", None)
    if team.count == 1 or not isinstance(encoder, AutoDecode):
        return None
    return Rows(encoder, team, getattr(objective, "neighbours", 0))
