"""A published table, run again: every arm over several seeds, with the controls that make a number mean something."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from rightreasons.core import CorruptData
from rightreasons.experiments.config import RunConfig, as_dict, parse_run
from rightreasons.experiments.record import Record
from rightreasons.experiments.run import RECORD, Resources, resolved, train
from rightreasons.experiments.study import bound_arm, control_arms, plain_arm
from rightreasons.metrics import SeedSummary, mean_sd_interval

PLAIN, BOUND = "plain", "clean bound"
MARKS = {"read": "", "derived": "derived from the authors' logs", "memory": "from memory of the paper: do not cite"}


@dataclass(frozen=True)
class PublishedValue:
    """What others published for an arm, in per cent.

    Attributes:
        arm: Which.
        value: Mean test accuracy.
        sd: Over seeds; ``None`` where none is published.
        source: Where it stands.
        mark: A key of :data:`MARKS`: how sure it is.
    """

    arm: str
    value: float
    source: str
    sd: float | None = None
    mark: str = "read"

    def __post_init__(self) -> None:
        if self.mark not in MARKS:
            raise ValueError(f"expected mark to be one of {', '.join(MARKS)}, got {self.mark!r}")


@dataclass(frozen=True)
class TablePlan:
    """A protocol, its arms and what others published under it.

    Attributes:
        name: Under which it is asked for: the protocol's id.
        title: What a reader sees first.
        description: The protocol in some sentences.
        source: Who published it.
        plain: The protocol without an explanation loss.
        arms: Its explanation losses by the arm's name.
        published: Values of others.
        seeds: How many the protocol asks for.
    """

    name: str
    title: str
    description: str
    source: str
    plain: RunConfig
    arms: Mapping[str, RunConfig]
    published: tuple[PublishedValue, ...] = ()
    seeds: int = 5

    def runs(self, seed: int, *, controls: bool) -> dict[str, RunConfig]:
        """All runs of a seed by the name of their row: plain, the clean bound, the arms, and the arms' controls."""
        plain = replace(self.plain, seed=seed)
        bound = bound_arm(plain)
        found = {PLAIN: plain} | ({BOUND: bound} if bound else {})
        for name, arm in self.arms.items():
            found[name] = replace(arm, seed=seed)
            if controls:
                kinds = control_arms(found[name])
                found |= {f"{name}, {kind}": config for kind, config in kinds.items()}
        return found


def tables() -> tuple[str, ...]:
    """Names of the tables that there are."""
    folder = files("rightreasons.experiments").joinpath("tables")
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")))


def read_table(name: str) -> TablePlan:
    """A table of ours by name, or the user's own from a TOML file.

    Raises:
        ValueError: There is no such table, or the file is none.
    """
    if name.endswith(".toml"):
        if not Path(name).is_file():
            raise ValueError(f"no file {name}")
        text = Path(name).read_text(encoding="utf-8")
    elif name in tables():
        text = files("rightreasons.experiments").joinpath("tables", f"{name}.toml").read_text(encoding="utf-8")
    else:
        raise ValueError(f"no table {name!r}. There are: {', '.join(tables())}; or name a .toml file")
    try:
        return _plan(Path(name).stem, tomllib.loads(text))
    except (tomllib.TOMLDecodeError, TypeError, KeyError) as error:
        raise ValueError(f"{name} is no table: {error}") from error


def _plan(name: str, values: dict[str, Any]) -> TablePlan:
    base = values.pop("run")
    if "terms" in base:
        raise ValueError(f"expected the terms of {name} in its arms, got them in run")
    arms = {arm: parse_run({**base, **given}) for arm, given in values.pop("arms").items()}
    taken = [arm for arm in arms if arm in (PLAIN, BOUND)]
    if taken:
        raise ValueError(f"expected another name than {taken[0]!r} for an arm")
    published = tuple(PublishedValue(**row) for row in values.pop("published", []))
    unknown = [row.arm for row in published if row.arm not in (PLAIN, BOUND, *arms)]
    if unknown:
        raise ValueError(f"{name} has a published value for {unknown[0]!r}, which is no arm of it")
    return TablePlan(name=name, plain=plain_arm(parse_run(base)), arms=arms, published=published, **values)


class Records:
    """The records in folders, found by the configuration they are of.

    Args:
        folders: Where to look; the first is written into.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.home = folders[0]
        self._held: dict[str, Record] = {}
        for folder in folders:
            for path in sorted(folder.rglob("*.json")) if folder.is_dir() else ():
                record = _run_record(path)
                if record is not None:
                    self._held.setdefault(_identity(resolved(record)), record)

    def of(self, config: RunConfig) -> Record | None:
        """The record of that very run, if there is one."""
        return self._held.get(_identity(as_dict(config)))

    def add(self, record: Record, name: str) -> None:
        """Write a record at once."""
        record.write(self.home / f"{name}.json")
        self._held[_identity(resolved(record))] = record


def _run_record(path: Path) -> Record | None:
    try:
        record = Record.read(path)
    except CorruptData:
        # Other JSON may lie beside records; a damaged record is no reason to trust the rest less.
        if path.name == RECORD:
            raise
        return None
    return record if record.kind == "train" else None


def _identity(config: Mapping[str, Any]) -> str:
    """Same text for the same run; where seeds of decoys follow the run's, they are told apart by it."""
    return json.dumps(config, sort_keys=True)


@dataclass(frozen=True)
class TableRow:
    """One arm over its seeds.

    Attributes:
        name: Of the arm.
        accuracy: Test accuracy in per cent.
        worst_class: Of the worst class.
        lead: Over plain, by seed.
        seconds: A run took in the mean.
        cost: Seconds as a multiple of plain's, on the same machine; ``None`` where plain has none.
        seeds: The row stands on so many.
        published: What others published.
    """

    name: str
    accuracy: SeedSummary
    worst_class: SeedSummary
    lead: SeedSummary | None
    seconds: float
    cost: float | None
    seeds: int
    published: tuple[PublishedValue, ...] = ()


def run_table(
    plan: TablePlan,
    records: Records,
    *,
    seeds: int | None = None,
    controls: bool = True,
    only: Sequence[str] = (),
    out: Path = Path("runs"),
    resources: Resources = Resources(),
) -> Iterable[str]:
    """Train what no record holds yet, seed by seed so that every row stands on as many; yields what it begins.

    A run is written down as soon as it ends; a killed one goes on from its last epoch.

    Args:
        plan: The table.
        records: What has been run.
        seeds: How many; ``None`` takes the protocol's number.
        controls: Run the arms' controls too.
        only: Rows to run; all where none is named.
        out: Folder of the runs' weights and checkpoints.
        resources: Where to run.

    Raises:
        ValueError: There is no row of that name.
    """
    for seed in range(plan.seeds if seeds is None else seeds):
        runs = plan.runs(seed, controls=controls)
        unknown = [name for name in only if name not in runs]
        if unknown:
            raise ValueError(f"no row {unknown[0]!r} in {plan.name}. There are: {', '.join(runs)}")
        for name, config in runs.items():
            if (only and name not in only) or records.of(config) is not None:
                continue
            yield f"{plan.name}, seed {seed}, {name}"
            place = f"{plan.name}/seed-{seed}/{name.replace(', ', '-').replace(' ', '-').lower()}"
            records.add(train(config, out / place, resources).record, place)


def table_rows(plan: TablePlan, records: Records, *, seeds: int | None = None) -> tuple[TableRow, ...]:
    """What the records say; rows without a run are left out."""
    count = plan.seeds if seeds is None else seeds
    found: dict[str, dict[int, Record]] = {}
    for seed in range(count):
        for name, config in plan.runs(seed, controls=True).items():
            record = records.of(config)
            if record is not None:
                found.setdefault(name, {})[seed] = record
    plain = found.get(PLAIN, {})
    order = [name for name in plan.runs(0, controls=True) if name in found]
    return tuple(_row(name, found[name], plain, plan) for name in order)


def _row(name: str, own: Mapping[int, Record], plain: Mapping[int, Record], plan: TablePlan) -> TableRow:
    paired = [100 * (_test(r, "accuracy") - _test(plain[seed], "accuracy")) for seed, r in own.items() if seed in plain]
    seconds = sum(r.seconds for r in own.values()) / len(own)
    base = [plain[seed].seconds for seed in own if seed in plain]
    return TableRow(
        name=name,
        accuracy=mean_sd_interval([100 * _test(r, "accuracy") for r in own.values()]),
        worst_class=mean_sd_interval([100 * _test(r, "worst_class") for r in own.values()]),
        lead=mean_sd_interval(paired) if paired and name != PLAIN else None,
        seconds=seconds,
        cost=seconds / (sum(base) / len(base)) if base else None,
        seeds=len(own),
        published=tuple(value for value in plan.published if value.arm == name),
    )


def _test(record: Record, metric: str) -> float:
    return float(record.results["test"][metric])


def table_record(plan: TablePlan, rows: Sequence[TableRow]) -> dict[str, Any]:
    """The table as plain values, for a file."""
    return {
        "table": plan.name,
        "title": plan.title,
        "source": plan.source,
        "rows": [dataclasses.asdict(row) for row in rows],
    }
