"""A table of counterfactual methods: each asked about the same test images, one record a cell."""

from __future__ import annotations

import csv
import inspect
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from rightreasons.core import CorruptData
from rightreasons.counterfactuals import COUNTERFACTUALS
from rightreasons.experiments.config import DataConfig, ModelConfig, RunConfig, TrainingConfig, as_dict
from rightreasons.experiments.counterfactual.measuring import Bench, Sizes, bench, figures
from rightreasons.experiments.record import Record, environment, key_of, make_record
from rightreasons.experiments.run import Resources, accelerator_for, make_folder

KIND = "counterfactual-method"
KINDS = ("runner-up", "random")
Role = Literal["model", "oracle"]
ROLES: tuple[Role, ...] = get_args(Role)
NETWORK, ORACLE = ModelConfig("baseline_cnn"), ModelConfig("lenet")
TRAINING = TrainingConfig(epochs=5, batch_size=128, lr=2e-3, schedule="cosine")
COLUMNS = {
    "validity": "valid",
    "oracle": "oracle",
    "l2": "L2",
    "im1": "IM1",
    "im2": "IM2",
    "l1": "L1",
    "linf": "Linf",
    "l0": "L0",
    "tv": "TV",
    "queries": "queries",
    "gradients": "gradients",
}
"""What is measured of each image, with its title."""

FURTHER_COLUMNS = {"cout": "COUT", "sharpness": "sharpness", "overshoot": "overshoot", "neighbor_ratio": "neighbor"}
"""What lies on the way to the valid ones, and how near they are to real images."""

SHAPE_COLUMNS = {
    "area_change": "area",
    "length_change": "length",
    "thickness_change": "thickness",
    "width_change": "width",
    "height_change": "height",
    "slant_change": "slant (degrees)",
    "relative_slant_change": "slant (share)",
}
"""By how much the stroke of the valid ones changed, where the images are strokes."""

Estimates: TypeAlias = Mapping[str, Mapping[str, float | None]]


@dataclass(frozen=True)
class MethodsProtocol:
    """Which methods are asked about which images, and what judges them.

    Attributes:
        data: Names of data sets.
        methods: Names of methods, all with their defaults.
        first: Position of the first test image that is asked about.
        images: How many are, one after the other, right or wrong.
        real: So many test images from the beginning are the real ones beside which IM1 and IM2 are read.
        model: The network asked.
        oracle: The independent one.
        training: Of both.
        steps: Of training at least, of each network that a method or a measure needs.
        neighbors: Training images of a class at most, among which the nearest is looked for.
    """

    data: tuple[str, ...] = ("mnist", "fashion_mnist")
    methods: tuple[str, ...] = tuple(COUNTERFACTUALS)
    first: int = 5200
    images: int = 500
    real: int = 2000
    model: ModelConfig = NETWORK
    oracle: ModelConfig = ORACLE
    training: TrainingConfig = TRAINING
    steps: int = 500
    neighbors: int = 2000

    def cells(self, seeds: int, only: Sequence[str] = ()) -> tuple[Cell, ...]:
        """All of the table, or those of the data sets, methods and target kinds in ``only``.

        Raises:
            ValueError: A name that is none of these.
        """
        parts = (self.data, self.methods, KINDS)
        if unknown := [name for name in only if not any(name in part for part in parts)]:
            raise ValueError(f"no row {unknown[0]!r}. There are: {', '.join(name for part in parts for name in part)}")
        data, methods, kinds = ([n for n in part if n in only] or list(part) for part in parts)
        rows = product(data, range(seeds), methods, kinds)
        return tuple(Cell(name, method, kind, seed, self) for name, seed, method, kind in rows)

    @property
    def sizes(self) -> Sizes:
        """How much is measured."""
        return Sizes(self.first, self.images, self.real, self.steps, self.neighbors)

    def run(self, data: str, role: Role, seed: int) -> RunConfig:
        """How one of the two networks is trained; the oracle's seed is another one."""
        model, own = (self.model, seed) if role == "model" else (self.oracle, seed + 1000)
        return RunConfig(seed=own, data=DataConfig(name=data, seed=seed), model=model, training=self.training)


@dataclass(frozen=True)
class Cell:
    """One method on one data set with one kind of target and one seed: what one record is of."""

    data: str
    method: str
    kind: str
    seed: int
    protocol: MethodsProtocol = field(repr=False)

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.data}-{self.method}-{self.kind}-{self.seed}"

    def config(self) -> dict[str, Any]:
        """All that decides its numbers."""
        protocol = self.protocol
        networks = {n: as_dict(protocol.run(self.data, n, self.seed)) for n in ROLES}
        known = inspect.signature(COUNTERFACTUALS[self.method]).parameters
        plain = {n: p.default for n, p in known.items() if p.default is not p.empty}
        own = {"data": self.data, "method": self.method, "target": self.kind, "seed": self.seed}
        return own | {"settings": {n: repr(v) for n, v in plain.items()}} | asdict(protocol.sizes) | networks


class MethodRecords:
    """The records of the cells in folders; the first folder is written into."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.home = folders[0]
        self.unread: list[str] = []
        self._held: dict[str, Record] = {}
        for folder in reversed(folders):
            for path in sorted(folder.rglob("*.json")) if folder.is_dir() else ():
                self._take(path)

    def of(self, cell: Cell) -> Record | None:
        """The record of that very cell, with all its settings."""
        return self._held.get(key_of(KIND, cell.config()))

    def add(self, cell: Cell, record: Record) -> None:
        """Write it at once."""
        record.write(self.home / f"{cell.name}.json")
        self._held[record.key] = record

    def _take(self, path: Path) -> None:
        try:
            record = Record.read(path)
        except CorruptData as error:
            self.unread.append(str(error))
            return
        if record.kind == KIND:
            self._held[record.key] = record


def run_methods(cells: Sequence[Cell], held: MethodRecords, out: Path, resources: Resources) -> Iterator[str]:
    """Measure what no record holds; each record is written at once. Yields what begins.

    Args:
        cells: What is wanted.
        held: What there is.
        out: Folder of the trained networks, which are kept.
        resources: Where it runs.
    """
    missing = [cell for cell in cells if held.of(cell) is None]
    if missing:
        make_folder(held.home)
    opened: Bench | None = None
    for number, cell in enumerate(missing, start=1):
        if opened is None or (opened.data, opened.seed) != (cell.data, cell.seed):
            yield f"{cell.data}, seed {cell.seed}: the networks are trained, or taken from {out}"
            opened = _bench(cell, out, resources)
        yield f"{number} of {len(missing)}: {cell.name}"
        begun = time.perf_counter()
        found = figures(opened, cell.method, cell.kind)
        results = {name: value if isinstance(value, float) else asdict(value) for name, value in found.items()}
        told = environment(str(accelerator_for(resources.device).device))
        seconds = time.perf_counter() - begun
        held.add(cell, make_record(KIND, cell.config(), results, environment=told, seconds=seconds))


def _bench(cell: Cell, out: Path, resources: Resources) -> Bench:
    """What the cells of its data set and seed have in common."""
    protocol = cell.protocol
    runs: dict[str, RunConfig] = {role: protocol.run(cell.data, role, cell.seed) for role in ROLES}
    return bench(cell.data, cell.seed, runs, out, resources, sizes=protocol.sizes)


@dataclass(frozen=True)
class MethodRow:
    """A line of the table."""

    cell: Cell
    results: Mapping[str, Any]


def method_rows(cells: Sequence[Cell], held: MethodRecords) -> tuple[MethodRow, ...]:
    """Those cells that have a record."""
    found = ((cell, held.of(cell)) for cell in cells)
    return tuple(MethodRow(cell, record.results) for cell, record in found if record is not None)


def write_methods_csv(rows: Sequence[MethodRow], path: Path) -> None:
    """A line a row: each measure with its interval, and the anchors; empty where the images are no strokes."""
    ends = ("value", "low", "high", "count")
    anchors = ("im1_real", "im1_original", "im2_real", "im2_original")
    measured = [*COLUMNS, *FURTHER_COLUMNS, *SHAPE_COLUMNS, *anchors]
    header = ["data", "method", "target", "seed", "milliseconds", "cpu_milliseconds"]
    header += [name if end == "value" else f"{name}_{end}" for name in measured for end in ends]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(header)
        for row in rows:
            cell, told = row.cell, row.results
            start = [cell.data, cell.method, cell.kind, cell.seed, told["milliseconds"], told["cpu_milliseconds"]]
            lines.writerow([*start, *(told.get(name, {}).get(end) for name in measured for end in ends)])
