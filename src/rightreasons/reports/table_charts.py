"""The arms of a table as charts: side by side with what was published, and over the epochs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from rightreasons.experiments.table import BOUND, MARKS, PLAIN, PublishedValue, TablePlan, TableRow
from rightreasons.reports import charts

LATE = 0.02
"""An arm whose mean ends this far below its best epoch has lost what it had: our own line, said on the page."""
NEAR = 3.0
"""Arms within so many points of the best are drawn once more on an axis of their own."""


class Mark(NamedTuple):
    """A published value on a chart: where, in per cent of its width, whether from memory, and in words."""

    at: float
    memory: bool
    told: str


class Line(NamedTuple):
    """An arm on a chart; places in per cent of its width."""

    name: str
    value: str
    at: float
    ends: tuple[float, float] | None
    published: tuple[Mark, ...]
    role: str


class Chart(NamedTuple):
    """Arms on one axis, the best at the top."""

    title: str
    lines: tuple[Line, ...]
    ticks: tuple[tuple[str, float], ...]


class Learned(NamedTuple):
    """An arm over the epochs."""

    name: str
    picture: Markup
    last: float
    fall: str
    returns: bool


def forest(rows: Sequence[TableRow]) -> tuple[Chart, ...]:
    """All arms on one axis, and those near the best on one of their own where the first crowds them."""
    best = max((row.accuracy.mean for row in rows), default=math.nan)
    near = [row for row in rows if row.accuracy.mean > best - NEAR]
    if not rows:
        return ()
    whole = _chart("All arms", rows)
    return (whole, _chart(f"Within {NEAR:g} points of the best", near)) if 1 < len(near) < len(rows) else (whole,)


def learned(rows: Sequence[TableRow]) -> tuple[Learned, ...]:
    """The arms over the epochs, on one axis, which begins at the lowest value after the first quarter of them.

    None where no run has two epochs.
    """
    shown = {row.name: row for row in rows if row.seeds}
    lines = {name: _seeds(row) for name, row in shown.items()}
    lines = {name: own for name, own in lines.items() if len(charts.mean_line(own)) > 1}
    if not lines:
        return ()
    settled = [value for own in lines.values() for line in own for value in line[len(line) // 4 :]]
    highest = max(value for own in lines.values() for line in own for value in line)
    ticks, plain = charts.nice_ticks(min(settled), highest, most=4), charts.mean_line(lines.get(PLAIN, ()))
    return tuple(_learned(shown[name], own, ticks, () if name == PLAIN else plain) for name, own in lines.items())


def varied(plan: TablePlan, block: int, rows: Sequence[TableRow]) -> Markup:
    """Test accuracy over the values of what is varied, a line an arm; nothing for a single value.

    A value that is the arm's own stands in the arm's own row.
    """
    vary, found = plan.vary[block], {row.name: row.accuracy.mean / 100 for row in rows}
    if len(vary.values) < 2:
        return Markup("")
    arms = dict.fromkeys(row.arm for row in rows if row.variation is not None and row.variation.block == block)
    names = {arm: [vary.row(arm, k) for k in range(len(vary.values))] for arm in arms}
    series = {arm: [found.get(plan.aliases.get(name, name), math.nan) for name in own] for arm, own in names.items()}
    return charts.curves(f"Test accuracy by {vary.key}", vary.label or vary.key, series, unit="%", steps=vary.names)


def _chart(title: str, rows: Sequence[TableRow]) -> Chart:
    published = {row.name: [value for value in row.published if value.column == "accuracy"] for row in rows}
    numbers = [v for row in rows for v in (row.accuracy.mean, row.accuracy.low, row.accuracy.high)]
    numbers += [value.value for own in published.values() for value in own]
    finite = [min(100.0, max(0.0, value)) for value in numbers if math.isfinite(value)]
    ticks = charts.nice_ticks(min(finite), max(finite), most=5)

    def place(value: float) -> float:
        share = (value - ticks[0]) / (ticks[-1] - ticks[0])
        return round(100 * min(1.0, max(0.0, share)), 2)

    lines = []
    for row in sorted(rows, key=lambda row: row.accuracy.mean, reverse=True):
        own = row.accuracy
        interval = (place(own.low), place(own.high)) if math.isfinite(own.low) and math.isfinite(own.high) else None
        marks = tuple(Mark(place(v.value), v.mark == "memory", _told(v)) for v in published[row.name])
        role = {PLAIN: "before", BOUND: "control"}.get(row.name, "")
        lines.append(Line(row.name, f"{own.mean:.2f}", place(own.mean), interval, marks, role))
    return Chart(title, tuple(lines), tuple((f"{tick:g}", place(tick)) for tick in ticks))


def _told(value: PublishedValue) -> str:
    return f"published: {value.value:g} ({value.source}{', ' * bool(MARKS[value.mark])}{MARKS[value.mark]})"


def _seeds(row: TableRow) -> list[list[float]]:
    """Test accuracy over the epochs, a line a seed; seeds without it are left out."""
    lines = [[epoch.get("test_accuracy") for epoch in record.history] for record in row.records.values()]
    return [[float(value) for value in line if value is not None] for line in lines if line and None not in line]


def _learned(row: TableRow, lines: list[list[float]], ticks: Sequence[float], plain: Sequence[float]) -> Learned:
    """The last value is the record's: weights may be taken from another epoch, or be fitted anew after the last."""
    mean, last = charts.mean_line(lines), row.accuracy.mean / 100
    best = max(mean)
    falls = best - last > LATE
    told = (
        f"{_what_falls(row, best - last)}: {100 * best:.1f}\N{NO-BREAK SPACE}% at epoch {mean.index(best) + 1}, "
        f"{100 * (best - last):.1f} points less at the end."
    )
    picture = charts.learning(row.name, lines, ticks, reference=plain)
    return Learned(row.name, picture, 100 * last, told if falls else "", falls and row.name not in (PLAIN, BOUND))


def _what_falls(row: TableRow, fall: float) -> str:
    """The shortcut is blamed only where at least as many predictions as were lost still hang on the decoy."""
    swap = row.columns.get("swap")
    blamed = row.name not in (PLAIN, BOUND) and swap is not None and swap.mean >= 100 * fall
    return "The shortcut comes back" if blamed else "Accuracy falls"
