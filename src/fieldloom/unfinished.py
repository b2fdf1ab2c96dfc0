"""Where a run stands whose training is not finished."""

from __future__ import annotations

from typing import NamedTuple


class Unfinished(NamedTuple):
    """The checkpoint of a stage. step: the steps that are done; steps: of the whole stage."""

    stage: str
    step: int
    steps: int

    def describe(self) -> str:
        return f"after step {self.step} of {self.steps} of the stage '{self.stage}'"
