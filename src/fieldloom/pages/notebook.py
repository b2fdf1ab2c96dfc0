"""A page inside a notebook."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import NamedTuple

from fieldloom.pages.page import make_page
from fieldloom.system import HEIGHT, System
from fieldloom.types import Code


class Shown(NamedTuple):
    """A page, which notebooks show in a frame of its own. page: its HTML; height: in pixels."""

    page: str
    height: int = HEIGHT

    def _repr_html_(self) -> str:
        """An iframe that holds the page; it can reach nothing of the notebook."""
        return (
            f'<iframe srcdoc="{html.escape(self.page)}" sandbox="allow-scripts allow-downloads" '
            f'allow="fullscreen" width="100%" height="{self.height}" style="border:0"></iframe>'
        )

    def __repr__(self) -> str:
        return f"a page of {len(self.page) / 1e3:,.0f} kB, which a notebook shows"


def show_codes(system: System, codes: Code, names: Sequence[str], half: bool, height: int) -> Shown:
    """The page of some codes' functions, as of ``System.show``."""
    return Shown(make_page(system, codes, names, half=half), height)
