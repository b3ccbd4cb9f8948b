"""The records of a table's runs, found by what they are of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rightreasons.core import CorruptData
from rightreasons.experiments.config import RunConfig, as_dict, parse_run
from rightreasons.experiments.record import OtherFile, Record
from rightreasons.experiments.run import resolved
from rightreasons.experiments.select import KIND
from rightreasons.experiments.table.plan import identity

if TYPE_CHECKING:
    from rightreasons.experiments.table.rows import TableRow

TRAIN, DIVERGED = "train", "diverged"
ORIGIN = {"rightreasons": "versions of rightreasons", "commit": "commits", "torch": "versions of torch"}
"""What of a record's environment numbers may depend on, beside the device, in words."""


@dataclass(frozen=True)
class Unread:
    """A record that cannot be read, or a JSON file that is nothing at all.

    Attributes:
        path: Of the file.
        reason: Why.
    """

    path: Path
    reason: str


class Records:
    """The records in folders, found by the configuration they are of.

    Args:
        folders: Where to look; the first is written into, and the first that holds a run counts. One that was assessed
            counts before one of the same run that was not.

    Attributes:
        home: The folder that is written into.
        unread: Records that cannot be read, such as one that was cut off; the runs they may be of count as not done.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.home = folders[0]
        self.unread: list[Unread] = []
        self._held: dict[str, dict[str, Record]] = {TRAIN: {}, KIND: {}, DIVERGED: {}}
        for folder in folders:
            for path in sorted(folder.rglob("*.json")) if folder.is_dir() else ():
                if not path.is_dir():
                    self._take(path)

    def of(self, config: RunConfig) -> Record | None:
        """The record of that very run, if there is one."""
        return self._held[TRAIN].get(identity(as_dict(config)))

    def diverged(self, config: RunConfig) -> Record | None:
        """The record of that very run's divergence, if it has diverged and not been run to its end since."""
        key = identity(as_dict(config))
        return None if key in self._held[TRAIN] else self._held[DIVERGED].get(key)

    def search(self, config: Mapping[str, Any]) -> Record | None:
        """The record of that very candidate of a choice, if there is one; see ``Select.described``."""
        return self._held[KIND].get(identity(config))

    def add(self, record: Record, name: str) -> None:
        """Write a record at once."""
        path = record.write(self.home / f"{name}.json")
        self.unread = [file for file in self.unread if file.path != path]
        self._held[record.kind][_key(record)] = record

    def _take(self, path: Path) -> None:
        try:
            record = Record.read(path)
            if record.kind not in self._held:
                return
            _check(record)
            key = _key(record)
        except OtherFile:
            return
        except (CorruptData, OSError, RecursionError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error).removeprefix(f"{path} is ")
            self.unread.append(Unread(path, reason or type(error).__name__))
            return
        held = self._held[record.kind]
        if key not in held or (assessed(record) and not assessed(held[key])):
            held[key] = record


def assessed(record: Record) -> bool:
    """Whether the record of a run holds what was measured beside its accuracy."""
    return "assessment" in record.results


def mixed(rows: Sequence[TableRow]) -> tuple[str, ...]:
    """A sentence for each thing in which the records of the rows differ: version, commit, kind of device."""
    records = [record for row in rows for record in row.records.values()]
    found = {told: [str(record.environment.get(key, "unknown")) for record in records] for key, told in ORIGIN.items()}
    # cuda:0 and cuda:1 are the same kind.
    found["devices"] = [str(record.environment.get("device", "unknown")).partition(":")[0] for record in records]
    return tuple(
        f"the records are of {len(set(values))} {told}: "
        + ", ".join(f"{value} ({count})" for value, count in Counter(values).most_common())
        for told, values in found.items()
        if len(set(values)) > 1
    )


def _check(record: Record) -> None:
    """Refuse the record of a run or candidate without its results.

    Raises:
        CorruptData: Something that every record of the kind has is missing.
    """
    test = record.results.get("test")
    scored = isinstance(test, Mapping) and {"accuracy", "worst_class"} <= set(test)
    if record.kind == TRAIN and not scored:
        raise CorruptData("the record of a run without its test results")
    if record.kind == KIND and "score" not in record.results:
        raise CorruptData("the record of a candidate without its score")
    if not (isinstance(record.environment, Mapping) and isinstance(record.history, list)):
        raise CorruptData("a record without its environment or history")


def _key(record: Record) -> str:
    """Of the run, or of the candidate, whose keys are others; what has a default by now is filled in.

    Raises:
        CorruptData: It holds no configuration.
    """
    if record.kind != KIND:
        return identity(resolved(record))
    run = record.config.get("run")
    try:
        return identity({**record.config, "run": as_dict(parse_run(run if isinstance(run, Mapping) else {"run": run}))})
    except ValueError as error:
        raise CorruptData(f"the record holds no configuration of a run: {error}") from error
