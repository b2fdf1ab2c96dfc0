"""Every metric that is measured, or published, has a meaning."""

import ast
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import fieldloom
from fieldloom import recipe as recipes
from fieldloom.evaluation.metric_table import MEANINGS, QUESTIONS, meaning_of, parse_enlarged
from fieldloom.metrics.cloud_protocols import PROTOCOLS, cloud_metrics
from fieldloom.metrics.sets import prdc
from fieldloom.settings import DETECTORS, METRICS

ROOT = Path(fieldloom.__file__).parent


def written_names() -> set[str]:
    """The names of ``Metric("psnr", ...)`` in the code; ``{prefix}`` of a name is left out."""
    names = set()
    for path in ROOT.rglob("*.py"):
        text = path.read_text()
        for node in ast.walk(ast.parse(text if "Metric(" in text else "")):
            if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Metric"):
                continue
            if not node.args:
                continue
            if isinstance(node.args[0], ast.Constant):
                names.add(node.args[0].value)
            if isinstance(node.args[0], ast.JoinedStr):
                parts = [x.value for x in node.args[0].values if isinstance(x, ast.Constant)]
                names |= {x for x in parts if x.strip(".rcloudx")}
    return names


def test_every_metric_in_the_code_has_a_meaning():
    names = written_names()
    assert {"psnr", "novelty", "learnable", "mesh.chamfer"} <= names
    assert [name for name in names if meaning_of(name) is None and parse_enlarged(name)] == []
    enlarged = {name for name in names if name.endswith(".x")}  # ``psnr.x`` and a factor
    assert [name for name in names - enlarged if meaning_of(name) is None] == []


def test_metrics_of_sets_have_a_meaning():
    names = set(prdc(torch.rand(9, 2), torch.rand(9, 2)))
    for protocol in PROTOCOLS.values():
        few = torch.rand(2, 8, 3) * 0.4 - 0.2
        names |= set(cloud_metrics(few, few, replace(protocol, points=8)))
    frechets = {"frechet", *(detector.metric for detector in DETECTORS.values())}
    names |= frechets | {f"r{x}" for x in frechets} | {f"novel.r{x}" for x in frechets}
    names |= {"cloud.frechet", "jsd", "failures"}
    assert [name for name in sorted(names) if meaning_of(name) is None] == []


def test_every_metric_that_a_recipe_can_ask_for_is_told():
    """Names of ``[evaluate].metrics`` that are no metric's, and those that they give."""
    sets = {
        "mesh": "mesh.iou", "precision-recall": "precision", "shapes": "chamfer.mmd",
        "cloud-frechet": "cloud.frechet", "cloud-kid": "cloud.kid",
        "cloud-precision-recall": "cloud.precision", "density-coverage": "density",
        "enlarge": "psnr.x2", "free-space": "free.density", "fixed-pattern": "pattern",
    }  # fmt: skip
    assert [x for x in METRICS if meaning_of(sets.get(x, x)) is None] == []


def test_published_numbers_have_names_of_metrics():
    rows = {}
    for name in recipes.list_recipes():
        file = recipes.read(name)
        rows |= {f"{name}:{x}": table for x, table in file["variants"].items()} | {name: file}
    published = {name: row["expected"] for name, row in rows.items() if "expected" in row}
    assert len(published) > 40
    for name, expected in published.items():
        differs = expected.get("differs", {})
        keys = set(expected) - {"differs"}
        assert [key for key in keys if meaning_of(key) is None] == [], name
        assert isinstance(differs, str) or set(differs) <= keys, name


@pytest.mark.parametrize("name", ["", "psnr2", "novel", "novel.", "x2", "total", "xyz.psnr"])
def test_other_names_have_none(name):
    assert meaning_of(name) is None


def test_meanings():
    assert meaning_of("novel.psnr").unit == "dB"
    assert "held-out views" in meaning_of("novel.psnr").label
    assert meaning_of("train.rfid").features
    one = meaning_of("ssim.x8.bicubic")
    assert (one.question, one.label, one.arrow) == ("enlargement", "SSIM at 8x, bicubic", "↑")
    assert {x.question for x in MEANINGS.values()} | {"enlargement"} == set(QUESTIONS)
    assert [x for x in MEANINGS.values() if not x.says] == []


def test_what_only_some_ask_for_is_shown_to_them():
    assert all(meaning_of(name).chief for name in ("pattern", "free.density"))
