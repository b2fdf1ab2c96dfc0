"""What is read of the tables without importing them is what they hold."""

import inspect

import pytest

from fieldloom import names
from fieldloom.assembly import TABLES
from fieldloom.engine.stage import OPTIMIZERS
from fieldloom.metrics.features import DETECTORS
from fieldloom.settings import SCHEDULES

OTHERS = {"optimizers": OPTIMIZERS, "schedules": SCHEDULES, "detectors": DETECTORS}


def texts(table):
    """Name -> text, or the docstring of the part itself."""
    return {
        name: entry if isinstance(entry, str) else inspect.cleandoc(of(entry).__doc__ or "")
        for name, entry in table.items()
    }


def of(entry):
    return getattr(entry, "func", entry)  # of a partial one


def test_what_is_read_of_parts_is_what_the_tables_hold():
    assert names.read_kinds() == {kind: texts(table) for kind, table in TABLES.items()}
    assert names.OTHERS.keys() == OTHERS.keys()
    for name, table in OTHERS.items():
        assert names.read_table(*names.OTHERS[name]) == texts(table)


def test_a_table_that_cannot_be_read_is_no_empty_one():
    with pytest.raises(TypeError, match="no literal"):
        names.read_table("fieldloom.names", "PACKAGE")
    with pytest.raises(KeyError):
        names.read_table("fieldloom.names", "NOWHERE")
