"""Pages drawn by WebGPU: the same pixels, and WebGL 2 where there is none or it fails."""

import json

import pytest
import torch

from browser import WEBGPU, browse, find_browser
from fieldloom.pages import make_page
from pages import test_page
from pages.test_page import Opened, draw_codes, draw_right, make_system

SOME = 16
WHOLE = {"x": 0.5, "y": 0.5, "zoom": 1}
VIEWS = {
    "flat": lambda x: test_page.test_pixels_are_those_of_pytorch_at_three_zooms("letters", x),
    "video": lambda x: test_page.test_pixels_are_those_of_pytorch_at_three_zooms("video", x),
    "globe": test_page.test_the_globe_shows_the_places_that_it_names,
    "sound": test_page.test_a_sound,
    "solid": test_page.test_a_shape_is_met_where_the_field_passes_a_half,
    "rays": lambda x: test_page.test_scenes("plucker", x),
    "volume": lambda x: test_page.test_scenes("functa", x),
    "occupancy": lambda x: test_page.test_the_bins_of_occupancy("ball", x),
    "functions": test_page.test_what_is_computed_while_another_is_chosen_is_nothing,
    "halves": test_page.test_half_precision_and_size,
}
"""What is seen -> its test by WebGL, which asks the page's painter, whichever that is."""


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    if find_browser() is None:
        pytest.skip("needs Chromium")
    folder = tmp_path_factory.mktemp("browser")
    with browse(folder / "profile", WEBGPU) as page:
        (folder / "page.html").write_text("<!doctype html>")
        opened = Opened(page, folder)
        page.open(folder / "page.html", 240)
        if not opened.ask("navigator.gpu?.requestAdapter().then(Boolean)"):
            pytest.skip("this Chromium has no WebGPU")
        yield opened


def how(opened):
    """What draws, and what the footer says of it."""
    return opened.ask("[page.painter.constructor.name, document.querySelector('footer').title]")


@pytest.mark.parametrize("view", VIEWS)
def test_webgpu_draws_what_webgl_draws(view, opened):
    VIEWS[view](opened)
    assert how(opened) == ["GpuPainter", "Drawn by WebGPU."]


def check_pixels(opened, system, code):
    right, _ = draw_right(system, code, WHOLE, 0.5, SOME, SOME)
    found = opened.pixels(SOME, SOME)[..., :3]
    assert ((found - right.clamp(0, 1) * 255).abs() <= 1).all()


def test_the_canvas_shows_it(opened):
    system = make_system("colour")
    code = draw_codes(system, 1)
    opened.open(make_page(system, code), 64, 240)
    width, height = opened.ask("[canvas.width, canvas.height]")
    seen = opened.ask(
        "page.draw().then(() => createImageBitmap(document.querySelector('.below')))"
        ".then(image => { const pen = new OffscreenCanvas(image.width, image.height)"
        ".getContext('2d'); pen.drawImage(image, 0, 0);"
        "return JSON.stringify([...pen.getImageData(0, 0, image.width, image.height).data]); })"
    )
    found = torch.tensor(json.loads(seen), dtype=torch.float32).view(height, width, 4)[..., :3]
    right, inside = draw_right(system, code, WHOLE, 0.5, width, height)
    assert ((found - right.clamp(0, 1) * 255).abs() <= 1)[inside].all()
    assert (found[~inside] == 128).all()


@pytest.mark.parametrize("asked", ["while it draws", "while nothing is asked"])
def test_a_device_that_is_lost_hands_over(asked, opened):
    system = make_system("colour")
    codes = draw_codes(system, 2)
    opened.open(make_page(system, codes))
    alone = asked == "while nothing is asked"
    chosen = "fieldloom.setNumbers(readNumbers(about, 1), 'b')" if alone else "page.choose(1)"
    opened.ask(f"{chosen}, page.drawn")
    while opened.ask("page.painter.asked"):
        opened.ask("page.drawn")
    drawn = "null" if alone else "page.draw()"
    opened.ask(
        f"(async () => {{ const old = page.painter, drawn = {drawn}; old.device.destroy();"
        "await old.device.lost; await old.successor; await drawn; "
        "while (!page.painter.full || page.painter.full.width !== canvas.width)"
        "await new Promise(done => setTimeout(done, 20)); })()"
    )
    assert how(opened) == ["Painter", "Drawn by WebGL 2: Device was destroyed."]
    check_pixels(opened, system, codes[1:])
    assert opened.ask("document.querySelectorAll('canvas').length") == 1
    assert opened.ask("wrong.hidden && busy.textContent === ''")


def test_a_shader_that_does_not_compile(opened):
    system = make_system("colour")
    code = draw_codes(system, 1)
    opened.open(make_page(system, code).replace("fn show()", "fn show("))
    name, told = how(opened)
    assert name == "Painter"
    assert told.startswith("Drawn by WebGL 2: ")
    check_pixels(opened, system, code)


def test_the_address_chooses(opened):
    opened.open(make_page(make_system("colour"), draw_codes(make_system("colour"), 1)))
    opened.page.call("Page.navigate", url=opened.ask("location.href") + "?draw=webgl")
    opened.ask(
        "(async () => { while (!location.search || document.readyState !== 'complete')"
        "await new Promise(done => setTimeout(done, 20)); })()"
    )
    assert how(opened) == ["Painter", "Drawn by WebGL 2: the address asks for it."]
