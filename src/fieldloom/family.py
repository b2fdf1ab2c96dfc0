"""A family of functions indexed by codes: a field and the conditioner that gives it weights."""

from __future__ import annotations

from torch import nn

from fieldloom.conditioners import Conditioner, FlatWeights
from fieldloom.errors import InputError
from fieldloom.fields import Field
from fieldloom.types import Code, Coords, Function, Values


class Family(nn.Module):
    """``family(coords, code)``, or ``family.bind(code)`` to evaluate the same functions many times.

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
        """Whether signals have codes; families without one are fits of a single signal."""
        return self.code_shape[1] > 0

    def bind(self, code: Code) -> Function:
        """The functions of a batch of codes, whose weights are computed once, here.

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
        """The same functions with all their weights as the code, for the refinement of weights.

        The origin of the new family is these weights, one instance for each row of ``code``; it
        takes such codes of any other instance, too.
        """
        weights = {name: w.detach() for name, w in self.conditioner(code.detach()).items()}
        own = {name: w.expand(len(code), *w.shape[1:]) for name, w in weights.items()}
        flat = FlatWeights(self.field.slots)
        fixed = {n: w for n, w in weights.items() if self.field.slots[n].role == "fixed"}
        flat.base.load_state_dict(fixed)
        flat.start = nn.Parameter(flat.pack(own))
        return Family(self.field, flat.to(flat.start.device))
