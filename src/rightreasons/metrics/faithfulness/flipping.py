"""Pixels hidden, or shown, one after another in the order of the heatmap."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rightreasons.core.settings import check_counts
from rightreasons.metrics.faithfulness.base import Hiding, area, counts_of, where_ordered
from rightreasons.metrics.faithfulness.responses import Hidden, Responses
from rightreasons.metrics.heatmaps import checked


@dataclass(frozen=True)
class Ordered(Hiding):
    """A metric of the curve of scores as pixels go, or come, in the order of the heatmap.

    Of equal values the first in the image (row by row) leads. A constant heatmap has no order and scores NaN.

    Args:
        steps: Steps from the whole image to none of it; each hides as many pixels, up to rounding.
    """

    steps: int = 28

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(steps=self.steps)

    def curve(
        self, responses: Responses, heatmap: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, "batch points"]:
        """The score after each step, from 0 pixels to all.

        Raises:
            ValueError: The heatmap does not fit the images or is not finite; fewer pixels than steps.
        """
        checked(heatmap, responses.batch)
        return self._points(responses, responses.ranks(heatmap)).T

    def with_responses(
        self, responses: Responses, heatmap: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, " batch"]:
        """One score an image."""
        return where_ordered(self.summary(self.curve(responses, heatmap).T), heatmap)

    @abstractmethod
    def summary(self, curve: Float[Tensor, "points batch"]) -> Float[Tensor, " batch"]:
        """The score of each curve."""

    def _points(self, responses: Responses, ranks: Int[Tensor, "batch pixels"]) -> Float[Tensor, "points batch"]:
        return self._hidden(responses, ranks, self._counts(ranks))

    def _counts(self, ranks: Int[Tensor, "batch pixels"]) -> list[int]:
        if self.steps > ranks.shape[1]:
            raise ValueError(f"expected at most as many steps as pixels, {ranks.shape[1]}, got {self.steps}")
        return counts_of(ranks.shape[1], self.steps)

    def _hidden(self, responses: Responses, ranks: Tensor, counts: list[int]) -> Float[Tensor, "points batch"]:
        return responses.hidden(ranks, counts, baseline=self.baseline, score=self.score, max_batch=self.max_batch)


@dataclass(frozen=True)
class PixelFlipping(Ordered):
    """How far the score falls while pixels are hidden, the most relevant first (AOPC over pixels).

    The mean over all points of the curve, the first included, of f(x) - f(x with k pixels hidden).

    Source: Bach et al. 2015, doi:10.1371/journal.pone.0130140, pixel-flipping, which flips the pixels of
    binary digits; Samek et al. 2017, arXiv:1509.06321, Eq. 12 (AOPC). Deviation: the whole image is hidden in the end
    and not the first 100 places.
    """

    higher_is_better: ClassVar[bool] = True

    def summary(self, curve: Float[Tensor, "points batch"]) -> Float[Tensor, " batch"]:
        """The mean fall."""
        return (curve[0] - curve).mean(dim=0)


@dataclass(frozen=True)
class Deletion(Ordered):
    """Area under the score while pixels are hidden, the most relevant first.

    The share of hidden pixels runs from 0 to 1; trapezoidal rule.

    Source: Petsiuk et al. 2018, arXiv:1806.07421, the deletion metric.
    """

    higher_is_better: ClassVar[bool] = False

    def summary(self, curve: Float[Tensor, "points batch"]) -> Float[Tensor, " batch"]:
        """The area."""
        return area(curve, [step / self.steps for step in range(self.steps + 1)])


@dataclass(frozen=True)
class Insertion(Ordered):
    """Area under the score while pixels are shown, the most relevant first, on the blurred image.

    The share of shown pixels runs from 0 to 1; trapezoidal rule.

    Source: Petsiuk et al. 2018, arXiv:1806.07421, the insertion metric. The blur grows with the image.
    """

    higher_is_better: ClassVar[bool] = True

    baseline: Hidden = field(default="blurred", kw_only=True)

    def summary(self, curve: Float[Tensor, "points batch"]) -> Float[Tensor, " batch"]:
        """The area."""
        return area(curve, [step / self.steps for step in range(self.steps + 1)])

    def _points(self, responses: Responses, ranks: Int[Tensor, "batch pixels"]) -> Float[Tensor, "points batch"]:
        # Showing the first k is hiding the last n - k.
        pixels = ranks.shape[1]
        return self._hidden(responses, pixels - 1 - ranks, [pixels - count for count in self._counts(ranks)])


@dataclass(frozen=True)
class Monotonicity(Ordered):
    """Share of steps that do not lower the score while pixels are shown, the least relevant first.

    Shown on the baseline. A fall within rounding is none.

    Source: Arya et al. 2019, arXiv:1909.03012 (AI Explainability 360), "monotonicity". Deviation: theirs is whether the
    share is 1, a feature at a time; so hardly any image has it.
    """

    higher_is_better: ClassVar[bool] = True

    def summary(self, curve: Float[Tensor, "points batch"]) -> Float[Tensor, " batch"]:
        """The share; the least relevant are shown first where the most relevant are hidden last."""
        rounding = 16 * torch.finfo(curve.dtype).eps * curve.abs().amax(dim=0)
        return (curve[1:] <= curve[:-1] + rounding).to(curve.dtype).mean(dim=0)


@dataclass(frozen=True)
class RegionPerturbation(Hiding):
    """How far the score falls while patches are hidden, the most relevant first (AOPC over regions).

    The image is cut into squares (what is left at the right and the bottom are smaller ones), ordered by the sum of
    their pixels' values. The mean over k = 0 ... ``regions`` of f(x) - f(x with the first k squares hidden). A map of
    equal sums has no order and scores NaN.

    Source: Samek et al. 2017, arXiv:1509.06321, Eq. 12, squares of 9x9 in images of 227, the first 100. Deviation: the
    image's mean stands where a square is hidden; the paper's uniform noise is ``UniformBaseline(low, high)``.

    Args:
        patch: Side of a square, in pixels.
        regions: How many squares are hidden; ``None``: all.
    """

    higher_is_better: ClassVar[bool] = True

    patch: int = 4
    regions: int | None = None
    baseline: Hidden = field(default="mean", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(patch=self.patch, regions=1 if self.regions is None else self.regions)

    def curve(
        self, responses: Responses, heatmap: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, "batch points"]:
        """The score with 0, 1, ... of the squares hidden.

        Raises:
            ValueError: The heatmap does not fit the images or is not finite.
        """
        sums, square = self._sums(checked(heatmap, responses.batch))
        order = sums.argsort(dim=1, descending=True, stable=True)
        ranks = order.argsort(dim=1).to(torch.int32)[:, square]
        last = sums.shape[1] if self.regions is None else min(self.regions, sums.shape[1])
        counts = list(range(last + 1))
        options = {"baseline": self.baseline, "score": self.score, "max_batch": self.max_batch}
        return responses.hidden(ranks, counts, **options).T  # type: ignore[arg-type]

    def with_responses(
        self, responses: Responses, heatmap: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, " batch"]:
        """One score an image."""
        curve = self.curve(responses, heatmap)
        sums, _ = self._sums(checked(heatmap, responses.batch))
        return where_ordered((curve[:, :1] - curve).mean(dim=1), sums[:, None, None])

    def _sums(
        self, values: Float[Tensor, "batch 1 height width"]
    ) -> tuple[Float[Tensor, "batch squares"], Int[Tensor, " pixels"]]:
        """The sum over each square, and each pixel's square."""
        square = squares(values.shape[2:], self.patch).to(values.device)
        sums = values.new_zeros(len(values), int(square.max()) + 1, dtype=torch.float64)
        return sums.index_add_(1, square, values.flatten(1).double()), square


def squares(size: tuple[int, int] | torch.Size, side: int) -> Int[Tensor, " pixels"]:
    """The number of each pixel's square, row by row."""
    down, across = (torch.arange(length) // side for length in size)
    return (down[:, None] * (int(across[-1]) + 1) + across).flatten()
