"""Words in pictures: a font that has the letters, or the letters written out as escapes and a note that says so."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from PIL import ImageFont, features

FONT = "RIGHTREASONS_FONT"
"""Environment variable: the file of a font to write with, for scripts that the usual ones lack."""

NOTE = (
    "Letters that no font here has are written as codes (\\u....); the HTML pages and the tables hold them as they are."
)

# What systems bring, from the most common: Linux, macOS, Windows.
_CANDIDATES = (
    *("DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf"),
    *("Arial Unicode.ttf", "Hiragino Sans GB.ttc", "AppleSDGothicNeo.ttc"),
    *("msyh.ttc", "malgun.ttf", "YuGothM.ttc", "segoeui.ttf"),
)
# No font has a letter for a noncharacter, so all draw their sign for a missing one.
_MISSING = "\U0010ffff"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


class Lettering:
    """A font for some texts, and the texts as it can write them.

    Args:
        texts: All that is going to be written.
        size: Height in pixels.
    """

    def __init__(self, texts: Iterable[str], size: float) -> None:
        letters = frozenset("".join(texts))
        self.font = _font_for(letters, size)
        self._missing = frozenset(letter for letter in letters if not _has(self.font, letter))

    @property
    def note(self) -> str:
        """Says that letters are written out, where some are; else empty."""
        return NOTE if self._missing else ""

    def __call__(self, text: str) -> str:
        """The text on one line, with what the font lacks written out."""
        shown = " ".join(text.split())
        return "".join(_escaped(letter) if letter in self._missing else letter for letter in shown)


def _escaped(letter: str) -> str:
    code = letter.encode("ascii", "backslashreplace").decode("ascii")
    return code if len(code) > 1 else f"\\x{ord(letter):02x}"


def _font_for(letters: frozenset[str], size: float) -> Font:
    """The first font that has all the letters; else that which has most of them.

    Raises:
        ValueError: The font of the environment cannot be read.
    """
    own = os.environ.get(FONT)
    if own:
        try:
            return ImageFont.truetype(own, size)
        except OSError as error:
            raise ValueError(f"the font {own} of {FONT} cannot be read: {error}") from error
    usual: Font = ImageFont.load_default(size=size)
    best, lacking = usual, _lacking(usual, letters)
    for name in _CANDIDATES if lacking else ():
        font = _system_font(name, size)
        if font is not None and (found := _lacking(font, letters)) < lacking:
            best, lacking = font, found
        if not lacking:
            break
    return best


def _lacking(font: Font, letters: frozenset[str]) -> int:
    return sum(not _has(font, letter) for letter in letters)


@lru_cache(maxsize=32)
def _system_font(name: str, size: float) -> ImageFont.FreeTypeFont | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


def _has(font: Font, letter: str) -> bool:
    if letter.isspace():
        return True
    if not letter.isprintable() or (_is_shaped(letter) and not features.check("raqm")):
        return False
    if not isinstance(font, ImageFont.FreeTypeFont):
        return letter.isascii()
    drawn, missing = font.getmask(letter), font.getmask(_MISSING)
    return drawn.size != missing.size or bytes(drawn) != bytes(missing)


def _is_shaped(letter: str) -> bool:
    """Whether its form hangs on its neighbors, or it runs from right to left."""
    return unicodedata.bidirectional(letter) in ("R", "AL") or unicodedata.category(letter) in ("Mn", "Mc")
