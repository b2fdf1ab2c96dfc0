"""Data behind an address: listed once, fetched in parts, and only where the user allows it."""

import pickle

import fsspec
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry as registered

import fieldloom
from fieldloom.modalities import Grid
from fieldloom.modalities.sources import SOURCES, images, readers_at, remote, spec_of
from fieldloom.modalities.sources.remote import ask, list_objects
from fieldloom.permit import NOTHING, Permit
from refusals import refused
from tarred import levels_of, pack, picture, samples

GRID = Grid(size=16)
WHOLE = {"split": (1.0, 0.0), "shuffle": False}
NETWORK = Permit(network=True)


class StandIn(MemoryFileSystem):
    """A store of objects elsewhere, which counts what it is asked and may fail."""

    protocol = ("hf", "s3")
    store: dict = {}
    pseudo_dirs = [""]
    asked: list = []
    fails: list = []
    whole = False
    hides: tuple = ()

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(path.partition("://")[2] if "://" in path else path)

    def unstrip_protocol(self, name):
        return f"hf://{name.lstrip('/')}"

    def find(self, path, **more):
        found = super().find(path, **more)
        hidden = {"size": None} if "find" in self.hides else {}
        return {name: dict(info) | hidden for name, info in found.items()}

    def info(self, path, **more):
        return super().info(path, **more) | ({"size": None} if "info" in self.hides else {})

    def cat_file(self, path, start=None, end=None, **more):
        self.asked.append((path, start, end))
        if self.fails:
            raise self.fails.pop()
        return super().cat_file(path, *((None, None) if self.whole else (start, end)), **more)


@pytest.fixture(autouse=True)
def memory():
    """The files of ``memory://``, which belong to the whole process: none, before and after."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


@pytest.fixture
def elsewhere(monkeypatch):
    """A store behind ``hf://``, without waiting between tries."""
    monkeypatch.setattr(remote, "PAUSE", 0)
    fsspec.register_implementation("hf", StandIn, clobber=True)
    StandIn.store, StandIn.asked, StandIn.fails = {}, [], []
    StandIn.clear_instance_cache()
    yield StandIn()
    registered.pop("hf")
    StandIn.whole, StandIn.hides = False, ()


FILES = {
    f"{part}/{kind}/{i}.png": picture(10 * i + ord(kind) + 20 * (part == "val"))
    for part in ("train", "val")
    for kind in "ab"
    for i in range(3)
}


def kept(system, root: str, files) -> str:
    for name, content in files.items():
        system.pipe_file(f"{root}/{name}", content)
    return f"{root}"


def same(one, other) -> None:
    """The same tensors, labels, names and parts."""
    for part in ("train", "test"):
        left, right = (s.take(getattr(s, part)) for s in (one, other))
        assert torch.equal(left.tensor, right.tensor)
        assert left.label.tolist() == right.label.tolist()
    assert one.names == other.names
    assert one.facts() == other.facts()


@pytest.mark.parametrize("room", [1 << 30, 0])
@pytest.mark.parametrize("more", [{}, {"limit": 5, "split": (3, 2)}])
def test_the_same_images_as_files_tars_and_objects(room, more, memory, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "DECODED", room)
    for name, content in FILES.items():
        (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / name).write_bytes(content)
    shard = pack(tmp_path / "a.tar", FILES)
    kept(memory, "memory://data", FILES | {"notes.txt": b"x", ".hidden/x.png": b"x"})
    kept(memory, "memory://tars", {"a.tar": shard.read_bytes()})
    one = SOURCES["folder"](GRID, str(tmp_path / "files"), **more)
    tars = SOURCES["tar"](GRID, str(shard), **more)
    objects = SOURCES["folder"](GRID, "memory://data", **more)
    tars_of_objects = SOURCES["tar"](GRID, "memory://tars/a.tar", **more)
    for other in (tars, objects, tars_of_objects):
        same(one, other)
    assert isinstance(objects.data.values, torch.Tensor) == (room > 0)
    passed = "2 files passed over: 1 not images (.txt), 1 hidden (.hidden/x.png)"
    assert passed in objects.summary.describe()


def test_the_source_is_chosen_by_the_objects(memory, tmp_path):
    kept(memory, "memory://data", FILES)
    shard = pack(tmp_path / "a.tar", samples([20, 30])).read_bytes()
    kept(memory, "memory://tars/in", {"a-0.tar": shard, "a-1.tar": shard})
    assert readers_at("memory://data") == readers_at("memory://data/train/a/0.png") == ["folder"]
    kept(memory, "memory://tars", {"README.md": b"x"})
    assert readers_at("memory://tars") == ["tar"]
    for place, count in (("in", 4), ("in/a-1.tar", 2), ("in/a-{0..1}.tar", 4), ("in/a-?.tar", 4)):
        path = f"memory://tars/{place}"
        assert spec_of(path)["name"] == "tar"
        assert len(SOURCES["tar"](GRID, path, **WHOLE).data) == count
    refused("memory://nothing' holds nothing, or does not exist", readers_at, "memory://nothing")
    refused(
        "a-2.tar' cannot be fetched: does not exist",
        SOURCES["tar"],
        GRID,
        "memory://tars/in/a-{0..2}.tar",
    )
    kept(memory, "memory://texts", {"a.txt": b"x"})
    refused("holds no images, but 1 .txt", SOURCES["folder"], GRID, "memory://texts")
    refused("holds no tar archives, but 1 .txt", SOURCES["tar"], GRID, "memory://texts")


def test_a_look_at_data_elsewhere(memory, tmp_path):
    kept(memory, "memory://data", FILES)
    kept(memory, "memory://tars", {"a.tar": pack(tmp_path / "a.tar", FILES).read_bytes()})
    for path in ("memory://data", "memory://tars", "memory://tars/*.tar"):
        found = fieldloom.inspect(path, tmp_path / "sheet.png", overwrite=True)
        assert found.data.shape == (12, 3, 16, 16)
        assert (tmp_path / "sheet.png").stat().st_size > 100


# -- what is not read


@pytest.mark.parametrize("path", ["hf://datasets/a/b", "s3://a/b", "gs://a/b.tar", "https://a.b/c"])
def test_nothing_is_fetched_unasked(path, offline):
    for reader in ("folder", "tar"):
        refused("lies elsewhere: network=True allows to fetch it", SOURCES[reader], GRID, path)
    refused("network=True allows", spec_of, path)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("ftp://a.b/c", "cannot be read. Read are s3://"),
        ("htps://a/b", "did you mean https://"),
        ("reference://a", "cannot be read"),
        ("dask://a", "cannot be read"),
        ("zip://a.png::https://localhost/a.zip", "is a chain of addresses"),
        ("simplecache::s3://a/b", "does not exist|is a chain"),
    ],
)
def test_addresses_that_are_not_read(path, words, offline):
    for reader in ("folder", "tar"):
        refused(words, SOURCES[reader], GRID, path, permit=NETWORK)


@pytest.mark.parametrize(
    "path",
    [
        "https://me:SECRET@host/a.tar",
        "s3://KEY:SECRET@bucket/a",
        "s3://KEY:SE/C/SECRET@bucket/a",
        "https://SECRET@host/a.tar",
        "https://host/a.tar?sig=SECRET",
        "https://me:SECRET@host/a.tar?token=SECRET&x=SECRET",
    ],
)
def test_credentials_are_neither_kept_nor_said(path, offline, tmp_path):
    told = refused("holds credentials or a query", SOURCES["tar"], GRID, path, permit=NETWORK)
    assert "SECRET" not in told
    told = refused(".", spec_of, path, permit=NETWORK)
    assert "SECRET" not in told
    run = tmp_path / "run"
    for given in (path, {"name": "tar", "path": path}):
        told = refused(".", fieldloom.train, "mnif:faces64", run, source=given, network=True)
        assert "SECRET" not in told
    written = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert not any(b"SECRET" in file.read_bytes() for file in written)


def test_a_missing_package_is_named(offline, monkeypatch):
    for path, package in (("s3://a/b", "s3fs"), ("gs://a/b", "gcsfs"), ("az://a/b", "adlfs")):
        try:
            __import__(package)
        except ImportError:
            told = refused(
                f"needs the package {package}: pip install {package}", list_objects, path, NETWORK
            )
            assert told.count("pip install") == 1


# -- the network fails


def test_a_fetch_is_tried_a_few_times(elsewhere):
    kept(elsewhere, "hf://set", FILES)
    elsewhere.fails[:] = [OSError("reset"), TimeoutError()]
    found = SOURCES["folder"](GRID, "hf://set", permit=NETWORK)
    assert len(found.data) == 12
    elsewhere.fails[:] = [OSError("connection reset")] * 4 * 16
    told = refused(
        "cannot be fetched, after 4 tries: connection reset",
        SOURCES["folder"],
        GRID,
        "hf://set",
        permit=NETWORK,
    )
    assert "'hf://set/train/a/" in told


def test_each_object_is_fetched_once_and_in_parts(elsewhere, tmp_path):
    shard = pack(tmp_path / "a.tar", samples([20, 30, 40])).read_bytes()
    kept(elsewhere, "hf://set", FILES)
    kept(elsewhere, "hf://tars", {"a.tar": shard})
    SOURCES["folder"](GRID, "hf://set", permit=NETWORK)
    assert len(elsewhere.asked) == len(set(elsewhere.asked)) == 12
    elsewhere.asked.clear()
    found = SOURCES["tar"](GRID, "hf://tars", **WHOLE, permit=NETWORK)
    assert levels_of(found) == [20, 30, 40]
    assert len(elsewhere.asked) == len(set(elsewhere.asked)) == 4  # the index, three images
    elsewhere.asked.clear()
    SOURCES["tar"](GRID, "hf://tars", **WHOLE, permit=NETWORK)
    assert len(elsewhere.asked) == 3  # the index is kept


def test_a_large_set_is_fetched_image_by_image(elsewhere, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "DECODED", 0)
    monkeypatch.setattr(remote, "HELD", 0)
    kept(elsewhere, "hf://set", FILES)
    found = SOURCES["folder"](GRID, "hf://set", **WHOLE, permit=NETWORK)
    elsewhere.asked.clear()
    found.take(torch.tensor([3, 5]))
    assert [path for path, _, _ in elsewhere.asked] == ["/set/train/b/0.png", "/set/train/b/2.png"]
    elsewhere.asked.clear()
    SOURCES["folder"](GRID, "hf://set", **WHOLE, permit=NETWORK)
    assert elsewhere.asked == []  # its index is kept
    elsewhere.pipe_file("hf://set/train/a/0.png", picture(200, 17))
    again = SOURCES["folder"](GRID, "hf://set", **WHOLE, permit=NETWORK)
    assert {path for path, _, _ in elsewhere.asked} == {"/set/train/a/0.png"}
    assert again.facts()["fingerprint"] != found.facts()["fingerprint"]
    elsewhere.rm("hf://set/train/b/2.png")
    refused(
        "'hf://set/train/b/2.png' cannot be fetched: does not exist", found.take, torch.tensor([5])
    )


def test_a_server_that_gives_no_parts_is_noticed(elsewhere, tmp_path):
    StandIn.whole = True
    kept(
        elsewhere, "hf://tars", {"a.tar": pack(tmp_path / "a.tar", samples([20] * 2)).read_bytes()}
    )
    refused(
        "gave 10,240 bytes where .* reads no parts of files",
        SOURCES["tar"],
        GRID,
        "hf://tars/a.tar",
        permit=NETWORK,
    )


def test_sizes_that_a_listing_leaves_out_are_asked_for(elsewhere):
    kept(elsewhere, "hf://set", FILES)
    known = list_objects("hf://set", NETWORK)
    StandIn.hides = ("find",)
    assert list_objects("hf://set", NETWORK).objects.keys() == known.objects.keys()
    StandIn.hides = ("find", "info")
    refused("cannot be read in parts: its size is not told", list_objects, "hf://set", NETWORK)


def test_other_readers_say_who_reads_addresses():
    refused(
        "is an address, and no file .*'folder' and 'tar' read", SOURCES["image"], GRID, "s3://a/b"
    )


def test_names_of_objects_lead_nowhere(elsewhere, tmp_path):
    kept(elsewhere, "hf://set", FILES)
    content = elsewhere.store["/set/train/a/0.png"]
    for name in ("/set/../../etc/x.png", "/set/a//b.png", "/set/./c.png", "/other/d.png"):
        elsewhere.store[name] = content
    before = sorted(tmp_path.rglob("*"))
    listing = list_objects("hf://set", NETWORK)
    assert sorted(listing.objects) == sorted(FILES)
    found = SOURCES["folder"](GRID, "hf://set", permit=NETWORK)
    assert len(found.data) == 12
    assert sorted(tmp_path.rglob("*")) == before


def test_objects_hold_no_connection(memory):
    kept(memory, "memory://data", FILES)
    held = list_objects("memory://data", NOTHING).objects["train/a/0.png"]
    again = pickle.loads(pickle.dumps(held))
    assert again.read(0, 4) == b"\x89PNG"
    assert again.read(held.size - 2, 99) == FILES["train/a/0.png"][-2:]
    assert again.read(held.size, 9) == b""


def test_only_so_many_tries(monkeypatch):
    tried, slept = [], []
    monkeypatch.setattr(remote.time, "sleep", slept.append)

    def call():
        tried.append(1)
        raise ValueError("no")

    refused("'s3://a' cannot be fetched, after 4 tries: no", ask, "s3://a", call)
    assert (len(tried), slept) == (4, [0.5, 1.0, 2.0])
