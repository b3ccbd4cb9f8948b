"""Where pictures are laid out: sheets of rows and columns, panels side by side, words and color bars between them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from PIL import Image, ImageDraw

from rightreasons.reports.lettering import Lettering

MARGIN, GAP, SPACE = 16, 10, 18
CELL = 224
"""Width of a panel."""

_INK, _SOFT = "#1c1d21", "#565b64"
Ends = tuple[str, str, str]
"""What stands beneath a color bar: at its left, in the middle, at its right."""


class Canvas:
    """An empty picture to write and draw on."""

    def __init__(self, cell: int, texts: Iterable[str]) -> None:
        size = round(max(13.0, cell / 11))
        self.cell, self.line = cell, round(size * 1.4)
        self.lettering = Lettering(texts, size)
        self.small = Lettering((), round(size * 0.8))
        self.spread(1, 1)

    def spread(self, width: int, height: int) -> None:
        """Begin anew in this size."""
        self.picture = Image.new("RGB", (width, height), "white")
        self.draw = ImageDraw.Draw(self.picture)

    def write(self, x: float, y: float, text: str, room: float, anchor: str = "la") -> None:
        """Write one line, shortened to the room there is."""
        whole = shown = self.lettering(text)
        while whole and self.draw.textlength(shown, font=self.lettering.font) > room:
            whole = whole[:-1].rstrip()
            shown = whole + "..."
        self.draw.text((x, y), shown, fill=_INK, font=self.lettering.font, anchor=anchor)

    def color_bar(self, left: int, top: int, ends: Ends, colors: Image.Image) -> None:
        """The colors from the smallest value to the largest, with what stands beneath them."""
        self.picture.paste(
            colors.convert("RGB").resize((self.cell, self.line // 2), Image.Resampling.NEAREST), (left, top)
        )
        below, room = top + self.line // 2 + 4, self.cell / 2 if any((ends[0], ends[2])) else self.cell
        for share, text, anchor in zip((0.0, 0.5, 1.0), ends, ("la", "ma", "ra"), strict=True):
            self.write(left + share * self.cell, below, text, room / (2 if text == "0" else 1), anchor)

    def foot(self, *notes: str) -> None:
        """Lengthen the picture by notes in small letters."""
        room = self.picture.width - 2 * MARGIN
        lines = [line for note in notes if note for line in self.broken(note, room, self.small)]
        if not lines:
            return
        drawn, height = self.picture, round(self.line * 0.8)
        self.spread(drawn.width, drawn.height + height * len(lines) + MARGIN)
        self.picture.paste(drawn, (0, 0))
        for number, line in enumerate(lines):
            place = (MARGIN, drawn.height + number * height)
            self.draw.text(place, line, fill=_SOFT, font=self.small.font)

    def broken(self, text: str, room: float, lettering: Lettering) -> list[str]:
        """The text in lines that are no longer than the room, broken between words."""
        lines = [""]
        for word in lettering(text).split():
            longer = f"{lines[-1]} {word}".strip()
            if lines[-1] and self.draw.textlength(longer, font=lettering.font) > room:
                lines.append(word)
            else:
                lines[-1] = longer
        return lines


class Sheet(Canvas):
    """Rows of images, columns of methods."""

    def __init__(self, *, columns: int, rows: int, cell: int, texts: Iterable[str]) -> None:
        super().__init__(cell, texts)
        self.spread(self.left(columns) - GAP + MARGIN, self.top(rows) + 2 * self.line + MARGIN)

    def left(self, column: int) -> int:
        """Of a column."""
        return MARGIN + column * (self.cell + GAP)

    def top(self, row: int) -> int:
        """Of the pictures in a row."""
        return MARGIN + self.line + GAP + row * (self.cell + self.line + GAP)


class Panels(Canvas):
    """Pictures side by side in rows, each with its name above and its color bar or the label beneath."""

    def __init__(self, image: Image.Image, names: Sequence[str], *, title: str, label: str, columns: int) -> None:
        super().__init__(CELL, [title, label, *names])
        self.columns = min(columns, len(names))
        self.height = min(2 * self.cell, max(1, round(self.cell * image.height / image.width)))
        self.label = self.broken(label, self.cell, self.lettering)
        self.first = MARGIN + (round(1.6 * self.line) if title else 0)
        self.high = self.height + (1 + max(2, len(self.label))) * self.line + SPACE
        width = 2 * MARGIN + self.columns * (self.cell + SPACE) - SPACE
        self.spread(width, self.first + math.ceil(len(names) / self.columns) * self.high)
        self.write(MARGIN, MARGIN, title, width - 2 * MARGIN)
        for place, name in enumerate(names):
            left, top = self.corner(place)
            self.write(left, top - self.line - 2, name, self.cell)

    def corner(self, place: int) -> tuple[int, int]:
        """Left and top of a picture."""
        row, column = divmod(place, self.columns)
        return MARGIN + column * (self.cell + SPACE), self.first + row * self.high + self.line + 2

    def show(self, place: int, picture: Image.Image) -> None:
        """Put a picture in its place."""
        self.picture.paste(fitted(picture, self.cell, self.height), self.corner(place))

    def tell(self) -> None:
        """Write the label beneath the first picture."""
        left, top = self.corner(0)
        for number, line in enumerate(self.label):
            self.write(left, top + self.height + 4 + number * self.line, line, self.cell)

    def bar(self, place: int, ends: Ends, colors: Image.Image) -> None:
        """The color bar of a map with the values at its ends."""
        left, top = self.corner(place)
        self.color_bar(left, top + self.height + 6, ends, colors)


def fitted(picture: Image.Image, width: int, height: int | None = None) -> Image.Image:
    """The picture in a cell, a square one unless told: small ones keep their pixels, large ones are averaged."""
    height = width if height is None else height
    ratio = min(width / picture.width, height / picture.height)
    size = (max(1, round(picture.width * ratio)), max(1, round(picture.height * ratio)))
    kind = Image.Resampling.NEAREST if ratio >= 1 else Image.Resampling.BOX
    cell = Image.new("RGB", (width, height), "white")
    cell.paste(picture.convert("RGB").resize(size, kind), ((width - size[0]) // 2, (height - size[1]) // 2))
    return cell
