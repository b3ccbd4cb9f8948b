"""Intervals: how sure is a figure over images (bootstrap), a difference of two models, a mean over seeds.

A resample of the images is a number of copies an image. Every figure here depends on the images only through sums, so
that all resamples together are one matrix product, copies by terms.

The bootstrap fails for some figures: resamples of a minimum lie too low, and those of scores that are all equal do not
vary. Such a figure has an exact interval of its own, which takes the bootstrap's place.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from scipy.special import betaincinv, stdtrit
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


class Interval(NamedTuple):
    """From ``low`` to ``high``, both included."""

    low: float
    high: float


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

    def interval(self, terms: Float[Tensor, "images terms"], *, confidence: float) -> Interval | None:
        """An interval that takes the place of the bootstrap's; ``None``, as by default, leaves it to the bootstrap.

        Args:
            terms: Of the images that count, two or more.
            confidence: Probability that the interval covers the figure.
        """
        return None

    def difference_interval(
        self, before: Float[Tensor, "images terms"], after: Float[Tensor, "images terms"], *, confidence: float
    ) -> Interval | None:
        """The same for the difference of two models on the same images, after minus before."""
        return None

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
    """The mean of the scores that are defined.

    Scores that are all 0, or all 1, are taken for right or wrong answers and get the Clopper-Pearson interval: the
    bootstrap's would have no width, as if 0 of 1000 showed that there is none.
    """

    takes: ClassVar[tuple[str, ...]] = ("scores",)

    def terms(self, *arrays: Tensor) -> Float[Tensor, "images terms"]:
        """The score and a one."""
        (scores,) = arrays
        return torch.stack((scores.double(), torch.ones(len(scores), dtype=torch.double)), dim=1)

    def value(self, sums: Float[Tensor, "resamples terms"]) -> Float[Tensor, " resamples"]:
        """Sum over number."""
        return sums[:, 0] / sums[:, 1]

    def interval(self, terms: Float[Tensor, "images terms"], *, confidence: float) -> Interval | None:
        """Clopper-Pearson for scores that are all 0 or all 1."""
        scores = terms[:, 0]
        if not _binary(scores) or not _constant(scores):
            return None
        low, high = clopper_pearson(scores.sum()[None], terms[:, 1].sum()[None], confidence=confidence)
        return Interval(float(low), float(high))

    def difference_interval(
        self, before: Float[Tensor, "images terms"], after: Float[Tensor, "images terms"], *, confidence: float
    ) -> Interval | None:
        """For scores of 0 and 1 whose difference d is the same for all images.

        With probability ``confidence`` at most a share u of all images has another d, u being the upper
        Clopper-Pearson bound of 0 among so many. These move the mean by up to 1 each where d is 0, by up to 2 where d
        is 1 or -1.
        """
        gain = after[:, 0] - before[:, 0]
        if not (_binary(before[:, 0]) and _binary(after[:, 0]) and _constant(gain)):
            return None
        _, share = clopper_pearson(gain.new_zeros(1), gain.new_full((1,), len(gain)), confidence=confidence)
        center, others = float(gain[0]), float(share)
        reach = others * (1 + abs(center))
        return Interval(max(-1.0, center - reach), min(1.0, center + reach))


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

    Images are drawn with replacement. Images without a score (NaN) are left out beforehand. A statistic that has an
    interval of its own (``Statistic.interval``) gets that one: the lowest accuracy of a class or group, and a mean of
    scores that are all 0 or all 1.

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
    _check_settings(resamples, confidence)
    terms = statistic.rows(scores)
    terms = terms[_complete(terms)]
    figure = _figure(statistic, terms)
    if len(terms) < 2:
        return _without_interval(figure, len(terms))
    interval = statistic.interval(terms, confidence=confidence)
    if interval is None:
        interval = _percentile(statistic.value(_resampled_sums(terms, resamples, seed)), confidence)
    return Estimate(figure, *interval, len(terms))


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
    image counts where both models have a score. As for ``bootstrap``, an interval of the statistic's own comes first.
    That of a difference of lowest accuracies is conservative: it gains nothing from the pairing.

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
    _check_settings(resamples, confidence)
    first, second = statistic.rows(before), statistic.rows(after)
    if first.shape != second.shape:
        raise ValueError(f"expected scores of the same images twice, got {len(first)} and {len(second)} images")
    keep = _complete(first) & _complete(second)
    first, second = first[keep], second[keep]
    figures = [_figure(statistic, part) for part in (first, second)]
    figures.append(figures[1] - figures[0])
    if len(first) < 2:
        return PairedEstimate(*(_without_interval(figure, len(first)) for figure in figures))
    intervals = _paired_intervals(statistic, first, second, resamples=resamples, confidence=confidence, seed=seed)
    pairs = zip(figures, intervals, strict=True)
    return PairedEstimate(*(Estimate(figure, *interval, len(first)) for figure, interval in pairs))


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


def clopper_pearson(
    hits: Float[Tensor, " groups"], sizes: Float[Tensor, " groups"], *, confidence: float
) -> tuple[Float[Tensor, " groups"], Float[Tensor, " groups"]]:
    """Lower and upper bounds of the probability behind each share of hits, from the binomial distribution.

    Source: Clopper and Pearson 1934.

    Args:
        hits: Number of hits in each group.
        sizes: Number of images in each group, at least 1.
        confidence: Probability, at least, that a group's two bounds hold.
    """
    tail = (1 - confidence) / 2
    hits, misses = hits.double(), (sizes - hits).double()
    # The beta distribution needs both parameters above 0; where one is not, the bound is 0 or 1.
    low = torch.from_numpy(betaincinv(hits.clamp(min=1).numpy(), (misses + 1).numpy(), tail))
    high = torch.from_numpy(betaincinv((hits + 1).numpy(), misses.clamp(min=1).numpy(), 1 - tail))
    return low.masked_fill(hits == 0, 0.0), high.masked_fill(misses == 0, 1.0)


def _paired_intervals(
    statistic: Statistic, before: Tensor, after: Tensor, *, resamples: int, confidence: float, seed: int
) -> list[Interval]:
    """Of before, after and the difference: the statistic's own where it has one, else the bootstrap's."""
    own = [
        statistic.interval(before, confidence=confidence),
        statistic.interval(after, confidence=confidence),
        statistic.difference_interval(before, after, confidence=confidence),
    ]
    exact = [interval for interval in own if interval is not None]
    if len(exact) == len(own):
        return exact
    first, second = (
        statistic.value(part)
        for part in _resampled_sums(torch.cat((before, after), dim=1), resamples, seed).chunk(2, 1)
    )
    drawn = [_percentile(values, confidence) for values in (first, second, second - first)]
    return [interval or other for interval, other in zip(own, drawn, strict=True)]


def _binary(scores: Tensor) -> bool:
    return bool(((scores == 0) | (scores == 1)).all())


def _constant(scores: Tensor) -> bool:
    return bool((scores == scores[0]).all())


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
    parts = [copies.to(terms.dtype) @ terms for copies in _copies(len(terms), resamples, seed)]
    return torch.cat(parts).double()


def _percentile(values: Tensor, confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    return Interval(*torch.quantile(values, values.new_tensor([tail, 1 - tail])).tolist())


def _without_interval(figure: float, count: int) -> Estimate:
    return Estimate(figure, math.nan, math.nan, count)


def _check_settings(resamples: int, confidence: float) -> None:
    if resamples < 1:
        raise ValueError(f"expected at least 1 resample, got {resamples}")
    _check_confidence(confidence)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"expected a confidence between 0 and 1, got {confidence}")
