"""What a machine without a network needs: a folder with source, data and the wheels that it lacks.

Nothing here imports more than Python has.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

WHEELS: dict[str, tuple[str, ...]] = {
    "pydantic": ("pydantic_core", "annotated_types", "typing_inspection", "typing_extensions"),
    "jaxtyping": ("wadler_lindig",),
    "safetensors": (),
    "tomli_w": (),
    "pillow": (),
    "tifffile": (),
}
"""What is carried: a package, and what comes with it. torch, numpy, scipy, scikit-image and
matplotlib are taken as the machine has them."""
LEAST = {"pydantic": (2, 8), "jaxtyping": (0, 3), "safetensors": (0, 5), "pillow": (11,)}
"""Versions that pyproject.toml asks for."""

DATA = ("faces64.npz", "voxels_chair_32.npz")
LARGEST = 60_000_000
"""Bytes of a packed folder."""


def pack(folder: Path, python: str, platform: str, data: Path, vectors: Path) -> None:
    """Make the folder. Raises SystemExit where it becomes too large, or a wheel is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    skip = shutil.ignore_patterns("__pycache__", "results", "*.pyc")
    for name in ("src", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, ignore=skip, dirs_exist_ok=True)
    for name in ("constraints.txt", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    download(folder / "wheels", python, platform)
    for name in ("data", "vectors"):
        (folder / name).mkdir(exist_ok=True)
    for name in DATA:
        if (data / name).is_file():
            shutil.copyfile(data / name, folder / "data" / name)
        else:
            print(f"there is no {name} in '{data}': its trainings will be left out.")
    for path in vectors.glob("*.npz"):
        shutil.copyfile(path, folder / "vectors" / path.name)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 1e6:.1f} MB")
    if size > LARGEST:
        raise SystemExit(f"'{folder}' is larger than {LARGEST / 1e6:.0f} MB.")


def download(wheels: Path, python: str, platform: str) -> None:
    """The wheels for a version of Python and a platform, of the versions in constraints.txt."""
    names = [name for first, others in WHEELS.items() for name in (first, *others)]
    platforms = [platform, "manylinux2014_x86_64", "manylinux_2_17_x86_64"]
    if "manylinux" not in platform or not platform.endswith("x86_64"):
        platforms = [platform]
    words = ["--no-deps", "--only-binary=:all:", "--python-version", python]
    words += [word for own in platforms for word in ("--platform", own)]
    words += ["--quiet", "--disable-pip-version-check", "-c", str(ROOT / "constraints.txt")]
    subprocess.run(
        [sys.executable, "-m", "pip", "download", *words, "-d", str(wheels), *names], check=True
    )


def is_there(name: str) -> bool:
    """Whether this Python has a package, in a version that will do."""
    if find_spec({"pillow": "PIL"}.get(name, name)) is None:
        return False
    try:
        held = version(name)
    except PackageNotFoundError:
        return True  # part of a source tree
    numbers = tuple(int(part) for part in held.split(".")[:2] if part.isdigit())
    return numbers >= LEAST.get(name, ())


def install_missing(wheels: Path, target: Path) -> Path:
    """Put packages that this Python lacks into a folder, from wheels alone; the folder.

    Raises SystemExit where a wheel is for another Python or machine.
    """
    missing = [name for name in WHEELS if not is_there(name)]
    wanted = {name for first in missing for name in (first, *WHEELS[first])}
    files = [path for path in sorted(wheels.glob("*.whl")) if name_of(path) in wanted]
    absent = wanted - {name_of(path) for path in files}
    if absent:
        raise SystemExit(f"'{wheels}' has no wheels of {', '.join(sorted(absent))}.")
    if not files or (target / "complete").is_file():
        return target
    print(f"from '{wheels}': {', '.join(sorted(wanted))}", flush=True)
    target.mkdir(parents=True, exist_ok=True)
    if find_spec("pip") is None:  # a wheel is an archive
        for path in files:
            with zipfile.ZipFile(path) as archive:
                archive.extractall(target)
    else:
        words = ["--no-index", "--no-deps", "--target", str(target), "--upgrade", "--quiet"]
        words += ["--disable-pip-version-check", *map(str, files)]
        if subprocess.run([sys.executable, "-m", "pip", "install", *words]).returncode:
            raise SystemExit(f"the wheels in '{wheels}' are not for this Python: --pack others.")
    (target / "complete").touch()
    return target


def name_of(wheel: Path) -> str:
    """The package of a wheel, as ``WHEELS`` writes it."""
    return wheel.name.partition("-")[0].lower()
