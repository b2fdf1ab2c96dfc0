"""A field as one page that any browser opens."""

from fieldloom.pages.page import make_page

__all__ = ["make_page"]
