"""The command line: one clear sentence for what was wrong."""

import errno
import subprocess
import sys

import numpy as np
import pytest
import torch

import fieldloom
from fieldloom import atomic
from fieldloom.engine.run import Run
from fieldloom.engine.tensors import read_tensors, write_tensors
from fieldloom.errors import Interrupted
from fieldloom.recipe import FORMAT


def fails(cli, status, sentence, *arguments, cwd=None):
    """The command ends with this status and one line that holds the sentence; no traceback."""
    done = cli(*arguments, status=status, cwd=cwd)
    told = [x for x in done.stderr.splitlines() if not x.startswith(("read", "warning"))]
    lines = [x for x in told if not x.endswith(" ...")]  # of what takes long on a slow machine
    assert "Traceback" not in done.stderr
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert sentence in lines[0]


QUICK = [["--version"], ["--help"], ["list"], ["list", "fields", "siren"], ["info", "RUN"]]


@pytest.mark.parametrize("words", QUICK)
def test_quick_answers_do_not_import_torch(words, tiny_run):
    words = [str(tiny_run) if word == "RUN" else word for word in words]
    program = f"import sys; sys.argv = ['fieldloom', *{words}]\nimport fieldloom.cli as c\n"
    program += "try: c.main()\nexcept SystemExit as end: print(end.code)\n"
    program += "print('torch' in sys.modules or 'scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[-2:] == ["0", "False"], done.stderr


def test_the_version(cli):
    said = cli.program("--version").stdout
    assert said.startswith(f"fieldloom {fieldloom.__version__} (Python 3.")
    assert said.endswith(f", torch {torch.__version__})\n")
    assert "Fit, encode, generate and evaluate neural fields." in cli.program("--help").stdout


HEAVY = {
    "av", "diffusers", "h5py", "huggingface_hub", "matplotlib", "networkx", "rich",
    "scipy", "skimage", "sklearn", "soundfile", "sympy", "tifffile", "transformers", "trimesh",
}  # fmt: skip
"""Packages, torch apart, that take long to import."""

IMPORTED = {
    ("encode", "RUN", "--out", "codes.safetensors"): set(),
    ("reconstruct", "RUN", "--out", "whole"): set(),
    ("sample", "RUN", "--out", "new"): set(),
    ("interpolate", "RUN", "--out", "between"): set(),
    ("cost", "mnif:tiny"): {"rich"},
    ("evaluate", "RUN", "--out", "report"): {"scipy", "skimage", "sklearn", "sympy"},
}
"""Verbs, in this order, and what each imports of these that those before it did not."""


@pytest.mark.slow
def test_a_verb_imports_only_what_it_uses(tiny_run, tmp_path):
    calls = [[str(tiny_run) if x == "RUN" else x for x in words] for words in IMPORTED]
    program = f"""
import sys
from fieldloom.cli import app
seen = set()
for words in {calls}:
    app(words, standalone_mode=False)
    now = {HEAVY} & {{name.partition(".")[0] for name in sys.modules}}
    print("imported", *sorted(now - seen))
    seen |= now
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path
    )
    lines = [set(x.split()[1:]) for x in done.stdout.splitlines() if x.startswith("imported")]
    assert dict(zip(IMPORTED, lines, strict=False)) == IMPORTED, done.stderr


def test_help_names_the_verbs(cli):
    said = cli.program("--help").stdout
    for verb in (
        "train",
        "encode",
        "reconstruct",
        "sample",
        "interpolate",
        "render",
        "evaluate",
        "cost",
        "info",
        "list",
        "demo",
    ):
        assert verb in said


def test_list(cli):
    assert "celebahq64-S" in cli.program("list", "recipes").stdout
    fields = cli("list", "fields").stdout
    assert "siren" in fields
    assert "fourier-mlp" in fields
    for group in ("conditioners", "encoders", "priors", "modalities", "sources"):
        assert f"{group}:" in cli("list", group).stdout
    for line in cli("list").stdout.splitlines():  # whole sentences, of every name
        if (
            line.startswith("  ")
            and "of an installed package" not in line
            and ", " not in line[:40]
        ):
            assert line.endswith((".", ":")) or "tiny" in line, line
    assert "step: The rate times `factor` after every" in cli("list", "schedules").stdout
    assert "sgd: Gradient descent" in cli("list", "optimizers").stdout
    fails(cli, 2, "unknown list 'feilds'; did you mean 'fields'?", "list", "feilds")
    siren = cli("list", "fields", "siren").stdout
    assert "frequency = 30.0 (float | tuple[float, ...]): w0 of every layer" in siren
    assert "encoding.count = 10 (int): frequencies" in cli("list", "field", "experts").stdout
    assert "log_every = 50 (int): steps between" in cli("list", "stage").stdout
    fails(cli, 2, "unknown name of fields 'sirn'; did you mean 'siren'?", "list", "fields", "sirn")


TINY = ["train", "mnif:tiny"]
BAD = {
    "unknown recipe": (2, "unknown recipe 'mniff'; did you mean 'mnif'?", ["train", "mniff:tiny"]),
    "unknown variant": (2, "'tinny'; did you mean 'tiny'?", ["train", "mnif:tinny"]),
    "unknown key": (2, "'widht'; did you mean 'width'?", [*TINY, "--set", "field.widht=3"]),
    "unknown stage key": (
        2, "'stepss'; did you mean 'steps'?", [*TINY, "--set", "train.field.stepss=3"]
    ),
    "misspelt name": (2, "did you mean 'siren'?", [*TINY, "--set", "field.name=sirenn"]),
    "wrong type": (2, "field.width = 'wide'", ["train", "mnif:tiny", "--set", "field.width=wide"]),
    "missing path": (
        2, "source 'folder' needs a path: --source FOLDER.", ["train", "mnif:faces64"]
    ),
    "path that is none": (
        2, "'nowhere' does not exist", ["train", "mnif:faces64", "--set", "source.path=nowhere"]
    ),
    "no override": (2, "is not of the form", ["train", "mnif:tiny", "--set", "field"]),
    "no device": (2, "device 'mps' is not available here", [*TINY, "--device", "mps"]),
    "no run": (2, "'nowhere' is not a run", ["sample", "nowhere"]),
    "nothing to resume": (2, "holds no run to resume", [*TINY, "--run", "no", "--resume"]),
    "a number for a part": (2, "field = 3 is not right", [*TINY, "--set", "field=3"]),
    "a number for a table": (2, "modality.coords = 3", [*TINY, "--set", "modality.coords=3"]),
    "a number for a stage": (2, "train.field = 3", [*TINY, "--set", "train.field=3"]),
    "a list for a prior": (2, "prior = [1] is not right", [*TINY, "--set", "prior=[1]"]),
    "a metric that is none": (
        2, "unknown metric 'psnrr'; did you mean", [*TINY, "--set", "evaluate.metrics=['psnrr']"]
    ),
    "a seed too large": (2, "from 0 to 2^63 - 1", [*TINY, "--seed", str(10**23)]),
    "a missing file": (2, "'mine.toml' does not exist", ["train", "mine.toml"]),
}  # fmt: skip


ALONE = "misspelt name", "path that is none"  # as programs of their own


@pytest.mark.slow
@pytest.mark.parametrize("case", BAD)
def test_bad_input(cli, case, tmp_path):
    status, sentence, arguments = BAD[case]
    if "mps" in arguments and torch.backends.mps.is_available():
        pytest.skip("this machine has mps")
    fails(cli.program if case in ALONE else cli, status, sentence, *arguments, cwd=tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_bad_folders(cli, tmp_path):
    (tmp_path / "empty").mkdir()
    own = ["train", "mnif:faces64", "--set"]
    fails(cli, 2, "holds no images", *own, f"source.path={tmp_path / 'empty'}", cwd=tmp_path)
    (tmp_path / "empty" / "a.png").write_bytes(b"nothing")
    fails(
        cli,
        2,
        "is no image that can be read",
        *own,
        f"source.path={tmp_path / 'empty'}",
        cwd=tmp_path,
    )


def test_bad_recipes(cli, tmp_path):
    (tmp_path / "new.toml").write_text("format = 7\n")
    fails(cli, 2, "format 7, and this program reads up to 3", "train", "new.toml", cwd=tmp_path)
    (tmp_path / "bad.toml").write_text("field = [\n")
    fails(cli, 2, "is not valid TOML", "train", "bad.toml", cwd=tmp_path)
    (tmp_path / "less.toml").write_text('field = "siren"\n')
    fails(cli, 2, "no section 'modality'", "train", "less.toml", cwd=tmp_path)


def test_damaged_runs(cli, own_run):
    model = own_run / "model.safetensors"
    whole = model.read_bytes()
    model.write_bytes(whole[: len(whole) // 2])
    fails(cli, 2, "is damaged and cannot be read", "sample", own_run)
    model.unlink()
    fails(cli, 2, "does not exist", "sample", own_run)
    model.write_bytes(whole)
    recipe = (own_run / "recipe.toml").read_text()
    (own_run / "recipe.toml").write_text(recipe.replace("experts = 4", "experts = 5"))
    fails(cli, 2, "it was made with other conditioner:", "sample", own_run)
    tensors, numbers, _ = read_tensors(model)
    write_tensors(model, tensors, numbers)  # as files of before: nothing says what made them
    changed = (own_run / "recipe.toml").read_text().replace(f"format = {FORMAT}", "format = 1")
    (own_run / "recipe.toml").write_text(changed)
    wrong = "fit its recipe: 'family.conditioner.basis.0.bias' is [4, 8], not [5, 8]"
    fails(cli, 2, wrong, "sample", own_run)
    (own_run / "recipe.toml").write_text(
        "format = 9\n" + recipe.replace(f"format = {FORMAT}\n", "")
    )
    fails(cli, 2, "format 9", "info", own_run)


def test_bad_samples(cli, own_run):
    fails(cli, 2, "unknown class 'eleven'", "sample", own_run, "--label", "eleven")
    fails(cli, 2, "unknown class '11'", "sample", own_run, "--label", "11")
    fails(cli, 2, "--resolution 0x3", "sample", own_run, "--resolution", "0x3")
    fails(cli, 2, "--sampler ddimm is none of", "sample", own_run, "--sampler", "ddimm")
    fails(cli, 2, "spacing = 'even' is not right", "sample", own_run, "--spacing", "even")
    fails(cli, 2, "--cameras and --views are of scenes", "interpolate", own_run, "--views", "2")
    fails(cli, 2, "--guidance 2.0 needs --label", "sample", own_run, "--guidance", "2")
    fails(cli, 2, "--steps 51 is not right: it is from 1 to 50", "sample", own_run, "--steps", "51")
    fails(cli, 2, "99999 is not one of", "interpolate", own_run, "--to", "99999")
    fails(cli, 2, "holds a run already", "train", "mnif:tiny", "--run", own_run)


def test_a_full_disk_leaves_what_was_there(cli, own_run, monkeypatch):
    """Simulated where a file is flushed: status 1, one sentence, old files whole, no left-overs."""
    before = {p.name: p.read_bytes() for p in own_run.iterdir()}

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    assert "error: the disk is full" in cli("sample", own_run, "--count", 1, status=1).stderr
    monkeypatch.undo()
    system = fieldloom.load(own_run)
    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        Run(own_run).write_system(system)
    with pytest.raises(ValueError, match="holds a run already"):
        fieldloom.save(system, own_run)
    assert before == {p.name: p.read_bytes() for p in own_run.iterdir()}


def test_out_of_memory_names_what_was_asked(cli, own_run, monkeypatch):
    """Simulated where codes are decoded, as torch and as Python say it."""
    said = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 24000000000 bytes."
    for error, words in {
        RuntimeError(said): "needs 24 GB at once.",
        MemoryError(): "needs more memory than there is.",
    }.items():
        with monkeypatch.context() as patch:
            fail = lambda *rest, error=error: (_ for _ in ()).throw(error)
            patch.setattr("fieldloom.system.System.decode", fail)
            done = cli("sample", own_run, "--count", 3, status=1)
        assert done.stderr.splitlines()[-1].startswith("error: out of memory: 'sample ")
        assert done.stderr.splitlines()[-1].endswith(f"--count 3' {words}")


def test_the_log_can_be_read(tiny_run):
    log = Run(tiny_run).read_log()
    assert {line["stage"] for line in log} == {"field", "prior"}
    assert all(np.isfinite(line["loss"]) for line in log)


def test_what_goes_on_with_a_stopped_run(cli, tmp_path, monkeypatch):
    stop = lambda *rest: (_ for _ in ()).throw(Interrupted("stopped at step 1 of 2"))
    monkeypatch.setattr("fieldloom.training._train_stages", stop)
    said = cli("demo", "--out", tmp_path / "demo", status=130).stderr
    assert "stopped at step 1 of 2; the same command goes on from here." in said
    said = cli("train", "mnif:tiny", "--run", tmp_path / "run", status=130).stderr
    assert "stopped at step 1 of 2; --resume goes on from here." in said
    with pytest.raises(Interrupted, match="step 1 of 2; resume=True goes on from here"):
        fieldloom.train("mnif", tmp_path / "other", "tiny", device="cpu")
