"""Sentences for what the parser of the command line refuses, with the line to type."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fieldloom.errors import InputError, nearest, quote_path, shorten

EXAMPLES = {
    "inspect": "fieldloom inspect FOLDER",
    "fit": "fieldloom fit photo.jpg",
    "train": "fieldloom train mnif:faces64 --source FOLDER",
    "decode": "fieldloom decode runs/mine runs/mine/encoded",
    "render": "fieldloom render runs/photo --resolution 1024",
    "plan": "fieldloom plan mnif:faces64 --signals 1e6 --workers 64",
    "curves": "fieldloom analyse curves runs/a runs/b",
}
"""Verb -> a line of it; of others it is ``fieldloom VERB runs/mine``."""

RIGHT = {
    "valid number": "it is a number",
    "valid integer": "it is a whole number",
    "greater than or equal to": "it is at least",
    "less than or equal to": "it is at most",
}
"""What the parser says of a value -> what is right."""


def explain(error: Any) -> str:
    """The sentence for an error of the parser, an exception with ``format_message``."""
    message = error.format_message()
    context = getattr(error, "ctx", None)
    command = getattr(context, "command", None)
    verb = verb_of(context)
    if "NoArgs" in type(error).__name__:
        return ""  # its help was printed
    if hasattr(error, "possibilities") and command is not None:
        options = [name for parameter in command.params for name in (parameter.opts or ())]
        return explain_option(verb, str(error.option_name), options)
    if found := re.match(r"No such command '(.*)'\.", message, re.DOTALL):
        verbs = [] if command is None else command.list_commands(context)
        return explain_verb(found[1], verbs, verb)
    if "Missing" in type(error).__name__:
        return explain_missing(verb, error.param)
    if found := re.match(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", message, re.DOTALL):
        return explain_rest(verb, found[1])
    if found := re.match(r"Option '(.*)' requires an argument", message):
        return f"{found[1]} needs a value; '--help' says which."
    if found := re.match(r"Invalid value for '?\[?([^\]':]+)\]?'?: (.*)", message, re.DOTALL):
        return explain_value(found[1], found[2])
    return message


def verb_of(context: Any) -> str:
    """The verb that is parsed, as one types it: ``fieldloom analyse judge``."""
    words: list[str] = []
    while getattr(context, "parent", None) is not None:
        words.insert(0, str(context.info_name))
        context = context.parent
    return " ".join(["fieldloom", *words])


def explain_option(verb: str, option: str, options: list[str]) -> str:
    near = nearest(option, options)
    hint = f"; did you mean {near}?" if near else "."
    return f"'{verb}' has no option {shorten(option)}{hint} '{verb} --help' lists them."


def explain_verb(word: str, verbs: list[str], group: str) -> str:
    """The sentence for a word in the place of a verb: a misspelt one, a path, a recipe."""
    near = nearest(word, verbs)
    if near is not None:
        return f"there is no verb '{shorten(word)}'; did you mean '{group} {near}'?"
    if group == "fieldloom" and word:
        if (line := find_line(word)) is not None:
            return line
        if "." in word or "/" in word:
            return f"'{shorten(word)}' is no verb, and no file or folder. {there_are(verbs)}"
    return f"there is no verb '{shorten(word)}'. {there_are(verbs)}"


def there_are(verbs: list[str]) -> str:
    return f"There are: {', '.join(verbs)}."


def find_line(word: str) -> str | None:
    """The sentence for a path or a recipe that stands where a verb should; None for other words."""
    from fieldloom.recipe import list_recipes

    if Path(word).suffix == ".toml" and Path(word).is_file():
        return f"{quote_path(word)} is a recipe: fieldloom train {shlex.quote(word)} trains it."
    if _exists(word):
        return f"{describe_path(word)}."
    if word.partition(":")[0] in list_recipes():
        return f"'{shorten(word)}' is a recipe: fieldloom train {shlex.quote(word)} trains it."
    return None


def describe_path(path: str) -> str:
    """What an existing path is, and the lines that take it, without a full stop."""
    word, folder = shlex.quote(path), Path(path)
    if (folder / "recipe.toml").is_file():
        return (
            f"{quote_path(path)} is a run: fieldloom info {word} says what is in it, fieldloom "
            f"evaluate {word} measures it"
        )
    from fieldloom.engine.nearby import find_runs

    if runs := find_runs(folder):
        return (
            f"{quote_path(path)} holds runs: fieldloom info {shlex.quote(runs[0])} shows the first"
        )
    from fieldloom.modalities.sources import IMAGES, readers_of
    from fieldloom.modalities.sources.files import is_empty_folder
    from fieldloom.modalities.sources.kinds import describe_data, suggest

    try:
        reader = readers_of(folder)[0]
    except InputError as error:  # a damaged archive
        return str(error).rstrip(".")
    if is_empty_folder(folder):
        return f"{quote_path(path)} is an empty folder"
    if reader == "folder" and folder.is_file() and folder.suffix.lower() not in IMAGES:
        return f"{quote_path(path)} is a file of no kind that is read"
    return f"{quote_path(path)} is {describe_data(reader, path)}: {suggest(reader, path)}"


def check_recipe_word(word: str, verb: str = "train") -> None:
    """Raise InputError for data, or a run, in the place of a recipe's name.

    verb: what is to be typed for a run, ``train``, ``evaluate`` or ``plan``.
    """
    from fieldloom.recipe import list_recipes

    stem = word.partition(":")[0]
    if ".toml" in word or stem in list_recipes() or not _exists(word):
        return
    if (Path(word) / "recipe.toml").is_file():
        name = shlex.quote(word)
        line = {
            "train": f"fieldloom train --resume --run {name} goes on with it",
            "evaluate": f"fieldloom evaluate {name} measures it, and what it costs",
            "plan": f"fieldloom plan --run {name} plans its encoding and sampling",
        }[verb]
        raise InputError(f"{quote_path(word)} is a run, not a recipe: {line}.")
    raise InputError(f"a recipe's name is needed, and {describe_path(word)}.")


def _exists(word: str) -> bool:
    try:
        return bool(word) and Path(word).expanduser().exists()
    except (OSError, ValueError):  # too long for a file name
        return False


def explain_missing(verb: str, parameter: Any) -> str:
    """The sentence for an argument that is not there, with a line that has it."""
    name = str(getattr(parameter, "metavar", None) or getattr(parameter, "name", "") or "").upper()
    name = name.removesuffix("...")
    own = verb.rpartition(" ")[2]
    example = EXAMPLES.get(own, f"{verb} runs/mine")
    if not name.startswith("RUN"):
        return f"'{verb}' needs {name}, as in '{example}'."
    from fieldloom.engine.nearby import NAMED, USUAL, find_runs

    runs = find_runs(USUAL)
    more = f" and {len(runs) - NAMED} more" if len(runs) > NAMED else ""
    there = f"; the runs here: {', '.join(map(shorten, runs[:NAMED]))}{more}" if runs else ""
    return f"'{verb}' needs the folder of a run, as in '{example}'{there}."


def explain_rest(verb: str, rest: str) -> str:
    """The sentence for arguments that are too many: a path with spaces, a recipe's variant."""
    from fieldloom.recipe import list_recipes

    words = sys.argv[2:] if verb.count(" ") == 1 else sys.argv[3:]
    plain = [word for word in words if not word.startswith("-")]
    if spaced := find_spaced(plain):
        return f"a path with spaces needs quotes: {verb} {shlex.quote(spaced)}."
    if len(plain) > 1 and plain[1] in list_recipes().get(plain[0], ()):
        return f"a variant follows a colon: {verb} {plain[0]}:{plain[1]}."
    return f"'{verb}' takes no further argument, and '{shorten(rest)}' is left over."


def find_spaced(words: Sequence[str]) -> str | None:
    """The path that words are whose quotes were forgotten, if there is one."""
    joined = (" ".join(words[:end]) for end in range(len(words), 1, -1))
    return next((path for path in joined if _exists(path)), None)


def check_quotes(verb: str, paths: Sequence[str]) -> None:
    """Raise InputError where a path is not there, and several together are one with spaces."""
    for first, path in enumerate(paths):
        if not _exists(path) and (spaced := find_spaced(paths[first:])):
            line = f"fieldloom {verb} {shlex.quote(spaced)}"
            raise InputError(f"a path with spaces needs quotes: {line}.")


def explain_value(name: str, why: str) -> str:
    """The sentence for a value that is none of the right ones."""
    why = why.removeprefix("Value error, ").rstrip(".")
    for theirs, ours in RIGHT.items():
        if theirs in why:
            number = why.rpartition(theirs)[2] if "equal" in theirs else ""
            return f"{name} is not right: {ours}{number}."
    if found := re.match(r"'(.*)' is not one of (.*)", why):
        there = [one.strip(" '") for one in found[2].split(",")]
        near = nearest(found[1], there)
        hint = f"; did you mean '{near}'?" if near else "."
        return f"{name} '{shorten(found[1])}' is not right{hint} There are: {', '.join(there)}."
    return f"{name} is not right: {why[:1].lower()}{why[1:]}."
