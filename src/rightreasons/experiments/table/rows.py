"""What the records say: a row an arm, each figure over its seeds."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rightreasons.experiments.config import RunConfig, as_dict
from rightreasons.experiments.override import has_key, with_value
from rightreasons.experiments.record import Record
from rightreasons.experiments.select import Chosen, chosen
from rightreasons.experiments.table.columns import COLUMNS, value_of, within_range
from rightreasons.experiments.table.plan import MARKS, PLAIN, Entry, PublishedValue, TablePlan, Variation
from rightreasons.experiments.table.records import Records
from rightreasons.metrics import SeedSummary, mean_sd_interval
from rightreasons.models.checkpoints import write_whole

PARTS = ("mean", "sd", "low", "high")
NOTHING = SeedSummary(math.nan, math.nan, math.nan, math.nan, 0)


@dataclass(frozen=True)
class TableRow:
    """One arm over its seeds.

    Attributes:
        name: Of the row.
        accuracy: Test accuracy in per cent.
        worst_class: Of the worst class.
        lead: Over plain, by seed.
        seconds: A run took in the mean.
        cost: CPU seconds of the steps (wall seconds of records that do not tell them) as a multiple of plain's, on the
            same machine; ``None`` where plain has none.
        seeds: The row stands on so many.
        diverged: So many more diverged, and are in none of its figures.
        worst: Which class is the worst one with most of its seeds, in words; empty where they do not agree or tell.
        published: What others published.
        columns: Every column that the records hold, and those of the table; intervals of shares end at 0 and 100.
        records: By seed.
        arm: Whose row it is.
        control: Which control of the arm; empty for the arm itself.
        variation: What is varied in it, if anything.
        config: What was run, but for the seed.
        chosen: How a value of the arm was chosen, if one was.
    """

    name: str
    accuracy: SeedSummary
    worst_class: SeedSummary
    lead: SeedSummary | None
    seconds: float
    cost: float | None
    seeds: int
    published: tuple[PublishedValue, ...] = ()
    columns: Mapping[str, SeedSummary] = field(default_factory=dict)
    records: Mapping[int, Record] = field(default_factory=dict)
    arm: str = ""
    control: str = ""
    variation: Variation | None = None
    config: RunConfig = field(default_factory=RunConfig)
    chosen: Chosen | None = None
    diverged: int = 0
    worst: str = ""

    @property
    def choice(self) -> str:
        """How a value of the arm was chosen, in words, and whether that says anything; empty without a choice."""
        if self.chosen is None:
            return ""
        classes = next((record.results.get("classes", ()) for record in self.records.values()), ())
        return self.chosen.told + (self.chosen.doubt(len(classes)) if classes else "")


def settled(plan: TablePlan, records: Records) -> TablePlan:
    """The plan with what was chosen in place; an arm whose choice is not made yet is left out.

    What is published or varied for a left out arm goes with it.
    """
    found = {arm: chosen(plan.arms[arm], select, records.search) for arm, select in plan.selections.items()}
    made = {arm: choice for arm, choice in found.items() if choice is not None}
    arms = {
        name: with_value(config, made[name].select.key, made[name].value) if name in made else config
        for name, config in plan.arms.items()
        if name not in found or name in made
    }
    return _without({arm for arm in found if arm not in made}, replace(plan, arms=arms, chosen=made))


def _without(gone: set[str], plan: TablePlan) -> TablePlan:
    """The plan with these arms' variations left out, too."""
    vary = []
    for block in plan.vary:
        arms = tuple(arm for arm in block.arms if arm not in gone)
        if arms or (not block.arms and any(has_key(config, block.key) for config in plan.arms.values())):
            vary.append(replace(block, arms=arms))
    return replace(plan, vary=tuple(vary))


def table_rows(plan: TablePlan, records: Records, *, seeds: int | None = None) -> tuple[TableRow, ...]:
    """What the records say; rows without a run are left out. One whose every run diverged has NaN in its figures."""
    plan = settled(plan, records)
    count = range(plan.seeds if seeds is None else seeds)
    entries = plan.entries()
    found: dict[str, dict[int, Record]] = {}
    lost: dict[str, int] = {}
    for entry in entries:
        runs = {seed: replace(entry.config, seed=seed) for seed in count}
        held = {seed: records.of(config) for seed, config in runs.items()}
        found[entry.name] = {seed: record for seed, record in held.items() if record is not None}
        lost[entry.name] = sum(held[seed] is None and bool(records.diverged(runs[seed])) for seed in count)
    rows = (
        replace(_row(entry, found[entry.name], _beside(entry, entries, found), plan), diverged=lost[entry.name])
        for entry in entries
        if found[entry.name] or lost[entry.name]
    )
    return tuple(rows)


def _beside(entry: Entry, entries: Sequence[Entry], found: Mapping[str, Mapping[int, Record]]) -> Mapping[int, Record]:
    """The plain runs that a row is compared with: plain under the same variation, where the table has it."""
    names = [e.name for e in entries if e.arm == PLAIN and e.variation == entry.variation and found[e.name]]
    return found[names[0] if names else PLAIN]


def _cost(paired_runs: Sequence[tuple[Record, Record]]) -> float | None:
    """Time of the runs over that of the plain ones: CPU time of their steps where both hold it.

    Wall time where no pair does. ``None`` where a run and its plain one were on different devices, whose times do not
    compare.
    """
    if any(own.environment.get("device") != base.environment.get("device") for own, base in paired_runs):
        return None
    for time_of in (_cpu_seconds, lambda record: record.seconds):
        pairs = [(time_of(own), time_of(base)) for own, base in paired_runs]
        own, base = (sum(pair[place] for pair in pairs if min(pair) > 0) for place in (0, 1))
        if own > 0 and base > 0:
            return own / base
    return None


def _cpu_seconds(record: Record) -> float:
    """Of all epochs; NaN where an epoch does not tell."""
    return sum(line.get("cpu_seconds", math.nan) for line in record.history)


def _row(entry: Entry, own: Mapping[int, Record], plain: Mapping[int, Record], plan: TablePlan) -> TableRow:
    seconds = sum(r.seconds for r in own.values()) / len(own) if own else math.nan
    paired_runs = [(record, plain[seed]) for seed, record in own.items() if seed in plain]
    columns = _columns(own, plain, plan)
    names = {alias for alias, name in plan.aliases.items() if name == entry.name} | {entry.name}
    return TableRow(
        name=entry.name,
        accuracy=columns.get("accuracy", NOTHING),
        worst_class=columns.get("worst_class", NOTHING),
        lead=None if entry.name == PLAIN else paired(own, plain),
        seconds=seconds,
        cost=_cost(paired_runs),
        seeds=len(own),
        published=tuple(value for value in plan.published if value.arm in names),
        columns=columns,
        records=own,
        arm=entry.arm,
        control=entry.control,
        variation=entry.variation,
        config=entry.config,
        chosen=plan.chosen.get(entry.arm),
        worst=_worst(own),
    )


def _worst(own: Mapping[int, Record]) -> str:
    """The class that is the worst one with more than half of the runs, and with how many if not with all."""
    named = Counter(record.results.get("test", {}).get("worst_class_name") for record in own.values())
    ((name, count),) = named.most_common(1) or [(None, 0)]
    if name is None or 2 * count <= len(own):
        return ""
    return name if count == len(own) else f"{name} ({count} of {len(own)} seeds)"


def _columns(own: Mapping[int, Record], plain: Mapping[int, Record], plan: TablePlan) -> dict[str, SeedSummary]:
    """Each column over the seeds that have it; one that none has is left out."""
    found = {}
    for name in dict.fromkeys((*COLUMNS, *plan.columns, *(row.column for row in plan.published))):
        values = [value_of(name, figures(r), figures(plain[s]) if s in plain else None) for s, r in own.items()]
        defined = [value for value in values if not math.isnan(value)]
        if defined:
            found[name] = within_range(name, mean_sd_interval(defined))
    return found


def paired(own: Mapping[int, Record], other: Mapping[int, Record], column: str = "accuracy") -> SeedSummary | None:
    """The difference of two rows in a column, paired by seed; ``None`` without a common seed."""
    pairs = [
        (value_of(column, figures(r), None), value_of(column, figures(other[s]), None))
        for s, r in own.items()
        if s in other
    ]
    found = [a - b for a, b in pairs if not math.isnan(a - b)]
    return mean_sd_interval(found) if found else None


def figures(record: Record) -> dict[str, Any]:
    """The results of a run, and among its costs the seconds that it took, which are no result."""
    told = {"seconds": record.seconds, "seconds_to_99": _seconds_to(0.99, record.history)}
    return {**record.results, "cost": {**record.results.get("cost", {}), **told}}


def _seconds_to(accuracy: float, history: Sequence[Mapping[str, float]]) -> float:
    """Of training, until the held out images first reached an accuracy; NaN where they never did."""
    seconds = 0.0
    for epoch in history:
        seconds += epoch.get("seconds", math.nan)
        if epoch.get("validation_accuracy", -math.inf) >= accuracy:
            return seconds
    return math.nan


def last_of(records: Mapping[int, Record], key: str) -> float:
    """The mean over seeds of what the last line of the history says; NaN where none does."""
    found = [float(r.history[-1][key]) for r in records.values() if r.history and r.history[-1].get(key) is not None]
    return sum(found) / len(found) if found else math.nan


def table_record(plan: TablePlan, rows: Sequence[TableRow]) -> dict[str, Any]:
    """The table as plain values, for a file."""
    return {
        "table": plan.name,
        "title": plan.title,
        "source": plan.source,
        "columns": list(plan.columns),
        "rows": [_plain(row) for row in rows],
    }


def _plain(row: TableRow) -> dict[str, Any]:
    """A row without its records, which lie in files of their own; NaN, which JSON lacks, is null."""
    kept = {f.name: getattr(row, f.name) for f in dataclasses.fields(row) if f.name not in ("records", "config")}
    values = {name: _value(value) for name, value in kept.items()}
    return {**values, "chosen": row.choice or None, "config": as_dict(row.config)}


def _value(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _value(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {key: _value(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_value(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def write_json(plan: TablePlan, rows: Sequence[TableRow], path: Path) -> None:
    """All that the table knows, as one JSON file.

    Raises:
        NotWritten: A full disk, for example.
    """
    text = json.dumps(table_record(plan, rows), indent=1, allow_nan=False) + "\n"
    write_whole(path, text.encode())


def write_csv(plan: TablePlan, rows: Sequence[TableRow], path: Path) -> None:
    """A line a row: mean, sd and interval of the table's columns, the lead, cost, seeds and the published value.

    Raises:
        NotWritten: A full disk, for example.
    """
    names = tuple(dict.fromkeys(("accuracy", *plan.columns)))
    header = [f"{name}_{part}" for name in (*names, "lead") for part in PARTS]
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["row", "arm", "control", "seeds", "diverged", *header, "seconds", "cost", "published"])
    writer.writerows(_line(row, names) for row in rows)
    write_whole(path, file.getvalue().encode())


def _line(row: TableRow, names: Sequence[str]) -> list[str]:
    summaries = [*(row.columns.get(name) for name in names), row.lead]
    cells = ["" if s is None else _cell(getattr(s, part)) for s in summaries for part in PARTS]
    cost = "" if row.cost is None else _cell(row.cost)
    told = "; ".join(map(_cited, row.published))
    return [row.name, row.arm, row.control, str(row.seeds), str(row.diverged), *cells, _cell(row.seconds), cost, told]


def _cited(value: PublishedValue) -> str:
    how_sure = MARKS[value.mark]
    return f"{value.column} {value.value:.10g} ({value.source}{', ' * bool(how_sure)}{how_sure})"


def _cell(value: float) -> str:
    # Counts whole: six digits are too few for the weights of a network.
    return "" if math.isnan(value) else f"{value:.0f}" if abs(value) >= 1e6 else f"{value:.6g}"
