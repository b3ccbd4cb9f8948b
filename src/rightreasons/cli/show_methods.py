"""The table of counterfactual methods, in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rightreasons.cli import show

if TYPE_CHECKING:
    from rightreasons.experiments import Resources
    from rightreasons.experiments.counterfactual import Cell, MethodRow

GAP = 2
"""Blanks between columns."""

SHAPE = "area_change"
"""Only of strokes there is such a measure."""

WHOLE = ("l0", "queries", "gradients")
TOLD = {
    "shown": "means with 95 % bootstrap intervals over images; distances, IM1, IM2 (x 100) and all below over the "
    "valid ones; oracle: a second network agrees, over all; ms: an image, of all at once, and in brackets the CPU's",
    "further": "COUT: whether the most changed pixels flip the model, -1 to 1; sharpness: the steepest change of the "
    "target's probability on the way from the original, of length 1; overshoot: share of the way behind the boundary; "
    "neighbor: distance to the nearest training image of the target's class, over that of real images (1 is real), "
    "of those that are none of these training images themselves",
    "shape": "changes of the stroke against the original's, as shares; the slant in degrees, too, for its share is "
    "that of the few images that hardly lean",
}
"""What the columns mean."""


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
        for header, lines in _tables(those):
            for part in fitting(header, lines, width=show.console.width):
                show.table(*part)
        show.note(_anchors(those[0].results))
    strokes = any(SHAPE in row.results for row in rows)
    for name in ("shown", "further", *["shape"] * strokes):
        show.note(TOLD[name])
    if any(map(_beside_published, rows)):
        from rightreasons.experiments.counterfactual.published import PROTOCOL_TOLD

        show.note(PROTOCOL_TOLD)


def _tables(rows: Sequence[MethodRow]) -> Iterator[tuple[list[str], list[list[str]]]]:
    """What flips and how near it is; what lies on the way there; and where the images are strokes, their shape."""
    from rightreasons.experiments.counterfactual.methods import COLUMNS, FURTHER_COLUMNS, SHAPE_COLUMNS
    from rightreasons.experiments.counterfactual.published import PUBLISHED_CHANGES

    header, lines = _cells_of(rows, COLUMNS)
    times = [f"{_number(r.results['milliseconds'], 2)} ({_number(r.results['cpu_milliseconds'], 2)})" for r in rows]
    yield [*header, "ms"], [[*line, time] for line, time in zip(lines, times, strict=True)]
    yield _cells_of(rows, FURTHER_COLUMNS)
    if all(SHAPE in row.results for row in rows):
        columns = {"validity": COLUMNS["validity"], **SHAPE_COLUMNS}
        header, lines = _cells_of(rows, columns)
        if _beside_published(rows[0]):
            for name, values in PUBLISHED_CHANGES.items():
                told = ["-" if c not in values else _number(values[c], _digits(c)) for c in columns]
                lines.append([f"{name}, published", *told])
        yield header, lines


def _beside_published(row: MethodRow) -> bool:
    """Whether the published changes were taken of the same question: digits, and targets at random."""
    return SHAPE in row.results and (row.cell.data, row.cell.kind) == ("mnist", "random")


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


def _cells_of(rows: Sequence[MethodRow], columns: Mapping[str, str]) -> tuple[list[str], list[list[str]]]:
    lines = [[row.cell.method, *(_estimate(name, row.results[name]) for name in columns)] for row in rows]
    return ["method", *columns.values()], lines


def _estimate(name: str, told: Mapping[str, Any]) -> str:
    """The mean and its interval; a dash where no image counts."""
    factor = 100 if name == "im2" else 1
    if told["value"] is None:
        return "-"
    value, low, high = (_number(told[end], _digits(name), factor) for end in ("value", "low", "high"))
    return value if low == value == high or told["low"] is None else f"{value} [{low}, {high}]"


def _digits(name: str) -> int:
    """Behind the point."""
    if name in WHOLE:
        return 0
    if name == "slant_change":
        return 1
    return 3 if name.endswith("_change") else 2


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
