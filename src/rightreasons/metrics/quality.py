"""The table of how good explanations are: methods by metrics, with intervals, ranks and every image's score."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from rightreasons.core import CorruptData
from rightreasons.metrics.statistics import Estimate

Verdict = Literal["better", "worse", "unclear", "undefined"]


@dataclass(frozen=True)
class Measure:
    """A column of the table.

    Attributes:
        name: Of the metric.
        higher_is_better: Its direction.
        about: What it measures, in a sentence.
        settings: The metric itself, as it was configured.
    """

    name: str
    higher_is_better: bool
    about: str
    settings: str


@dataclass(frozen=True, eq=False)
class Cell:
    """One method by one metric.

    Attributes:
        estimate: Mean over the images with its bootstrap interval, and the number of images that have a score.
        scores: Of each image; NaN where it is not defined.
        rank: Place among the methods, 1 the best, equal means sharing the better one; ``None`` for a control, or
            without a score.
        lead: Over the random heatmap on the same images, method minus control; ``None`` without a rank.
        behind: Behind the best method on the same images, method minus best; ``None`` without a rank.
        reason: Why the metric has no score of the method at all; empty where it has.
    """

    estimate: Estimate
    scores: Float[Tensor, " images"]
    rank: int | None = None
    lead: Estimate | None = None
    behind: Estimate | None = None
    reason: str = ""

    @property
    def leading(self) -> bool:
        """Whether it is the best method, or the interval of the difference to that one holds zero."""
        if self.rank is None or self.behind is None:
            return False
        return self.rank == 1 or self.behind.low <= 0 <= self.behind.high

    def verdict(self, higher_is_better: bool) -> Verdict:
        """Whether the method is better than the random heatmap: whether the interval of its lead leaves out zero."""
        if self.lead is None or math.isnan(self.lead.low):
            return "undefined"
        if self.lead.low <= 0 <= self.lead.high:
            return "unclear"
        return "better" if (self.lead.value > 0) == higher_is_better else "worse"


@dataclass(frozen=True, eq=False)
class MethodRow:
    """A row of the table.

    Attributes:
        name: Of the method.
        settings: The method itself, as it was configured.
        cells: By the metric's name; empty where the method cannot explain the network.
        seconds: To make the heatmaps of all images.
        control: It knows nothing of the model.
        reason: Why the method cannot explain the network; empty where it can.
        not_finite: Images whose heatmap has NaN or infinity in it; they have no score.
    """

    name: str
    settings: str
    cells: Mapping[str, Cell]
    seconds: float
    control: bool = False
    reason: str = ""
    not_finite: int = 0


@dataclass(frozen=True, eq=False)
class QualityTable:
    """How good the explanations of a model are.

    Attributes:
        data: Name of the images.
        target: Which class was explained.
        index: Positions of the images in the data.
        classes: The class that was explained, of each image.
        measures: The columns.
        rows: The methods, then the controls.
        seed: Of the draw of images, the controls and the intervals.
    """

    data: str
    target: str
    index: tuple[int, ...]
    classes: tuple[int, ...]
    measures: tuple[Measure, ...]
    rows: tuple[MethodRow, ...]
    seed: int = 0

    def __getitem__(self, place: tuple[str, str]) -> Cell:
        """The cell of a method and a metric.

        Raises:
            KeyError: There is no such method or metric, or the method could not explain the network.
        """
        method, metric = place
        return {row.name: row for row in self.rows}[method].cells[metric]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the rows."""
        return tuple(row.name for row in self.rows)

    def to_json(self) -> str:
        """The whole table as JSON, every image's score included; what is not defined is null."""
        return json.dumps(_plain(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> QualityTable:
        """The table from its JSON.

        Raises:
            CorruptData: The text is no such table.
        """
        try:
            return _table(json.loads(text))
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise CorruptData(f"expected a table of quality as JSON, got something else: {error}") from error

    def to_csv(self) -> str:
        """One line a method and metric."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        header = ("method", "control", "metric", "higher_is_better", "mean", "low", "high", "images", "rank")
        writer.writerow((*header, "leading", "verdict", "seconds", "reason", "not_finite"))
        for row in self.rows:
            first = (row.name, row.control)
            if row.reason:
                writer.writerow((*first, *[""] * 9, row.seconds, row.reason, row.not_finite))
            for measure in self.measures if row.cells else ():
                cell = row.cells[measure.name]
                numbers = (cell.estimate.value, cell.estimate.low, cell.estimate.high, cell.estimate.count, cell.rank)
                verdict = cell.verdict(measure.higher_is_better)
                writer.writerow(
                    (
                        *first,
                        measure.name,
                        measure.higher_is_better,
                        *numbers,
                        cell.leading,
                        verdict,
                        row.seconds,
                        cell.reason,
                        row.not_finite,
                    )
                )
        return out.getvalue()


def _plain(value: Any) -> Any:
    """Mappings, lists, numbers and strings only."""
    if isinstance(value, Tensor):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, Estimate):
        return _plain(asdict(value))
    fields = getattr(value, "__dataclass_fields__", None)
    return value if fields is None else {name: _plain(getattr(value, name)) for name in fields}


def _table(found: Mapping[str, Any]) -> QualityTable:
    rows = [
        MethodRow(**{**row, "cells": {name: _cell(cell) for name, cell in row["cells"].items()}})
        for row in found["rows"]
    ]
    return QualityTable(
        data=found["data"],
        target=found["target"],
        index=tuple(found["index"]),
        classes=tuple(found["classes"]),
        measures=tuple(Measure(**measure) for measure in found["measures"]),
        rows=tuple(rows),
        seed=found["seed"],
    )


def _cell(found: Mapping[str, Any]) -> Cell:
    scores = torch.tensor([math.nan if score is None else score for score in found["scores"]])
    lead, behind = (None if found[name] is None else _estimate(found[name]) for name in ("lead", "behind"))
    return Cell(_estimate(found["estimate"]), scores, found["rank"], lead, behind, found.get("reason", ""))


def _estimate(found: Mapping[str, Any]) -> Estimate:
    value, low, high = (math.nan if found[name] is None else found[name] for name in ("value", "low", "high"))
    return Estimate(value, low, high, found["count"])
