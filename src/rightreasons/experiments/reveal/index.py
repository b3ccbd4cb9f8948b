"""The index of revealed maps: one line an image, as JSON lines and as CSV, and the way back from a line to its maps."""

from __future__ import annotations

import csv
import json
import math
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

from jaxtyping import Float
from torch import Tensor

from rightreasons.core import NotWritten
from rightreasons.experiments.record import Record
from rightreasons.experiments.reveal.sample import REVEALED, SHARDS
from rightreasons.experiments.reveal.shards import Shard, read_shard, restored

LINES, TABLE = "index.jsonl", "index.csv"
FACTS = ("index", "label", "target", "predicted", "probability")
"""Columns of a shard that tell of an image."""
MEASURES = ("sum", "max_abs", "irrelevant", "relevant")
"""Columns of a shard that tell of a map: its sum, its largest absolute value, and how much of it lies in a mask."""


def column(method: str, measure: str) -> str:
    """The name of a shard's column that tells of the maps of a method."""
    return f"{method}.{measure}"


@dataclass(frozen=True, eq=False)
class RevealedMaps:
    """Maps of a whole data set in a folder; nothing but the record is held in memory.

    Attributes:
        out: The folder.
    """

    out: Path

    @cached_property
    def record(self) -> Record:
        """What was asked and what came out."""
        return Record.read(self.out / REVEALED)

    @property
    def titles(self) -> dict[str, str]:
        """The methods' names for a reader, by the name under which their maps are stored."""
        return {key: told["title"] for key, told in self.record.results["methods"].items()}

    @property
    def signed(self) -> dict[str, bool]:
        """Whether a method's values have a sign."""
        return {key: told["signed"] for key, told in self.record.results["methods"].items()}

    @property
    def unfit(self) -> dict[str, str]:
        """Why some methods could not explain the network."""
        return dict(self.record.results["unfit"])

    def lines(self) -> Iterator[dict[str, Any]]:
        """The lines of the index, one after another."""
        with (self.out / LINES).open(encoding="utf-8") as file:
            yield from map(json.loads, file)

    def heatmap(self, line: Mapping[str, Any], method: str) -> Float[Tensor, "1 height width"]:
        """The raw map of an image by a method.

        Raises:
            CorruptData: Its shard is damaged.
        """
        largest = column(method, "max_abs")
        rows = slice(line["row"], line["row"] + 1)
        held = read_shard(self.out / SHARDS / line["shard"], (method, largest), rows)
        return restored(held[method], held[largest])[0]


def write_index(
    out: Path, shards: Sequence[Shard], methods: Sequence[str], *, classes: Sequence[str], name: Callable[[int], str]
) -> None:
    """Bring the lines of all shards together; no map is read.

    Args:
        out: The folder.
        shards: In their order.
        methods: Whose maps they hold.
        classes: Names of the classes.
        name: What an image is called, by its position.
    """
    flat = [column(method, measure) for method in methods for measure in MEASURES]
    head = ["position", "name", "shard", "row", "label", "target", "prediction", "confidence"]
    with opened_whole(out / LINES) as lines, opened_whole(out / TABLE) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([*head, *flat])
        for shard in shards:
            held = {key: values.tolist() for key, values in read_shard(shard.path, [*FACTS, *flat]).items()}
            for row in range(shard.stop - shard.start):
                facts = _facts(held, row, classes)
                facts = {"position": facts.pop("position"), "name": name(held["index"][row]), **facts}
                facts |= {"shard": shard.path.name, "row": row}
                numbers = {key: _number(held[key][row]) for key in flat}
                told = {m: {measure: numbers[column(m, measure)] for measure in MEASURES} for m in methods}
                lines.write(json.dumps({**{k: facts[k] for k in head}, "methods": told}, ensure_ascii=False) + "\n")
                table.writerow(["" if v is None else v for v in (*(facts[k] for k in head), *numbers.values())])


def _facts(held: Mapping[str, list[Any]], row: int, classes: Sequence[str]) -> dict[str, Any]:
    return {
        "position": held["index"][row],
        "label": classes[held["label"][row]],
        "target": classes[held["target"][row]],
        "prediction": classes[held["predicted"][row]],
        "confidence": _number(held["probability"][row]),
    }


def _number(value: float) -> float | None:
    """Six digits, which single precision holds; JSON has no NaN."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


@contextmanager
def opened_whole(path: Path) -> Iterator[TextIO]:
    """A text file to write line by line, which appears whole or not at all.

    Raises:
        NotWritten: A full disk, for example; an older file is untouched.
    """
    beside = path.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        try:
            # A file name that is no UTF-8 becomes an escape that JSON knows.
            with beside.open("x", encoding="utf-8", errors="backslashreplace", newline="") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise NotWritten(f"cannot write {path}: {error.strerror or error}") from error
