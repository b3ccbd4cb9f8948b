"""The columns that a table may have, and where a record holds them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from rightreasons.core import UnknownName

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
        scale: What it is multiplied by: 100 for a share in per cent.
    """

    title: str
    part: str
    key: str
    told: str
    scale: float = 100.0

    def of(self, results: Mapping[str, Any]) -> float:
        """The figure; NaN where an older record has none, or where it is not defined."""
        value = results.get(self.part, {}).get(self.key)
        return math.nan if value is None else self.scale * float(value)


def _assessed(title: str, key: str, told: str, scale: float = 100.0) -> Column:
    return Column(title, "assessment", key, told, scale)


COLUMNS: Mapping[str, Column] = MappingProxyType(
    {
        "accuracy": Column("accuracy", "test", "accuracy", "test accuracy in per cent"),
        "worst_class": Column("worst class", "test", "worst_class", "test accuracy of the worst class in per cent"),
        "macro_f1": Column("macro F1", "test", "macro_f1", "macro F1 on the test in per cent"),
        "average_group": Column(
            "average group", "test", "average_group", "test accuracy, the mean over groups, in per cent"
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


def value_of(name: str, results: Mapping[str, Any], plain: Mapping[str, Any] | None) -> float:
    """The figure of a run, or its gain over the plain run of the same seed; NaN where there is none."""
    column = COLUMNS[name.removesuffix(GAIN)]
    own = column.of(results)
    if not name.endswith(GAIN):
        return own
    base = math.nan if plain is None else column.of(plain)
    return 100 * (own / base - 1) if base else math.nan
