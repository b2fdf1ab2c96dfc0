"""What somebody has is recognised, and fitted by the recipe that suits it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fieldloom
from fieldloom import export
from fieldloom.assembly import make_modality, open_source
from fieldloom.errors import InputError
from fieldloom.fitting import MINUTES, budget, choose, find_layout, keep, kind_of
from fieldloom.recipe import load, merge
from media import gradient

QUICK = {"field": {"width": 8, "grid": {"levels": 3}}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Small files of every kind."""
    folder = tmp_path_factory.mktemp("files")
    picture = gradient()
    Image.fromarray(picture).save(folder / "photo.png")
    Image.fromarray(picture[..., 0]).save(folder / "grey.png")
    Image.fromarray(picture).save(folder / "nameless", "PNG")
    frames = [Image.fromarray(np.roll(picture, i, 1)) for i in range(3)]
    frames[0].save(folder / "moves.gif", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "still.gif")
    frames[0].save(folder / "pages.tif", save_all=True, append_images=frames[1:])
    export.mp4([picture] * 2, folder / "film.mp4")
    export.wav(torch.rand(1, 200), 8000, folder / "mono.wav")
    export.wav(torch.rand(2, 200), 8000, folder / "stereo.wav")
    (folder / "solid.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    (folder / "nothing").mkdir()
    (folder / "notes.txt").write_text("nothing to fit")
    (folder / "empty.png").write_bytes(b"")
    np.save(folder / "sound.npy", np.zeros(300, np.float32))
    np.save(folder / "colours.npy", picture)
    np.save(folder / "planes.npy", picture.transpose(2, 0, 1))
    np.save(folder / "frames.npy", np.stack([picture] * 5))
    np.savez(folder / "two.npz", a=picture, b=picture)
    np.savez(folder / "none.npz")
    np.savez(folder / "mesh.npz", verts=np.eye(3), faces=np.array([[0, 1, 2]]))
    scene = folder / "scene"
    scene.mkdir()
    (scene / "transforms.json").write_text(json.dumps({"frames": []}))
    many = folder / "scenes"
    for name in "ab":
        (many / name).mkdir(parents=True)
        (many / name / "transforms.json").write_text(json.dumps({"frames": []}))
    bytes_, ends = np.zeros(1, np.uint8), np.zeros(5, np.int64)
    np.savez(folder / "views.npz", data=bytes_, offsets=ends, c2w=np.zeros((2, 2, 4, 4)))
    np.savez(folder / "view.npz", data=bytes_, offsets=ends, c2w=np.zeros((4, 4, 4)))
    pictures = folder / "pictures"
    pictures.mkdir()
    Image.fromarray(picture).save(pictures / "one.png")
    return folder


FOUND = {
    "photo.png": ("image", "image", 3),
    "grey.png": ("image", "image", 1),
    "nameless": ("image", "image", 3),
    "still.gif": ("image", "image", 3),
    "pages.tif": ("image", "image", 3),
    "moves.gif": ("video", "video", 3),
    "film.mp4": ("video", "video", 3),
    "mono.wav": ("audio", "audio", 1),
    "stereo.wav": ("audio", "audio", 2),
    "solid.obj": ("mesh", None, None),  # by the recipe's own source
    "mesh.npz": ("mesh", None, None),
    "scene": ("scene", "transforms", None),
    "view.npz": ("scene", "multiview", None),
    "sound.npy": ("audio", "array", 1),
    "colours.npy": ("image", "array", 3),
    "planes.npy": ("image", "array", 3),
    "frames.npy": ("video", "array", 3),
}


@pytest.mark.parametrize("name", FOUND)
def test_a_file_says_what_it_is(folder, name):
    choice = choose(folder / name)
    kind, source, channels = FOUND[name]
    assert (choice.kind, choice.sections["source"].get("name")) == (kind, source)
    assert choice.sections.get("modality", {}).get("channels") == channels
    assert choice.recipe == f"fit:{kind}"
    assert choice.words


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("notes.txt", r"of no kind that is known, or damaged: fit takes .*\(\.npy, \.npz\)\.$"),
        ("empty.png", "of no kind that is known"),
        ("pictures", "a folder without a scene"),
        ("nothing", r"an empty folder: fit takes .*\(\.npy, \.npz\)\.$"),
        ("scenes", "a set of many scenes"),
        ("views.npz", "a set of many scenes"),
        ("none.npz", r"holds no array\.$"),
        ("two.npz", r"holds several arrays \(a, b\): save the one"),
        ("missing.png", "does not exist"),
    ],
)
def test_what_is_no_single_signal_is_refused(folder, name, words):
    with pytest.raises(InputError, match=words):
        choose(folder / name)


def test_another_kind_may_be_asked_for(folder):
    assert choose(folder / "photo.png", "sphere").sections["source"]["name"] == "image"
    assert choose(folder / "still.gif", "video").sections["source"]["name"] == "video"
    assert choose(folder / "film.mp4", "audio").sections["source"]["name"] == "audio"
    assert choose(folder / "pictures", "video").sections["source"]["name"] == "video"
    assert choose(folder / "colours.npy", "sphere").kind == "sphere"
    with pytest.raises(InputError, match="did you mean 'image'"):
        choose(folder / "photo.png", "imag")


# -- arrays


@pytest.mark.parametrize(
    ("shape", "kind", "found", "channels"),
    [
        ((100,), None, "audio", None),
        ((100, 2), "audio", "audio", 1),
        ((2, 100), "audio", "audio", 0),
        ((20, 30), None, "image", None),
        ((20, 30, 3), None, "image", 2),
        ((3, 20, 30), None, "image", 0),
        ((20, 30, 4), None, "image", 2),
        ((20, 30, 3), "sphere", "sphere", 2),
        ((1, 3, 20, 30), None, "image", 1),
        ((1, 20, 30, 3), None, "image", 3),
        ((8, 20, 30), None, "video", None),
        ((8, 20, 30, 3), None, "video", 3),
        ((8, 3, 20, 30), None, "video", 1),
    ],
)
def test_the_axes_of_an_array(shape, kind, found, channels):
    layout = find_layout(shape, kind)
    assert (layout.kind, layout.channels) == (found, channels)
    left = list(shape[1:] if len(shape) == 4 and found == "image" else shape)
    if channels is not None:
        left.remove(shape[channels])
    assert layout.size == tuple(left)


@pytest.mark.parametrize(
    ("shape", "kind", "words"),
    [
        ((), None, "holds no signal"),
        ((0, 5), None, "holds no signal"),
        ((3, 20, 3), None, "may be first or last, which is not certain"),
        ((4, 3, 20, 3), None, "not certain"),
        ((9, 20, 30, 5), None, "is not a video"),
        ((2, 2, 2, 2, 2), None, "is not a video"),
        ((20, 30, 5), "image", "is not an image"),
        ((20, 30), "mesh", "is no mesh"),
    ],
)
def test_other_arrays_are_refused(shape, kind, words):
    with pytest.raises(InputError, match=words):
        find_layout(shape, kind)


KEPT = {
    "rgb": (gradient(), None),
    "planes": (torch.from_numpy(gradient()).permute(2, 0, 1).float() / 255, None),
    "batch": (torch.from_numpy(gradient()).permute(2, 0, 1)[None], None),
    "grey": (gradient()[..., 0], None),
    "tiny": (gradient(2, 5), None),
    "picture": (Image.fromarray(gradient()), None),
    "film": (np.stack([gradient()] * 4).transpose(0, 3, 1, 2), None),
    "sound": (np.sin(np.arange(100.0)), None),
    "sixteen bits": ((np.sin(np.arange(100.0)) * 30000).astype(np.int16), None),
    "stereo": (np.stack([np.sin(np.arange(100.0))] * 2), "audio"),
    "half": (torch.rand(8, 8).half(), None),
}


@pytest.mark.parametrize("name", KEPT)
def test_a_signal_in_memory_is_read_as_it_is(tmp_path, name):
    """What the recipe's source reads are the numbers that were given, channels first."""
    signal, kind = KEPT[name]
    choice = keep(signal, tmp_path, kind)
    recipe = load(choice.recipe, change=choice.sections)
    modality = make_modality(recipe["modality"])
    read = open_source(recipe, modality, quiet=True).read(torch.tensor([0])).tensor[0]
    array = np.asarray(signal)
    layout = find_layout(array.shape, kind)
    true = array if layout.channels is None else np.moveaxis(array, layout.channels, 0)
    true = torch.from_numpy(true.astype(np.float64)).reshape(read.shape)
    if choice.kind == "audio":
        full = 32768 if array.dtype == np.int16 else 1
        true = (true / full + 1) / 2
    elif array.dtype == np.uint8:
        true = true / 255
    assert torch.allclose(read.double(), true, atol=1e-4)
    assert modality.shape() == layout.size


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_sixteen_bits_of_sound_in_a_wider_type_are_not_taken_for_silence(tmp_path, dtype):
    choice = keep((np.sin(np.arange(100)) * 30000).astype(dtype), tmp_path)
    recipe = load(choice.recipe, change=choice.sections)
    with pytest.raises(InputError, match="set source.range to the numbers that become 0 and 1"):
        open_source(recipe, make_modality(recipe["modality"]), quiet=True)


def test_what_is_in_memory_and_no_signal_is_refused(tmp_path):
    hidden = np.ma.masked_array(np.ones((4, 4)), mask=np.eye(4))
    sparse, without = torch.eye(4).to_sparse(), torch.empty(4, 4, device="meta")
    waves = torch.ones(4, 4, dtype=torch.complex64)
    arrays = [np.array(["a"]), hidden, sparse, without, waves]
    for wrong in ([[1, 2]], None, {"a": 1}, *arrays):
        with pytest.raises(InputError, match="where a path, a picture of Pillow, an array"):
            keep(wrong, tmp_path)
    assert not list(tmp_path.iterdir())


# -- the fit


def test_the_same_numbers_from_a_file_a_picture_and_the_command_line(tmp_path, cli):
    file = tmp_path / "photo.png"
    Image.fromarray(gradient()).save(file)
    run = tmp_path / "run"
    steps, width = "train.field.steps=3", "field.width=8"
    cli("fit", file, "--run", run, "--set", steps, "--set", width, "--set", "field.grid.levels=3")
    by_verb = fieldloom.load(run).state_dict()
    by_path = fieldloom.fit(file, steps=3, **QUICK).state_dict()
    by_picture = fieldloom.fit(Image.open(file), steps=3, **QUICK).state_dict()
    by_array = fieldloom.fit(gradient(), tmp_path / "own", steps=3, **QUICK).state_dict()
    for name, tensor in by_verb.items():
        for other in (by_path, by_picture, by_array):
            assert torch.equal(tensor, other[name]), name
    with pytest.raises(InputError, match="holds a run already"):
        fieldloom.fit(gradient()[::-1].copy(), tmp_path / "own", steps=3)
    assert fieldloom.evaluate(tmp_path / "own").value("psnr") > 5  # its data are as they were


def test_a_run_goes_on_as_what_it_is_alone(tmp_path, cli):
    file, run = tmp_path / "photo.png", str(tmp_path / "run")
    Image.fromarray(gradient()).save(file)
    changes = ["--set", "train.field.steps=1", "--set", "field.width=8"]
    cli("fit", file, "--run", run, *changes)
    wrong = cli("fit", file, "--as", "sphere", "--run", run, "--resume", status=2)
    assert "is a run of the recipe 'fit:image', not of 'fit:sphere'" in wrong.stderr
    wrong = cli("train", "--resume", "--run", run, "--set", "train.prior.steps=3", status=2)
    assert "the run's recipe has no prior" in wrong.stderr


def test_a_fit_without_a_run_leaves_nothing_and_decodes_at_any_resolution(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left = lambda: [x for x in tmp_path.iterdir() if "torchinductor" not in x.name]
    system = fieldloom.fit(gradient(), steps=30)
    assert not left()
    assert system.decode(resolution=(7, 9)).tensor.shape == (1, 3, 7, 9)
    result = fieldloom.evaluate(system, gradient())
    assert result.value("psnr") > 20
    with pytest.raises(InputError, match="did you mean 'psnr'"):
        result.value("pnsr")
    assert not left()
    with pytest.raises(InputError, match="code: "):
        fieldloom.build("mnif", "tiny").decode()


def test_minutes_are_the_kinds_own_unless_there_are_steps():
    assert budget("scene", None) == MINUTES["scene"]
    assert budget("image", 0.5, {}) == 0.5
    assert budget("image", None, {"train": {"field": {"points": 5}}}) == MINUTES["image"]
    assert budget("image", None, {"train": {"field": {"steps": 5}}}) is None
    with pytest.raises(InputError, match="both given"):
        budget("image", 1, {"train": {"field": {"steps": 5}}})


@pytest.mark.parametrize("kind", MINUTES)
def test_every_kind_has_a_recipe(kind):
    own = {"renderer": {"near": 1.0, "far": 2.0}} if kind == "scene" else {}  # as a scene suggests
    modality = fieldloom.build(f"fit:{kind}", **own).modality
    assert kind_of(modality) == kind


@pytest.mark.parametrize("field", ["siren", "experts", "fourier-mlp", "wave-mlp"])
@pytest.mark.parametrize("kind", ["image", "video", "audio", "sphere"])
def test_a_field_brings_its_rates(kind, field):
    own = load(f"fit:{kind}", [f"field={field}"])
    assert own["field"]["name"] == field
    assert "groups" not in own["train"]["field"]  # of tables, which these fields have not
    assert own["train"]["field"]["optimizer"]["rate"] > 0
    small = merge(own, {"field": {"width": 8}})
    assert fieldloom.build(small).family.field.slots
    assert load(f"fit:{kind}", [f"field={field}", "field.width=8"]) == small
