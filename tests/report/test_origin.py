"""Where a run comes from, and what to type next."""

import os
import shlex
import subprocess

import pytest

from fieldloom.engine.run import Run
from fieldloom.report.origin import (
    find_origin,
    next_commands,
    quote_for_shell,
    training_seconds,
)
from runs import made_up_result, made_up_system


def test_seconds_of_training_follow_from_the_log():
    log = [
        {"stage": "field", "step": 10, "seconds_a_step": 0.5},
        {"stage": "field", "step": 30, "seconds_a_step": 1.0},
        {"stage": "prior", "step": 4, "seconds_a_step": 2.0},
        {"stage": "prior", "step": 5},
    ]
    assert training_seconds(log) == 10 * 0.5 + 20 * 1.0 + 4 * 2.0
    assert training_seconds([]) is None


def test_a_run_says_what_made_it(own_run):
    run = Run(own_run)
    about = run.read_environment() | {"command": ["train", "mnif:tiny", "--run", "a b"]}
    run.write_json("env.json", about | {"commit": "abc", "threads": 1})
    origin = find_origin(run, made_up_system("mnif:tiny", "field.width=7"), None)
    assert origin.command == "fieldloom train mnif:tiny --run 'a b'"
    assert origin.commit == "abc"
    assert "1 thread" in origin.machine.split(", ")
    assert origin.seconds == training_seconds(run.read_log()) > 0
    assert origin.changed == {"field.width": 7}
    assert find_origin(run, made_up_system("mnif:tiny"), 5.0).seconds == 5.0
    inside = find_origin(Run(own_run / "other-data"), made_up_system("mnif:tiny"), None)
    assert inside.folder.folder == own_run


@pytest.mark.parametrize("command", [["script.py", "--fast"], "train", None, [1], []])
def test_a_script_of_ones_own_is_no_command(own_run, command):
    run = Run(own_run)
    run.write_json("env.json", run.read_environment() | {"command": command})
    assert find_origin(run, made_up_system("mnif:tiny"), None).command is None


def test_a_system_that_was_never_saved_has_no_commands(tmp_path):
    system = made_up_system("mnif:tiny")
    origin = find_origin(Run(tmp_path), system, None)
    assert (origin.folder, origin.machine, origin.seconds) == (None, "", None)
    assert next_commands(origin, system, made_up_result()) == []


def commands(folder, system, result):
    origin = find_origin(Run(folder), system, None)._replace(folder=Run(folder))
    return [line for line, _ in next_commands(origin, system, result)]


def test_commands_are_exact_and_quoted(tmp_path):
    odd = tmp_path / "it's a run; rm"
    lines = commands(odd, made_up_system("mnif:digits"), made_up_result(9, samples=640, psnr=1.0))
    verbs = [shlex.split(line)[1] for line in lines]
    assert verbs == ["sample", "evaluate", "reconstruct", "interpolate", "fit"]
    assert all(shlex.split(line)[2] == str(odd) for line in lines[:-1])
    assert "--resolution 32x32" in lines[0]
    assert "--set evaluate.samples=2560" in lines[1]
    few = commands("run", made_up_system("mnif:letters"), made_up_result(9, samples=100))
    assert few[1] == "fieldloom evaluate run", "the recipe takes 528, and more than 400"
    assert (
        shlex.split(commands("-x", made_up_system("mnif:digits"), made_up_result())[0])[2] == "./-x"
    )


@pytest.mark.parametrize("name", ["caf\udce9", "a\nb", "it's\t\\", "plain", "a b", "$(no)"])
def test_bash_reads_quoted_words(name):
    command = f"printf %s {quote_for_shell(name)}"
    assert command.isprintable()
    told = subprocess.run(["bash", "-c", command], capture_output=True, check=True).stdout
    assert told == os.fsencode(name)


def test_samples_are_offered_but_where_they_were_no_numbers():
    digits = made_up_system("mnif:digits")
    of_other_data = commands("run", digits, made_up_result(9, part="given"))
    assert [shlex.split(line)[1] for line in of_other_data][:2] == ["sample", "evaluate"]
    broken = commands("run", digits, made_up_result(9))
    assert {"sample", "evaluate"}.isdisjoint(shlex.split(line)[1] for line in broken)


def test_commands_suit_the_system():
    gan = made_up_system("gasp:celebahq64", encodes=False)
    assert "fieldloom interpolate run --sample --from 0 --to 1" in commands(
        "run", gan, made_up_result()
    )
    fit = made_up_system("fit:audio", kind="audio", has_code=False, generates=False)
    assert commands("run", fit, made_up_result(1)) == [
        "fieldloom render run --out sound.wav", "fieldloom fit FILE",
    ]  # fmt: skip
