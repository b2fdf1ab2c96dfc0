"""The page, as text and in a browser."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch

from browser import Page, browse, find_browser
from fieldloom import evaluation, report
from fieldloom.engine.run import Run, load
from fieldloom.evaluation import Metric, ReportImage
from fieldloom.inputs import source_of

EVIL = '<script>document.title="run"</script>&<b>'


@pytest.fixture(scope="module")
def folder(tiny_run, tmp_path_factory):
    """A report of mnif:tiny, with names that hold HTML and with all that a page can have."""
    folder = shutil.copytree(tiny_run, tmp_path_factory.mktemp("report") / "<i>run")
    system = load(folder)
    source = source_of(system, quiet=True)
    system.settings.evaluation.__dict__["samples"] = 24
    result = evaluation.evaluate(system, source)
    enlarged = [Metric(f"psnr.x8{by}", 20.0, "8 data", EVIL) for by in ("", ".bicubic", ".pixels")]
    images = [ReportImage("enlarged.png", EVIL, torch.rand(1, 3, 8, 90), "enlargement")]
    result = replace(result, metrics=result.metrics + enlarged, images=images)
    named = replace(source, names=tuple(f"{EVIL}{i}" for i in range(len(source.names))))
    report.write(Run(folder), system, named, result)
    return folder


@pytest.fixture(scope="module")
def page(folder) -> str:
    return (folder / "report.html").read_text()


class Reader(HTMLParser):
    """Tags with their attributes, and text outside of style and script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.text, self.inside = [], "", ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        self.text += "" if self.inside in ("style", "script") else data


def test_the_page_can_be_read_by_all(page):
    tags = Reader(page).tags
    names = [name for name, _ in tags]
    assert names.count("h1") == 1
    assert ("html", {"lang": "en"}) in tags
    assert any(a.get("name") == "viewport" for _, a in tags)
    assert all(attributes.get("alt") for name, attributes in tags if name == "img")
    assert names.count("img") > 24


def test_the_page_asks_for_nothing(page):
    tags = Reader(page).tags
    links = [a[key] for _, a in tags for key in ("src", "href") if key in a]
    assert {link for link in links if not link.startswith("data:")} == {"live.html"}
    assert "url(" not in page
    assert "http" not in page.replace("http-equiv", "")
    policy = next(a["content"] for _, a in tags if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'")


def test_a_live_page_lies_beside_it(folder, page):
    """Its picker has the first samples and reconstructions; classes with HTML stay text."""
    live = (folder / "live.html").read_text()
    names = re.findall(r'<option value="\d+">([^<]*)</option>', live)
    assert [name.split(":")[0] for name in names] == [
        *(f"sample {i + 1}" for i in range(8)),
        *(f"held out, reconstructed, {i + 1}" for i in range(8)),
    ]
    assert EVIL not in live
    assert "The first samples and reconstructions of pictures</a>, live" in page
    assert json.loads((folder / "report.json").read_text())["pages"] == ["live.html"]


def test_html_in_names_stays_text(page):
    reader = Reader(page)
    names = [name for name, _ in reader.tags]
    assert names.count("script") == 1  # the page's own
    assert "b" not in names
    assert "i" not in names
    assert EVIL in reader.text


def test_the_page_answers_in_its_order(page):
    titles = re.findall("<h2>(.*?)</h2>", page)
    assert titles == [
        "Does it reconstruct?", "Does it enlarge?", "Are samples like the data?",
        "Are they copies?", "What does it cost?", "What next?",
    ]  # fmt: skip
    assert page.index("<figure>") < page.index("<h2>")
    folded = re.findall("<summary>(.*?)</summary>", page)
    assert folded == ["All figures", "Data", "Settings that differ from the recipe", "Training"]
    assert "bicubic" in page
    assert "↑" in page


def test_images_and_answers_are_in_the_folder(folder):
    import json

    told = json.loads((folder / "report.json").read_text())
    assert set(told["images"]) == {
        "samples.png", "nearest.png", "reconstructions.png", "interpolation.gif", "enlarged.png",
        "curves.png",
    }  # fmt: skip
    assert all((folder / name).is_file() for name in told["images"])
    assert told["answers"][0]["question"] == "Does it reconstruct?"
    old = {"recipe", "paper", "seed", "unfinished", "date", "seconds", "data", "figures",
           "expected", "nearest", "images"}  # fmt: skip
    assert old <= set(told)


# -- in a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if find_browser() is None:
        pytest.skip("there is no Chromium here: the page is not looked at in a browser")
    with browse(tmp_path_factory.mktemp("profile")) as page:
        yield page


WIDTHS = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
COLOURS = """[document.body, document.querySelector('.numbers div')].map(x =>
    [getComputedStyle(x).color, getComputedStyle(x).backgroundColor])"""
FOLD = "document.querySelectorAll('details').forEach(x => x.open = {})"


@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_fits_its_width(browser: Page, folder, width):
    browser.open(folder / "report.html", width)
    for unfolded in ("false", "true"):
        browser.ask(FOLD.format(unfolded))
        wide, shown = browser.ask(WIDTHS)
        assert wide <= shown <= width
    assert [x for x in browser.requests() if x != (folder / "report.html").as_uri()] == []
    assert browser.complaints() == []
    broken = "[...document.images].filter(x => !x.complete || !x.naturalWidth).length"
    assert browser.ask(broken) == 0


def test_dark_is_another_colour_and_can_be_read(browser: Page, folder):
    found = {}
    for dark in (False, True):
        browser.open(folder / "report.html", 800, dark)
        found[dark] = browser.ask(COLOURS)
        for colour, ground in found[dark]:
            grounds = [ground, found[dark][0][1]]
            assert max(contrast(colour, one) for one in grounds if "rgba" not in one) >= 4.5
    assert found[False] != found[True]


def contrast(one: str, other: str) -> float:
    """The contrast of two colours ``rgb(r, g, b)``, by WCAG 2."""

    def light(colour: str) -> float:
        parts = [int(x) / 255 for x in re.findall(r"\d+", colour)[:3]]
        r, g, b = (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    high, low = sorted([light(one), light(other)], reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_names_run_nothing(browser: Page, folder):
    browser.open(folder / "report.html", 800)
    assert browser.ask("document.title") != "run"
    assert browser.ask("document.querySelectorAll('script').length") == 1
    assert EVIL in browser.ask("document.body.textContent")


def test_what_is_folded_is_printed(browser: Page, folder):
    browser.open(folder / "report.html", 800)
    opened = "[...document.querySelectorAll('details')].map(x => x.open)"
    assert not any(browser.ask(opened))
    browser.ask("document.querySelector('details').open = true")
    browser.ask("dispatchEvent(new Event('beforeprint'))")
    assert all(browser.ask(opened))
    browser.ask("dispatchEvent(new Event('afterprint'))")
    assert browser.ask(opened) == [True, False, False, False]
    assert browser.complaints() == []
