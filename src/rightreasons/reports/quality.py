"""The page of a table of quality: methods by measures, and each measure as a chart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from rightreasons.experiments.build import TITLES
from rightreasons.metrics import Cell, Estimate, Measure, MethodRow, QualityTable
from rightreasons.models.checkpoints import write_whole
from rightreasons.reports import charts
from rightreasons.reports.page import environment, interval

_MEASURES = {
    "auc": "AUC",
    "avg_sensitivity": "Average sensitivity",
    "energy_in_mask": "Energy in mask",
    "explanation_coverage": "Explanation coverage",
    "iou": "IoU",
    "iou_coverage": "IoU coverage",
    "local_lipschitz": "Local Lipschitz",
    "mask_f1": "Mask F1",
    "max_sensitivity": "Max-sensitivity",
    "road": "ROAD",
    "sensitivity_n": "Sensitivity-n",
    "top_k_intersection": "Top-k intersection",
}
_VERDICTS = {"unclear": "\N{ALMOST EQUAL TO} random", "worse": "worse than random"}


def title_of_method(name: str) -> str:
    """A method's name for a reader."""
    return TITLES.get(name, name.replace("_", " ").capitalize())


def title_of_measure(name: str) -> str:
    """A metric's name for a reader."""
    return _MEASURES.get(name, name.replace("_", " ").capitalize())


@dataclass(frozen=True)
class ShownCell:
    """A cell in words.

    Attributes:
        value: The mean.
        ends: Of its interval.
        strength: 1 for the best rank down to 0 for the last; ``None`` where there is none.
        best: It is the best, or not clearly behind.
        notes: What a reader must know: not better than random, fewer images than the others.
        told: All of it in a sentence.
    """

    value: str
    ends: str
    strength: float | None
    best: bool
    notes: tuple[str, ...]
    told: str


@dataclass(frozen=True)
class Point:
    """A line of a measure's chart; places in per cent of its width.

    Attributes:
        name: Of the method.
        value: The mean, in words.
        at: Where the mean lies; ``None`` without one.
        ends: Where the interval begins and ends; ``None`` without one.
        control: It knows nothing of the model.
        best: It is the best, or not clearly behind.
    """

    name: str
    value: str
    at: float | None
    ends: tuple[float, float] | None
    control: bool
    best: bool


@dataclass(frozen=True)
class Chart:
    """One measure: every method on one axis, the best at the top.

    Attributes:
        measure: The measure.
        points: One a method.
        ticks: Labels with their places in per cent.
        random: Where the random heatmap lies; ``None`` without a score.
    """

    measure: Measure
    points: tuple[Point, ...]
    ticks: tuple[tuple[str, float], ...]
    random: float | None

    @property
    def title(self) -> str:
        """Of the measure."""
        return title_of_measure(self.measure.name)


@dataclass(frozen=True, eq=False)
class QualityPage:
    """All that the page says.

    Attributes:
        table: The numbers.
        title: Of the page.
        model: What was explained, in words.
        rerun: Commands that make the numbers again.
        environment: Versions and the like, by name.
    """

    table: QualityTable
    title: str = "How good are the explanations?"
    model: str = ""
    rerun: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def methods(self) -> tuple[MethodRow, ...]:
        """Those that explain the network, without the controls."""
        return tuple(row for row in self.table.rows if not row.control and not row.reason)

    @property
    def controls(self) -> tuple[MethodRow, ...]:
        """The rows that know nothing of the model."""
        return tuple(row for row in self.table.rows if row.control)

    @property
    def left_out(self) -> tuple[tuple[str, str], ...]:
        """What has no score and why: methods, single scores of a method, and maps that are not finite."""
        told = [(title_of_method(row.name), row.reason) for row in self.refused]
        for row in self.methods:
            name = title_of_method(row.name)
            told += [
                (f"{name}, {title_of_measure(key)}", cell.reason) for key, cell in row.cells.items() if cell.reason
            ]
            if row.not_finite:
                told.append((name, f"{row.not_finite} of its maps hold NaN or infinity and have no score"))
        return tuple(told)

    @property
    def refused(self) -> tuple[MethodRow, ...]:
        """The methods that cannot explain the network."""
        return tuple(row for row in self.table.rows if row.reason)

    @cached_property
    def measures(self) -> tuple[Measure, ...]:
        """Those by which any image has a score."""
        return tuple(measure for measure in self.table.measures if _scored(self.table, measure))

    @property
    def unmeasured(self) -> str:
        """The other measures, in words; empty without any."""
        names = [title_of_measure(m.name) for m in self.table.measures if m not in self.measures]
        return f"No image has a score by {_listed(names)}: they need masks or maps that are not there." if names else ""

    @property
    def verdict(self) -> str:
        """The result in a plain sentence or two."""
        return " ".join(said for said in (_leaders(self), _no_better(self), _refused(self)) if said)

    @property
    def charts(self) -> tuple[Chart, ...]:
        """One a measure."""
        return tuple(_chart(self.table, measure) for measure in self.measures)

    def shown(self, row: MethodRow, measure: Measure) -> ShownCell:
        """A cell in words."""
        cell = row.cells[measure.name]
        notes = [_VERDICTS[v] for v in (cell.verdict(measure.higher_is_better),) if v in _VERDICTS]
        if 0 < cell.estimate.count < len(self.table.index):
            notes.append(f"n = {cell.estimate.count:,}")
        ranked = sum(other.cells[measure.name].rank is not None for other in self.methods)
        strength = None if cell.rank is None else 1.0 if ranked == 1 else (ranked - cell.rank) / (ranked - 1)
        value = charts.number(cell.estimate.value) if cell.estimate.count else "no score"
        ends = interval(cell.estimate, "") if cell.estimate.count else ""
        return ShownCell(value, ends, strength, cell.leading, tuple(notes), _told(row, measure, cell, ranked))


def _told(row: MethodRow, measure: Measure, cell: Cell, ranked: int) -> str:
    said = f"{title_of_method(row.name)}, {title_of_measure(measure.name)}: "
    if not cell.estimate.count:
        return said + "not defined for any image"
    place = f"; rank {cell.rank} of {ranked}" if cell.rank is not None else "; control"
    return said + f"{_number(cell.estimate)}, {cell.estimate.count:,} images{place}"


def _number(estimate: Estimate) -> str:
    return f"{charts.number(estimate.value)} ({interval(estimate, '')})"


def _scored(table: QualityTable, measure: Measure) -> bool:
    return any(row.cells[measure.name].estimate.count for row in table.rows if row.cells)


def _several(cell: Cell | None) -> bool:
    """Whether a mean stands on more than one image, so that it has an interval."""
    return cell is not None and cell.estimate.count > 1


def _leaders(page: QualityPage) -> str:
    """Who is the best most often."""
    measures = [m for m in page.measures if all(_several(row.cells.get(m.name)) for row in page.methods)]
    if len(page.methods) < 2 or not measures:
        return ""
    wins = {row.name: sum(row.cells[measure.name].leading for measure in measures) for row in page.methods}
    most = max(wins.values())
    first = [title_of_method(name) for name, count in wins.items() if count == most]
    by = "by every measure" if most == len(measures) else f"by {most} of {len(measures)} measures"
    are = "is" if len(first) == 1 else "are each"
    return f"{_listed(first)} {are} the best of {len(page.methods)} methods, or not clearly behind it, {by}."


def _no_better(page: QualityPage) -> str:
    """Which measures tell no method from the random heatmap."""
    blind = [
        title_of_measure(measure.name)
        for measure in page.measures
        if page.methods
        and all(row.cells[measure.name].verdict(measure.higher_is_better) != "better" for row in page.methods)
    ]
    return f"By {_listed(blind)} no method is clearly better than a random heatmap." if blind else ""


def _refused(page: QualityPage) -> str:
    names = [title_of_method(row.name) for row in page.refused]
    return f"{_listed(names)} cannot explain this network." if names else ""


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _chart(table: QualityTable, measure: Measure) -> Chart:
    cells = {row.name: row.cells[measure.name] for row in table.rows if row.cells}
    controls = {row.name for row in table.rows if row.control}
    numbers = [v for cell in cells.values() for v in (cell.estimate.value, cell.estimate.low, cell.estimate.high)]
    finite = [value for value in numbers if math.isfinite(value)]
    ticks = charts.nice_ticks(min(finite), max(finite), most=4)

    def place(value: float) -> float | None:
        return round(100 * (value - ticks[0]) / (ticks[-1] - ticks[0]), 2) if math.isfinite(value) else None

    def worth(name: str) -> float:
        value = cells[name].estimate.value
        return -math.inf if math.isnan(value) else value if measure.higher_is_better else -value

    points = []
    for name in sorted(cells, key=worth, reverse=True):
        estimate = cells[name].estimate
        low, high = place(estimate.low), place(estimate.high)
        ends = None if low is None or high is None else (low, high)
        value = charts.number(estimate.value) if estimate.count else "no score"
        best = cells[name].leading
        points.append(Point(title_of_method(name), value, place(estimate.value), ends, name in controls, best))
    marks = tuple((f"{tick:g}".replace("-", "\N{MINUS SIGN}"), place(tick) or 0.0) for tick in ticks)
    chance = next((place(cells[row.name].estimate.value) for row in table.rows if row.control), None)
    return Chart(measure, tuple(points), marks, chance)


def render_quality(page: QualityPage) -> str:
    """The whole page as one HTML text; everything the caller wrote is escaped."""
    templates = environment(method=title_of_method, measure=title_of_measure)
    return templates.get_template("quality.html").render(page=page)


def write_quality(page: QualityPage, path: str | Path) -> Path:
    """Render the page into a file that appears whole or not at all.

    Raises:
        NotWritten: The file cannot be written; an older one is left as it was.
    """
    path = Path(path)
    write_whole(path, render_quality(page).encode())
    return path


def quality_cells(page: QualityPage) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The table for a terminal: a header, and lines of means, ``*`` for the best, ``~`` for no better than random."""
    arrows = {True: "\N{UPWARDS ARROW}", False: "\N{DOWNWARDS ARROW}"}
    measures = page.measures
    header = ("method", *(f"{title_of_measure(m.name)} {arrows[m.higher_is_better]}" for m in measures), "ms")
    lines = []
    for row in (*page.methods, *page.controls):
        cells = [page.shown(row, measure) for measure in measures]
        like = [row.cells[measure.name].verdict(measure.higher_is_better) in _VERDICTS for measure in measures]
        marks = [("*" if cell.best else "") + ("~" if no else "") for cell, no in zip(cells, like, strict=True)]
        told = [cell.value + mark for cell, mark in zip(cells, marks, strict=True)]
        lines.append((row.name, *told, f"{1000 * row.seconds / len(page.table.index):.2g}"))
    return header, lines
