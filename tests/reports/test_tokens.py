import re

import numpy as np
import pytest

from rightreasons.reports.figures import DIVERGING, LEVELS, SEQUENTIAL
from rightreasons.reports.tokens import ink, luminance, token_colors, token_html, token_strip

WORDS = ["win", "a", "free", "prize", "at", "noon"]
VALUES = np.array([0.2, 0.0, 0.8, 0.4, -0.8, -0.1])


def named(color):
    return "#{:02x}{:02x}{:02x}".format(*color.tolist())


def contrast(one, other):
    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colors", [DIVERGING, SEQUENTIAL])
def test_every_word_can_be_read_on_every_color(colors):
    for color in colors:
        assert contrast(named(color), ink(named(color))) >= 4.5
        assert contrast(named(color), ink(named(color))) >= contrast(named(color), "#808080")


def test_luminance_is_that_of_wcag():
    assert luminance("#000000") == 0
    assert luminance("#ffffff") == pytest.approx(1)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)  # the textbook's gray


def test_zero_is_the_middle_color_and_the_largest_value_the_last():
    colors = token_colors(VALUES, signed=True, scale=0.8)
    assert colors[1] == named(DIVERGING[LEVELS // 2])
    assert colors[2] == named(DIVERGING[-1])
    assert colors[4] == named(DIVERGING[0])
    unsigned = token_colors(VALUES, signed=False, scale=0.8)
    assert unsigned[1] == unsigned[4] == named(SEQUENTIAL[0])
    assert unsigned[2] == named(SEQUENTIAL[-1])


def pixels(picture):
    return np.asarray(picture.convert("RGB")).reshape(-1, 3)


def holds(picture, color):
    wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return int((pixels(picture) == wanted).all(axis=1).sum())


def test_a_picture_holds_the_colors_of_the_words_and_of_the_bar():
    picture = token_strip(WORDS, VALUES, signed=True)
    for color in token_colors(VALUES, signed=True, scale=0.8):
        assert holds(picture, color) > 50
    bar = np.asarray(picture.convert("RGB"))[-52:]
    assert (bar == DIVERGING[0]).all(axis=-1).any()
    assert (bar == DIVERGING[-1]).all(axis=-1).any()
    sequential = np.asarray(token_strip(WORDS, VALUES, signed=False).convert("RGB"))[-52:]
    assert (sequential == SEQUENTIAL[-1]).all(axis=-1).any()
    assert not (sequential == DIVERGING[0]).all(axis=-1).any()


def test_values_that_are_undefined_are_gray_and_do_not_set_the_scale():
    values = np.append(VALUES, np.nan)
    assert holds(token_strip([*WORDS, "lost"], values, signed=True), "#808080") > 50
    assert holds(token_strip([*WORDS, "lost"], values, signed=True), named(DIVERGING[-1])) > 50
    assert token_strip(["a"], np.array([np.nan]), signed=True).size[0] == 720
    assert token_strip(["a"], np.array([0.0]), signed=False).size[0] == 720


def test_lines_are_broken_at_the_width_and_long_words_shortened():
    one = token_strip(WORDS, VALUES, signed=True, width=720)
    many = token_strip(WORDS * 10, np.tile(VALUES, 10), signed=True, width=300)
    assert many.size[0] == 300
    assert many.size[1] > 5 * (one.size[1] - 68)
    long = token_strip(["x" * 500], np.array([1.0]), signed=True, width=300)
    assert long.size == (300, one.size[1])
    margin = np.asarray(long.convert("RGB"))[:, -16:]
    assert (margin == 255).all()


def test_a_scale_of_ones_own_makes_texts_comparable():
    one = token_html(["a"], np.array([0.4]), signed=True, scale=0.8)
    assert named(DIVERGING[-1]) not in one
    assert "0.8 for" in one


def test_html_escapes_words_and_tells_values():
    fragment = token_html(["<script>", '"&'], np.array([0.123456, -1.0]), signed=True)
    assert "<script>" not in fragment
    assert "&lt;script&gt;" in fragment
    assert re.findall(r'title="([^"]+)"', fragment) == ["0.123", "-1"]
    assert fragment.count("<mark") == 2
    assert "data:image/png;base64," in fragment
    assert "against -1" in fragment
    unsigned = token_html(["a"], np.array([2.0]), signed=False)
    assert "none 0" in unsigned
    assert "2 most" in unsigned


def test_words_and_values_must_go_together():
    for words, values in ((WORDS, VALUES[:3]), ([], np.zeros(0)), (["a"], np.zeros((1, 1)))):
        with pytest.raises(ValueError, match="one value a word"):
            token_strip(words, values, signed=True)
    with pytest.raises(ValueError, match="positive scale"):
        token_html(["a"], np.ones(1), signed=True, scale=0.0)
    with pytest.raises(ValueError, match="expected a width"):
        token_strip(["a"], np.ones(1), signed=True, width=50)
