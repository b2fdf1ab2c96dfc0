"""A stand-in for SLURM: its commands on a PATH, whose tasks are processes of this machine.

    sbatch FILE                       starts the tasks of an array, at most so many at a time as
                                      ``%`` says, each in a session of its own
    squeue --noheader --jobs ARRAY    a line for each that waits or runs
    scancel ARRAY                     ends those that wait, and sends SIGTERM to those that run
    scontrol requeue TASK             starts a task again, once it has ended
    srun ... python -m ...            runs the command

``refuse`` in the folder of its state lets sbatch fail with these words.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "srun")


def install(folder: Path) -> Path:
    """Put the commands into ``folder/bin``, which is returned; their state is in the folder."""
    bin = folder / "bin"
    bin.mkdir(parents=True)
    for name in COMMANDS:
        path = bin / name
        words = [sys.executable, str(Path(__file__).resolve()), str(folder), name]
        path.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        path.chmod(0o755)
    return bin


def sbatch(state: Path, script: str) -> None:
    if (state / "refuse").exists():
        sys.exit((state / "refuse").read_text())
    content = Path(script).read_text()
    (state / "script").write_text(content)  # as SLURM does
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", content, re.M))
    (state / "options").write_text(json.dumps(options))
    last, most = map(int, re.fullmatch(r"0-(\d+)%(\d+)", options.get("array", "0-0%1")).groups())
    for number in range(last + 1):
        (state / f"{number}.waits").touch()
    words = [sys.executable, __file__, str(state), "controller", str(most)]
    subprocess.Popen(
        words, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    print("Submitted batch job 7")


def controller(state: Path, most: str) -> None:
    """Start tasks, and wait for them, until none is left or the folder is gone."""
    running: dict[int, subprocess.Popen] = {}
    while state.exists():
        for number, process in list(running.items()):
            if process.poll() is not None:
                del running[number]
                (state / f"{number}.runs").unlink(missing_ok=True)
        waiting = sorted(state.glob("*.waits"))
        for path in waiting[: int(most) - len(running)]:
            number = int(path.stem)
            if number not in running:
                running[number] = start(state, number)
                path.unlink(missing_ok=True)
        if not running and not waiting:
            break
        time.sleep(0.05)


def start(state: Path, number: int) -> subprocess.Popen:
    options = json.loads((state / "options").read_text())
    environment = os.environ | {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1"}
    if "array" in options:
        environment |= {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": str(number)}
    log = shlex.split(options["output"])[0]
    for pattern, value in {"%A": "7", "%a": str(number), "%j": "7"}.items():
        log = log.replace(pattern, value)
    with open(log, "ab") as file:
        words = ["bash", str(state / "script")]
        process = subprocess.Popen(
            words, env=environment, start_new_session=True, stdout=file, stderr=file
        )
    (state / f"{number}.runs").write_text(str(process.pid))
    return process


def squeue(state: Path, *words: str) -> None:
    assert words == ("--noheader", "--jobs", "7")
    for path in sorted([*state.glob("*.waits"), *state.glob("*.runs")]):
        print(f"7_{path.stem}")


def scancel(state: Path, array: str) -> None:
    assert array == "7"
    for path in state.glob("*.waits"):
        path.unlink(missing_ok=True)
    for path in state.glob("*.runs"):
        os.killpg(int(path.read_text()), signal.SIGTERM)


def scontrol(state: Path, verb: str, task: str) -> None:
    if (state / "refuse").exists():
        sys.exit("Job requeue is disabled")
    with (state / "requeued").open("a") as file:
        file.write(f"{task}\n")
    (state / f"{task.partition('_')[2] or 0}.waits").touch()


def srun(state: Path, *words: str) -> None:
    start = words.index(sys.executable)
    os.execv(words[start], words[start:])


if __name__ == "__main__":
    place, name, *words = sys.argv[1:]
    globals()[name](Path(place), *words)
