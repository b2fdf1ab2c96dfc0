"""The codes of a run that a browser has asked for, by short names."""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import asdict, dataclass
from typing import NamedTuple

from torch import Tensor

from fieldloom.errors import shorten
from fieldloom.types import Code
from fieldloom.viewer.refusals import Refused

MOST, BYTES, LEAST = 4096, 1 << 30, 64
"""Codes that are kept, and their bytes; so many are kept however large they are."""


@dataclass(frozen=True)
class Datum:
    """A datum of a run. part: ``test`` or ``train``; index: within the part."""

    part: str
    index: int


class Kept(NamedTuple):
    """A code (1, tokens, width), what it is called, and the datum that it is of, if any."""

    id: str
    code: Tensor
    name: str
    datum: Datum | None

    def describe(self) -> dict[str, object]:
        datum = None if self.datum is None else asdict(self.datum)
        return {"id": self.id, "name": self.name, "datum": datum}


class Keep:
    """The newest codes of a run."""

    def __init__(self) -> None:
        self.codes, self.count, self.bytes = OrderedDict[str, Kept](), 0, 0

    def add(self, code: Code, name: str, datum: Datum | None = None) -> Kept:
        kept = Kept(f"c{self.count}", code.detach().cpu(), shorten(name), datum)
        self.codes[kept.id] = kept
        self.count, self.bytes = self.count + 1, self.bytes + kept.code.nbytes
        while len(self.codes) > MOST or (self.bytes > BYTES and len(self.codes) > LEAST):
            self.bytes -= self.codes.popitem(last=False)[1].code.nbytes
        return kept

    def clear(self) -> None:
        """Forget all codes, but not that there were so many: no name is given twice."""
        self.codes.clear()
        self.bytes = 0

    def find(self, id: str) -> Kept:
        """The code of a name. Raises Refused for one that is no longer kept, or never was."""
        if (kept := self.codes.get(id)) is not None:
            return kept
        if re.fullmatch(r"c\d{1,12}", id) and int(id[1:]) < self.count:
            raise Refused(410, "this code is no longer kept: make it again.")
        raise Refused(404, "there is no such code.")
