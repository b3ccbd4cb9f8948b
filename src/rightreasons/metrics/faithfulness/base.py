"""What the metrics of the family share, and how they compare numbers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from rightreasons.core import Batch, Classifier, Metric
from rightreasons.core.settings import check_counts
from rightreasons.metrics.faithfulness.responses import Hidden, Reading, Responses, baseline_of, check_reading
from rightreasons.metrics.localization import where_defined
from rightreasons.metrics.ranking import average_ranks


@dataclass(frozen=True, kw_only=True)
class Faithfulness(Metric):
    """Whether the score of ``batch.target`` responds to changes of the image as the heatmap says.

    ``metric(model, batch, heatmap)`` computes all passes itself; ``metric.with_responses(responses, heatmap)`` shares
    them with the other metrics and heatmaps of the batch. Random draws are the same for all images of a batch, so that
    an image's score does not depend on its batch. The model is taken in the mode it is in.

    Args:
        score: What is read off the model.
        max_batch: Changed images that run through the model at once; bounds the memory. ``None``: 256, on a
            CPU 64, fewer if they are large.
    """

    score: Reading = "probability"
    max_batch: int | None = None

    def __post_init__(self) -> None:
        check_reading(self.score)
        if self.max_batch is not None:
            check_counts(max_batch=self.max_batch)

    def __call__(
        self, model: Classifier, batch: Batch, heatmap: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, " batch"]:
        """One score an image."""
        return self.with_responses(Responses(model, batch), heatmap)

    @abstractmethod
    def with_responses(
        self, responses: Responses, heatmap: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, " batch"]:
        """One score an image, with the passes that are known already."""


@dataclass(frozen=True, kw_only=True)
class Hiding(Faithfulness):
    """A metric that hides pixels, all channels of each.

    Args:
        baseline: What stands where a pixel is hidden: a value, the image's ``"mean"``, the image ``"blurred"``, or a
            ``Baseline``.
    """

    baseline: Hidden = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        baseline_of(self.baseline)


def where_ordered(
    score: Float[Tensor, " batch"], heatmap: Float[Tensor, "batch 1 height width"]
) -> Float[Tensor, " batch"]:
    """The score, NaN where the heatmap is constant and puts no pixel before another."""
    flat = heatmap.flatten(1)
    return where_defined(score, flat.amax(dim=1) > flat.amin(dim=1))


def area(curve: Float[Tensor, "steps batch"], shares: Sequence[float]) -> Float[Tensor, " batch"]:
    """The area under each curve over these places by the trapezoidal rule, over the range of the places."""
    places = torch.tensor(shares, dtype=curve.dtype, device=curve.device)
    return torch.trapezoid(curve, places, dim=0) / (shares[-1] - shares[0])


def correlation(x: Float[Tensor, "steps batch"], y: Float[Tensor, "steps batch"]) -> Float[Tensor, " batch"]:
    """Pearson's correlation over the steps, in float64; NaN where either is constant up to rounding."""
    x, y = _centered(x), _centered(y)
    scale = x.norm(dim=0) * y.norm(dim=0)
    found: Tensor = (x * y).sum(dim=0) / scale.masked_fill(scale == 0, torch.nan)
    return found.clamp(-1, 1)


def _centered(values: Float[Tensor, "steps batch"]) -> Float[Tensor, "steps batch"]:
    """Less their mean, largest value 1; all zero where nothing but rounding tells the values apart."""
    rounding = 16 * torch.finfo(values.dtype).eps * values.abs().amax(dim=0).double()
    apart = values.double() - values.double().mean(dim=0)
    largest = apart.abs().amax(dim=0)
    return torch.where(largest > rounding, apart / largest.masked_fill(largest == 0, 1), torch.zeros_like(apart))


def rank_correlation(x: Float[Tensor, "steps batch"], y: Float[Tensor, "steps batch"]) -> Float[Tensor, " batch"]:
    """Spearman's correlation over the steps, equal values sharing the mean of their ranks; NaN where either is flat."""
    return correlation(average_ranks(x.T).T, average_ranks(y.T).T)


def counts_of(pixels: int, steps: int) -> list[int]:
    """How many pixels are hidden after each step, from 0 to all, as evenly as whole numbers allow."""
    return [round(pixels * step / steps) for step in range(steps + 1)]
