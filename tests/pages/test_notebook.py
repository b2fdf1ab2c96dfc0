"""Pages in notebooks."""

import html
import re

import pytest
import torch

import fieldloom
from fieldloom.errors import InputError
from fieldloom.pages.notebook import Shown


def test_a_frame_holds_the_page_and_reaches_nothing_else():
    page = '<p title="a">&lt;b&gt;</p>'
    shown = Shown(page, 300)._repr_html_()
    assert html.unescape(re.search('srcdoc="([^"]*)"', shown)[1]) == page
    assert 'sandbox="allow-scripts allow-downloads"' in shown
    assert 'height="300"' in shown


def test_show():
    system = fieldloom.build("mnif", "tiny", prior="none")
    codes = torch.zeros(2, *system.family.code_shape)
    shown = system.show(codes, ["a", "b"])
    assert shown.page.count("<option value=") == 2
    assert "kB" in repr(shown)
    assert fieldloom.show(system, codes, ["a", "b"]) == shown
    unfolded, weights = system.unfold(codes)
    assert unfolded.show(weights).page.count("<option value=") == 2
    with pytest.raises(InputError, match="is not .batch, "):
        system.show(torch.zeros(2, 1, 1))
    with pytest.raises(InputError, match="height = 0"):
        system.show(codes, height=0)
    system.show_fn = None
    with pytest.raises(InputError, match="call fieldloom.show"):
        system.show(codes)
