"""What an index says on the whole, and which of its images are worth seeing; read once, line by line."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from rightreasons.data.dataset import stream

Line = Mapping[str, Any]
SHOWN = 60


@dataclass
class Mean:
    """The mean of the values that are defined."""

    total: float = 0.0
    count: int = 0

    def add(self, value: float | None) -> None:
        """Take a value in."""
        if value is not None:
            self.total += value
            self.count += 1

    @property
    def value(self) -> float | None:
        """The mean; ``None`` of nothing."""
        return self.total / self.count if self.count else None


@dataclass
class OfMethod:
    """What an index says of a method's maps.

    Attributes:
        irrelevant: Mean share inside the irrelevant mask.
        relevant: Mean share inside the relevant one.
        undefined: Number of maps that are not finite.
        empty: Number of maps that are zero everywhere.
    """

    irrelevant: Mean = field(default_factory=Mean)
    relevant: Mean = field(default_factory=Mean)
    undefined: int = 0
    empty: int = 0


@dataclass(frozen=True, eq=False)
class Summary:
    """An index in short.

    Attributes:
        images: How many.
        right: How many predictions are right.
        classes: By name, how many images of it there are and how many of them are told right.
        methods: By method.
        shown: By the reason why they are worth seeing, lines of the index.
    """

    images: int
    right: int
    classes: Mapping[str, tuple[int, int]]
    methods: Mapping[str, OfMethod]
    shown: Mapping[str, Sequence[Line]]


class Best:
    """The lines with the largest keys, the first ones among equals."""

    def __init__(self, size: int, key: Callable[[Line], float | None]) -> None:
        self.size, self.key = size, key
        self._heap: list[tuple[float, int, Line]] = []

    def add(self, line: Line) -> None:
        """Keep the line if it is among the best."""
        key = self.key(line)
        if key is None or self.size == 0:
            return
        item = (key, -line["position"], line)
        if len(self._heap) < self.size:
            heapq.heappush(self._heap, item)
        elif item[:2] > self._heap[0][:2]:
            heapq.heapreplace(self._heap, item)

    @property
    def lines(self) -> list[Line]:
        """The best one first."""
        return [line for _, _, line in sorted(self._heap, key=lambda item: item[:2], reverse=True)]


def summarize(lines: Iterable[Line], methods: Sequence[str], *, images: int, shown: int = SHOWN) -> Summary:
    """Read an index once.

    Args:
        lines: Of the index.
        methods: Whose maps it tells of.
        images: How many lines there are, for the draw.
        shown: How many images are chosen to be seen: some at random, and the ends of what was measured.
    """
    part = max(1, shown // 5)
    picked = set(torch.randperm(images, generator=stream(0, "gallery"))[: max(1, shown - 3 * part)].tolist())
    best = {
        "most confident": Best(part, lambda line: line["confidence"]),
        "least confident": Best(part, lambda line: None if line["confidence"] is None else -line["confidence"]),
        "most on irrelevant pixels": Best(part, _worst_share),
    }
    drawn: list[Line] = []
    right, told = 0, {name: OfMethod() for name in methods}
    classes: dict[str, tuple[int, int]] = {}
    for row, line in enumerate(lines):
        correct = line["label"] == line["prediction"]
        right += correct
        seen, known = classes.get(line["label"], (0, 0))
        classes[line["label"]] = (seen + 1, known + correct)
        for name, of in told.items():
            _count(of, line["methods"][name])
        for chosen in best.values():
            chosen.add(line)
        if row in picked:
            drawn.append(line)
    chosen_lines = {"drawn at random": drawn, **{reason: chosen.lines for reason, chosen in best.items()}}
    return Summary(images, right, classes, told, chosen_lines)


def _worst_share(line: Line) -> float | None:
    shares = [numbers["irrelevant"] for numbers in line["methods"].values() if numbers["irrelevant"] is not None]
    return max(shares, default=None)


def _count(of: OfMethod, numbers: Mapping[str, float | None]) -> None:
    of.irrelevant.add(numbers["irrelevant"])
    of.relevant.add(numbers["relevant"])
    of.undefined += numbers["max_abs"] is None or numbers["sum"] is None
    of.empty += numbers["max_abs"] == 0
