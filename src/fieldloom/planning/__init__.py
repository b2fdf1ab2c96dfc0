"""What a large job would take: a shard of it is measured here, the rest is arithmetic.

``trial`` finds a system and a few data, ``measuring`` times pieces of the work on them,
``arithmetic`` and ``stages`` turn these into hours, memory, disk and network on other machines, and
``limits`` says where that would not scale; ``planner`` does one after the other.
"""

from fieldloom.planning.arithmetic import Span
from fieldloom.planning.measuring import Measured
from fieldloom.planning.planner import Plan, plan
from fieldloom.planning.stages import StagePlan

__all__ = ["Measured", "Plan", "Span", "StagePlan", "plan"]
