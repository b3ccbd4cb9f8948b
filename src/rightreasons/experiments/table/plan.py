"""What a table is: a protocol, its arms, what is varied, and what others published."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rightreasons.experiments.config import RunConfig, as_dict
from rightreasons.experiments.override import has_key, with_value
from rightreasons.experiments.select import Chosen, Select
from rightreasons.experiments.study import CONTROLS, bound_arm, control_arms
from rightreasons.experiments.table.columns import DEFAULT_COLUMNS, check_columns

PLAIN, BOUND = "plain", "clean bound"
MARKS = {"read": "", "derived": "derived from the authors' logs", "memory": "from memory of the paper: do not cite"}
CONTROLLED = ("last", "all", "none")


@dataclass(frozen=True)
class PublishedValue:
    """What others published for a row.

    Attributes:
        arm: Which row.
        value: Mean over their seeds, in the unit of the column: per cent, where it is a share.
        sd: Over seeds; ``None`` where none is published.
        source: Where it stands.
        mark: A key of :data:`MARKS`: how sure it is.
        column: Of which column; test accuracy unless said.
    """

    arm: str
    value: float
    source: str
    sd: float | None = None
    mark: str = "read"
    column: str = "accuracy"

    def __post_init__(self) -> None:
        if self.mark not in MARKS:
            raise ValueError(f"expected mark to be one of {', '.join(MARKS)}, got {self.mark!r}")
        check_columns([self.column])


@dataclass(frozen=True)
class Vary:
    """One value of the protocol varied around the base, everything else as it is.

    Attributes:
        key: Which, such as ``data.annotated`` or ``terms.*.settings.alpha``.
        values: What it takes.
        label: Ends the row's name, behind the value's.
        names: Of the values; as they are written unless given.
        arms: Which arms; every arm that has the key unless given. ``plain`` and ``clean bound`` only if named.
        controls: Controls for the ``last`` value, for ``all`` or for ``none``.
    """

    key: str
    values: tuple[Any, ...]
    label: str = ""
    names: tuple[str, ...] = ()
    arms: tuple[str, ...] = ()
    controls: str = "last"

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError(f"expected values for {self.key}, got none")
        if not self.names:
            object.__setattr__(self, "names", tuple(str(value) for value in self.values))
        if len(self.names) != len(self.values):
            raise ValueError(f"expected a name for each value of {self.key}, got {len(self.names)}")
        if self.controls not in CONTROLLED:
            raise ValueError(f"expected controls of {', '.join(CONTROLLED)}, got {self.controls!r}")

    def row(self, arm: str, position: int) -> str:
        """The name of an arm's row at a value."""
        return f"{arm}, {self.names[position]}{' ' * bool(self.label)}{self.label}"


@dataclass(frozen=True)
class Variation:
    """Where in a :class:`Vary` a row stands: the block's number in the table and the value's in the block."""

    block: int
    position: int


@dataclass(frozen=True)
class Entry:
    """A row to run.

    Attributes:
        name: Of the row.
        arm: Whose it is: an arm's name, ``plain`` or ``clean bound``.
        config: What is run, but for the seed.
        control: Which control of the arm; empty for the arm itself.
        variation: What is varied in it, if anything.
    """

    name: str
    arm: str
    config: RunConfig
    control: str = ""
    variation: Variation | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Same for the same run of the same arm."""
        return self.arm, identity(as_dict(self.config))


@dataclass(frozen=True)
class TablePlan:
    """A protocol, its arms and what others published under it.

    Attributes:
        name: Under which it is asked for: the protocol's id.
        title: What a reader sees first.
        description: The protocol in some sentences.
        source: Who published it.
        plain: The protocol without an explanation loss.
        arms: What is compared with it, by name.
        published: Values of others.
        seeds: How many the protocol asks for.
        columns: What the table shows beside the lead over plain.
        vary: What is varied around the base.
        uncontrolled: Arms without controls of their own.
        selections: How a value of an arm is chosen, by the arm's name.
        chosen: What was chosen.
    """

    name: str
    title: str
    description: str
    source: str
    plain: RunConfig
    arms: Mapping[str, RunConfig]
    published: tuple[PublishedValue, ...] = ()
    seeds: int = 5
    columns: tuple[str, ...] = DEFAULT_COLUMNS
    vary: tuple[Vary, ...] = ()
    uncontrolled: frozenset[str] = frozenset()
    selections: Mapping[str, Select] = field(default_factory=dict)
    chosen: Mapping[str, Chosen] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_columns(self.columns)
        if self.seeds < 1:
            raise ValueError(f"expected at least one seed, got {self.seeds}")

    @property
    def base(self) -> dict[str, RunConfig]:
        """Plain, the clean bound where there is a decoy, and the arms."""
        bound = bound_arm(self.plain)
        return {PLAIN: self.plain} | ({BOUND: bound} if bound else {}) | dict(self.arms)

    def runs(self, seed: int, *, controls: bool) -> dict[str, RunConfig]:
        """All runs of a seed by the name of their row: plain, the clean bound, the arms, and the arms' controls."""
        return {entry.name: replace(entry.config, seed=seed) for entry in self.entries(controls=controls)}

    def entries(self, *, controls: bool = True) -> tuple[Entry, ...]:
        """The rows in order: the base with its controls, then what is varied where it is no run of the arm's own base.

        Raises:
            ValueError: A value is varied that an arm does not have or take.
        """
        found: dict[tuple[str, str], Entry] = {}
        for row in self.all_rows():
            found.setdefault(row.key, row)
        return tuple(row for row in found.values() if controls or not row.control)

    def all_rows(self) -> tuple[Entry, ...]:
        """The base with its controls, then everything that is varied, be it a run of the base or not."""
        rows = [row for name, config in self.base.items() for row in self._with_controls(Entry(name, name, config))]
        return (*rows, *(row for block in range(len(self.vary)) for row in self._varied(block)))

    @property
    def aliases(self) -> dict[str, str]:
        """Rows that are the same run as an earlier one of their arm, under whose name they stand."""
        names = {entry.key: entry.name for entry in self.entries()}
        return {row.name: names[row.key] for row in self.all_rows() if names[row.key] != row.name}

    def _with_controls(self, entry: Entry, *, wanted: bool = True) -> list[Entry]:
        """The row and, where it has a mask that could be wrong, its controls."""
        config = entry.config
        is_control = config.data.masks in CONTROLS.values()
        if is_control or not (wanted and config.uses_masks and entry.arm not in self.uncontrolled):
            return [entry]
        kinds = control_arms(config)
        return [entry] + [
            replace(entry, name=f"{entry.name}, {kind}", config=made, control=kind) for kind, made in kinds.items()
        ]

    def _varied(self, block: int) -> list[Entry]:
        vary, base = self.vary[block], self.base
        rows = []
        for arm in vary.arms or [name for name in self.arms if has_key(self.arms[name], vary.key)]:
            if arm not in base:
                raise ValueError(f"{self.name} varies {vary.key} of {arm!r}, which is no arm of it")
            for position, value in enumerate(vary.values):
                wanted = vary.controls == "all" or (vary.controls == "last" and position == len(vary.values) - 1)
                config = with_value(base[arm], vary.key, value)
                entry = Entry(vary.row(arm, position), arm, config, variation=Variation(block, position))
                rows += self._with_controls(entry, wanted=wanted)
        if not rows:
            raise ValueError(f"{self.name} varies {vary.key}, which no arm has")
        return rows


def identity(values: Mapping[str, Any]) -> str:
    """Same text for the same run; where seeds of decoys follow the run's, they are told apart by it."""
    return json.dumps(values, sort_keys=True)


def slug(name: str) -> str:
    """A row's name as that of a file."""
    return re.sub(r"[\s,/\\:*?\"<>|{}'%]+", "-", name.lower()).strip("-")
