"""How well the model classifies: accuracy, macro F1, and the worst class or group.

Each figure is a ``Statistic`` (so that the bootstrap reads it too) and a plain function of predicted and true classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from rightreasons.metrics.statistics import Interval, Mean, Statistic, clopper_pearson


@dataclass(frozen=True)
class Accuracy(Mean):
    """Share of right predictions."""

    takes: ClassVar[tuple[str, ...]] = ("prediction", "target")

    def terms(self, *arrays: Tensor) -> Float[Tensor, "images terms"]:
        """Right or not, and a one."""
        prediction, target = arrays
        return super().terms(prediction == target)


@dataclass(frozen=True)
class MacroF1(Statistic):
    """Mean over the classes of F1 = 2 hits / (predicted + true).

    A class that is neither predicted nor true among the images has no F1 and is left out of the mean; one that is
    only predicted, or only true, counts 0 (as in scikit-learn).

    Attributes:
        classes: Number of classes.
    """

    takes: ClassVar[tuple[str, ...]] = ("prediction", "target")
    classes: int

    def __post_init__(self) -> None:
        _check_number("classes", self.classes)

    def terms(self, *arrays: Tensor) -> Float[Tensor, "images terms"]:
        """One-hot hits, predicted and true classes."""
        prediction, target = (_one_hot(labels, self.classes) for labels in arrays)
        return torch.cat((prediction * target, prediction, target), dim=1)

    def value(self, sums: Float[Tensor, "resamples terms"]) -> Float[Tensor, " resamples"]:
        """Mean of the F1 that exist."""
        hits, predicted, true = sums.chunk(3, dim=1)
        return (2 * hits / (predicted + true)).nanmean(dim=1)


class _Lowest(Statistic):
    """The lowest of several accuracies; one without an image is left out. ``terms`` are one-hot hits and members.

    Resamples of a minimum lie below it, and their percentiles miss the truth. The interval is exact instead: bounds
    that hold for all accuracies at once (Clopper-Pearson, each at confidence^(1/k) for k accuracies, after Sidak) hold
    for the lowest, from the lowest of the lower to the lowest of the upper bounds. It covers at least as often as it
    says. It takes the number of images of each accuracy as given.

    Source: Clopper and Pearson 1934; Sidak 1967.
    """

    def value(self, sums: Float[Tensor, "resamples terms"]) -> Float[Tensor, " resamples"]:
        """The lowest of the accuracies that exist."""
        return _lowest(_shares(sums))

    def interval(self, terms: Float[Tensor, "images terms"], *, confidence: float) -> Interval:
        """The lowest of the bounds that hold for all accuracies at once."""
        hits, sizes = terms.double().sum(dim=0).chunk(2)
        hits, sizes = hits[sizes > 0], sizes[sizes > 0]
        low, high = clopper_pearson(hits, sizes, confidence=confidence ** (1 / len(sizes)))
        return Interval(float(low.min()), float(high.min()))

    def difference_interval(
        self, before: Float[Tensor, "images terms"], after: Float[Tensor, "images terms"], *, confidence: float
    ) -> Interval:
        """What two intervals allow that miss half as often each (Bonferroni): valid, and wider than a paired one."""
        first, second = (self.interval(terms, confidence=(1 + confidence) / 2) for terms in (before, after))
        return Interval(second.low - first.high, second.high - first.low)


@dataclass(frozen=True)
class WorstClass(_Lowest):
    """Lowest accuracy of a class; a class without an image is left out.

    Its interval is not the bootstrap's but an exact one, conservative above all for the difference of two models.

    Attributes:
        classes: Number of classes.
    """

    takes: ClassVar[tuple[str, ...]] = ("prediction", "target")
    classes: int

    def __post_init__(self) -> None:
        _check_number("classes", self.classes)

    def terms(self, *arrays: Tensor) -> Float[Tensor, "images terms"]:
        """One-hot hits and true classes."""
        prediction, target = arrays
        return _grouped(_right(prediction, target), target, self.classes)


@dataclass(frozen=True)
class WorstGroup(_Lowest):
    """Lowest accuracy of a group; a group without an image is left out.

    Its interval is not the bootstrap's but an exact one, conservative above all for the difference of two models.

    Attributes:
        groups: Number of groups.
    """

    takes: ClassVar[tuple[str, ...]] = ("prediction", "target", "group")
    groups: int

    def __post_init__(self) -> None:
        _check_number("groups", self.groups)

    def terms(self, *arrays: Tensor) -> Float[Tensor, "images terms"]:
        """One-hot hits and groups."""
        prediction, target, group = arrays
        return _grouped(_right(prediction, target), group, self.groups)


@dataclass(frozen=True, slots=True)
class Classification:
    """The usual figures of a classifier over a data set.

    Attributes:
        accuracy: Share of right predictions.
        macro_f1: Mean F1 over the classes.
        per_class: Accuracy of each class; NaN for a class without an image.
        worst_class: Lowest accuracy of a class.
        worst_group: Lowest accuracy of a group; ``None`` where the images have no groups.
        count: Number of images.
    """

    accuracy: float
    macro_f1: float
    per_class: tuple[float, ...]
    worst_class: float
    worst_group: float | None
    count: int

    @property
    def worst(self) -> int:
        """Number of the class with the lowest accuracy, the first of several."""
        known = [number for number, accuracy in enumerate(self.per_class) if not math.isnan(accuracy)]
        return min(known, key=lambda number: self.per_class[number])


def classification_report(
    prediction: Int[Tensor, " images"],
    target: Int[Tensor, " images"],
    *,
    classes: int | None = None,
    group: Int[Tensor, " images"] | None = None,
) -> Classification:
    """All figures at once.

    Args:
        prediction: Predicted classes.
        target: True classes.
        classes: Number of classes; ``None`` takes the highest class that occurs.
        group: Group of each image.

    Raises:
        ValueError: Not one entry an image, or a class out of range.
    """
    return Classification(
        accuracy=accuracy(prediction, target),
        macro_f1=macro_f1(prediction, target, classes=classes),
        per_class=tuple(per_class_accuracy(prediction, target, classes=classes).tolist()),
        worst_class=worst_class_accuracy(prediction, target, classes=classes),
        worst_group=None if group is None else worst_group_accuracy(prediction, target, group),
        count=len(target),
    )


def accuracy(prediction: Int[Tensor, " images"], target: Int[Tensor, " images"]) -> float:
    """Share of right predictions; NaN without an image."""
    return Accuracy()(prediction, target)


def macro_f1(
    prediction: Int[Tensor, " images"], target: Int[Tensor, " images"], *, classes: int | None = None
) -> float:
    """Mean F1 over the classes that are predicted or true at least once (see ``MacroF1``)."""
    return MacroF1(_number(classes, prediction, target))(prediction, target)


def per_class_accuracy(
    prediction: Int[Tensor, " images"], target: Int[Tensor, " images"], *, classes: int | None = None
) -> Float[Tensor, " classes"]:
    """Accuracy (recall) of each class; NaN for a class without an image."""
    statistic = WorstClass(_number(classes, prediction, target))
    return _shares(statistic.rows((prediction, target)).double().sum(dim=0, keepdim=True))[0]


def worst_class_accuracy(
    prediction: Int[Tensor, " images"], target: Int[Tensor, " images"], *, classes: int | None = None
) -> float:
    """Lowest accuracy of a class that has images."""
    return WorstClass(_number(classes, prediction, target))(prediction, target)


def worst_group_accuracy(
    prediction: Int[Tensor, " images"], target: Int[Tensor, " images"], group: Int[Tensor, " images"]
) -> float:
    """Lowest accuracy of a group that has images."""
    return WorstGroup(_number(None, group))(prediction, target, group)


def average_group_accuracy(
    prediction: Int[Tensor, " images"], target: Int[Tensor, " images"], group: Int[Tensor, " images"]
) -> float:
    """Mean over the groups that have images of their accuracies: every group counts alike, however large."""
    return float(per_group_accuracy(prediction, target, group).nanmean())


def per_group_accuracy(
    prediction: Int[Tensor, " images"], target: Int[Tensor, " images"], group: Int[Tensor, " images"]
) -> Float[Tensor, " groups"]:
    """Accuracy of each group; NaN for a group without an image."""
    statistic = WorstGroup(_number(None, group))
    return _shares(statistic.rows((prediction, target, group)).double().sum(dim=0, keepdim=True))[0]


def _check_number(name: str, number: int) -> None:
    if number < 1:
        raise ValueError(f"expected at least 1 {name}, got {number}")


def _number(given: int | None, *labels: Tensor) -> int:
    """The number of classes that was given, else as many as the highest class that occurs asks for."""
    if given is not None:
        return given
    return max((int(each.max()) + 1 for each in labels if len(each)), default=1)


def _one_hot(labels: Tensor, number: int) -> Float[Tensor, "images classes"]:
    """Single precision: sums of ones stay exact up to 16 million images."""
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"expected class numbers, got {labels.dtype}")
    outside = labels[(labels < 0) | (labels >= number)]
    if len(outside):
        raise ValueError(f"label out of range: expected 0 to {number - 1}, got {int(outside[0])}")
    return F.one_hot(labels.long(), number).float()


def _right(prediction: Tensor, target: Tensor) -> Float[Tensor, "images 1"]:
    return (prediction == target).float()[:, None]


def _grouped(right: Tensor, group: Tensor, number: int) -> Float[Tensor, "images terms"]:
    member = _one_hot(group, number)
    return torch.cat((right * member, member), dim=1)


def _shares(sums: Tensor) -> Float[Tensor, "resamples groups"]:
    right, size = sums.chunk(2, dim=1)
    return right / size


def _lowest(shares: Tensor) -> Float[Tensor, " resamples"]:
    lowest = torch.where(torch.isnan(shares), torch.inf, shares).amin(dim=1)
    return torch.where(torch.isinf(lowest), math.nan, lowest)
