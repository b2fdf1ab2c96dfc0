"""A call of the command line."""

import commands


def answer(*arguments) -> tuple[int, str]:
    """A call of the command line: its status, and what it said."""
    done = commands.command(*arguments)
    return done.returncode, done.stderr
