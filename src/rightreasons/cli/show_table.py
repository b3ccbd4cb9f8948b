"""What a person sees of a published table in the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.measure import Measurement
from rich.text import Text

from rightreasons.cli.show import console, note, plain_table, say, warn

if TYPE_CHECKING:
    from rich.table import Table

    from rightreasons.experiments.table import PublishedValue, TablePlan, TableRow, Unread
    from rightreasons.metrics import SeedSummary

STARS = {"read": "", "derived": "*", "memory": "†"}
"""Behind a published value: how sure it is."""
WIDE, BOUNDLESS = 100, 10_000
"""Characters that a table needs so that only names and sources are broken, and more than any table has."""
COUNTS = ("parameters", "trainable")
NAMED = 5
"""So many unreadable files are named."""


def published_table(plan: TablePlan, rows: Sequence[TableRow]) -> None:
    """A published table beside ours: each column over seeds, the lead over plain with its interval, the cost."""
    for part in _fitting(plan, rows):
        console.print(part)
    note(_caption(plan, rows))
    _below(plan, rows)


def _fitting(plan: TablePlan, rows: Sequence[TableRow]) -> list[Table]:
    """The table with the 95 % intervals of as many means as the width allows: all, those of the first column, none.

    Where it is too wide even so, it goes on in a second one below, and so on.
    """
    for told in (plan.columns, plan.columns[:1], ()):
        shown = _table(plan, rows, _Style(plan.columns, intervals=told))
        if _width(shown).maximum <= console.width:
            return [shown]
    parts: list[Table] = []
    left = plan.columns
    while left:
        styles = [_Style(left[:count], brief=True, goes_on=bool(parts)) for count in range(len(left), 0, -1)]
        tables = [_table(plan, rows, style) for style in styles]
        fitting = [place for place, table in enumerate(tables) if _width(table).minimum <= console.width]
        place = fitting[0] if fitting else len(tables) - 1
        parts.append(tables[place])
        left = left[len(left) - place :]
    return parts


def _width(table: Table) -> Measurement:
    # A table measures at most what it is given.
    return Measurement.get(console, console.options.update(width=BOUNDLESS), table)


@dataclass(frozen=True)
class _Style:
    """How much of a table is shown.

    Attributes:
        columns: Which.
        intervals: The columns with intervals.
        brief: Without the sd of further columns and the interval of the lead.
        goes_on: Lead, cost and seeds stand in the part above.
    """

    columns: Sequence[str]
    intervals: Sequence[str] = ()
    brief: bool = False
    goes_on: bool = False


def _table(plan: TablePlan, rows: Sequence[TableRow], style: _Style) -> Table:
    from rightreasons.experiments.table import column_title

    shown = plain_table(None if style.goes_on else f"{plan.title} ({plan.name})")
    # Beside other columns that may break, a least width makes the table wider than the terminal.
    shown.add_column("arm", overflow="fold", min_width=None if console.width >= WIDE else 12)
    titles = [column_title(name) for name in style.columns]
    titles += [] if style.goes_on else ["lead" if style.brief else "lead over plain", "published", "cost", "seeds"]
    lines = [
        [_mean_sd(row.columns.get(name), row.seeds, style, name, plan.columns[0]) for name in style.columns]
        + ([] if style.goes_on else _further(row, style))
        for row in rows
    ]
    for place, name in enumerate(titles):
        breaks = name == "published"
        # Its cells alone do not keep a column from being squeezed: for rich a mean and its sd are words.
        widest = max((Text.from_markup(line[place]).cell_len for line in lines), default=0)
        shown.add_column(
            name, justify="right", no_wrap=not breaks, min_width=None if breaks else max(widest, len(name))
        )
    for row, line in zip(rows, lines, strict=True):
        shown.add_row(escape(row.name), *line)
    return shown


def _further(row: TableRow, style: _Style) -> list[str]:
    """Lead, published values, cost and seeds of a row."""
    diverged = f"-{row.diverged}" if style.brief else f", {row.diverged} diverged"
    return [
        _lead(row, style.brief),
        ", ".join(map(_published, row.published)),
        "" if row.cost is None else f"{row.cost:.2f}",
        f"{row.seeds}" + diverged * bool(row.diverged),
    ]


def _lead(row: TableRow, brief: bool) -> str:
    """The lead over plain; its interval, where the terminal is wide enough."""
    if row.lead is None:
        return ""
    return f"{row.lead.mean:+.1f}" + ("" if brief else f" {_ends(row.lead, sign='+')}")


def _caption(plan: TablePlan, rows: Sequence[TableRow]) -> str:
    from rightreasons.experiments.table import column_title, column_told, worst_classes

    assessed = (r.results.get("assessment", {}) for row in rows for r in row.records.values())
    unseen = sorted({str(found["unseen_explainer"]) for found in assessed if "unseen_explainer" in found})
    names = {"unseen": f" ({', '.join(unseen)})"} if unseen else {}
    worst = worst_classes(rows)
    names |= {"worst_class": f" (it is {worst})"} if worst else {}
    told = "; ".join(f"{column_title(name)}: {column_told(name)}{names.get(name, '')}" for name in plan.columns)
    return (
        f"{told}; mean and sample sd over seeds, n where fewer seeds than the row's have it, 95 % t intervals in "
        "brackets, of shares cut at 0 and 100. Lead: test accuracy over plain in points, paired by seed; cost in CPU "
        f"time (older records: in seconds) as a multiple of plain. Protocol: {plan.source}"
    )


def _below(plan: TablePlan, rows: Sequence[TableRow]) -> None:
    """What has to be said about the numbers."""
    from rightreasons.experiments.table import idle_controls, lacking, mask_verdicts, mixed, weight_verdicts

    _sources(rows)
    for row in rows:
        if row.chosen is not None and not row.control and row.variation is None:
            say(f"{row.name}: chosen {row.choice}")
    for told in (*weight_verdicts(rows), idle_controls(rows)):
        if told:
            say(told)
    if lacking(plan):
        note(lacking(plan))
    for told in mask_verdicts(rows):
        warn(told)
    for told in mixed(rows):
        note(told)
    _missing(plan, rows)


def _missing(plan: TablePlan, rows: Sequence[TableRow]) -> None:
    """What the table would stand on if all had been run, and had not diverged."""
    waiting = [arm for arm in plan.selections if arm not in {row.arm for row in rows}]
    if waiting:
        warn(f"not shown, as nothing was chosen yet: {', '.join(waiting)}")
    lost = [f"{row.name} ({row.diverged} of {row.seeds + row.diverged} seeds)" for row in rows if row.diverged]
    if lost:
        warn(f"diverged: {', '.join(lost)}; the means are over the seeds that did not")
    few = [row.name for row in rows if row.seeds < plan.seeds]
    if few:
        warn(f"{len(few)} of {len(rows)} rows stand on fewer than the protocol's {plan.seeds} seeds")


def _sources(rows: Sequence[TableRow]) -> None:
    """Where the published values stand, and how sure each is."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for value in row.published:
            found.setdefault((value.mark, value.source), []).append(row.name)
    for (mark, source), names in found.items():
        sure = {"derived": ", derived from the authors' logs", "memory": ", from memory: not to be cited"}.get(mark, "")
        note(f"published{STARS[mark]}: {source}{sure} ({', '.join(dict.fromkeys(names))})")


def unread(files: Sequence[Unread]) -> None:
    """Files among the records that are none, in one line."""
    if files:
        told = [f"{file.path} ({file.reason})" for file in files[:NAMED]]
        more = f" and {len(files) - NAMED} more" if len(files) > NAMED else ""
        warn(f"no record could be read from {len(files)} of the JSON files: {'; '.join(told)}{more}")


def listed(plans: Sequence[TablePlan]) -> None:
    """The tables that there are."""
    shown = plain_table()
    for name in ("table", "title", "arms", "seeds"):
        shown.add_column(name, justify="right" if name in ("arms", "seeds") else "left", no_wrap=name != "title")
    for plan in plans:
        shown.add_row(*map(escape, (plan.name, plan.title, str(len(plan.arms)), str(plan.seeds))))
    console.print(shown)
    say("rightreasons table NAME --list tells a table's protocol and its rows")


def told(plan: TablePlan) -> None:
    """A table's protocol, and its rows one a line."""
    for line in (f"{plan.title} ({plan.name})", plan.description, f"Source: {plan.source}", ""):
        say(line)
    for entry in plan.entries():
        say(entry.name)


def _published(value: PublishedValue) -> str:
    from rightreasons.experiments.table import column_title
    from rightreasons.experiments.table.columns import published_text

    sd = "" if value.sd is None else f" ± {value.sd:g}"
    column = "" if value.column == "accuracy" else f"{column_title(value.column)} "
    return f"{column}{published_text(value.value)}{sd}{STARS[value.mark]}"


def _mean_sd(found: SeedSummary | None, seeds: int, style: _Style, name: str, first: str) -> str:
    """Mean and, if there is room, sd; on how many seeds, where not on all of the row; the interval likewise.

    One that is the same for all seeds has neither sd nor interval.
    """
    from rightreasons.experiments.table.columns import column_text

    if found is None:
        return ""
    sd = not math.isnan(found.sd) and (name == first or not style.brief) and not _fixed(name, found)
    parts = [column_text(name, found.mean, 2) + (f" ± {column_text(name, found.sd, 2)}" if sd else "")]
    parts += [f"(n={found.count})"] * (found.count < seeds)
    parts += [_column_ends(name, found)] * (name in style.intervals and not math.isnan(found.low))
    return " ".join(parts)


def _fixed(name: str, found: SeedSummary) -> bool:
    """Whether it is a count that no seed changes."""
    return name in COUNTS and found.sd == 0


def _column_ends(name: str, found: SeedSummary) -> str:
    from rightreasons.experiments.table.columns import column_text

    if _fixed(name, found):
        return ""
    low, high = (column_text(name, end, 2) for end in (found.low, found.high))
    return f"[dim]\\[{low}, {high}][/]"


def _ends(found: SeedSummary, *, digits: int = 1, sign: str = "") -> str:
    low, high = ("?" if math.isnan(end) else f"{end:{sign}.{digits}f}" for end in (found.low, found.high))
    return f"[dim]\\[{low}, {high}][/]"
