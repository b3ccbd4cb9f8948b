"""Intervals: how sure is a figure over images (bootstrap), a difference of two models, a mean over seeds.

A resample of the images is a number of copies an image. Every figure here depends on the images only through sums, so
that all resamples together are one matrix product, copies by terms.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from scipy.special import stdtrit
from torch import Tensor

COPIES_AT_ONCE = 4_000_000
"""Entries of the matrix of copies held in memory at a time."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval.

    Attributes:
        value: The figure over all images that count.
        low: Lower end of the interval; NaN for fewer than two images.
        high: Upper end.
        count: How many images count; those without a score do not.
    """

    value: float
    low: float
    high: float
    count: int


class PairedEstimate(NamedTuple):
    """Two models on the same images."""

    before: Estimate
    after: Estimate
    difference: Estimate
    """After minus before."""


@dataclass(frozen=True, slots=True)
class SeedSummary:
    """A figure over several seeds.

    Attributes:
        mean: Mean over the seeds.
        sd: Sample standard deviation (n - 1); NaN for one seed.
        low: Lower end of Student's t interval for the mean; NaN for one seed.
        high: Upper end.
        count: Number of seeds.
    """

    mean: float
    sd: float
    low: float
    high: float
    count: int


class Statistic(ABC):
    """A figure over images that is a function of sums over them.

    Attributes:
        takes: What it reads, one array each, one entry an image.
    """

    takes: ClassVar[tuple[str, ...]]

    @abstractmethod
    def terms(self, *arrays: Tensor) -> Float[Tensor, "images terms"]:
        """What is summed, a row an image; a row with NaN does not count."""

    @abstractmethod
    def value(self, sums: Float[Tensor, "resamples terms"]) -> Float[Tensor, " resamples"]:
        """The figure from the sums, one a resample."""

    def rows(self, arrays: Tensor | Sequence[Tensor]) -> Float[Tensor, "images terms"]:
        """The terms of arrays that have been checked.

        Raises:
            ValueError: Wrong number of arrays, not one entry an image, or an infinite value.
        """
        columns = (arrays,) if isinstance(arrays, Tensor) else tuple(arrays)
        shapes = [tuple(column.shape) for column in columns]
        if len(columns) != len(self.takes) or len(set(shapes)) != 1 or len(shapes[0]) != 1:
            names = ", ".join(self.takes)
            raise ValueError(f"expected {names} with one entry an image, got arrays of shapes {shapes}")
        terms = self.terms(*(column.detach().cpu() for column in columns))
        if torch.isinf(terms).any():
            raise ValueError("expected finite scores or NaN, got infinity")
        return terms

    def __call__(self, *arrays: Tensor) -> float:
        """The figure over these images."""
        terms = self.rows(arrays)
        return _figure(self, terms[_complete(terms)])


@dataclass(frozen=True)
class Mean(Statistic):
    """The mean of the scores that are defined."""

    takes: ClassVar[tuple[str, ...]] = ("scores",)

    def terms(self, *arrays: Tensor) -> Float[Tensor, "images terms"]:
        """The score and a one."""
        (scores,) = arrays
        return torch.stack((scores.double(), torch.ones(len(scores), dtype=torch.double)), dim=1)

    def value(self, sums: Float[Tensor, "resamples terms"]) -> Float[Tensor, " resamples"]:
        """Sum over number."""
        return sums[:, 0] / sums[:, 1]


MEAN = Mean()


def bootstrap(
    scores: Tensor | Sequence[Tensor],
    *,
    statistic: Statistic = MEAN,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """A figure over images with its percentile bootstrap interval.

    Images are drawn with replacement. Images without a score (NaN) are left out beforehand.

    Args:
        scores: One score an image, or the arrays that the statistic takes, such as (prediction, target).
        statistic: The figure.
        resamples: Number of resamples.
        confidence: Probability that the interval covers the figure.
        seed: Of the draw.

    Raises:
        ValueError: The arrays do not fit the statistic, or a setting is out of range.

    Source: Efron and Tibshirani 1993, chapter 13.
    """
    terms = statistic.rows(scores)
    terms = terms[_complete(terms)]
    values = statistic.value(_resampled_sums(terms, resamples, seed))
    return _estimate(_figure(statistic, terms), values, confidence=confidence, count=len(terms))


def paired_bootstrap(
    before: Tensor | Sequence[Tensor],
    after: Tensor | Sequence[Tensor],
    *,
    statistic: Statistic = MEAN,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> PairedEstimate:
    """A figure of two models on the same images, and the difference, after minus before.

    Every resample draws the same images for both, so that what is hard about an image cancels in the difference. An
    image counts where both models have a score.

    Args:
        before: One score an image, or the arrays that the statistic takes.
        after: The same of the other model, in the same order of images.
        statistic: The figure.
        resamples: Number of resamples.
        confidence: Probability that an interval covers its figure.
        seed: Of the draw.

    Raises:
        ValueError: The two do not go together, or as for ``bootstrap``.
    """
    first, second = statistic.rows(before), statistic.rows(after)
    if first.shape != second.shape:
        raise ValueError(f"expected scores of the same images twice, got {len(first)} and {len(second)} images")
    keep = _complete(first) & _complete(second)
    first, second = first[keep], second[keep]
    sums = _resampled_sums(torch.cat((first, second), dim=1), resamples, seed).chunk(2, dim=1)
    values = [statistic.value(part) for part in sums]
    figures = [_figure(statistic, part) for part in (first, second)]
    values.append(values[1] - values[0])
    figures.append(figures[1] - figures[0])
    pairs = zip(figures, values, strict=True)
    return PairedEstimate(*(_estimate(f, v, confidence=confidence, count=len(first)) for f, v in pairs))


def mean_sd_interval(values: Sequence[float], *, confidence: float = 0.95) -> SeedSummary:
    """Mean, sample standard deviation and Student's t interval of a figure over seeds.

    Raises:
        ValueError: No value, or a confidence out of range.
    """
    if len(values) == 0:
        raise ValueError("expected at least one value, got none")
    _check_confidence(confidence)
    data = torch.tensor(values, dtype=torch.double)
    count, mean = len(values), float(data.mean())
    if count == 1:
        return SeedSummary(mean, math.nan, math.nan, math.nan, 1)
    sd = float(data.std())
    half = float(stdtrit(count - 1, 0.5 + confidence / 2)) * sd / math.sqrt(count)
    return SeedSummary(mean, sd, mean - half, mean + half, count)


def _complete(terms: Tensor) -> Tensor:
    return ~torch.isnan(terms).any(dim=1)


def _figure(statistic: Statistic, terms: Tensor) -> float:
    return float(statistic.value(terms.double().sum(dim=0, keepdim=True)))


def _copies(images: int, resamples: int, seed: int) -> Iterator[Tensor]:
    """How often each image is drawn, (resamples, images) in parts that fit in memory."""
    generator = torch.Generator().manual_seed(seed)
    step = max(1, COPIES_AT_ONCE // images)
    for start in range(0, resamples, step):
        part = min(step, resamples - start)
        drawn = torch.randint(images, (part, images), generator=generator)
        drawn += torch.arange(part)[:, None] * images
        yield torch.bincount(drawn.flatten(), minlength=part * images).view(part, images)


def _resampled_sums(terms: Tensor, resamples: int, seed: int) -> Float[Tensor, "resamples terms"]:
    if resamples < 1:
        raise ValueError(f"expected at least 1 resample, got {resamples}")
    if len(terms) == 0:
        return terms.new_zeros((resamples, terms.shape[1]), dtype=torch.double)
    parts = [copies.to(terms.dtype) @ terms for copies in _copies(len(terms), resamples, seed)]
    return torch.cat(parts).double()


def _estimate(figure: float, values: Tensor, *, confidence: float, count: int) -> Estimate:
    _check_confidence(confidence)
    if count < 2:
        return Estimate(figure, math.nan, math.nan, count)
    tail = (1 - confidence) / 2
    low, high = torch.quantile(values, values.new_tensor([tail, 1 - tail])).tolist()
    return Estimate(figure, low, high, count)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"expected a confidence between 0 and 1, got {confidence}")
