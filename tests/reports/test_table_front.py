"""Accuracy over cost: which arms are on the front, and that the page shows them."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest

from rightreasons.experiments import Record, as_dict
from rightreasons.experiments.table import Records, TableRow, read_table, table_rows
from rightreasons.experiments.table_views import table_views
from rightreasons.metrics import SeedSummary
from rightreasons.reports import TablePage, render_table
from rightreasons.reports.scatter import Spot, log_ticks, scatter, short
from rightreasons.reports.table_front import front, pareto
from tests.reports.invented_table import plan, rows


def summary(mean):
    return SeedSummary(mean, 0.1, mean - 0.1, mean + 0.1, 3)


def row(name, accuracy, **costs):
    columns = {"accuracy": summary(accuracy), **{cost: summary(value) for cost, value in costs.items()}}
    return TableRow(name, summary(accuracy), summary(accuracy), None, 1.0, 1.0, 3, columns=columns)


def test_the_front_is_what_no_other_point_beats():
    drawn = random.Random(0)
    points = {str(n): (drawn.randint(1, 9), drawn.randint(1, 9)) for n in range(30)}

    def beaten(own):
        return any(c <= own[0] and a >= own[1] and (c, a) != own for c, a in points.values())

    found = front(points)
    assert set(found) == {name for name, point in points.items() if not beaten(point)}
    assert [points[name][0] for name in found] == sorted(points[name][0] for name in found)


def test_a_figure_for_each_cost_that_two_rows_have():
    shown = pareto([row("small", 90.0, parameters=1e4), row("large", 99.0, parameters=1e6, seconds=3.0)])
    assert [(figure.title, figure.front) for figure in shown] == [("Test accuracy over weights", ("small", "large"))]
    assert pareto([row("old", 90.0)]) == ()


def test_the_picture_names_every_point_and_escapes_it():
    spots = [Spot("<b>", 2e6, 96.5, True), Spot("slow", 5e6, 96.0, False), Spot("best", 4e6, 97.0, True)]
    picture = str(scatter("Accuracy", spots, "weights", "%"))
    assert "<b>" not in picture.replace("&lt;b&gt;", "")
    assert picture.count("dot after") == 2
    assert picture.count("dot beaten") == 1
    assert all(f">{name}</text>" in picture for name in ("&lt;b&gt;", "slow", "best"))
    places = [float(x) for x in re.findall(r'<circle[^>]*cx="([\d.]+)"', picture)]
    assert places[0] < places[2] < places[1]


@pytest.mark.parametrize(("low", "high"), [(3.5e6, 5.6e6), (0.7, 4.5), (10, 10), (2e3, 9e8), (999, 1001)])
def test_the_ticks_of_a_cost_enclose_it(low, high):
    ticks = log_ticks(low, high)
    assert ticks[0] <= low <= high <= ticks[-1]
    assert 2 <= len(ticks) <= 8
    assert ticks == sorted(set(ticks))


def test_large_numbers_are_short():
    assert [short(v).replace("\N{NO-BREAK SPACE}", " ") for v in (3_500_000, 12_000, 0.7)] == ["3.5 M", "12 k", "0.7"]


def test_the_page_has_the_figures_where_the_plan_asks_for_weights(tmp_path):
    found = tuple(
        replace(r, columns={**r.columns, "parameters": summary(1e5 + 1e4 * n), "seconds": summary(9.0 - n / 9)})
        for n, r in enumerate(rows(tmp_path, seeds=2))
    )
    asked = replace(plan(), columns=("accuracy", "parameters", "seconds"))
    html = render_table(TablePage(asked, found))
    assert html.count('class="curve scatter"') == 2
    assert "100,000" in html
    assert 'id="front"' not in render_table(TablePage(plan(), found))


def test_a_table_without_masks_says_nothing_of_controls(tmp_path):
    attention = read_table("attention")
    held = Records([tmp_path])
    for number, (name, config) in enumerate(attention.runs(0, controls=True).items()):
        accuracy = 0.9 + 0.01 * number
        scores = {"test": {"accuracy": accuracy, "worst_class": 0.8}}
        held.add(Record("train", as_dict(config), scores, environment={"device": "cpu"}), name)
    page = TablePage(
        attention, table_rows(attention, held), table_views(attention, table_rows(attention, held), tmp_path)
    )
    assert "GC comes first" in page.verdict
    assert "control" not in page.verdict
    html = render_table(page)
    told = " ".join(re.sub(r"<[^>]*>", " ", html).split())
    assert "No arm takes images" in told
    assert html.count('<span class="ends">EfficientNetB0, table 4') == 5
    assert "Parameters 4,419,727" in told
