import numpy as np
import pytest
from PIL import Image, ImageFont, features

from rightreasons.reports import lettering
from rightreasons.reports.canvas import CELL
from rightreasons.reports.figures import DIVERGING, SEQUENTIAL, Heatmap, contact_sheet, figure, lifted
from rightreasons.reports.lettering import FONT, Lettering

IMAGE = np.linspace(0, 1, 8 * 8 * 3).reshape(8, 8, 3)


def colors(picture):
    return {tuple(color) for color in np.asarray(picture.convert("RGB")).reshape(-1, 3)}


def written(monkeypatch):
    """All texts that are drawn from here on."""
    from PIL import ImageDraw

    texts = []
    draw = ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw, "text", lambda self, xy, text, **more: texts.append(text) or draw(self, xy, text, **more)
    )
    return texts


def signed(largest=2.0):
    values = np.zeros((8, 8))
    values[2:4], values[5:7] = largest, -largest / 2
    return Heatmap(values, True)


def test_a_signed_map_is_centered_at_zero_and_its_bar_says_its_ends(monkeypatch):
    texts = written(monkeypatch)
    picture = figure(IMAGE, {"Saliency": signed()}, label="says cat (97 %)")
    assert {"input", "Saliency", "says cat (97 %)", "-2", "0", "2"} <= set(texts)
    held = colors(picture)
    # Zero, the largest value, half of it against; and the bar with all its colors.
    assert {tuple(DIVERGING[127]), tuple(DIVERGING[-1])} <= held
    assert len(held & {tuple(color) for color in DIVERGING}) > 150


def test_further_pictures_stand_between_the_image_and_its_maps(monkeypatch):
    texts = written(monkeypatch)
    red = np.broadcast_to([1.0, 0.0, 0.0], (8, 8, 3))
    picture = figure({"input": IMAGE, "nearest 3": red}, {"Saliency": signed()})
    assert texts.index("input") < texts.index("nearest 3") < texts.index("Saliency")
    found = (np.asarray(picture.convert("RGB")) == [255, 0, 0]).all(-1)
    assert found.sum() == CELL * CELL
    assert CELL < np.flatnonzero(found.any(axis=0))[0] < 2 * CELL


def test_an_unsigned_map_begins_at_its_smallest_value(monkeypatch):
    texts = written(monkeypatch)
    picture = figure(IMAGE, {"RISE": Heatmap(np.linspace(0.4, 0.44, 64).reshape(8, 8))})
    assert "0.4" in texts
    assert len(colors(picture) & {tuple(color) for color in SEQUENTIAL}) > 150
    moved, least = lifted(Heatmap(np.array([[3.0, np.nan], [4.0, 5.0]])))
    assert least == 3
    np.testing.assert_array_equal(moved.values, [[0, np.nan], [1, 2]])
    assert lifted(signed())[1] == 0
    assert lifted(Heatmap(np.array([[-1.0, 4.0]])))[1] == 0


def test_every_map_has_a_bar_and_rows_wrap():
    maps = {f"m{number}": signed() for number in range(5)}
    wide, narrow = figure(IMAGE, maps, columns=6), figure(IMAGE, maps, columns=2)
    assert wide.width > 6 * CELL
    assert narrow.width < 3 * CELL
    assert narrow.height > 2.5 * wide.height


def test_a_map_of_zeros_and_one_that_is_undefined(monkeypatch):
    texts = written(monkeypatch)
    figure(IMAGE, {"a": Heatmap(np.zeros((8, 8)), True), "b": Heatmap(np.full((8, 8), 0.5))})
    assert {"0 everywhere", "0.5 everywhere"} <= set(texts)
    picture = figure(IMAGE, {"a": Heatmap(np.full((8, 8), np.nan), True)})
    assert (128, 128, 128) in colors(picture)


def test_an_overlay_shows_the_gray_image_where_a_map_is_zero():
    red = np.zeros((8, 8, 3))
    red[..., 0] = 1
    values = np.zeros((8, 8))
    values[0] = 1.0
    plain, over = (figure(red, {"m": Heatmap(values)}, overlay=flag) for flag in (False, True))
    gray = round(255 * 0.299)
    assert any(max(color) - min(color) == 0 and abs(color[0] - gray) <= 1 for color in colors(over) - colors(plain))
    assert tuple(SEQUENTIAL[-1]) in colors(over)


def test_images_keep_their_shape():
    tall = figure(np.zeros((16, 8)), {})
    flat = figure(np.zeros((8, 16)), {})
    assert tall.height - flat.height == 2 * CELL - CELL // 2


def test_what_does_not_go_together_is_refused():
    with pytest.raises(ValueError, match=r"expected the map 'm' of size \(8, 8\), got \(4, 4\)"):
        figure(IMAGE, {"m": Heatmap(np.zeros((4, 4)))})
    with pytest.raises(ValueError, match="at least one column"):
        figure(IMAGE, {}, columns=0)


def test_a_long_label_is_broken_and_not_cut(monkeypatch):
    texts = written(monkeypatch)
    figure(IMAGE, {}, label="says an animal of a very long name indeed (97 %)")
    assert len([text for text in texts if text]) > 2
    assert "97 %" in " ".join(texts)
    assert not [text for text in texts if text.endswith("...")]


@pytest.fixture
def without_fonts(monkeypatch):
    """A machine that brings no fonts: what Pillow itself has remains."""
    monkeypatch.setattr(lettering, "_CANDIDATES", ())
    monkeypatch.delenv(FONT, raising=False)


def test_letters_that_no_font_has_become_codes_and_a_note_says_so(without_fonts, monkeypatch):
    texts = written(monkeypatch)
    figure(IMAGE, {}, label="says 猫 (97 %)")
    assert "says \\u732b (97 %)" in texts
    assert any("written as codes" in text for text in texts)
    texts.clear()
    contact_sheet([IMAGE], {}, ["ко, a"])
    assert "\\u043a\\u043e, a" in texts
    texts.clear()
    figure(IMAGE, {}, label="says cat, dog")
    assert "says cat, dog" in texts
    assert not any("codes" in text for text in texts)


def test_a_font_of_the_system_is_found(monkeypatch):
    monkeypatch.delenv(FONT, raising=False)
    try:
        ImageFont.truetype("DejaVuSans.ttf", 13)
    except OSError:
        pytest.skip("no DejaVu font is installed")
    letters = Lettering(["кошка"], 13)
    assert letters("кошка") == "кошка"
    assert letters.note == ""


def test_a_font_of_the_readers_own(monkeypatch):
    monkeypatch.setenv(FONT, "no such font")
    with pytest.raises(ValueError, match="RIGHTREASONS_FONT cannot be read"):
        Lettering(["a"], 13)


def test_scripts_that_need_shaping_are_written_as_codes_where_it_is_missing(monkeypatch):
    monkeypatch.setattr(features, "check", lambda _: False)
    assert Lettering(["שלום"], 13)("של") == "\\u05e9\\u05dc"


def test_control_characters_are_not_drawn():
    assert Lettering(["a\x07b\u202e"], 13)("a\x07b\u202e\n c") == "a\\x07b\\u202e c"
    assert isinstance(figure(IMAGE, {}), Image.Image)
