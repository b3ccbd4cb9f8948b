"""Small charts as inline SVG: dots with whiskers, and curves. Colors come from the page's style sheet by class."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from itertools import count, pairwise
from xml.etree import ElementTree as ET

from markupsafe import Markup

Range = tuple[float, float]
Interval = tuple[float, float, float]
"""A value, the lower and the upper end of its interval; NaN where not defined."""

_BAR = (260, 62)
_CURVE = (400, 270)
_SMALL = (252, 156)
_LETTER = 7.0
_NOTHING = (math.nan, math.nan, math.nan)
_MINUS = "\N{MINUS SIGN}"
_LINE = 14.0
_ROLES = {"before": ("before", "plain"), "after": ("after", "revised"), "bound": ("clean", "bound")}


def number(value: float, unit: str = "", *, sign: bool = False) -> str:
    """A value as the page writes it: fractions as per cent with one decimal, others with three digits or so.

    With ``sign``, a difference: a plus or minus before it, and percentage points.
    """
    if not math.isfinite(value):
        return "not defined"
    if unit == "%":
        text = f"{100 * value:.1f}"
    elif value != 0 and not 1e-3 <= abs(value) < 1e6:
        text = f"{value:.2e}"
    else:
        text = f"{value:,.{max(0, 3 - len(str(int(abs(value)))) + (abs(value) < 1))}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("-")
    mark = "+" if sign and value > 0 else ""
    ending = "" if unit != "%" else " points" if sign else " %"
    return mark + text.replace("-", _MINUS) + ending.replace(" ", "\N{NO-BREAK SPACE}")


def shared_ticks(values: Sequence[float]) -> list[float]:
    """The axis of a row of dots: 0 to 1 for shares, a round range that holds zero for others."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite or (min(finite) >= 0 and max(finite) <= 1):
        return [0.0, 0.25, 0.5, 0.75, 1.0]
    return nice_ticks(min(*finite, 0.0), max(*finite, 0.0), most=4)


def nice_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """At most ``most`` + 1 round numbers, evenly spaced, that enclose the range."""
    if high <= low:
        margin = abs(low) * 0.1 or 0.5
        low, high = low - margin, high + margin
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (power * factor for factor in (1, 2, 2.5, 5, 10, 20)):
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first <= most:
            break
    return [round(k * step, 12) for k in range(first, last + 1)]


def epoch_ticks(epochs: int, most: int = 6) -> list[int]:
    """The first epoch and some seven round ones."""
    steps = (factor * 10**power for power in count() for factor in (1, 2, 5))
    step = next(step for step in steps if epochs / step <= most)
    return sorted({1, *range(step, epochs + 1, step)})


def dots(points: Mapping[str, Interval], ticks: Sequence[float], *, unit: str, title: str) -> Markup:
    """Before (open dot) over after (full dot) with whiskers on one scale, and the bound as a dashed line.

    Args:
        points: By role: ``before``, ``after`` and perhaps ``bound``.
        ticks: Of the axis, from end to end.
        unit: Of the ticks.
        title: What the chart says, for those who do not see it.
    """
    width, height = _BAR
    svg = _svg(width, height, "dots", title)

    def x(value: float) -> float:
        return 14 + (width - 28) * (value - ticks[0]) / (ticks[-1] - ticks[0])

    for k, value in enumerate(ticks):
        _line(svg, "grid" if value else "grid zero", (x(value), 2), (x(value), 40))
        if k % 2 == 0 or ticks[0] < 0:
            _text(svg, (x(value), 56), _tick(value, unit), anchor="middle")
    if math.isfinite(points.get("bound", _NOTHING)[0]):
        _line(svg, "bound", (x(points["bound"][0]), 0), (x(points["bound"][0]), 42))
    for name, y in (("before", 12.0), ("after", 30.0)):
        value, low, high = points[name]
        if math.isfinite(low) and math.isfinite(high):
            _line(svg, f"whisker {name}", (x(low), y), (x(high), y))
        if math.isfinite(value):
            _dot(svg, name, (x(value), y), 5.5)
    return _markup(svg)


def curves(
    name: str,
    x_label: str,
    series: Mapping[str, Sequence[float]],
    *,
    unit: str = "",
    note: str = "",
    steps: Sequence[str] = (),
) -> Markup:
    """Lines over the epochs with axes, ticks and their names at their ends; a gap where a value is not defined.

    Args:
        name: What is drawn.
        x_label: What the horizontal axis counts.
        series: By label, one value an epoch.
        unit: "%" shows fractions as per cent.
        note: For those who do not see the chart.
        steps: What stands below the axis instead of the epochs' numbers, one text a value.
    """
    finite = [value for line in series.values() for value in line if math.isfinite(value)]
    if not finite:
        return Markup('<p class="undefined">not defined: no values were recorded</p>')
    width, height = _CURVE
    svg = _svg(width, height, "curve", name, _described(series, unit) + (f" {note}" if note else ""))
    names = {label: textwrap.wrap(label, 15) or [""] for label in series}
    room = 16 + _LETTER * max(len(part) for parts in names.values() for part in parts)
    ticks = nice_ticks(min(finite), max(finite))
    plot = _Plot((46.0, width - room), (14.0, height - 44.0), max(map(len, series.values())), ticks)
    _axes(svg, plot, x_label, unit, steps)
    drawn = {label: line for label, line in series.items() if any(map(math.isfinite, line))}
    for line, style in zip(drawn.values(), _styles(list(drawn)), strict=True):
        _curve(svg, plot, line, style)
    wanted = [plot.at(_last(line))[1] for line in drawn.values()]
    heights = spread(wanted, [_LINE * len(names[label]) for label in drawn], (8.0, height - 30.0))
    for label, style, y in zip(drawn, _styles(list(drawn)), heights, strict=True):
        for k, part in enumerate(names[label]):
            place = (plot.x[1] + 10, y + _LINE * (k - (len(names[label]) - 1) / 2) + 4)
            _text(svg, place, part, anchor="start", style=f"name {style}")
    return _markup(svg)


def learning(
    name: str, seeds: Sequence[Sequence[float]], ticks: Sequence[float], *, reference: Sequence[float] = ()
) -> Markup:
    """One arm of many over the epochs: each seed faint, their mean strong, another arm's mean dashed behind them.

    The best epoch of the mean is ringed where a later one is lower.

    Args:
        name: Of the arm.
        seeds: A value an epoch, as a fraction; a line each.
        ticks: Of the axis that all arms share; what lies below the first is cut off.
        reference: The other arm's mean.
    """
    mean = mean_line(seeds)
    width, height = _SMALL
    svg = _svg(width, height, "curve learning", f"{name}: {_described({'mean': mean}, '%')}")
    epochs = max(len(mean), len(reference))
    plot = _Plot((38.0, width - 8.0), (8.0, height - 22.0), epochs, list(ticks))
    for value in ticks:
        y = plot.at((1, value))[1]
        _line(svg, "grid", (plot.x[0], y), (plot.x[1], y))
        _text(svg, (plot.x[0] - 6, y + 4), f"{100 * value:g}", anchor="end")
    for epoch in sorted({1, epochs}):
        x = plot.at((epoch, ticks[0]))[0]
        anchor = "middle" if epochs == 1 else "start" if epoch == 1 else "end"
        _text(svg, (x, plot.y[1] + 16), f"epoch {epoch}" if epoch == epochs else str(epoch), anchor=anchor)
    inside = _window(svg, (plot.x[0], 0.0), (width, plot.y[1]))
    for style, line in [("bound", reference), *(("faint", line) for line in seeds if len(seeds) > 1), ("after", mean)]:
        _path(inside, plot, line, style)
    best = max(range(len(mean)), key=lambda k: mean[k])
    if mean[best] > mean[-1]:
        _dot(svg, "peak", plot.at((best + 1, mean[best])), 4.5)
    _dot(svg, "after", plot.at((len(mean), mean[-1])), 3.0)
    return _markup(svg)


def mean_line(seeds: Sequence[Sequence[float]]) -> list[float]:
    """The mean over the seeds for the epochs that all of them have."""
    return [sum(values) / len(values) for values in zip(*seeds, strict=False)]


def spread(wanted: Sequence[float], sizes: Sequence[float], limits: Range) -> list[float]:
    """Centers near the wanted ones whose boxes of these sizes do not overlap, top to bottom in the wanted order."""
    order = sorted(range(len(wanted)), key=lambda k: wanted[k])
    places = list(wanted)
    floor = limits[0]
    for k in order:
        places[k] = max(places[k], floor + sizes[k] / 2)
        floor = places[k] + sizes[k] / 2
    ceiling = limits[1]
    for k in reversed(order):
        places[k] = min(places[k], ceiling - sizes[k] / 2)
        ceiling = places[k] - sizes[k] / 2
    return places


class _Plot:
    """Where an epoch and a value lie in the picture."""

    def __init__(self, x: Range, y: Range, epochs: int, ticks: list[float]) -> None:
        self.x, self.y, self.epochs, self.ticks = x, y, epochs, ticks

    def at(self, point: Range) -> Range:
        """The place of (epoch counted from 1, value)."""
        across = (point[0] - 1) / (self.epochs - 1) if self.epochs > 1 else 0.5
        up = (point[1] - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])
        return self.x[0] + across * (self.x[1] - self.x[0]), self.y[1] - up * (self.y[1] - self.y[0])


def _axes(svg: ET.Element, plot: _Plot, x_label: str, unit: str, steps: Sequence[str]) -> None:
    for value in plot.ticks:
        y = plot.at((1, value))[1]
        _line(svg, "grid", (plot.x[0], y), (plot.x[1], y))
        _text(svg, (plot.x[0] - 8, y + 4), _tick(value, unit), anchor="end")
    _line(svg, "axis", (plot.x[0], plot.y[1]), (plot.x[1], plot.y[1]))
    marks = dict(enumerate(steps, start=1)) or {epoch: str(epoch) for epoch in epoch_ticks(plot.epochs)}
    for epoch, text in marks.items():
        x = plot.at((epoch, plot.ticks[0]))[0]
        _line(svg, "axis", (x, plot.y[1]), (x, plot.y[1] + 5))
        _text(svg, (x, plot.y[1] + 19), text, anchor="middle")
    _text(svg, (sum(plot.x) / 2, plot.y[1] + 38), x_label, anchor="middle", style="label")


def _path(svg: ET.Element, plot: _Plot, line: Sequence[float], style: str) -> list[Range]:
    """A line with a gap where a value is not defined; returns the places of those that are."""
    points = [plot.at((k + 1, value)) if math.isfinite(value) else None for k, value in enumerate(line)]
    steps = [("M" if start is None else "L", point) for start, point in pairwise([None, *points]) if point is not None]
    path = "".join(f"{letter}{x:.1f} {y:.1f}" for letter, (x, y) in steps)
    ET.SubElement(svg, "path", {"class": f"line {style}", "d": path})
    return [point for point in points if point is not None]


def _curve(svg: ET.Element, plot: _Plot, line: Sequence[float], style: str) -> None:
    marked = _path(svg, plot, line, style)
    for point in marked if len(marked) <= 12 and style != "bound" else marked[-1:]:
        _dot(svg, style, point, 3.5)


def _styles(labels: Sequence[str]) -> list[str]:
    """The class of each line: before, after and bound by what the label says, the others in turn."""
    free = (f"other{k % 4}" for k in count())
    roles = [
        next((role for role, words in _ROLES.items() if any(word in label.lower() for word in words)), None)
        for label in labels
    ]
    return [role if role and roles.index(role) == k else next(free) for k, role in enumerate(roles)]


def _last(line: Sequence[float]) -> Range:
    return next((float(k + 1), line[k]) for k in reversed(range(len(line))) if math.isfinite(line[k]))


def _described(series: Mapping[str, Sequence[float]], unit: str) -> str:
    parts = [
        f"{label}: from {number(line[0], unit)} to {number(line[-1], unit)} over {len(line)} epochs."
        for label, line in series.items()
        if len(line)
    ]
    return " ".join(parts)


def _tick(value: float, unit: str) -> str:
    return (f"{100 * value:g} %" if unit == "%" else f"{value:g}").replace("-", _MINUS)


def _svg(width: int, height: int, style: str, title: str, description: str = "") -> ET.Element:
    svg = ET.Element("svg", {"class": style, "viewBox": f"0 0 {width} {height}", "role": "img"})
    ET.SubElement(svg, "title").text = title
    if description:
        ET.SubElement(svg, "desc").text = description
    return svg


def _window(svg: ET.Element, corner: Range, opposite: Range) -> ET.Element:
    """A part of the picture, in the same units, in which what lies outside is cut off."""
    size = (opposite[0] - corner[0], opposite[1] - corner[1])
    numbers = {"x": corner[0], "y": corner[1], "width": size[0], "height": size[1]}
    box = " ".join(f"{value:.1f}" for value in (*corner, *size))
    return ET.SubElement(svg, "svg", {"class": "window", "viewBox": box} | {k: f"{v:.1f}" for k, v in numbers.items()})


def _line(svg: ET.Element, style: str, start: Range, end: Range) -> None:
    ends = zip(("x1", "y1", "x2", "y2"), (*start, *end), strict=True)
    ET.SubElement(svg, "line", {"class": style, **{key: f"{value:.1f}" for key, value in ends}})


def _dot(svg: ET.Element, style: str, center: Range, radius: float) -> None:
    place = {"cx": f"{center[0]:.1f}", "cy": f"{center[1]:.1f}", "r": f"{radius}"}
    ET.SubElement(svg, "circle", {"class": f"dot {style}", **place})


def _text(svg: ET.Element, place: Range, text: str, *, anchor: str, style: str = "tick") -> None:
    where = {"x": f"{place[0]:.1f}", "y": f"{place[1]:.1f}", "text-anchor": anchor}
    ET.SubElement(svg, "text", {"class": style, **where}).text = text


def _markup(svg: ET.Element) -> Markup:
    return Markup(ET.tostring(svg, encoding="unicode", short_empty_elements=False))  # ElementTree has escaped it
