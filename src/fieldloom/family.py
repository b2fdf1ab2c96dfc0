"""A family of functions indexed by codes: a field and the conditioner that gives it weights."""

from __future__ import annotations

import math

from torch import nn

from fieldloom.conditioners import Conditioner, FlatWeights
from fieldloom.errors import InputError
from fieldloom.fields import Field
from fieldloom.types import Code, Coords, Function, Values


class Family(nn.Module):
    """Functions indexed by codes: ``family(coords, code)``.

    ``family.bind(code)`` computes the weights once, to evaluate the same functions many times.

    >>> siren = Siren(2, 3, width=64, depth=5)
    >>> family = Family(siren, Mixture(siren.slots, experts=16, width=32))
    """

    def __init__(self, field: Field, conditioner: Conditioner) -> None:
        super().__init__()
        self.field, self.conditioner = field, conditioner

    @property
    def code_shape(self) -> tuple[int, int]:
        """(tokens, width) of a code."""
        return self.conditioner.code_shape

    @property
    def has_code(self) -> bool:
        """Whether signals have codes; a family without codes is the fit of a single signal."""
        return self.code_shape[1] > 0

    @property
    def widest(self) -> int:
        """Units of the widest layer."""
        return max(slot.shape[-1] for slot in self.field.slots.values())

    @property
    def numbers(self) -> int:
        """Numbers of a function's weights."""
        return sum(math.prod(slot.shape) for slot in self.field.slots.values())

    def bind(self, code: Code) -> Function:
        """The functions of codes (batch, tokens, width); their weights are computed once, here.

        Raises InputError for codes of another shape.
        """
        if code.ndim != 3 or tuple(code.shape[1:]) != tuple(self.code_shape):
            tokens, width = self.code_shape
            raise InputError(
                f"a code of the shape {tuple(code.shape)} is not (batch, {tokens}, {width}), as "
                "this family's are."
            )
        weights = self.conditioner(code)
        return lambda coords: self.field(coords, weights)

    def forward(self, coords: Coords, code: Code) -> Values:
        return self.bind(code)(coords)

    def unfold(self, code: Code) -> Family:
        """A family of the same functions whose codes are all weights, for refining the weights.

        The origin of the new family is the weights of these codes, one row for each of them.
        """
        weights = {name: w.detach() for name, w in self.conditioner(code.detach()).items()}
        own = {name: w.expand(len(code), *w.shape[1:]) for name, w in weights.items()}
        flat = FlatWeights(self.field.slots)
        fixed = {n: w for n, w in weights.items() if self.field.slots[n].role == "fixed"}
        flat.base.load_state_dict(fixed)
        flat.start = nn.Parameter(flat.pack(own))
        return Family(self.field, flat.to(flat.start.device))
