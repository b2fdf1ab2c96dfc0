"""Conditioners map codes to weights: the base class, Shared, Substitute and FlatWeights.

A conditioner owns all parameters of a family. Its base class holds each slot as one learned tensor
with a leading axis of 1; subclasses replace some of them by tensors that depend on the code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from fieldloom import memory
from fieldloom.errors import InputError, unknown
from fieldloom.types import Code, Slot, Weights

Slots = Mapping[str, Slot]


class Tensors(nn.Module):
    """Tensors by the names of slots. Fixed slots are buffers, the others are parameters.

    Torch forbids dots in the names of parameters, so a layer's tensors belong to a child module
    that has its name: the keys of the state are ``0.weight``, as those of the slots.
    """

    def __init__(self, tensors: Mapping[str, Tensor], fixed: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self.names = tuple(tensors)
        for name, tensor in tensors.items():
            layer, _, own = name.rpartition(".")
            if layer and layer not in self._modules:
                self.add_module(layer, nn.Module())
            home = self._modules[layer] if layer else self
            assert home is not None
            if name in fixed:
                home.register_buffer(own, tensor)
            else:
                home.register_parameter(own, nn.Parameter(tensor))

    def __getitem__(self, name: str) -> Tensor:
        layer, _, own = name.rpartition(".")
        return getattr(self._modules[layer] if layer else self, own)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def mapping(self) -> dict[str, Tensor]:
        """A new dictionary from names to tensors."""
        return {name: self[name] for name in self.names}


class Conditioner(nn.Module):
    """The base class of conditioners: it holds the weights that all instances share (``base``).

    A subclass sets ``code_shape`` and writes ``forward``; where codes are weights themselves, it
    sets ``layout`` to the slots whose weights they are, in order, and writes ``draw``.

    slots: a field's ``slots``.
    skip:  names of the slots that the subclass provides itself; all others are shared.
    """

    def __init__(
        self,
        slots: Slots,
        generator: Generator | None = None,
        skip: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__()
        self.slots = slots
        self.code_shape: tuple[int, int] = (0, 0)
        self.layout: Slots | None = None
        self.base = Tensors(
            {name: s.init(generator).unsqueeze(0) for name, s in slots.items() if name not in skip},
            fixed=frozenset(name for name, s in slots.items() if s.role == "fixed"),
        )

    def origin(self, batch: int) -> Code:
        """The code without information, where descent starts: (batch, tokens, width)."""
        return self._blank().new_zeros(batch, *self.code_shape)

    def forward(self, code: Code) -> Weights:
        """The weights of each instance; slots that do not depend on the code have a leading 1."""
        raise NotImplementedError

    def draw(self, generator: Generator | None = None) -> Code:
        """Random weights as a code (1, tokens, width), where codes are weights (``layout``)."""
        raise NotImplementedError

    def squared_norms(self, code: Code) -> Tensor:
        """For each number of a code the squared norm of its weight, shaped as the code.

        Here the whole code counts as one weight.
        """
        return code.square().sum((1, 2), keepdim=True).expand_as(code)

    def tables(self) -> list[nn.Parameter]:
        """The learned tensors of slots that are tables, of which a point reads a few rows."""
        held = [module for module in self.modules() if isinstance(module, Tensors)]
        return [own[n] for own in held for n in own if self.slots[n].table]  # type: ignore

    def macs(self) -> int:
        """Multiply-accumulates from a code to its weights; as in mNIF, mixing does not count."""
        return sum(m.weight.numel() for m in self.modules() if isinstance(m, nn.Linear))

    def _blank(self) -> Tensor:
        return next(self.parameters())


class Shared(Conditioner):
    """Every slot is shared by all instances; there is no code (its shape is (0, 0)).

    only: other conditioners leave all other slots shared; here it changes nothing.
    """

    def __init__(self, slots: Slots, only: str = "*", generator: Generator | None = None) -> None:
        super().__init__(slots, generator)

    def forward(self, code: Code) -> Weights:
        return self.base.mapping()


def match_slots(slots: Slots, only: str) -> list[str]:
    """Names of the slots that match a glob pattern, except fixed slots.

    Raises InputError where none match.
    """
    chosen = [n for n, slot in slots.items() if slot.role != "fixed" and fnmatch(n, only)]
    if not chosen:
        raise InputError(
            f"conditioner.only = '{only}' matches none of the slots {', '.join(slots)}."
        )
    return chosen


def match_layer_slots(slots: Slots, only: str) -> list[str]:
    """``match_slots`` among weights and biases; inputs belong to no layer."""
    chosen = [name for name in match_slots(slots, only) if slots[name].role != "input"]
    if not chosen:
        raise InputError(f"conditioner.only = '{only}' matches no weight and no bias.")
    return chosen


class Substitute(Conditioner):
    """The code *is* one slot: a set of tokens, a context vector, or any single weight.

    slot: name of the slot. A slot of shape (tokens, width) gives codes of that shape, one of shape
          (width,) codes of one token, and one of more axes (the tiles of a layer, a grid of
          features) a token for each of its rows.
    origin: ``learned``, starting at the slot's own draw, or ``zero``, which has no parameters, for
          encoders that predict a code in one pass.
    """

    def __init__(
        self,
        slots: Slots,
        slot: str,
        origin: Literal["learned", "zero"] = "learned",
        generator: Generator | None = None,
    ) -> None:
        if slot not in slots:
            raise unknown("slot", slot, slots)
        if slots[slot].role == "fixed":
            raise InputError(f"slot '{slot}' is fixed: nothing stands in for it.")
        super().__init__(slots, skip=frozenset([slot]), generator=generator)
        self.slot = slot
        shape = slots[slot].shape
        self.code_shape = (math.prod(shape[:-1]), shape[-1])
        self.start: nn.Parameter | None = None
        if origin == "learned":
            self.start = nn.Parameter(slots[slot].init(generator).reshape(self.code_shape))

    def origin(self, batch: int) -> Code:
        return super().origin(batch) if self.start is None else self.start.expand(batch, -1, -1)

    def forward(self, code: Code) -> Weights:
        return self.base.mapping() | {
            self.slot: code.reshape(len(code), *self.slots[self.slot].shape)
        }


class FlatWeights(Conditioner):
    """The code *is* the chosen weights, concatenated in the order of the slots.

    width: length of a token; the last one is padded with zeros. None: one token holds all weights.
    start: (1 | batch, tokens, width), where descent starts; None: a fresh draw of the field.
    """

    def __init__(
        self,
        slots: Slots,
        only: str = "*",
        width: int | None = None,
        start: Tensor | None = None,
        generator: Generator | None = None,
    ) -> None:
        chosen = match_slots(slots, only)
        super().__init__(slots, skip=frozenset(chosen), generator=generator)
        self.layout = {name: slots[name] for name in chosen}
        self.sizes = [math.prod(slot.shape) for slot in self.layout.values()]
        width = sum(self.sizes) if width is None else width
        if width < 1:
            raise InputError(f"conditioner.width = {width}: at least 1.")
        self.code_shape = (-(-sum(self.sizes) // width), width)
        memory.require(memory.bytes_of([self.code_shape]))
        self.start = nn.Parameter(self.draw(generator) if start is None else start)

    def draw(self, generator: Generator | None = None) -> Code:
        """A fresh draw of the chosen weights as a code: (1, tokens, width)."""
        assert self.layout is not None
        return self.pack({name: s.init(generator)[None] for name, s in self.layout.items()})

    def pack(self, weights: Weights) -> Code:
        """Weights (batch, *shape) of the chosen slots -> their code (batch, tokens, width)."""
        assert self.layout is not None
        flat = torch.cat([weights[name].flatten(1) for name in self.layout], 1)
        padded = nn.functional.pad(flat, (0, math.prod(self.code_shape) - flat.shape[1]))
        return padded.unflatten(1, self.code_shape)

    def unpack(self, code: Code) -> dict[str, Tensor]:
        """The inverse of ``pack``: the chosen weights of a code, (batch, *shape) each."""
        assert self.layout is not None
        parts = code.flatten(1)[:, : sum(self.sizes)].split(self.sizes, 1)
        return {
            name: part.unflatten(1, slot.shape)
            for (name, slot), part in zip(self.layout.items(), parts, strict=True)
        }

    def squared_norms(self, code: Code) -> Tensor:
        squares = {name: w.square() for name, w in self.unpack(code).items()}
        axes = {name: tuple(range(1, w.ndim)) for name, w in squares.items()}
        return self.pack({n: w.sum(axes[n], keepdim=True).expand_as(w) for n, w in squares.items()})

    def origin(self, batch: int) -> Code:
        return self.start.expand(batch, -1, -1)

    def forward(self, code: Code) -> Weights:
        return self.base.mapping() | self.unpack(code)
