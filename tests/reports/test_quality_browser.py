import pytest

from rightreasons.reports import QualityPage, write_quality
from tests.reports.quality_table import table
from tests.reports.test_browser import CHROMIUM, brightness, browser, opened  # noqa: F401

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quality")
    return write_quality(QualityPage(table(masks=True)), folder / "index.html").as_uri()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 768, 1200])
def test_no_errors_no_requests_and_no_sideways_scrolling(browser, address, width, scheme):  # noqa: F811
    page = opened(browser, address, width=width, scheme=scheme)
    assert page.trouble == []
    assert [url for url in page.requests if not url.startswith("data:")] == [address]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert (brightness(page) < 60) == (scheme == "dark")
    page.close()


def test_the_methods_stay_in_sight_while_the_table_scrolls(browser, address):  # noqa: F811
    page = opened(browser, address, width=320)
    place = "document.querySelector('.quality tbody th').getBoundingClientRect().left"
    before = page.evaluate(place)
    page.evaluate("document.querySelector('.scroll').scrollLeft = 60")
    assert page.evaluate("document.querySelector('.scroll').scrollLeft") == 60
    assert page.evaluate(place) == pytest.approx(before, abs=1)
    page.close()
