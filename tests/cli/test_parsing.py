"""What a newcomer types by mistake, and the sentence that says what to type instead."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from fieldloom import export
from media import gradient

TETRAHEDRON = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 2 3 4\nf 1 4 3\n"

VERBS = {
    "a picture": ("photo.jpg", "'photo.jpg' is an image: fieldloom fit photo.jpg fits it alone."),
    "a name with a space": ("my sound.wav", "is a sound: fieldloom fit 'my sound.wav' fits it"),
    "a folder of images": (
        "photos",
        "'photos' is a folder of images: fieldloom train mnif:faces64 --source photos learns a set",
    ),
    "a mesh": ("shape.obj", "'shape.obj' is a mesh: fieldloom fit shape.obj fits it alone"),
    "a scene": ("scene", "'scene' is a scene: fieldloom fit scene fits it alone"),
    "a run": ("run", "'run' is a run: fieldloom info run says what is in it"),
    "a recipe": ("mnif:digits", "'mnif:digits' is a recipe: fieldloom train mnif:digits trains"),
    "a misspelt verb": ("trian", "there is no verb 'trian'; did you mean 'fieldloom train'?"),
    "another word": ("foo", "there is no verb 'foo'. There are: inspect, fit, train"),
    "a file that is not there": ("gone.png", "'gone.png' is no verb, and no file or folder."),
    "an empty folder": ("nothing", "'nothing' is an empty folder."),
    "another file": ("notes.txt", "'notes.txt' is a file of no kind that is read."),
}
"""What stands where a verb should, and what is said."""

CALLS = {
    "train photo.jpg": "'photo.jpg' is an image: fieldloom fit photo.jpg fits it alone.",
    "train run": "'run' is a run, not a recipe: fieldloom train --resume --run run goes on",
    "train": "the name of a recipe is needed, as in 'fieldloom train mnif:digits'",
    "train mnif digits": "a variant follows a colon: fieldloom train mnif:digits.",
    "train mnif:digits --souce x": "has no option --souce; did you mean --source?",
    "train mnif:digits --minutes x": "--minutes is not right: it is a number.",
    "train mnif:digits --minutes": "--minutes needs a value",
    "train mnif:digits --stage fild": "--stage 'fild' is not right; did you mean 'field'?",
    "train mnif:faces64": "source 'folder' needs a path: --source FOLDER.",
    "train loe:video": "source 'video' needs a path: --source VIDEO.",
    "train mnif:faces64 --source gone": "--source 'gone' does not exist, or cannot be seen.",
    "train mnif:faces64 --source fotos": "cannot be seen; 'photos' is there.",
    "train mnif:faces64 --source photos --set source.path=scene": "name different data",
    "train mnif:faces64 --source photo.jpg": "is one image, and the recipe 'mnif:faces64' learns",
    "train mnif:chairs32 --source photos": (
        "'photos' is a folder of images, and the recipe 'mnif:chairs32' takes shapes: fieldloom "
        "train mnif:faces64 --source photos learns a set of them."
    ),
    "train mnif:chairs32 --source film.gif": "takes shapes: fieldloom fit film.gif fits it alone.",
    "train loe:image --source shape.obj": (
        "'shape.obj' is a mesh, and the recipe 'loe:image' takes images: fieldloom fit shape.obj "
        "fits it alone, fieldloom train mnif:chairs32 --source FOLDER learns a folder of them."
    ),
    "train loe:image --set source.path=shape.obj --set source.name=meshes": "takes images",
    "train loe:image --source sound.wav": "fieldloom fit sound.wav fits it alone.",
    "train mnif:faces64 --source scene": "--set source.name=folder takes its pictures as images",
    "train mnif:multiview128 --source images.npy": "takes scenes: fieldloom inspect images.npy",
    "train mnif:celebahq64-S --source photos": (
        "source.split = [27000, 3000] does not fit 2 signals: --set source.split=[0.9,0.1]"
    ),
    "train loe:video --source images.npy": ": --set modality.channels=1 takes them as they are.",
    "fit": "'fieldloom fit' needs FILE, as in 'fieldloom fit photo.jpg'.",
    "fit my sound.wav": "a path with spaces needs quotes: fieldloom fit 'my sound.wav'.",
    "fit mnif:digits": "'mnif:digits' is a recipe, not a file: fieldloom train mnif:digits.",
    "fit foto.jpg": "'foto.jpg' does not exist, or cannot be seen; 'photo.jpg' is there.",
    "fit photos": "fieldloom train mnif:faces64 --source photos learns a set of them.",
    "train mnif:faces64 --source notes.txt": (
        "is one file, and the recipe 'mnif:faces64' learns a set of images: fieldloom train "
        "mnif:faces64 --source FOLDER takes a folder."
    ),
    "cost run": "'run' is a run, not a recipe: fieldloom evaluate run measures it, and what it",
    "inspect foto.jpg": "; 'photo.jpg' is there, and is no bundled recipe.",
    "sample": "'fieldloom sample' needs the folder of a run, as in 'fieldloom sample runs/mine'",
    "sample runs": "'runs' is not a run, but holds 2: runs/one, runs/two; name one of them.",
    "sample runs/ona": "'runs/ona' is not a run; did you mean 'runs/one'?",
    "sample one": "'one' is not a run; did you mean 'runs/one'?",
    "evaluate mnif:tiny": "is not a run but a recipe: fieldloom train mnif:tiny makes a run of it",
    "evaluate photo.jpg": "'photo.jpg' is not a run but a file",
    "sample run --count 0": "--count is not right: it is at least 1.",
    "sample run rest": "'fieldloom sample' takes no further argument, and 'rest' is left over.",
    "reconstruct run --source shape.obj": "'shape.obj' is a mesh, and this run takes images.",
    "render run --held": "--held, --depth, --cameras are for scenes: this run is of none.",
    "analyse jugde run": "there is no verb 'jugde'; did you mean 'fieldloom analyse judge'?",
    "list recipes mnfi": "unknown recipe 'mnfi'; did you mean 'mnif'?",
    "--verson": "'fieldloom' has no option --verson; did you mean --version?",
}
"""Words after ``fieldloom``, and what is said."""


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_run):
    """A folder with data of each kind, and with runs."""
    folder = tmp_path_factory.mktemp("place")
    for name in ("photos", "scene", "nothing", "runs/one", "runs/two"):
        (folder / name).mkdir(parents=True)
    picture = Image.fromarray(gradient())
    picture.save(folder / "photo.jpg")
    frames = []
    for i in range(2):
        picture.save(folder / "photos" / f"{i}.png")
        picture.save(folder / "scene" / f"{i}.png")
        frames.append({"file_path": f"{i}.png", "transform_matrix": np.eye(4).tolist()})
        (folder / "runs" / ("one", "two")[i] / "recipe.toml").write_text("seed = 0\n")
    scene = {"camera_angle_x": 0.8, "frames": frames}
    (folder / "scene" / "transforms.json").write_text(json.dumps(scene))
    picture.save(folder / "film.gif", save_all=True, append_images=[picture.rotate(90)])
    export.wav(torch.zeros(1, 300), 8000, folder / "sound.wav")
    (folder / "my sound.wav").write_bytes((folder / "sound.wav").read_bytes())
    (folder / "shape.obj").write_text(TETRAHEDRON)
    (folder / "notes.txt").write_text("nothing")
    np.save(folder / "images.npy", np.zeros((6, 8, 8), np.uint8))
    (folder / "run").symlink_to(tiny_run)
    return folder


def said(cli, place, *words):
    """The one line that is said on the standard error, but for what is read."""
    done = cli(*words, status=2, cwd=place)
    lines = [x for x in done.stderr.splitlines() if x.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


@pytest.mark.parametrize("case", VERBS)
def test_what_stands_where_a_verb_should(cli, place, case):
    word, sentence = VERBS[case]
    assert sentence in said(cli, place, word)


@pytest.mark.parametrize("words", CALLS)
def test_a_mistake_names_the_line_to_type(cli, place, words):
    assert CALLS[words] in said(cli, place, *words.split(" "))
    assert not (place / "runs" / "mnif-faces64").exists()


@pytest.mark.parametrize("verb", ["fit", "train", "sample", "render", "list", "inspect"])
def test_help_has_an_example_and_says_how_long_training_takes(cli, verb):
    told = " ".join(cli(verb, "--help").stdout.split())
    assert f"Example: fieldloom {verb} " in told
    if verb in ("fit", "train"):
        assert "minute" in told
