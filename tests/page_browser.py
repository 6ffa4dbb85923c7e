"""The page in a headless Chromium: fixtures of the tests that operate it."""

import pytest
from chromium import Browser
from page_cases import finished_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory, images):
    return finished_run(tmp_path_factory.mktemp("runs") / "mine", images)


@pytest.fixture(scope="module")
def data(finished, clips):
    """What the page of a run and a folder of images and videos holds."""
    from ppl_fast.page import collect

    return collect(finished, clips, frames=13).data


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.fixture
def show(browser, tmp_path):
    """A function that opens a page of these data; at the end, the page must have had nothing to complain about."""
    from ppl_fast.page import document

    def open_page(data, **window):
        (tmp_path / "page.html").write_text(document(data), encoding="utf-8")
        browser.open(tmp_path / "page.html", **window)
        return browser

    browser.complaints.clear()
    yield open_page
    browser.value("0")  # what was said meanwhile arrives before the answer
    assert browser.complaints == []


@pytest.fixture
def page(show, data):
    return show(data)
