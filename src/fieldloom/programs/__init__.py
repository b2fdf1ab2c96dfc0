"""Fields as programs: what runs in a browser, in other engines, and without fieldloom."""

from fieldloom.programs.fields import compile_field
from fieldloom.programs.program import Program
from fieldloom.programs.run import run

__all__ = ["Program", "compile_field", "run"]
