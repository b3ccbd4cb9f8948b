import shutil

import pytest

from rightreasons.reports import write
from tests.reports.example_page import content

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    return write(content(), tmp_path_factory.mktemp("page") / "index.html").as_uri()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def opened(browser, address, *, width=1200, scheme="light"):
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.trouble, page.requests = [], []
    page.on("console", lambda message: page.trouble.append(message.text))
    page.on("pageerror", lambda error: page.trouble.append(str(error)))
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto(address)
    return page


def brightness(page):
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(int(part) for part in color.removeprefix("rgb(").removesuffix(")").split(",")) / 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 360, 768, 1200])
def test_no_errors_no_requests_and_no_sideways_scrolling(browser, address, width, scheme):
    page = opened(browser, address, width=width, scheme=scheme)
    assert page.trouble == []
    assert [url for url in page.requests if not url.startswith("data:")] == [address]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    page.close()


def test_the_page_follows_the_system_and_the_reader_may_overrule_it(browser, address):
    page = opened(browser, address, scheme="dark")
    assert brightness(page) < 60
    page.get_by_text("Light", exact=True).click()
    assert brightness(page) > 230
    page.get_by_text("Dark", exact=True).click()
    page.emulate_media(color_scheme="light")
    assert brightness(page) < 60
    page.get_by_text("Auto", exact=True).click()
    assert brightness(page) > 230
    page.close()


def test_paper_is_white(browser, address):
    page = opened(browser, address, scheme="dark")
    page.emulate_media(media="print")
    assert brightness(page) == 255
    page.close()


def test_maps_are_legible_on_a_phone(browser, address):
    page = opened(browser, address, width=360)
    sizes = page.evaluate("[...document.querySelectorAll('.card .picture')].map(p => p.getBoundingClientRect().width)")
    assert min(sizes) >= 88
    page.close()
