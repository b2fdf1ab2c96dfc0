"""One browser for all tests of pages."""

import pytest

from browser import browse, find_browser


@pytest.fixture(scope="session")
def opened(tmp_path_factory):
    from pages.test_page import Opened  # its assertions are rewritten by pytest

    if find_browser() is None:
        pytest.skip("needs Chromium")
    folder = tmp_path_factory.mktemp("browser")
    with browse(folder / "profile") as page:
        yield Opened(page, folder)
