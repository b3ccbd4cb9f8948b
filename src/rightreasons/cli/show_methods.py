"""The table of counterfactual methods, in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rightreasons.cli import show

if TYPE_CHECKING:
    from rightreasons.experiments import Resources
    from rightreasons.experiments.counterfactual import Cell, MethodRow

GAP = 2
"""Blanks between columns."""


def methods_table(
    cells: Sequence[Cell], records: Sequence[Path] | None, csv: Path | None, out: Path | None, resources: Resources
) -> None:
    """Measure what no record holds, unless ``out`` is ``None``; print the table and write it.

    Raises:
        ValueError: There is nothing to print.
    """
    from rightreasons.experiments.counterfactual import MethodRecords, method_rows, run_methods, write_methods_csv

    held = MethodRecords(records or [Path("records/counterfactuals")])
    if held.unread:
        show.warn(f"no record could be read from {len(held.unread)} of the JSON files: {'; '.join(held.unread[:5])}")
    if out is not None:
        for told in run_methods(cells, held, out / "counterfactuals", resources):
            show.say(told)
    rows = method_rows(cells, held)
    if not rows:
        raise ValueError(f"no record of such a row in {held.home}; leave out --show to measure it")
    tell(rows)
    if len(rows) < len(cells):
        show.warn(f"{len(cells) - len(rows)} of {len(cells)} rows have no record yet")
    if csv is not None:
        write_methods_csv(rows, csv)
        show.written(csv.parent, csv.name)


def tell(rows: Sequence[MethodRow]) -> None:
    """A table for each data set, kind of target and seed; what does not fit beside goes on below."""
    groups: dict[tuple[str, str, int], list[MethodRow]] = {}
    for row in rows:
        groups.setdefault((row.cell.data, row.cell.kind, row.cell.seed), []).append(row)
    for (data, kind, seed), those in groups.items():
        show.say(f"{data}, {kind} target, seed {seed}, {those[0].cell.protocol.images:,} test images")
        for header, lines in fitting(*_cells_of(those), width=show.console.width):
            show.table(header, lines)
        show.note(_anchors(those[0].results))
    show.note(
        "means with 95 % bootstrap intervals over images; distances, IM1 and IM2 over the valid ones, x 100 for IM2; "
        "oracle: a second network agrees, over all; ms: an image, of all at once, and in brackets the CPU's"
    )


def fitting(
    header: Sequence[str], lines: Sequence[Sequence[str]], *, width: int
) -> list[tuple[list[str], list[list[str]]]]:
    """The table in parts of at most that width, each with the first column; a column alone may be wider."""
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    parts, used = [[0]], widths[0]
    for place in range(1, len(header)):
        if len(parts[-1]) > 1 and used + GAP + widths[place] > width:
            parts.append([0])
            used = widths[0]
        parts[-1].append(place)
        used += GAP + widths[place]
    return [([header[p] for p in part], [[line[p] for p in part] for line in lines]) for part in parts]


def _cells_of(rows: Sequence[MethodRow]) -> tuple[list[str], list[list[str]]]:
    from rightreasons.experiments.counterfactual.methods import COLUMNS

    lines = []
    for row in rows:
        told = [_estimate(name, row.results[name]) for name in COLUMNS]
        times = f"{_number(row.results['milliseconds'], 2)} ({_number(row.results['cpu_milliseconds'], 2)})"
        lines.append([row.cell.method, *told, times])
    return ["method", *COLUMNS.values(), "ms"], lines


def _estimate(name: str, told: Mapping[str, Any]) -> str:
    """The mean and its interval; a dash where no image counts."""
    factor, digits = 100 if name == "im2" else 1, 0 if name in ("l0", "queries", "gradients") else 2
    if told["value"] is None:
        return "-"
    value, low, high = (_number(told[end], digits, factor) for end in ("value", "low", "high"))
    return value if low == value == high or told["low"] is None else f"{value} [{low}, {high}]"


def _number(value: float | None, digits: int, factor: float = 1.0) -> str:
    return "-" if value is None else f"{factor * value:,.{digits}f}"


def _anchors(results: Mapping[str, Any]) -> str:
    told = {name: _estimate(name[:3], results[name.replace(" ", "_")]) for name in ANCHORS}
    limit = results["im1_real"]["value"]
    more = "" if limit is None else f" (and 10 % more: {1.1 * limit:.2f})"
    return (
        f"IM1 of real images of the target's class {told['im1 real']}{more}, of the originals {told['im1 original']}; "
        f"IM2 {told['im2 real']} and {told['im2 original']}"
    )


ANCHORS = ("im1 real", "im1 original", "im2 real", "im2 original")
