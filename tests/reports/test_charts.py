import math
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest

from rightreasons.reports.charts import curves, dots, epoch_ticks, nice_ticks, number, shared_ticks, spread

NAN = float("nan")


@pytest.mark.parametrize(
    ("value", "unit", "sign", "text"),
    [
        (0.5162, "%", False, "51.6 %"),
        (-0.598, "%", True, "-59.8 points"),
        (0.4445, "%", True, "+44.5 points"),
        (-0.0001, "%", True, "0.0 points"),
        (3.82, "", False, "3.82"),
        (-0.04, "", True, "-0.040"),
        (12345.6, "", False, "12,346"),
        (0, "", False, "0.000"),
        (2e-7, "", False, "2.00e-07"),
        (NAN, "%", False, "not defined"),
        (math.inf, "", True, "not defined"),
    ],
)
def test_numbers_as_the_page_writes_them(value, unit, sign, text):
    written = number(value, unit, sign=sign)
    assert written == text.replace("-", "\N{MINUS SIGN}").replace(" %", "\N{NO-BREAK SPACE}%").replace(
        " points", "\N{NO-BREAK SPACE}points"
    )


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.52, 0.961), (-3.9, 12), (1e-7, 3e-7), (5, 5), (0, 0), (-1e6, 3)])
def test_nice_ticks_enclose_the_range_evenly(low, high):
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low + 1e-12
    assert ticks[-1] >= high - 1e-12
    assert 2 <= len(ticks) <= 6
    steps = [b - a for a, b in pairwise(ticks)]
    assert max(steps) == pytest.approx(min(steps))


def test_shares_have_one_scale_and_others_hold_zero():
    assert shared_ticks([0.2, 0.3, NAN]) == shared_ticks([]) == [0, 0.25, 0.5, 0.75, 1]
    assert 0 in shared_ticks([3.0, 4.0])
    assert 0 in shared_ticks([-5.0])


@pytest.mark.parametrize("epochs", [1, 2, 8, 10, 64, 1000])
def test_epoch_ticks(epochs):
    ticks = epoch_ticks(epochs)
    assert ticks[0] == 1
    assert ticks[-1] <= epochs
    assert len(ticks) <= 7


def test_spread_keeps_order_and_distance():
    places = spread([50, 49, 52, 10], [10, 10, 20, 10], (0, 100))
    assert places[1] + 10 <= places[0]
    assert places[0] + 15 <= places[2]
    assert places[3] == 10
    assert spread([99, 98], [10, 10], (0, 100)) == [95, 85]


def test_dots_stand_where_the_values_are():
    points = {"before": (0.5, 0.4, 0.6), "after": (1.0, 1.0, 1.0), "bound": (0.0, 0, 0)}
    svg = ET.fromstring(dots(points, [0, 0.5, 1], unit="%", title="Accuracy <&>"))
    circles = {circle.get("class"): float(circle.get("cx")) for circle in svg.iter("circle")}
    assert circles == {"dot before": 130, "dot after": 246}
    whisker = next(line for line in svg.iter("line") if line.get("class") == "whisker before")
    assert float(whisker.get("x1")) == pytest.approx(14 + 0.4 * 232, abs=0.1)
    assert svg.find("title").text == "Accuracy <&>"


def test_dots_leave_out_what_is_not_defined():
    points = {"before": (NAN, NAN, NAN), "after": (0.5, NAN, NAN)}
    text = dots(points, [0, 0.5, 1], unit="%", title="x")
    assert "nan" not in text
    assert text.count("<circle") == 1
    assert "whisker" not in text
    assert 'class="bound"' not in text


def test_curves_break_where_a_value_is_missing():
    text = curves("loss", "epoch", {"task": [1.0, NAN, 0.5, 0.25]})
    path = next(ET.fromstring(text).iter("path")).get("d")
    assert (path.count("M"), path.count("L")) == (2, 1)
    assert "nan" not in text


def test_curves_take_the_colors_of_the_roles_once_each():
    text = curves("a", "epoch", {"plain": [1, 2], "revised": [2, 1], "revised again": [1, 1], "other": [0, 1]})
    styles = [path.get("class") for path in ET.fromstring(text).iter("path")]
    assert styles == ["line before", "line after", "line other0", "line other1"]


def test_curves_say_what_they_show_and_escape_it():
    svg = ET.fromstring(curves("<script>", "a & b", {"<b>": [0.5, 0.75]}, unit="%"))
    assert svg.find("title").text == "<script>"
    assert svg.find("desc").text.replace("\N{NO-BREAK SPACE}", " ") == "<b>: from 50.0 % to 75.0 % over 2 epochs."


def test_curves_without_values_say_so():
    assert "not defined" in curves("a", "epoch", {"x": [NAN], "y": []})
    assert "not defined" in curves("a", "epoch", {})


def test_a_single_epoch_is_a_dot():
    assert curves("a", "epoch", {"x": [0.5]}).count("<circle") == 1
