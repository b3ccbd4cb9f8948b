"""Linear models of the score, fitted to random coalitions of regions: LIME and KernelSHAP."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rightreasons.attribution.perturbation.masking import generator_of
from rightreasons.attribution.perturbation.regions import RegionPerturbation, Regions, coalition_scores, cut, gathered
from rightreasons.core import Classifier
from rightreasons.core.settings import check_counts


@dataclass(frozen=True)
class LIME(RegionPerturbation):
    """The weights of a ridge regression of the score on which regions are shown, near the whole image.

    Each region is shown with probability 1/2, and the whole image is among the samples. A sample weighs
    exp(-d^2 / (2 width^2)), d being the cosine distance between its regions and all of them. Every pixel has the weight
    of its region. Images of as many regions meet the same samples, so that an image's map does not depend on its batch,
    and one factorization serves them all.

    Source: Ribeiro et al. 2016, arXiv:1602.04938, Eq. 2, with the kernel and the ridge regression of their program,
    which the paper does not write down.

    Args:
        samples: Coalitions, the whole image included.
        kernel_width: Width of the kernel.
        regularization: Weight of the squared coefficients; the intercept is free.
        seed: Of the samples; ``None`` draws fresh ones at each call from torch's global generator.
    """

    differentiable: ClassVar[bool] = True
    signed: ClassVar[bool] = True

    samples: int = 1000
    kernel_width: float = 0.25
    regularization: float = 1.0
    seed: int | None = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(samples=self.samples)
        if self.kernel_width <= 0 or self.regularization <= 0:
            raise ValueError(
                f"expected kernel_width and regularization above 0, got {self.kernel_width} and {self.regularization}"
            )

    def against(
        self, model: Classifier, inputs: Tensor, baseline: Tensor, target: Tensor, *, graph: bool
    ) -> Float[Tensor, "batch 1 height width"]:
        """The coefficient of each pixel's region, (B, 1, H, W)."""
        parts = []
        for regions in cut(inputs, baseline, target, self):
            shown = torch.rand(self.samples, regions.count, generator=generator_of(self.seed)) < 0.5
            shown[0] = True
            values = coalition_scores(model, regions, shown, settings=self, graph=graph)
            solve = ridge(shown, locality(shown, self.kernel_width), self.regularization)
            parts.append((regions, regions.spread(values.T @ solve.to(values).T)))
        return gathered(parts)


@dataclass(frozen=True)
class KernelSHAP(RegionPerturbation):
    """The Shapley value of each region: its share in the change of the score from the baseline to the image.

    A weighted least-squares fit to the scores of coalitions, among values that sum to f(x) - f(baseline). With
    ``samples`` for all 2^n - 2 coalitions of n regions the values are exact; else the smallest and largest coalitions
    are taken in full and others drawn, each with its complement. A pixel has an equal part of its region's value, so
    that the map sums to f(x) - f(baseline). Images of as many regions meet the same coalitions, so that an image's map
    does not depend on its batch, and one factorization serves them all.

    Source: Lundberg & Lee 2017, arXiv:1705.07874, Theorem 2; complements: Covert & Lee 2021, arXiv:2012.01536.

    Args:
        samples: Coalitions, besides none and all; some may be drawn twice and run once.
        seed: Of the coalitions; ``None`` draws fresh ones at each call from torch's global generator.
    """

    differentiable: ClassVar[bool] = True
    signed: ClassVar[bool] = True

    samples: int = 1000
    seed: int | None = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(samples=self.samples)

    def against(
        self, model: Classifier, inputs: Tensor, baseline: Tensor, target: Tensor, *, graph: bool
    ) -> Float[Tensor, "batch 1 height width"]:
        """The Shapley value of each pixel's region over the region's size, (B, 1, H, W)."""
        parts = []
        for regions in cut(inputs, baseline, target, self):
            values = self.values(model, regions, graph=graph)
            parts.append((regions, regions.spread(values / regions.sizes())))
        return gathered(parts)

    def values(self, model: Classifier, regions: Regions, *, graph: bool) -> Float[Tensor, "batch features"]:
        """The Shapley value of each region; they sum to f(x) - f(baseline)."""
        shown, weights = shapley_coalitions(regions.count, self.samples, generator_of(self.seed))
        ends = torch.tensor([[False], [True]]).expand(2, regions.count)
        values = coalition_scores(model, regions, torch.cat([ends, shown]), settings=self, graph=graph)
        none, all_, some = values[0], values[1], values[2:]
        change = all_ - none
        # Regions alike share the change; the fit moves them apart within the plane where the sum is zero.
        size = shown.sum(dim=1, keepdim=True).to(some) / regions.count
        rest = some - none - size * change
        apart = rest.T @ within_the_plane(shown, weights).to(rest).T
        return change[:, None] / regions.count + apart - apart.mean(dim=1, keepdim=True)


def locality(shown: Bool[Tensor, "samples features"], width: float) -> Float[Tensor, " samples"]:
    """Weights of the samples of LIME, in float64."""
    distance = 1 - (shown.double().mean(dim=1)).sqrt()
    return (-(distance**2) / (2 * width**2)).exp()


def ridge(
    shown: Bool[Tensor, "samples features"], weights: Float[Tensor, " samples"], regularization: float
) -> Float[Tensor, "features samples"]:
    """The matrix that makes coefficients of scores: weighted ridge regression with a free intercept."""
    features = shown.double()
    features = features - weights @ features / weights.sum()
    weighted = (features * weights[:, None]).T
    solved: Tensor = torch.linalg.solve(
        weighted @ features + regularization * torch.eye(features.shape[1]).double(), weighted
    )
    return solved


def within_the_plane(
    shown: Bool[Tensor, "samples features"], weights: Float[Tensor, " samples"]
) -> Float[Tensor, "features samples"]:
    """The matrix that makes values of sum zero of scores: weighted least squares, the shortest where many fit."""
    root = weights.sqrt()[:, None]
    features = shown.double()
    features = root * (features - features.mean(dim=1, keepdim=True))
    inverse: Tensor = torch.linalg.pinv(features)
    return inverse * root.T


def shapley_coalitions(
    features: int, samples: int, generator: torch.Generator | None
) -> tuple[Bool[Tensor, "coalitions features"], Float[Tensor, " coalitions"]]:
    """At most ``samples`` coalitions, and their weights in the fit, in float64.

    Sizes are taken in full from both ends while the samples that are left would cover them; the others are drawn in
    proportion to their weight, each coalition with its complement.
    """
    shown, weights = [torch.zeros(0, features, dtype=torch.bool)], [torch.zeros(0, dtype=torch.float64)]
    left = samples
    sizes = dict(_pairs_of_sizes(features))
    while sizes:
        size = min(sizes)
        count = math.comb(features, size) * (1 if 2 * size == features else 2)
        if left * sizes[size] / sum(sizes.values()) < count * (1 - 1e-9):
            break
        shown.append(_all_of_size(features, size))
        weights.append(torch.full((count,), sizes.pop(size) / count, dtype=torch.float64))
        left -= count
    if sizes and left > 0:
        drawn, times = torch.unique(_drawn(features, sizes, left, generator), dim=0, return_counts=True)
        shown.append(drawn)
        weights.append(sum(sizes.values()) * times.double() / left)
    return torch.cat(shown), torch.cat(weights)


def _pairs_of_sizes(features: int) -> Iterator[tuple[int, float]]:
    """A size up to a half, and the Shapley kernel of all coalitions of this size and of their complements."""
    for size in range(1, features // 2 + 1):
        kernel = (features - 1) / (size * (features - size))
        yield size, kernel * (1 if 2 * size == features else 2)


def _all_of_size(features: int, size: int) -> Bool[Tensor, "coalitions features"]:
    members = torch.tensor(list(combinations(range(features), size)))
    shown = torch.zeros(len(members), features, dtype=torch.bool).scatter(1, members, True)
    return shown if 2 * size == features else torch.cat([shown, ~shown])


def _drawn(
    features: int, sizes: dict[int, float], samples: int, generator: torch.Generator | None
) -> Bool[Tensor, "coalitions features"]:
    chances = torch.tensor(list(sizes.values()), dtype=torch.float64)
    pairs = -(-samples // 2)
    chosen = torch.tensor(list(sizes))[torch.multinomial(chances, pairs, replacement=True, generator=generator)]
    rank = torch.rand(pairs, features, generator=generator).argsort(dim=1).argsort(dim=1)
    shown = rank < chosen[:, None]
    return torch.cat([shown, ~shown])[:samples]
