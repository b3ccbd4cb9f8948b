"""Which arms are worth their cost: accuracy over the number of weights and over seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from rightreasons.experiments.table import TableRow
from rightreasons.reports.scatter import Spot, scatter

COSTS: Mapping[str, str] = {"parameters": "weights", "seconds": "seconds of training"}


class Figure(NamedTuple):
    """Accuracy over a cost: its title, the picture, and the arms of the front from the cheapest on."""

    title: str
    picture: Markup
    front: tuple[str, ...]


def pareto(rows: Sequence[TableRow]) -> tuple[Figure, ...]:
    """A figure for each cost that two rows or more have."""
    return tuple(found for name, told in COSTS.items() if (found := _figure(rows, name, told)) is not None)


def front(points: Mapping[str, tuple[float, float]]) -> tuple[str, ...]:
    """Of points (cost, accuracy) by name those that none beats, from the cheapest on.

    One beats another that costs no less and is no more accurate, unless both are the same.
    """
    kept: list[str] = []
    best = -math.inf
    for name, (cost, accuracy) in sorted(points.items(), key=lambda item: (item[1][0], -item[1][1])):
        if accuracy > best or (kept and points[kept[-1]] == (cost, accuracy)):
            kept.append(name)
            best = accuracy
    return tuple(kept)


def _figure(rows: Sequence[TableRow], name: str, told: str) -> Figure | None:
    points = {row.name: (row.columns[name].mean, row.accuracy.mean) for row in rows if name in row.columns}
    points = {arm: point for arm, point in points.items() if point[0] > 0 and math.isfinite(point[1])}
    if len(points) < 2:
        return None
    kept = front(points)
    title = f"Test accuracy over {told}"
    spots = [Spot(arm, *point, arm in kept) for arm, point in points.items()]
    return Figure(title, scatter(title, spots, told, "test accuracy, %"), kept)
