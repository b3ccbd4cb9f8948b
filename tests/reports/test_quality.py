import re
from html.parser import HTMLParser

import pytest

from rightreasons.core import NotWritten
from rightreasons.reports import QualityPage, quality_picture, render_quality, write_quality
from rightreasons.reports.quality import quality_cells
from tests.reports.quality_table import DELETION, table

PAGE = QualityPage(table(), model="a <network>", rerun=("rightreasons evaluate runs/a & b",))


class Open(HTMLParser):
    """Which tags are still open at the end."""

    def __init__(self):
        super().__init__()
        self.tags, self.wrong = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "link", "input", "img"):
            self.tags.append(tag)

    def handle_endtag(self, tag):
        if not self.tags or self.tags.pop() != tag:
            self.wrong.append(tag)


def cells_of(html, method):
    """The cells of a row as text."""
    (row,) = [row for row in re.findall(r"<tr role=\"row\".*?</tr>", html, re.S) if f"<b>{method}</b>" in row]
    return [re.sub(r"<[^>]*>|\s+", " ", cell).split() for cell in re.findall(r"<td.*?</td>", row, re.S)]


def test_the_page_is_whole_and_loads_nothing():
    html = render_quality(PAGE)
    parser = Open()
    parser.feed(html)
    assert (parser.tags, parser.wrong) == ([], [])
    assert "default-src 'none'" in html
    assert not re.findall(r"(?:src|href)=\"(?!data:)", html)


def test_what_the_caller_wrote_is_escaped():
    html = render_quality(PAGE)
    assert "<network>" not in html
    assert "Mine <b>" not in html
    assert "Mine &lt;b&gt;" in html
    assert "runs/a &amp; b" in html
    assert "pooled head &amp; has none" in html


def test_every_cell_says_its_mean_its_interval_and_what_to_mind():
    html = render_quality(PAGE)
    assert cells_of(html, "Grad-CAM")[0] == ["0.200", "0.150", "to", "0.250"]
    assert cells_of(html, "Mine &lt;b&gt;")[0] == ["0.400", "0.350", "to", "0.450", "≈", "random", "n", "=", "3"]
    assert cells_of(html, "Random heatmap")[1] == ["0.400", "0.350", "to", "0.450"]


def test_the_best_is_bold_the_last_is_pale_and_controls_are_neither():
    best, last = (PAGE.shown(row, DELETION) for row in PAGE.methods)
    assert (best.best, best.strength) == (True, 1.0)
    assert (last.best, last.strength) == (False, 0.0)
    assert all(PAGE.shown(row, DELETION).strength is None for row in PAGE.controls)
    assert best.told == "Grad-CAM, Deletion: 0.200 (0.150 to 0.250), 4 images; rank 1 of 2"


def test_the_verdict():
    assert PAGE.verdict == (
        "Grad-CAM is the best of 2 methods, or not clearly behind it, by every measure. "
        "CAM cannot explain this network."
    )


def test_a_measure_that_tells_no_method_from_chance_is_named():
    found = table()
    cells = {name: found["mine <b>", name] for name in ("deletion", "sparseness")}
    rows = tuple(
        type(row)(row.name, row.settings, cells if row.cells and not row.control else row.cells, 0.1, row.control)
        for row in found.rows
        if not row.reason
    )
    page = QualityPage(type(found)(found.data, "true", found.index, found.classes, found.measures, rows))
    assert "By Deletion no method is clearly better than a random heatmap." in page.verdict


def test_a_measure_without_any_score_is_named_beneath_and_has_no_column_and_no_chart():
    page = QualityPage(table(masks=True))
    assert [chart.title for chart in page.charts] == ["Deletion", "Sparseness"]
    html = render_quality(page)
    assert len(cells_of(html, "Grad-CAM")) == 3, "two measures and the time"
    assert "No image has a score by IoU" in html
    assert quality_cells(page) == quality_cells(PAGE)
    assert "No image" not in render_quality(PAGE)


def test_charts_have_the_best_at_the_top_and_all_points_inside():
    for chart, first in zip(PAGE.charts, ("Grad-CAM", "Grad-CAM"), strict=True):
        assert chart.points[0].name == first
        places = [p for point in chart.points for p in (point.at, *point.ends)]
        assert all(0 <= place <= 100 for place in places)
        random = next(point for point in chart.points if point.name == "Random heatmap")
        assert (chart.random, random.control) == (random.at, True)
    assert [point.name for point in PAGE.charts[0].points][-1] == "Random heatmap"
    assert [point.name for point in PAGE.charts[1].points][-1] == "Edge detector"


def test_the_lines_for_a_terminal():
    header, lines = quality_cells(PAGE)
    assert header == ("method", "Deletion ↓", "Sparseness ↑", "ms")
    assert lines[0] == ("grad_cam", "0.200*", "0.700*", "1e+02")
    assert lines[1][1] == "0.400~"
    assert [line[0] for line in lines] == ["grad_cam", "mine <b>", "random heatmap", "edge detector"]


def test_the_page_is_written_whole_or_not_at_all(tmp_path):
    path = write_quality(PAGE, tmp_path / "index.html")
    assert path.read_text() == render_quality(PAGE)
    with pytest.raises(NotWritten):
        write_quality(PAGE, tmp_path)


def test_the_picture_grows_with_what_it_says_and_the_scale():
    small, fine = (quality_picture(table(), scale=scale) for scale in (1, 2))
    high = quality_picture(table(masks=True), scale=1)
    assert high.height > small.height, "a line more beneath"
    assert fine.size == (2 * small.width, 2 * small.height)
    assert small.getpixel((0, 0)) == (255, 255, 255)
    assert (160, 199, 230) in {color for _, color in fine.getcolors(1 << 20)}, "the best cell's color"
    with pytest.raises(ValueError, match="expected a scale of at least 1"):
        quality_picture(table(), scale=0)
