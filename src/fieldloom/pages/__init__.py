"""A field as one page that any browser opens."""

from fieldloom.pages.page import compile_code, make_page, write_page

__all__ = ["compile_code", "make_page", "write_page"]
