"""The reference features that ship with the package: those of the demonstration's letters.

    python benchmarks/references.py

It has to be run again where the recipe ``mnif:letters`` has other data, or the detector changes.
"""

from __future__ import annotations

from pathlib import Path

import torch

from fieldloom import demo
from fieldloom.evaluation.references import (
    compute_references,
    key_of,
    shipped,
    write_references,
)
from fieldloom.metrics.detectors import EfficientNetLite0
from fieldloom.preparation import prepare


def main() -> None:
    recipe, source = prepare(demo.recipe_of(demo.MINUTES), torch.device("cpu"))
    detector = EfficientNetLite0()
    key = key_of(recipe["known"]["fingerprint"], detector)
    path = Path(str(shipped("letters", detector)))
    path.parent.mkdir(exist_ok=True)
    write_references(compute_references(source, detector), key, path)
    print(f"{path.name}: key {key}, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
