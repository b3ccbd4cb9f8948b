"""The page of a published table: every arm beside what others published, its controls, its curves and its maps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from rightreasons.experiments import as_dict, to_toml
from rightreasons.experiments.build import TITLES
from rightreasons.experiments.table import (
    BOUND,
    MARKS,
    PLAIN,
    Judged,
    PublishedValue,
    TablePlan,
    TableRow,
    judged,
    lacking,
    weight_verdicts,
    worst_classes,
)
from rightreasons.experiments.table.columns import GAIN, column_text, column_title, column_told, published_text
from rightreasons.experiments.table_views import TableViews
from rightreasons.metrics import SeedSummary
from rightreasons.models.checkpoints import write_whole
from rightreasons.reports.figures import color_bar_png, data_uri
from rightreasons.reports.page import environment
from rightreasons.reports.table_charts import Chart, Learned, forest, learned, varied
from rightreasons.reports.table_front import Figure, pareto
from rightreasons.reports.table_maps import MapRow, Pictured, map_rows, pictured
from rightreasons.reports.table_verdict import Group, between_ends, leading, percent, verdict

_SPACE = "\N{NO-BREAK SPACE}"
_UNIT = f"{_SPACE}%"
_MULTIPLES = ("unseen", "saliency")
_HEADINGS = {
    "unseen": "Untrained explainer",
    "saliency": "Saliency",
    "swap": "Decoy swap, %",
    "probe": "Linear probe, %",
}
"""Columns of what no arm was trained on."""
_TOLD = {
    "unseen": "share of its map on the pixels that should not matter, as a multiple of chance",
    "saliency": "the same of the gradient of the summed log-probabilities, through which some losses train",
    "swap": "share of test predictions that change when only the decoy becomes another class's",
    "probe": "how often a linear probe tells the decoy's class from the last features, which may hold what is not used",
}


class Section(NamedTuple):
    """Rows that belong together: the arms of the protocol, or one value of it varied."""

    title: str
    groups: tuple[Group, ...]
    chart: Markup = Markup("")


@dataclass(frozen=True, eq=False)
class TablePage:
    """What the page shows.

    Attributes:
        plan: The table with what was chosen in place, see ``settled``.
        rows: What the records say.
        views: The same images under every arm; ``None`` leaves that part out.
        rerun: Commands that make the table again.
    """

    plan: TablePlan
    rows: tuple[TableRow, ...]
    views: TableViews | None = None
    rerun: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Of the page."""
        return self.plan.title

    @cached_property
    def verdict(self) -> str:
        """The result in plain words."""
        return verdict(self.arms, base=PLAIN)

    @property
    def arms(self) -> tuple[Group, ...]:
        """The arms of the protocol with their controls."""
        return tuple(group for group in self.sections[0].groups if group.row.name not in (PLAIN, BOUND))

    @cached_property
    def best(self) -> TableRow | None:
        """The arm that comes first; ``None`` without one."""
        found = leading(self.arms)
        return None if found is None else found.row

    @property
    def plain(self) -> TableRow | None:
        """Training without an explanation loss."""
        return next((row for row in self.rows if row.name == PLAIN), None)

    @property
    def bound(self) -> TableRow | None:
        """Training that never saw the shortcut."""
        return next((row for row in self.rows if row.name == BOUND), None)

    @cached_property
    def sections(self) -> tuple[Section, ...]:
        """The arms of the protocol with their controls, then a section for each value that is varied."""
        base = Section("Arms", self._groups(None))
        blocks = [
            Section(f"Varied: {vary.label or vary.key}", self._groups(k), varied(self.plan, k, self.rows))
            for k, vary in enumerate(self.plan.vary)
        ]
        return (base, *(section for section in blocks if section.groups))

    def _groups(self, block: int | None) -> tuple[Group, ...]:
        own = [row for row in self.rows if (row.variation.block if row.variation else None) == block]
        return tuple(self._group(row) for row in own if not row.control)

    def _group(self, row: TableRow) -> Group:
        own = (control for control in self._judged if control.row.control and control.arm is row)
        return Group(row, tuple(own), next((control for control in self._judged if control.row is row), None))

    @cached_property
    def _judged(self) -> tuple[Judged, ...]:
        return judged(self.rows)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns beside accuracy for which any row has a value."""
        return tuple(c for c in self.plan.columns if c != "accuracy" and any(c in row.columns for row in self.rows))

    def published(self, row: TableRow) -> tuple[PublishedValue, ...]:
        """Those in the column of what was published: accuracy first, then what does not stand beside our own figure."""
        apart = [value for value in row.published if not self._is_beside(row, value)]
        return tuple(sorted(apart, key=lambda value: value.column != "accuracy"))

    def beside(self, row: TableRow, name: str) -> tuple[PublishedValue, ...]:
        """Those that stand below our own figure of that column, as the source of the accuracy tells theirs, too."""
        return tuple(value for value in row.published if value.column == name and self._is_beside(row, value))

    def _is_beside(self, row: TableRow, value: PublishedValue) -> bool:
        told = {(one.source, one.mark) for one in row.published if one.column == "accuracy"}
        # Where several tell the accuracy a cell could not say whose a value is.
        return value.column in self.columns and told == {(value.source, value.mark)}

    @cached_property
    def forest(self) -> tuple[Chart, ...]:
        """All arms on one axis, and those near the best on one of their own where the first crowds them."""
        return forest([group.row for group in self.sections[0].groups if group.row.seeds])

    @cached_property
    def pareto(self) -> tuple[Figure, ...]:
        """Accuracy over the number of weights and over seconds, where the table has the weights as a column."""
        rows = [group.row for section in self.sections for group in section.groups if group.row.seeds]
        return pareto(rows) if "parameters" in self.plan.columns else ()

    @cached_property
    def learned(self) -> tuple[Learned, ...]:
        """The arms over the epochs; none where no run has two."""
        return learned([group.row for group in self.sections[0].groups])

    @cached_property
    def pictured(self) -> tuple[Pictured, ...]:
        """The images that every arm is shown."""
        return () if self.views is None else pictured(self.views)

    @cached_property
    def maps(self) -> tuple[MapRow, ...]:
        """The maps by arm."""
        return () if self.views is None else map_rows(self.views, self.pictured)

    @cached_property
    def assessed(self) -> tuple[str, ...]:
        """Of what no arm was trained on, the columns that any arm has."""
        rows = [group.row for group in self.sections[0].groups]
        return tuple(column for column in _HEADINGS if any(column in row.columns for row in rows))

    def chance(self, column: str) -> str:
        """What a model that does not see the shortcut would have."""
        if column == "swap":
            return f"0{_UNIT}"
        key = "probe_chance" if column == "probe" else "chance"
        levels = [float(found[key]) for found in self._assessments() if key in found]
        level = f"{100 * sum(levels) / len(levels):.1f}{_UNIT}" if levels else ""
        return level if column == "probe" else "1.00\N{MULTIPLICATION SIGN}" + f"{_SPACE}={_SPACE}{level}" * bool(level)

    def _assessments(self) -> Iterable[Mapping[str, Any]]:
        return (r.results.get("assessment", {}) for row in self.rows for r in row.records.values())

    def heading(self, column: str) -> str:
        """What stands above a column of what no arm was trained on."""
        names = {str(found["unseen_explainer"]) for found in self._assessments() if "unseen_explainer" in found}
        titles = [TITLES.get(name, name.replace("_", " ").capitalize()) for name in sorted(names)]
        return " or ".join(titles) if column == "unseen" and titles else _HEADINGS[column]

    @property
    def choices(self) -> dict[str, str]:
        """How a value of an arm was chosen, in words, by the arm."""
        return {row.arm: row.choice for row in self.rows if row.chosen is not None}

    @cached_property
    def weights(self) -> tuple[str, ...]:
        """What the weights found in training came to, a sentence each."""
        return weight_verdicts(self.rows)

    @property
    def worst(self) -> str:
        """Which class fares worst with which arms."""
        return worst_classes(self.rows)

    @property
    def lacking(self) -> str:
        """Which controls or bound there cannot be."""
        return lacking(self.plan)

    @property
    def any_diverged(self) -> bool:
        """Whether a figure is the mean over those runs only that did not diverge."""
        return any(row.diverged for row in self.rows)

    @property
    def stops_early(self) -> bool:
        """Whether a run ends with the weights of an epoch that was chosen."""
        return any(row.config.training.patience > 0 for row in self.rows)

    @property
    def runs(self) -> int:
        """How many records the table stands on."""
        return sum(len(row.records) for row in self.rows)

    @property
    def seeds(self) -> str:
        """How many seeds the arms stand on, in words."""
        counts = sorted({row.seeds for row in self.rows})
        told = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        return f"{told} of the protocol's {self.plan.seeds}" if counts != [self.plan.seeds] else told

    @property
    def featured(self) -> bool:
        """Whether every arm takes the features of a frozen network in the place of images."""
        return all(row.config.data.features for row in self.rows)

    @property
    def any_published(self) -> bool:
        """Whether a value was published for any arm of the protocol."""
        return any(line.published for chart in self.forest for line in chart.lines)

    @property
    def from_memory(self) -> bool:
        """Whether a published value was not read in a source of its own."""
        return any(value.mark == "memory" for row in self.rows for value in row.published)

    @cached_property
    def config(self) -> str:
        """The protocol as TOML, with what each arm has that plain has not."""
        plain = as_dict(self.plan.plain)
        arms = {name: _other(as_dict(arm), plain) for name, arm in self.plan.arms.items()}
        return to_toml({"run": {k: v for k, v in plain.items() if k != "seed"}, "arms": arms})

    @cached_property
    def environment(self) -> Mapping[str, tuple[str, ...]]:
        """Versions and machines of all records, each with all values that it had."""
        found: dict[str, list[str]] = {}
        for record in (record for row in self.rows for record in row.records.values()):
            for key, value in record.environment.items():
                found.setdefault(key, []).append(value)
        return {key: tuple(dict.fromkeys(values)) for key, values in found.items()}


def _other(values: Mapping[str, object], base: Mapping[str, object]) -> dict[str, object]:
    """What differs from the base, table by table."""
    found: dict[str, object] = {}
    for key, value in values.items():
        under = base.get(key)
        if value == under:
            continue
        deeper = isinstance(value, Mapping) and isinstance(under, Mapping)
        found[key] = _other(value, under) if deeper else value  # type: ignore[arg-type]
    return found


def _capital(column: str) -> str:
    """A column's title as a heading."""
    title = column_title(column)
    return title[:1].upper() + title[1:]


def _signed(value: float, digits: int = 1) -> str:
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _figure(found: SeedSummary | None, column: str) -> str:
    """A column's mean as a cell: a multiple of chance, or per cent."""
    if found is None:
        return ""
    if column in _MULTIPLES:
        return f"{found.mean:.2f}\N{MULTIPLICATION SIGN}"
    return _signed(found.mean) if column.endswith(GAIN) else column_text(column, found.mean, 1)


def _interval(found: SeedSummary | None, column: str = "", *, digits: int = 1, sign: bool = False) -> str:
    digits = 2 if column in _MULTIPLES else digits
    between = "" if found is None else between_ends(found, digits=digits, sign=sign)
    return between and f"[{between.replace(' to ', ', ')}]"


def render_table(page: TablePage) -> str:
    """The whole page as one HTML text; everything the caller wrote is escaped."""
    signed = set() if page.views is None else set(page.views.explainers.values())
    bars = {sign: data_uri(color_bar_png(signed=sign)) for sign in sorted(signed)}
    templates = environment(
        given=published_text,
        column=_capital,
        told=column_told,
        figure=_figure,
        ends=_interval,
        signed=_signed,
        percent=percent,
    )
    return templates.get_template("table.html").render(page=page, bars=bars, marks=MARKS, assessed=_TOLD)


def write_table(page: TablePage, path: str | Path) -> Path:
    """Render the page into a file that appears whole or not at all.

    Raises:
        ValueError: No row has a record.
        NotWritten: The file cannot be written; an older one is left as it was.
    """
    if not page.rows:
        raise ValueError(f"no record of a run of {page.plan.name}, so there is no page to write")
    path = Path(path)
    write_whole(path, render_table(page).encode())
    return path
