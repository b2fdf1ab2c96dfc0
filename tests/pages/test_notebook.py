"""Pages in notebooks."""

import html
import re

import torch

import fieldloom
from fieldloom.pages.notebook import Shown


def test_a_frame_holds_the_page_and_reaches_nothing_else():
    page = '<p title="a">&lt;b&gt;</p>'
    shown = Shown(page, 300)._repr_html_()
    assert html.unescape(re.search('srcdoc="([^"]*)"', shown)[1]) == page
    assert 'sandbox="allow-scripts allow-downloads"' in shown
    assert 'height="300"' in shown


def test_show():
    system = fieldloom.build("mnif", "tiny", prior="none")
    shown = fieldloom.show(system, torch.zeros(2, *system.family.code_shape))
    assert shown.page.count("<option value=") == 2
    assert "kB" in repr(shown)
