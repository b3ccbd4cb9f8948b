"""Named points over a logarithmic axis as inline SVG, the best of them joined."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple
from xml.etree import ElementTree as ET

from markupsafe import Markup

from rightreasons.reports.charts import Range, _dot, _line, _markup, _svg, _text, nice_ticks

SIZE = (460, 330)
LETTER, CAPITAL = 7.0, 9.5
"""Widths of letters, in the units of the picture."""


class Spot(NamedTuple):
    """A named point of a scatter; ``front`` is full and on the line, others are open."""

    name: str
    x: float
    y: float
    front: bool


def scatter(title: str, spots: Sequence[Spot], x_label: str, y_label: str) -> Markup:
    """Named points over a logarithmic axis, the front joined by steps.

    Args:
        title: What is drawn.
        spots: With x above 0.
        x_label: What the horizontal axis counts.
        y_label: What the vertical axis says.
    """
    width, height = SIZE
    told = " ".join(f"{spot.name}: {short(spot.x)}, {spot.y:.2f}." for spot in spots)
    svg = _svg(width, height, "curve scatter", title, told)
    across = log_ticks(min(spot.x for spot in spots), max(spot.x for spot in spots))
    up = nice_ticks(min(spot.y for spot in spots), max(spot.y for spot in spots))
    frame = (50.0, width - 18.0, 30.0, height - 44.0)

    def place(x: float, y: float) -> Range:
        share = math.log(x / across[0]) / math.log(across[-1] / across[0])
        above = (y - up[0]) / (up[-1] - up[0])
        return frame[0] + share * (frame[1] - frame[0]), frame[3] - above * (frame[3] - frame[2])

    for y in up:
        _line(svg, "grid", place(across[0], y), place(across[-1], y))
        _text(svg, (frame[0] - 8, place(across[0], y)[1] + 4), f"{y:g}", anchor="end")
    for x in across:
        _line(svg, "axis", place(x, up[0]), (place(x, up[0])[0], frame[3] + 5))
        _text(svg, (place(x, up[0])[0], frame[3] + 19), short(x), anchor="middle")
    _line(svg, "axis", (frame[0], frame[3]), (frame[1], frame[3]))
    _text(svg, (sum(frame[:2]) / 2, frame[3] + 38), x_label, anchor="middle", style="label")
    _text(svg, (4, 14), y_label, anchor="start", style="label")
    _spots(svg, [(spot, place(spot.x, spot.y)) for spot in spots], frame)
    return _markup(svg)


def _spots(svg: ET.Element, placed: Sequence[tuple[Spot, Range]], frame: tuple[float, float, float, float]) -> None:
    """The step line through the front, the dots, and each name where it covers the least of what is there."""
    front = sorted(at for spot, at in placed if spot.front)
    steps = "".join(f"H{x:.1f}V{y:.1f}" for x, y in front[1:])
    ET.SubElement(svg, "path", {"class": "step", "d": f"M{front[0][0]:.1f} {front[0][1]:.1f}{steps}H{frame[1]:.1f}"})
    taken = [(x - 6, x + 6, y - 6, y + 6) for _, (x, y) in placed]
    ends = [*front[1:], (frame[1], front[-1][1])]
    for (x, y), (right, above) in zip(front, ends, strict=True):
        taken += [(x, right, y - 3, y + 3), (right - 3, right + 3, above, y)]
    for spot, (x, y) in placed:
        style = "after" if spot.front else "beaten"
        _dot(svg, style, (x, y), 4.5)
        size = sum(CAPITAL if letter.isupper() else LETTER for letter in spot.name)
        near = [(x + 10, y + 4, "start"), (x - 10, y + 4, "end")]
        near += [(x, y - 10, "middle"), (x, y + 19, "middle"), (x + 8, y - 9, "start"), (x + 8, y + 18, "start")]
        near += [(x - 8, y - 9, "end"), (x - 8, y + 18, "end")]
        lefts = [at - size * _BEFORE[anchor] for at, _, anchor in near]
        boxes = [(left, left + size, base - 11, base + 3) for left, (_, base, _) in zip(lefts, near, strict=True)]
        best = min(range(len(near)), key=lambda k: (_covered(boxes[k], taken, frame), k))
        taken.append(boxes[best])
        _text(svg, near[best][:2], spot.name, anchor=near[best][2], style=f"name {style}")


_BEFORE = {"start": 0.0, "middle": 0.5, "end": 1.0}
"""Which share of a text stands before its anchor."""

_Box = tuple[float, float, float, float]


def _covered(box: _Box, taken: Sequence[_Box], frame: _Box) -> float:
    """The area of a box that others cover, and ten times what lies outside the frame."""
    inside = (min(box[1], frame[1] + 14) - max(box[0], frame[0])) * (min(box[3], frame[3]) - max(box[2], 16.0))
    outside = (box[1] - box[0]) * (box[3] - box[2]) - max(0.0, inside)
    shared = (
        max(0.0, min(box[1], other[1]) - max(box[0], other[0]))
        * max(0.0, min(box[3], other[3]) - max(box[2], other[2]))
        for other in taken
    )
    return sum(shared) + 10 * outside


def log_ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Round numbers above 0, each some factor above the last, that enclose the range."""
    first, last = math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1
    for factors in ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1,)):
        marks = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
        start = max(k for k, mark in enumerate(marks) if mark <= low)
        end = min(k for k, mark in enumerate(marks) if mark >= high and k > start)
        if end - start < most:
            break
    return marks[start : end + 1]


def short(value: float) -> str:
    """A number in thousands or millions, where it is that large."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}\N{NO-BREAK SPACE}{letter}"
    return f"{value:.3g}"
