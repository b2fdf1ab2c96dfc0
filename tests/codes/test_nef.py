"""Files of fit-a-nef: their layout in HDF5, and those that are torn or hostile."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fieldloom.codes import nef
from fieldloom.conditioners import FlatWeights, Mixture
from fieldloom.errors import InputError
from fieldloom.family import Family
from fieldloom.fields import Fourier, FourierMlp, Siren
from refusals import refused, write

# -- HDF5


@pytest.fixture
def fields(tmp_path) -> tuple[Path, Family]:
    pytest.importorskip("h5py", reason="the extra 'hdf5' is not installed")
    field = Siren(2, 3, width=4, depth=3)
    own = Family(field, FlatWeights(field.slots, width=7))
    codes = own.conditioner.pack({n: torch.randn(6, *s.shape) for n, s in field.slots.items()})
    return nef.write(tmp_path / "a.hdf5", own, codes, {"labels": torch.arange(6)}), own


def test_links_and_data_elsewhere_are_not_followed(fields, tmp_path):
    import h5py

    path, own = fields
    with h5py.File(path, "r+") as file, h5py.File(tmp_path / "other.hdf5", "w") as other:
        other["secret"] = np.arange(6)
        file["soft"], file["out"] = (
            h5py.SoftLink("/labels"),
            h5py.ExternalLink("other.hdf5", "secret"),
        )
        file["gone"] = h5py.ExternalLink("nowhere.hdf5", "secret")
        layout = h5py.VirtualLayout((6,), "i8")
        layout[:] = h5py.VirtualSource("other.hdf5", "secret", (6,))
        file.create_virtual_dataset("virtual", layout)
        write(tmp_path / "raw", bytes(48))
        file.create_dataset("raw", (6,), "i8", external=[("raw", 0, 48)])
        file["empty"] = h5py.Empty("f4")
    _, beside = nef.read(path, own)
    assert set(beside) == {"labels"}
    with h5py.File(path, "r+") as file:
        file.move("params", "elsewhere")
        file["params"] = h5py.SoftLink("/elsewhere")
    refused("it has no dataset 'params' of its own", nef.read, path, own)


@pytest.mark.parametrize(
    ("key", "make", "words"),
    [
        ("params", lambda f, k: f.create_dataset(k, (2**20, 2**20), "f4", chunks=(8, 8)),
         "tells of 4,398,046,5.* bytes.*large=True"),
        ("params", lambda f, k: f.create_dataset(k, (0, 47), "f4"), "a row a field"),
        ("params", lambda f, k: f.create_dataset(k, (), "f4"), "no matrix"),
        ("params", lambda f, k: f.create_dataset(k, data="text"), "no matrix"),
        ("params", lambda f, k: f.create_group(k), "no dataset 'params'"),
        ("param_config", lambda f, k: f.create_dataset(k, data=["[3]"]), "no HDF5 file of fields"),
        ("param_config", lambda f, k: f.create_dataset(k, data=["{"]), "no HDF5 file of fields"),
        ("param_config", lambda f, k: f.create_dataset(k, data=["[" * 9999]), "no HDF5 file of f"),
        ("param_config", lambda f, k: f.create_dataset(k, data=['[["a", [-1]]]']), "no HDF5 file"),
        ("param_config", lambda f, k: f.create_dataset(k, data=['[["a", 3]]']), "no HDF5 file"),
        ("param_config", lambda f, k: f.create_dataset(k, data=["[]"]), "holds other fields"),
        ("param_config", lambda f, k: f.create_dataset(k, data=3), "no HDF5 file of fields"),
        ("param_config", lambda f, k: f.create_dataset(k, (0,), "S3"), "no HDF5 file of fields"),
    ],
)  # fmt: skip
def test_files_of_fields_that_are_wrong(fields, key, make, words):
    import h5py

    path, own = fields
    with h5py.File(path, "r+") as file:
        del file[key]
        make(file, key)
    refused(words, nef.read, path, own)


def test_a_heap_that_hdf5_would_walk_for_ever(fields):
    path, own = fields
    whole = path.read_bytes()
    heap = whole.index(b"GCOL")
    free = heap + 16 + 16 + -(-int.from_bytes(whole[heap + 24 : heap + 32], "little") // 8) * 8
    assert whole[free : free + 2] == b"\0\0"
    write(path, whole[: free + 8] + bytes(8) + whole[free + 16 :])
    refused("a heap of its texts has no end", nef.read, path, own)
    place = whole.index((heap).to_bytes(8, "little")) - 4  # a length, and where the text lies
    write(path, whole[:place] + b"\xff" * 4 + whole[place + 4 :])
    refused("its text is longer than the file", nef.read, path, own)


def test_torn_files_of_fields(fields, tmp_path):
    path, own = fields
    whole = path.read_bytes()
    refused("no HDF5 file", nef.read, tmp_path, own)
    for content in (b"", whole[:100], whole[: len(whole) // 2], whole[:-1]):
        refused("no HDF5 file of fields", nef.read, write(tmp_path / "b.hdf5", content), own)


# -- the command line and HDF5


@pytest.mark.parametrize("name", ["siren", "mlp"])
def test_hdf5_layout(tmp_path, name):
    """As fit-a-nef writes it: read by hand; and back."""
    h5py = pytest.importorskip("h5py")
    if name == "siren":
        field = Siren(2, 3, width=4, depth=3)
        theirs = ["kernel_net_0.linear", "kernel_net_1.linear", "output_linear"]
    else:
        field = FourierMlp(2, 3, width=4, depth=3, encoding=Fourier("none"))
        theirs = ["Dense_0", "Dense_1", "Dense_2"]
    own = Family(field, FlatWeights(field.slots, width=7))  # tokens, the last one padded
    codes = own.conditioner.pack({n: torch.randn(6, *s.shape) for n, s in field.slots.items()})
    path = nef.write(tmp_path / "nefs_0-6.hdf5", own, codes, {"labels": torch.arange(6)})
    with h5py.File(path) as file:
        told = json.loads(file["param_config"][0].decode())
        params, labels = file["params"][:], file["labels"][:]
    assert [n for n, _ in told] == [f"{x}.{y}" for x in theirs for y in ("bias", "kernel")]
    assert [tuple(s) for _, s in told] == [(4,), (2, 4), (4,), (4, 4), (3,), (4, 3)]
    assert params.dtype == "float32"
    assert params.shape == (6, 12 + 20 + 15)
    weights = own.conditioner(codes)
    assert (params[:, :4] == weights["0.bias"].detach().numpy()).all()
    assert (params[:, 4:12] == weights["0.weight"].detach().flatten(1).numpy()).all()
    assert (labels == range(6)).all()
    back, beside = nef.read(path, own)
    assert torch.equal(back, codes)
    assert torch.equal(beside["labels"], torch.arange(6))
    other = Siren(2, 3, width=5, depth=3)
    with pytest.raises(InputError, match="other fields"):
        nef.read(path, Family(other, FlatWeights(other.slots)))
    with h5py.File(path, "r+") as file:  # whatever else may stand in such a file
        file["a number"], file["a string"] = 3, "said"
        file["strings"], file["too few"] = ["x"] * 6, [1, 2]
        file["one row a field"] = labels.astype(">i4")
        file.create_group("a group")["labels"] = labels
    back, beside = nef.read(path, own)
    assert torch.equal(back, codes)
    assert set(beside) == {"labels", "one row a field"}
    assert torch.equal(beside["one row a field"], torch.arange(6, dtype=torch.int32))
    for wrong, match in ((params[:, :-1], "46 numbers a field"), (params[0], "no matrix")):
        with h5py.File(path, "r+") as file:
            del file["params"]
            file["params"] = wrong
        with pytest.raises(InputError, match=match):
            nef.read(path, own)
    (tmp_path / "bad.hdf5").write_bytes(b"no")
    with pytest.raises(InputError, match="no HDF5 file"):
        nef.read(tmp_path / "bad.hdf5", own)
    for only in (
        FlatWeights(field.slots, only="*.weight"),
        Mixture(field.slots, experts=2, width=3),
    ):
        with pytest.raises(InputError, match="HDF5 of fields"):
            nef.write(path, Family(field, only), codes, {})
