"""A table from its TOML file; whatever could only fail after hours is refused here."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from rightreasons.experiments.config import RunConfig, parse_run, section
from rightreasons.experiments.override import merged
from rightreasons.experiments.select import Select
from rightreasons.experiments.study import plain_arm
from rightreasons.experiments.table.check import check
from rightreasons.experiments.table.columns import DEFAULT_COLUMNS
from rightreasons.experiments.table.plan import BOUND, PLAIN, PublishedValue, TablePlan, Vary


@dataclass(frozen=True)
class TableFile:
    """What a table's file holds; see :class:`TablePlan`.

    Attributes:
        title: What a reader sees first.
        description: The protocol in some sentences.
        source: Who published it.
        run: The protocol without an explanation loss.
        arms: What each arm changes, by its name.
        published: Values of others.
        vary: What is varied around the base.
        columns: What the table shows.
        seeds: How many the protocol asks for.
    """

    title: str
    description: str
    source: str
    run: Mapping[str, Any]
    arms: Mapping[str, Any]
    published: tuple[Any, ...] = ()
    vary: tuple[Any, ...] = ()
    columns: tuple[str, ...] = DEFAULT_COLUMNS
    seeds: int = 5


def tables() -> tuple[str, ...]:
    """Names of the tables that there are."""
    folder = files("rightreasons.experiments").joinpath("tables")
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")))


def read_table(name: str) -> TablePlan:
    """A table of ours by name, or the user's own from a TOML file.

    Raises:
        ValueError: There is no such table, or its file has a mistake: the message names it and what there is instead.
    """
    if name.endswith(".toml"):
        if not Path(name).is_file():
            raise ValueError(f"no file {name}")
        file: Traversable = Path(name)
    elif name in tables():
        file = files("rightreasons.experiments").joinpath("tables", f"{name}.toml")
    else:
        raise ValueError(f"no table {name!r}. There are: {', '.join(tables())}; or name a .toml file")
    try:
        return _plan(Path(name).stem, tomllib.loads(file.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"{name} is no table: {error}") from error


def _plan(name: str, values: Mapping[str, Any]) -> TablePlan:
    base = values.get("run")
    if isinstance(base, Mapping) and "terms" in base:
        raise ValueError("expected the terms in the arms, got them in run")
    file = section(TableFile, values, "table")
    arms = {arm: _arm(arm, own, file.run) for arm, own in file.arms.items()}
    plan = TablePlan(
        name=name,
        title=file.title,
        description=file.description,
        source=file.source,
        plain=plain_arm(parse_run(file.run)),
        arms={arm: made.config for arm, made in arms.items()},
        published=tuple(section(PublishedValue, row, _place("published", n)) for n, row in enumerate(file.published)),
        seeds=file.seeds,
        columns=file.columns,
        vary=tuple(section(Vary, row, _place("vary", n)) for n, row in enumerate(file.vary)),
        uncontrolled=frozenset(arm for arm, made in arms.items() if not made.controls),
        selections={arm: made.select for arm, made in arms.items() if made.select is not None},
    )
    check(plan)
    return plan


@dataclass(frozen=True)
class _Arm:
    config: RunConfig
    controls: bool
    select: Select | None


def _arm(name: str, own: Any, base: Mapping[str, Any]) -> _Arm:
    if name in (PLAIN, BOUND):
        raise ValueError(f"expected another name than {name!r} for an arm")
    if not isinstance(own, Mapping):
        raise ValueError(f"expected a table for arms.{name}, got {own!r}")
    changes = dict(own)
    controls, select = changes.pop("controls", True), changes.pop("select", None)
    if not isinstance(controls, bool):
        raise ValueError(f"expected true or false for controls of {name!r}, got {controls!r}")
    try:
        config = parse_run(merged(base, changes))
    except ValueError as error:
        raise ValueError(f"arm {name!r}: {error}") from error
    return _Arm(config, controls, None if select is None else section(Select, select, f"arms.{name}.select"))


def _place(key: str, number: int) -> str:
    return f"{key} (number {number + 1})"
