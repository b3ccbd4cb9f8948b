"""The columns that a table may have, and where a record holds them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from rightreasons.core import UnknownName
from rightreasons.metrics import SeedSummary

COUNTED = 10_000
"""Published values from here on are counts."""
PER_CENT = 100.0
GAIN = "_gain"
"""Ends the name of a column that is the relative gain of another over plain, in per cent."""


@dataclass(frozen=True)
class Column:
    """A figure of a run.

    Attributes:
        title: What a reader sees.
        part: Of the record's results.
        key: In that part.
        told: What it is, for a caption.
        scale: What it is multiplied by: ``PER_CENT`` for a share.
        digits: Behind the point, where it is not what shares are printed with.
    """

    title: str
    part: str
    key: str
    told: str
    scale: float = PER_CENT
    digits: int | None = None

    def of(self, results: Mapping[str, Any]) -> float:
        """The figure; NaN where an older record has none, or where it is not defined."""
        value = results.get(self.part, {}).get(self.key)
        return math.nan if value is None else self.scale * float(value)


def _assessed(title: str, key: str, told: str, scale: float = PER_CENT) -> Column:
    return Column(title, "assessment", key, told, scale)


def _loss(title: str, part: str, images: str) -> Column:
    return Column(title, part, "loss", f"mean cross-entropy on the {images}", 1.0, 4)


COLUMNS: Mapping[str, Column] = MappingProxyType(
    {
        "accuracy": Column("accuracy", "test", "accuracy", "test accuracy in per cent"),
        "worst_class": Column("worst class", "test", "worst_class", "test accuracy of the worst class in per cent"),
        "macro_f1": Column("macro F1", "test", "macro_f1", "macro F1 on the test in per cent"),
        "average_group": Column(
            "average group", "test", "average_group", "test accuracy, the mean over groups, in per cent"
        ),
        "loss": _loss("loss", "test", "test images"),
        "validation_accuracy": Column(
            "validation accuracy", "validation", "accuracy", "accuracy on the held out images in per cent"
        ),
        "validation_loss": _loss("validation loss", "validation", "held out images"),
        "train_accuracy": Column(
            "train accuracy", "train", "accuracy", "accuracy in per cent on at most 10,000 training images"
        ),
        "train_loss": _loss("train loss", "train", "training images, at most 10,000 of them"),
        "parameters": Column("parameters", "cost", "parameters", "weights, those of a frozen network too", 1.0, 0),
        "trainable": Column("trainable", "cost", "trainable", "weights that training changes", 1.0, 0),
        "seconds": Column(
            "seconds",
            "cost",
            "seconds",
            "wall seconds of the training alone, without the pass of a frozen network",
            1.0,
            1,
        ),
        "seconds_to_99": Column(
            "seconds to 99 %",
            "cost",
            "seconds_to_99",
            "wall seconds of training steps, on the threads that the record tells, until 99 % of the held out images "
            "were right, after whole epochs, of the seeds that got there",
            1.0,
            0,
        ),
        "worst_group": Column("worst group", "test", "worst_group", "test accuracy of the worst group in per cent"),
        "swap": _assessed("swap", "swap", "share of test predictions that another class's decoy changes, in per cent"),
        "saliency": _assessed("saliency", "saliency", "saliency in the irrelevant mask, as a multiple of chance", 1.0),
        "unseen": _assessed(
            "unseen", "unseen", "the same of an explainer that no arm was trained through, a multiple of chance", 1.0
        ),
        "probe": _assessed("probe", "probe", "accuracy of a linear probe for the decoy's class, in per cent"),
        "iou": _assessed("IoU", "iou", "intersection over union of Grad-CAM and the true mask, in per cent"),
        "precision": _assessed("precision", "precision", "share of Grad-CAM in the true mask, in per cent"),
        "recall": _assessed("recall", "recall", "share of the true mask in Grad-CAM, in per cent"),
        "f1": _assessed("F1", "f1", "F1 of Grad-CAM and the true mask, in per cent"),
    }
)
DEFAULT_COLUMNS = ("accuracy", "worst_class", "swap")


def check_columns(names: Sequence[str]) -> None:
    """Refuse a column that does not exist.

    Raises:
        ValueError: The message lists those that do.
    """
    for name in names:
        if name.removesuffix(GAIN) not in COLUMNS:
            raise UnknownName(
                f"no column {name!r}. There are: {', '.join(COLUMNS)}; or one of them with {GAIN}, "
                "its relative gain over plain"
            )


def column_title(name: str) -> str:
    """What a reader sees above it."""
    title = COLUMNS[name.removesuffix(GAIN)].title
    return f"{title} gain" if name.endswith(GAIN) else title


def column_told(name: str) -> str:
    """What it is, in words."""
    told = COLUMNS[name.removesuffix(GAIN)].told
    return f"relative gain over plain in per cent: {told}" if name.endswith(GAIN) else told


def column_text(name: str, value: float, digits: int) -> str:
    """A figure as it is printed: with the column's own digits, or else with these."""
    own = None if name.endswith(GAIN) else COLUMNS[name].digits
    return f"{value:.{digits}f}" if own is None else f"{value:,.{own}f}"


def published_text(value: float) -> str:
    """What others published, with the digits that it was given with; counts with commas."""
    return f"{value:,.0f}" if abs(value) >= COUNTED else f"{value:g}"


def within_range(name: str, found: SeedSummary) -> SeedSummary:
    """The summary of a column with the ends of its t interval cut at 0 and 100 where it is a share in per cent."""
    if name.endswith(GAIN) or COLUMNS[name].scale != PER_CENT or math.isnan(found.low):
        return found
    return replace(found, low=max(found.low, 0.0), high=min(found.high, PER_CENT))


def value_of(name: str, results: Mapping[str, Any], plain: Mapping[str, Any] | None) -> float:
    """The figure of a run, or its gain over the plain run of the same seed; NaN where there is none."""
    column = COLUMNS[name.removesuffix(GAIN)]
    own = column.of(results)
    if not name.endswith(GAIN):
        return own
    base = math.nan if plain is None else column.of(plain)
    return 100 * (own / base - 1) if base else math.nan
