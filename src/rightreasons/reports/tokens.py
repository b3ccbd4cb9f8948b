"""Heat maps of texts: each token on the color of its value, with the color bar."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from PIL import Image, ImageDraw, ImageFont

from rightreasons.reports.figures import Array, color_bar_png, data_uri, end_of_scale, heatmap_image

INKS = ("#000000", "#ffffff")
"""What words are written in: whichever stands out more from their color."""

_MARGIN, _GAP, _PAD, _BAR = 16, 4, 5, 36
_SMALL = "#4a4c55"


def token_strip(
    words: Sequence[str], values: Array, *, signed: bool, scale: float | None = None, width: int = 720, size: int = 18
) -> Image.Image:
    """A text as a picture, each word on the color of its value, lines broken at the width; a color bar beneath.

    Args:
        words: What is written for each token.
        values: One raw value a token, (T,). Negative values of an unsigned map count as zero; NaN is gray.
        signed: Take the diverging colors, centered at zero, and not the sequential ones.
        scale: The absolute value at the end of the colors; the largest one of this text if not given.
        width: Of the picture, in pixels.
        size: Of the letters, in pixels.

    Raises:
        ValueError: Not one value a word, or the picture is too narrow.
    """
    values, scale = _checked(words, values, signed, scale)
    if width < 12 * size:
        raise ValueError(f"expected a width of at least 12 letters, {12 * size}, got {width}")
    font = ImageFont.load_default(size=size)
    texts = [_shortened(word, font, width - 2 * (_MARGIN + _PAD)) for word in words]
    places, lines = _broken([font.getlength(text) + 2 * _PAD for text in texts], width - 2 * _MARGIN)
    cell, line = round(size * 1.55), round(size * 1.55) + 2 * _GAP
    picture = Image.new("RGB", (width, 2 * _MARGIN + lines * line + _BAR), "white")
    draw = ImageDraw.Draw(picture)
    for text, color, (row, left) in zip(texts, token_colors(values, signed=signed, scale=scale), places, strict=True):
        x, y = _MARGIN + left, _MARGIN + row * line
        box = (x, y, x + font.getlength(text) + 2 * _PAD, y + cell)
        draw.rounded_rectangle(box, radius=3, fill=color, outline="#d9d9de")
        draw.text((x + _PAD, y + cell / 2), text, fill=ink(color), font=font, anchor="lm")
    _color_bar(picture, _MARGIN + lines * line + _GAP, signed=signed, scale=scale)
    return picture


def token_html(words: Sequence[str], values: Array, *, signed: bool, scale: float | None = None) -> Markup:
    """The same as a fragment of HTML: a paragraph of marked words, their values as titles, and the color bar.

    Args:
        words: What is written for each token; they are escaped.
        values: One raw value a token, (T,).
        signed: As for :func:`token_strip`.
        scale: Likewise.

    Raises:
        ValueError: Not one value a word.
    """
    values, scale = _checked(words, values, signed, scale)
    mark = Markup(
        '<mark title="{}" style="background:{};color:{};padding:.15em .3em;border-radius:3px;'
        'outline:1px solid #d9d9de">{}</mark>'
    )
    colors = token_colors(values, signed=signed, scale=scale)
    marks = [
        mark.format(f"{value:.3g}", color, ink(color), word)
        for word, value, color in zip(words, values, colors, strict=True)
    ]
    bar = Markup(
        '<p class="bar"><span>{}</span> <img src="{}" alt="" width="160" height="10" style="image-rendering:pixelated">'
        " <span>{}</span></p>"
    ).format(_low(signed, scale), data_uri(color_bar_png(signed=signed)), _high(signed, scale))
    text = Markup('<p class="tokens" style="line-height:2">{}</p>').format(Markup(" ").join(marks))
    return Markup('<div class="token-map">{}{}</div>').format(text, bar)


def token_colors(values: Array, *, signed: bool, scale: float) -> list[str]:
    """The color of each value, as #rrggbb."""
    pixels = np.asarray(heatmap_image(values[None], signed=signed, scale=scale).convert("RGB"))[0]
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in pixels.tolist()]


def ink(color: str) -> str:
    """Black or white, whichever has more contrast with the color: at least 4.5 to 1, as WCAG 2 asks of text."""
    light = luminance(color)
    return INKS[0] if (light + 0.05) ** 2 > 0.05 * 1.05 else INKS[1]


def luminance(color: str) -> float:
    """The relative luminance of #rrggbb, from 0 to 1, as WCAG 2 defines it."""
    srgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def _checked(words: Sequence[str], values: Array, signed: bool, scale: float | None) -> tuple[Array, float]:
    values = np.asarray(values, dtype=np.float64)
    if values.shape != (len(words),) or not len(words):
        raise ValueError(f"expected one value a word, {len(words)}, and at least one, got shape {values.shape}")
    if scale is None:
        sizes = np.abs(values) if signed else np.maximum(values, 0)
        # Words are few: the largest one has the last color, which a percentile would share among several.
        scale = float(np.nanmax(sizes, initial=0.0)) or end_of_scale(sizes)
    if not scale > 0:
        raise ValueError(f"expected a positive scale, got {scale}")
    return values, scale


def _broken(widths: Sequence[float], room: float) -> tuple[list[tuple[int, float]], int]:
    """The line of each word and where it begins in it; and how many lines there are."""
    places: list[tuple[int, float]] = []
    row, left = 0, 0.0
    for each in widths:
        if left and left + each > room:
            row, left = row + 1, 0.0
        places.append((row, left))
        left += each + _GAP
    return places, row + 1


def _shortened(word: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: float) -> str:
    whole = shown = word
    while whole and font.getlength(shown) > room:
        whole = whole[:-1]
        shown = whole + "..."
    return shown


def _color_bar(picture: Image.Image, top: int, *, signed: bool, scale: float) -> None:
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=13)
    low, high = _low(signed, scale), _high(signed, scale)
    left = _MARGIN + round(font.getlength(low)) + 8
    ends = np.linspace(-1.0 if signed else 0.0, 1.0, 160)[None]
    strip = heatmap_image(ends, signed=signed, scale=1.0).convert("RGB").resize((160, 10))
    picture.paste(strip, (left, top + 8))
    draw.rectangle((left - 1, top + 7, left + 160, top + 18), outline="#d9d9de")
    draw.text((_MARGIN, top + 13), low, fill=_SMALL, font=font, anchor="lm")
    draw.text((left + 168, top + 13), high, fill=_SMALL, font=font, anchor="lm")
    if signed:
        draw.line((left + 80, top + 19, left + 80, top + 21), fill=_SMALL)
        draw.text((left + 80, top + 22), "0", fill=_SMALL, font=font, anchor="ma")


def _low(signed: bool, scale: float) -> str:
    return f"against -{scale:.2g}" if signed else "none 0"


def _high(signed: bool, scale: float) -> str:
    return f"{scale:.2g} for" if signed else f"{scale:.2g} most"
