"""Parts of the image changed one at a time: does the score depend on each as the heatmap says."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rightreasons.attribution.perturbation.masking import generator_of
from rightreasons.core.settings import check_counts
from rightreasons.metrics.faithfulness.base import Faithfulness, Hiding, correlation, rank_correlation
from rightreasons.metrics.faithfulness.flipping import squares
from rightreasons.metrics.faithfulness.responses import Responses, baseline_of
from rightreasons.metrics.heatmaps import checked


@dataclass(frozen=True)
class FaithfulnessEstimate(Hiding):
    """Correlation, over the parts of the image, of the heatmap's sum over a part and the fall of the score without it.

    The image is cut into squares, and each is hidden alone. NaN where the sums or the scores do not differ.

    Source: Alvarez-Melis & Jaakkola 2018, arXiv:1806.07538, faithfulness, whose parts are the features
    of tabular data or the concepts of their model.

    Args:
        patch: Side of a square, in pixels; what is left at the right and the bottom are smaller ones.
    """

    higher_is_better: ClassVar[bool] = True

    patch: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(patch=self.patch)

    def with_responses(
        self, responses: Responses, heatmap: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, " batch"]:
        """One score an image."""
        sums = sums_of(checked(heatmap, responses.batch), self.patch)
        before = responses.clean(self.score, max_batch=self.max_batch)
        return correlation(sums, before - self._without(responses)).to(before.dtype)

    def _without(self, responses: Responses) -> Float[Tensor, "squares batch"]:
        inputs, baseline = responses.batch.inputs, responses.baseline(self.baseline)
        square = squares(inputs.shape[2:], self.patch).to(inputs.device).view(inputs.shape[2:])

        def place(step: Tensor, image: Tensor) -> Tensor:
            return torch.where((square == step[:, None, None])[:, None], baseline[image], inputs[image])

        count, key = int(square.max()) + 1, ("each square", self.patch, baseline_of(self.baseline))
        return responses.read(place, count, score=self.score, max_batch=self.max_batch, key=key)


@dataclass(frozen=True)
class MonotonicityCorrelation(Faithfulness):
    """Rank correlation, over the parts of the image, of the heatmap's size there and what the score owes to the part.

    A part is a square; it owes the mean square of f(x) - f(x with other values there), over values drawn uniformly
    from the image's own range. The size is the absolute value of the heatmap's sum over the square. All images meet the
    same draws, scaled to their range. NaN where either does not differ.

    Source: Nguyen & Martinez 2020, arXiv:2007.07584, monotonicity: Spearman's correlation of the absolute
    attributions with the expected loss on replacing a feature, here the squared error. Deviations: squares in the place
    of features, and without their factor of 1 / f(x)^2, which is the same for all parts and leaves ranks alone.

    Args:
        patch: Side of a square, in pixels; what is left at the right and the bottom are smaller ones.
        samples: Values drawn for every pixel.
        seed: Of the values; ``None`` draws fresh ones at each call from torch's global generator.
    """

    higher_is_better: ClassVar[bool] = True

    patch: int = 4
    samples: int = 10
    seed: int | None = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(patch=self.patch, samples=self.samples)

    def with_responses(
        self, responses: Responses, heatmap: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, " batch"]:
        """One score an image."""
        sizes = sums_of(checked(heatmap, responses.batch), self.patch).abs()
        before = responses.clean(self.score, max_batch=self.max_batch)
        owed = (self._replaced(responses) - before).square().mean(dim=1)
        return rank_correlation(sizes, owed).to(before.dtype)

    def _replaced(self, responses: Responses) -> Float[Tensor, "squares samples batch"]:
        inputs = responses.batch.inputs
        low, high = inputs.amin((1, 2, 3), keepdim=True), inputs.amax((1, 2, 3), keepdim=True)
        shape = (self.samples, *inputs.shape[1:])
        draws = torch.rand(shape, generator=generator_of(self.seed), dtype=torch.float64).to(inputs)
        square = squares(inputs.shape[2:], self.patch).to(inputs.device).view(inputs.shape[2:])

        def place(step: Tensor, image: Tensor) -> Tensor:
            inside = square == (step // self.samples)[:, None, None]
            values = low[image] + (high - low)[image] * draws[step % self.samples]
            return torch.where(inside[:, None], values, inputs[image])

        key: Hashable = None if self.seed is None else ("replaced squares", self.patch, self.samples, self.seed)
        steps = (int(square.max()) + 1) * self.samples
        scores = responses.read(place, steps, score=self.score, max_batch=self.max_batch, key=key)
        return scores.view(-1, self.samples, len(inputs))


def sums_of(values: Float[Tensor, "batch 1 height width"], patch: int) -> Float[Tensor, "squares batch"]:
    """The sum of the values over each square, in float64."""
    square: Int[Tensor, " pixels"] = squares(values.shape[2:], patch).to(values.device)
    sums = torch.zeros(int(square.max()) + 1, len(values), dtype=torch.float64, device=values.device)
    return sums.index_add_(0, square, values.flatten(1).T.double())
