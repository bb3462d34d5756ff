"""A headless Chromium for what people open in a browser.

Without one these tests are skipped, or fail in `make test-browser`.
"""

import os
import shutil

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")


@pytest.fixture(scope="session")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make test-browser")
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        where = "no Chromium on this machine (on Debian: apt-get install chromium)"
        pytest.fail(where) if os.environ.get("NEED_BROWSER") else pytest.skip(where)
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found)
        yield browser
        browser.close()


@pytest.fixture
def page_at(browser):
    """Opens an address at a width of 1280 or of 390 pixels; an error on the page fails the test."""
    pages, errors = [], []

    def open_page(address, width=1280):
        page = browser.new_page(viewport={"width": width, "height": 900 if width > 500 else 844})
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: page.requests.append(request.url))
        page.requests = []
        page.goto(address)
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert errors == []
