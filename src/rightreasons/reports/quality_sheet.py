"""The table of quality as one picture, for a notebook or a slide."""

from __future__ import annotations

import textwrap

from PIL import Image, ImageDraw

from rightreasons.metrics import MethodRow, QualityTable
from rightreasons.reports.lettering import Lettering
from rightreasons.reports.quality import QualityPage, ShownCell, title_of_measure, title_of_method

_INK, _SOFT, _RULE, _PAPER = "#1d1f24", "#565b64", "#dcd8cf", "#ffffff"
_WEAK, _STRONG = (243, 247, 251), (160, 199, 230)
_MARGIN, _GAP = 28, 4
_HEADER = 13
"""Letters a line in the head of a column."""


def quality_picture(table: QualityTable, *, title: str = "Quality of explanations", scale: int = 2) -> Image.Image:
    """Methods by measures: means with their intervals, the best in each column marked and most strongly colored.

    Args:
        table: The numbers.
        title: Above the table.
        scale: Pixels a point; 2 is sharp on most screens.

    Raises:
        ValueError: The scale is not positive.
    """
    if scale < 1:
        raise ValueError(f"expected a scale of at least 1, got {scale}")
    page = QualityPage(table, title=title)
    sheet = _Sheet(page, scale)
    sheet.head()
    top = sheet.top
    for row in (*page.methods, *page.controls):
        if row is next(iter(page.controls), None):
            sheet.rule(top + 3)
            top += 8
        sheet.row(top, row)
        top += sheet.high
    sheet.foot(top)
    return sheet.picture


def _notes(page: QualityPage, letters: int) -> list[str]:
    """What stands beneath the table, in lines of so many letters."""
    table = page.table
    said = (
        f"{table.data}, {len(table.index):,} images, {table.target} class. Mean with 95 % bootstrap interval; the "
        "stronger the color, the better the rank in the column. Dot: the best, or not clearly behind it. Triangle: "
        "which way is better. Below the rule: controls that know nothing of the model."
    )
    refused = [f"{name}: {reason}" for name, reason in page.left_out]
    return [line for part in (said, page.unmeasured, *refused) for line in textwrap.wrap(part, letters)]


class _Sheet:
    """An empty sheet, and where its cells lie."""

    def __init__(self, page: QualityPage, scale: int) -> None:
        self.page, self.scale = page, scale
        self.titles = [textwrap.wrap(title_of_measure(measure.name), _HEADER) for measure in page.measures]
        rows = (*page.methods, *page.controls)
        names = [title_of_method(row.name) for row in rows]
        texts = [page.title, *names, *(part for parts in self.titles for part in parts), "0123456789.,-\N{MINUS SIGN}"]
        self.fonts = {size: Lettering(texts, size * scale) for size in (11, 13, 15, 22)}
        self.first = 16 + max(self._width(name, 13) for name in names)
        self.wide, self.high = 118, 44
        width = max(2 * _MARGIN + self.first + self.wide * len(page.measures), 420)
        self.notes = _notes(page, int((width - 2 * _MARGIN) / 5.6))
        self.top = _MARGIN + 40 + 17 * max(len(parts) for parts in self.titles) + 22
        height = self.top + self.high * len(rows) + 20 + 16 * len(self.notes) + _MARGIN
        self.width = width
        self.picture = Image.new("RGB", (round(width * scale), round(height * scale)), _PAPER)
        self.draw = ImageDraw.Draw(self.picture)

    def _width(self, text: str, size: int) -> float:
        lettering = self.fonts[size]
        return lettering.font.getlength(lettering(text)) / self.scale

    def write(self, x: float, y: float, text: str, size: int, *, fill: str = _INK, anchor: str = "lm") -> None:
        """Write one line; places are in points."""
        lettering = self.fonts[size]
        place = (x * self.scale, y * self.scale)
        self.draw.text(place, lettering(text), fill=fill, font=lettering.font, anchor=anchor)

    def rule(self, y: float) -> None:
        """A line over the whole width."""
        ends = [(_MARGIN * self.scale, y * self.scale), ((self.width - _MARGIN) * self.scale, y * self.scale)]
        self.draw.line(ends, fill=_RULE, width=self.scale)

    def left(self, column: int) -> float:
        """Where a column begins."""
        return _MARGIN + self.first + column * self.wide

    def head(self) -> None:
        """The title and the names of the measures, each with a triangle that points to the better side."""
        self.write(_MARGIN, _MARGIN + 10, self.page.title, 22)
        for column, (parts, measure) in enumerate(zip(self.titles, self.page.measures, strict=True)):
            x, y = self.left(column) + 10, self.top - 22
            for line, part in enumerate(reversed(parts)):
                self.write(x, y - 17 * line - 8, part, 13, fill=_SOFT)
            self._triangle(x + 5, y + 9, up=measure.higher_is_better)
        self.rule(self.top - 4)

    def _triangle(self, x: float, y: float, *, up: bool) -> None:
        side = -4 if up else 4
        corners = [(x - 5, y - side), (x + 5, y - side), (x, y + side)]
        self.draw.polygon([(a * self.scale, b * self.scale) for a, b in corners], fill="#0a5c9e")

    def row(self, top: float, row: MethodRow) -> None:
        """A method's name and its cells."""
        self.write(_MARGIN, top + self.high / 2, title_of_method(row.name), 13, fill=_SOFT if row.control else _INK)
        for column, measure in enumerate(self.page.measures):
            self._cell(self.left(column), top, self.page.shown(row, measure), soft=row.control)

    def _cell(self, x: float, y: float, cell: ShownCell, *, soft: bool) -> None:
        if cell.strength is not None:
            mix = [round(weak + (strong - weak) * cell.strength) for weak, strong in zip(_WEAK, _STRONG, strict=True)]
            box = (x + _GAP / 2, y + _GAP / 2, x + self.wide - _GAP / 2, y + self.high - _GAP / 2)
            corners = [v * self.scale for v in box]
            self.draw.rounded_rectangle(corners, radius=5 * self.scale, fill=(mix[0], mix[1], mix[2]))
        self.write(x + 10, y + 16, cell.value, 15, fill=_SOFT if soft else _INK)
        self.write(x + 10, y + 32, cell.ends, 11, fill=_SOFT)
        if cell.best:
            middle = ((x + self.wide - 15) * self.scale, (y + 14) * self.scale)
            self.draw.circle(middle, 4 * self.scale, fill="#0a5c9e")

    def foot(self, top: float) -> None:
        """What a reader must know."""
        for line, text in enumerate(self.notes):
            self.write(_MARGIN, top + 22 + 16 * line, text, 11, fill=_SOFT)
