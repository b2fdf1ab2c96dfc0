"""Calls of Python with what is not right get one sentence; with what is right in another form, an
answer.

Tests check annotations as they run, users do not: wrong kinds are passed in a process of its own.
"""

import copy
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import fieldloom
from fieldloom import atomic, export, recipe
from fieldloom.arguments import as_cameras
from fieldloom.errors import InputError
from fieldloom.modalities.modality import sizes_of
from fieldloom.modalities.views import Views
from fieldloom.types import Cameras

ORBIT = vars(Views(size=8, orbit=3).cameras())

CALLS = {
    # labels
    "system.sample(1, label='cat')": "unknown class 'cat'",
    "system.sample(1, label='1000000000000')": "unknown class '1000000000000'",
    "system.sample(1, label=10)": r"label 10 is not one of 0 \.\. 9",
    "system.sample(1, label=-1)": r"label -1 is not one of 0 \.\. 9",
    "system.sample(2, label=[1, 10])": r"label 10 is not one of",
    "system.sample(2, label=[1, 2, 3])": r"label = \[1, 2, 3\]: a class's number, or 2",
    "system.sample(1, label=1.5)": "label = 1.5: a class's number",
    "system.sample(1, label=True)": "label = True: a class's number",
    "system.sample(1, label={})": "label = {}: a class's number",
    "system.sample(1, label=10**30)": "label = 1000.*: a class's number",
    "plain.class_of('cat')": "the classes of this run have no names",
    # sampling
    "system.sample(-1)": "count = -1: a whole number, at least 1",
    "system.sample(0)": "count = 0",
    "system.sample('many')": "count = 'many'",
    "system.sample(True)": "count = True",
    "system.sample(10**12)": r"1000000000000 codes would take 64 TB, and this machine has",
    "system.sample(1, seed=-1)": "seed = -1",
    "system.sample(1, seed='x')": "seed = 'x'",
    "system.sample(1, guidence=2)": "did you mean 'guidance'",
    "system.sample(1, guidance='much')": "guidance = 'much' is not right",
    "system.sample(1, guidance=float('nan'))": "guidance = nan is not right",
    "system.sample(1, steps=0)": "steps=0 is not right: it is from 1 to 50",
    "system.sample(1, steps=1.5)": "steps = 1.5 is not right",
    "system.sample(1, sampler='ddmi')": 'sampler="ddmi" is none of',
    "system.sample(1, spacing='even')": "spacing = 'even' is not right.*'trailing'",
    # codes in files
    "fieldloom.open_codes(3)": "path: a int where that of codes is needed",
    "fieldloom.open_codes('nowhere')": "'nowhere' does not exist",
    "fieldloom.open_codes('')": "holds no codes",
    # data
    "system.encode([1, 2])": "data: a list where a tensor or a numpy array is needed",
    "system.encode(None)": "data: a NoneType where",
    "system.encode(data.long())": r"data: a Tensor of torch\.int64 where .* uint8, or floats",
    "system.encode(data.numpy().astype(object))": "data: a ndarray of object where",
    "system.encode(torch.tensor(1.0))": r"data: the shape \(\) is that of no data",
    "system.encode(data[0])": r"data of the shape \(1, 8, 8\) is not \(batch, 1, axis, axis\)",
    "system.encode(data.expand(-1, 3, -1, -1))": r"\(2, 3, 8, 8\) is not \(batch, 1, axis, axis\)",
    "system.encode(torch.zeros(2, 1, 0, 8))": r"\(2, 1, 0, 8\) is not",
    "system.encode(data[0, 0])": "are missing, as data.None, None. adds them",
    "system.encode(data[0].movedim(0, -1))": r"batch is missing: data.movedim\(-1, 0\).None.",
    "system.encode(data.movedim(1, -1))": "channels come last there, as data.movedim.-1, 1. moves",
    "system.encode(data[:, 0])": "the channel axis is missing, as data.:, None. adds it",
    "system.encode(data.expand(2, 3, 8, 8), batch=1)": r"shape \(2, 3, 8, 8\) is not",
    "colour.encode(torch.rand(3, 8, 8))": "the batch axis is missing, as data.None. adds it",
    "colour.encode(torch.rand(8, 8, 3))": r"come last there.*data.movedim\(-1, 0\).None.",
    "system.encode(data * 255)": "data: floats from .* to 2.*: scale them, or give uint8",
    "system.encode(data * 2 - 1)": "data: floats from -0.9.* to 0.9",
    "system.encode(data + float('nan'))": "data: some values are NaN or infinite",
    "system.encode(data / 0)": "data: some values are NaN or infinite",
    "system.reconstruct(data * 2)": "data: floats from",
    "system.refine(data.numpy() * 2)": "data: floats from",
    "system.interpolate(data[0], data[1] * 2)": "data: floats from",
    "system.encode(Data(data, orbit.part([0, 1])))": "data: .*cameras of the shape",
    "system.encode(Data(data, one))": "data: cameras are of views: these data have none",
    "system.encode(Data(data, coords=torch.rand(2, 1, 2)))": "coords are of scattered samples",
    "scenes.encode(torch.rand(2, 3, 3, 8, 8))": "needs a camera for each view",
    "system.encode(data > 0.5)": r"data: a Tensor of torch\.bool where",
    "system.encode(data.numpy().astype('uint16'))": "data: a ndarray of uint16 where",
    "Data(data.long())": r"values of torch\.int64, where uint8",
    "system.interpolate(code[:1], code[1:])": r"that of codes, and data \(1, 8, 8\) go here",
    "system.interpolate(code[0], code[1])": r"\(1, 8\) is that of codes",
    "system(data)": "a system is not called: system.encode",
    "system.to('cudda')": "cannot be moved to 'cudda': Expected one of cpu, cuda",
    "fieldloom.save('folder', system)": r"save: a system, and then .*: save\(system, folder\)",
    "fieldloom.save(data, 'folder')": "save: a system, and then",
    "Data(data)[0]": r"data.part\(\[0\]\) is one datum",
    "list(Data(data))": r"data.part\(\[0\]\) is one datum",
    "torch.stack([Data(data)])": "torch's stack takes tensors: data.tensor is",
    "torch.mean(Data(data))": "torch's mean takes tensors",
    "system.sample(90000, 9999)": "data at resolution 9999 would take",
    "fieldloom.render(system, 'a.png', code[:1], crop=(5, 5, 6, 6))": "fractions .* from 0 to 1",
    "fieldloom.render(system, 'a.png', code[:1], crop=(1, 0, 0, 1))": "left < right",
    "fieldloom.render(system, 'a.png', code[:1], crop=(-0.1, 0, 1, 1))": "from 0 to 1",
    "fieldloom.render(system, 'a.png', code[:1], crop=(0, 0, 1e-4, 1))": "less than one",
    "fieldloom.render(system, 'a.png', code[:1], resolution=0)": "positive whole numbers",
    "fieldloom.render(system, 'a.png', code[:1], frame='x')": "a fraction of the time",
    "fieldloom.render(system, 'a.png', code[:1], frames=0)": "at least 1",
    "fieldloom.render(system, 'a.png', code[:1], frames=5)": "around shapes and scenes",
    "fieldloom.evaluate(system, data)": "source: a Tensor where a path or a Source is needed",
    "fieldloom.encode(system, 'codes', data)": "source: a Tensor where a path or a Source",
    "system.encode(data, batch=0)": "batch = 0: a whole number, at least 1",
    "Data(data, index=torch.arange(3))": "index of the shape .* where",
    "Data(data, label=torch.zeros(2, 1).long())": "label of the shape .* where",
    "Data(data, frame=torch.zeros(2, 3))": r"frame of the shape \(2, 3\) where \(2, 4\)",
    "Data(data, surface=torch.zeros(2, 3))": r"surface of the shape \(2, 3\) where \(2, any, 3\)",
    "Data(data, coords=torch.zeros(2, 7, 3))": r"coords of the shape \(2, 7, 3\) where",
    "Data(torch.zeros(3))": r"the shape \(3,\) is that of no data",
    "system.encode(Data([1, 2]))": "data: a list where",
    "system.reconstruct([1])": "data: a list where",
    "system.reconstruct(data, resolution='x')": "resolution 'x' is not one or 2 positive",
    "system.interpolate(data[0], data[0, :, 1:])": r"\(1, 8, 8\) and \(1, 7, 8\) differ",
    "system.interpolate(data[0], 3)": "b: a int where a tensor",
    "system.interpolate(data[0], data[1], steps=0)": "steps = 0",
    "system.interpolate(data[0], data[1], steps='x')": "steps = 'x'",
    "system.interpolate_codes(code[:1], code[:1, :, 1:])": r"are not two of \(1, tokens, width\)",
    # codes
    "system.decode(data)": r"code: the shape \(2, 1, 8, 8\) is not \(batch, 1, 8\)",
    "system.decode(code[0])": r"code: the shape \(1, 8\) is not \(batch, 1, 8\)",
    "system.decode(code[:0])": r"code: the shape \(0, 1, 8\) is not",
    "system.decode(code.long())": r"code: a Tensor of torch\.int64 where",
    "system.decode([[1.0]])": "code: a list where a tensor",
    "system.decode('codes.safetensors')": "code: a str where a tensor",
    "system.predict(code[..., 1:])": r"code: the shape \(2, 1, 7\)",
    "system.function(code)": "2 codes where one is asked for",
    "next(system.strips(code[0]))": r"code: the shape \(1, 8\)",
    "next(system.strips(code[:1], values=0))": "values = 0",
    "next(system.strips(code[:1], window=3))": r"window 3: \(first, last\) for each of 2 axes",
    "next(system.strips(code[:1], window=((0, 1), (1, 0))))": "window .* for each of 2 axes",
    "next(system.strips(code[:1], window=((0, 'x'), (0, 1))))": "window .* for each of 2 axes",
    "next(system.strips(code[:1], frame=0.5))": "these data are no video",
    "next(system.strips(code[:1], (1, 10**12)))": "a row of data at resolution .* would take 64 TB",
    "system.depth(code)": "depth needs renderer 'volume'",
    "system.mesh(code[:1])": "meshes are of shapes",
    "system.family.bind(code[0])": r"a code of the shape \(1, 8\) is not \(batch, 1, 8\)",
    "system.family(torch.zeros(1, 4, 2), code[..., 1:])": r"\(2, 1, 7\) is not \(batch, 1, 8\)",
    # resolutions and cameras
    "system.decode(code, 0)": "resolution 0 is not one or 2 positive whole numbers",
    "system.decode(code, -4)": "resolution -4 is not",
    "system.decode(code, 2.5)": "resolution 2.5 is not",
    "system.decode(code, True)": "resolution True is not",
    "system.decode(code, '64')": "resolution '64' is not",
    "system.decode(code, (8, 8, 8))": r"resolution \(8, 8, 8\) is not one or 2",
    "system.decode(code, (8, None))": "resolution .* is not one or 2",
    "system.decode(code, 10**20)": "resolution 1000.* is not one or 2 .* at most",
    "system.decode(code, 10**6)": r"data at resolution 1000000 would take 24 TB, and this machine",
    "system.modality.shape(10**20)": "is not one or 2 positive whole numbers",
    "system.decode(code, cameras={})": "cameras are a dict of two tensors",
    "system.decode(code, cameras=orbit)": "cameras are of views: these data have none",
    "system.decode(code, cameras=3)": "cameras are a dict of two tensors",
    # files
    "export.mesh(vertices, faces, 3)": "path = 3: the name of a file is needed",
    "export.mesh(vertices, faces, '')": "path = '': the name of a file",
    "export.mesh(vertices, faces, 'a.txt')": "a mesh is written as one of",
    "export.mesh(vertices, faces[:, :2], 'a.ply')": r"faces: .* \(1, 2\) is not \(rows, 3\)",
    "export.png(data, 'a.png')": r"shape \(2, 1, 8, 8\) is no image",
    "export.png([1], 'a.png')": "list is no image",
    "export.png(torch.zeros(2, 8, 8), 'a.png')": r"\(2, 8, 8\) is no image",
    "export.gif([], 'a.gif')": "a video has at least one frame",
    "export.gif([data], 'a.gif')": "is no frame",
    "export.mp4([np.zeros((8, 8, 3), np.uint8)], 'a.mp4', 0)": "rate = 0: frames a second",
    "export.wav(data, 8000, 'a.wav')": "is no audio",
    "export.wav(data[0, 0], 0.5, 'a.wav')": "rate = 0.5: samples a second",
    "export.frames([], 'a.png')": "there is no image to write",
    "export.frames([], 'a.bmp')": "images are written as one of",
    "fieldloom.encode(system, data)": "the name of a file is needed",
    # building
    "fieldloom.build(3)": "recipe = 3 is not right: it is a name, or a dict",
    "fieldloom.build(None)": "recipe = None is not right",
    "fieldloom.build({'field': 'siren'}, 'tiny')": "has its variants merged already",
    "fieldloom.build('mnif', 'tniy')": "did you mean 'tiny'",
}

SCRIPT = """
import json, sys
import numpy as np, torch, fieldloom
from fieldloom import atomic, export, recipe
from fieldloom.modalities import Views
from fieldloom.types import Data
orbit = Views(size=8).cameras()
system, plain = fieldloom.load(sys.argv[1]), fieldloom.build("mnif", "tiny")
colour = fieldloom.build("mnif", "tiny", modality={"channels": 3})
scenes = fieldloom.build("loe", "nerf", modality={"size": 8}, renderer={"near": 1.0, "far": 2.0})
one = fieldloom.Cameras(torch.eye(4).expand(2, 1, 4, 4), torch.ones(2, 1, 4))
data, code = torch.rand(2, 1, 8, 8), torch.randn(2, 1, 8)
vertices, faces = np.eye(3), np.array([[0, 1, 2]])
said = {}
for call in json.load(sys.stdin):
    try:
        eval(call)
        said[call] = "nothing"
    except fieldloom.errors.InputError as error:
        said[call] = str(error)
    except BaseException as error:
        said[call] = f"{type(error).__name__}: {error}"
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said(tiny_run, tmp_path_factory) -> dict[str, str]:
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tiny_run)],
        input=json.dumps(list(CALLS)),
        capture_output=True,
        text=True,
        cwd=tmp_path_factory.mktemp("calls"),
        env=os.environ | {"PYTHONPATH": str(Path(fieldloom.__file__).parents[1])},
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


@pytest.mark.parametrize("call", CALLS)
def test_one_sentence(call, said):
    assert re.search(CALLS[call], said[call]), said[call]
    assert "Error" not in said[call]
    assert said[call].isprintable()
    assert len(said[call]) < 500


@pytest.fixture(scope="module")
def system(tiny_run):
    return fieldloom.load(tiny_run)


def test_a_class_by_name_number_and_several(system):
    sample = lambda label: system.sample_codes(2, label)
    assert torch.equal(sample("3"), sample(3))
    assert torch.equal(sample(["3", 4]), sample(torch.tensor([3, 4])))
    assert torch.equal(sample((3, 3)), sample(torch.tensor(3)))
    assert not torch.equal(sample("3"), sample("4"))
    system.recipe = recipe.merge(system.recipe, {"known": {"names": ["cat", "dog"]}})
    assert system.class_of("dog") == 1
    with pytest.raises(InputError, match=r"unknown class 'dgo'; did you mean 'dog'\?"):
        system.class_of("dgo")
    assert system.class_of("1") == 1
    system.recipe = recipe.merge(system.recipe, {"known": {"names": ["0", "1", "10", "2"]}})
    assert [system.class_of(name) for name in ("10", "2")] == [2, 3]
    with pytest.raises(InputError, match="unknown class '3'"):  # no name, and no place either
        system.class_of("3")


def test_floats_that_rounding_moved_out_of_the_range_are_right(system):
    """Up to 1e-3 beyond [0, 1] they are taken as they are: bicubic filters leave more."""
    data = torch.tensor([0.0, 1.0]).repeat(2, 1, 8, 4)
    codes = system.encode(data)
    assert torch.allclose(system.encode(data * (1 + 1e-6)), codes, atol=1e-4)
    assert torch.equal(system.encode(data.half()), codes)
    system.encode(data * 1.0009)
    with pytest.raises(InputError, match=r"floats from 0 to 1\.002, where"):
        system.encode(data * 1.002)


def test_the_values_of_data_are_an_array_and_no_attributes():
    data = fieldloom.Data(torch.rand(2, 1, 8, 8))
    assert np.asarray(data).shape == (2, 1, 8, 8)
    assert np.array_equal(np.asarray(data), data.tensor.numpy())
    assert np.asarray(data, dtype=np.float64).dtype == np.float64
    assert len(data) == 2
    assert torch.equal(copy.deepcopy(pickle.loads(pickle.dumps(data))).tensor, data.tensor)
    with pytest.raises(
        AttributeError, match=r"no 'mean': their values have, the tensor data\.tensor"
    ):
        data.mean()
    with pytest.raises(AttributeError, match=r"^data have no 'valeus'\.$"):
        data.valeus  # noqa: B018
    assert not hasattr(data, "numpy")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_there_is_not(system):
    with pytest.raises(InputError, match="the system cannot be moved to 'cuda': Torch not comp"):
        system.to("cuda")
    assert system.to("cpu") is system
    assert system.to(torch.float32).dtype == torch.float32


def test_numpy_arrays_are_data_and_codes_too(system):
    data = torch.rand(2, 1, 8, 8)
    codes = system.encode(data)
    assert torch.equal(system.encode(data.numpy()), codes)
    assert torch.equal(system.encode(data.double().numpy()), codes)
    assert torch.equal(system.encode(data.double()), codes)
    made = system.decode(codes).tensor
    eight = (data * 255).round().byte()
    assert torch.equal(system.encode(eight.numpy()), system.encode(eight))
    assert torch.allclose(system.encode(eight), system.encode(eight.float() / 255), atol=1e-6)
    assert torch.equal(system.decode(codes.numpy()).tensor, made)
    assert torch.equal(system.reconstruct(data.numpy()).tensor, made)
    two = system.interpolate(data[0].numpy(), data[1].numpy(), 3).tensor
    assert torch.equal(two, system.interpolate(data[0], data[1], 3).tensor)
    assert system.encode(data[:0]).shape == (0, 1, 8)


def test_resolutions_of_any_whole_number(system):
    code = torch.randn(1, 1, 8)
    expected = system.decode(code, (4, 6)).tensor
    assert torch.equal(system.decode(code, torch.Size((4, 6))).tensor, expected)
    assert sizes_of(np.int64(4), 2) == (4, 4)
    assert sizes_of([np.int32(4), 6], 2) == (4, 6)


CAMERAS = {
    "no dict": ([1], "a dict of two tensors"),
    "one missing": ({"c2w": ORBIT["c2w"]}, "a dict of two tensors"),
    "no tensors": ({"c2w": 1, "intrinsics": 2}, "c2w: a int where a tensor"),
    "whole numbers": ({k: v.long() for k, v in ORBIT.items()}, "c2w: a Tensor of torch.int64"),
    "three rows": (ORBIT | {"c2w": ORBIT["c2w"][:, :3]}, r"not \(views, 4, 4\)"),
    "another number": (ORBIT | {"c2w": ORBIT["c2w"][:2]}, r"not \(views, 4, 4\)"),
    "none at all": ({k: v[:0] for k, v in ORBIT.items()}, r"not \(views, 4, 4\)"),
    "a matrix": ({"c2w": ORBIT["c2w"][0], "intrinsics": ORBIT["intrinsics"][0]}, "not .views"),
}


@pytest.mark.parametrize("case", CAMERAS)
def test_cameras_that_are_none(case):
    wrong, message = CAMERAS[case]
    with pytest.raises(InputError, match=message):
        as_cameras.__wrapped__(wrong)


def test_cameras_of_a_batch_are_some():
    batch = Cameras(**{key: value.expand(2, *value.shape) for key, value in ORBIT.items()})
    assert as_cameras(batch) is batch
    assert Views(size=8).grid(4, batch).shape == (2, 3 * 16, 6)


def test_paths_may_be_text(tmp_path):
    vertices, faces = np.eye(3), np.array([[0, 1, 2]])
    frame = np.zeros((8, 8, 3), np.uint8)
    strip = [(0, frame)]
    written = [
        export.mesh(vertices, faces, str(tmp_path / "a.ply")),
        export.png(torch.rand(3, 8, 8), str(tmp_path / "a.png")),
        export.gif([frame], str(tmp_path / "a.gif")),
        export.mp4([frame], str(tmp_path / "a.mp4")),
        export.wav(torch.rand(1, 80), 8000, str(tmp_path / "a.wav")),
        export.npy(torch.rand(3), str(tmp_path / "a.npy")),
        atomic.write_text("x", str(tmp_path / "a.txt")),
        export.frames([frame], str(tmp_path / "b.png")),
        export.png_from_strips(strip, (8, 8, 3), str(tmp_path / "c.png")),
        export.tiff(strip, (8, 8, 3), str(tmp_path / "a.tiff")),
        fieldloom.build("mnif", "tiny").modality.save(
            fieldloom.types.Data(torch.rand(1, 1, 8, 8)), str(tmp_path / "d.png")
        ),
    ]
    assert all(isinstance(path, Path) and path.stat().st_size for path in written)
