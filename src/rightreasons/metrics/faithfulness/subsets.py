"""Random sets of pixels hidden: does the score fall by what the heatmap says of the set."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rightreasons.attribution.perturbation.masking import generator_of
from rightreasons.core.settings import check_counts
from rightreasons.metrics.faithfulness.base import Hiding, correlation
from rightreasons.metrics.faithfulness.responses import Place, Reading, Responses, baseline_of
from rightreasons.metrics.heatmaps import checked


@dataclass(frozen=True)
class Subsets(Hiding):
    """Correlation, over random sets of equally many pixels, of the heatmap's sum over a set and the fall of the score.

    All images meet the same sets; sets of n pixels are the same for every metric with as many samples under a seed.
    NaN where the sums or the scores do not differ, as those of a constant heatmap.

    Args:
        samples: Sets of each size.
        seed: Of the sets; ``None`` draws fresh ones at each call from torch's global generator.
    """

    samples: int = 100
    seed: int | None = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(samples=self.samples)
        if self.samples < 2:
            raise ValueError(f"expected at least 2 samples for a correlation, got {self.samples}")

    def correlation_at(
        self, responses: Responses, heatmap: Float[Tensor, "batch 1 height width"], count: int
    ) -> Float[Tensor, " batch"]:
        """The correlation over sets of so many pixels."""
        values = checked(heatmap, responses.batch).flatten(1).double()
        sets = draw(self.samples, values.shape[1], self.seed)[:, :count].to(values.device)
        key = None if self.seed is None else ("subsets", self.samples, count, self.seed, baseline_of(self.baseline))
        after = self._after(responses, sets, key)
        before = responses.clean(self.score, max_batch=self.max_batch)
        sums = torch.stack([values[:, members].sum(dim=1) for members in sets])
        return correlation(sums, before - after).to(before.dtype)

    def _after(self, responses: Responses, sets: Int[Tensor, "samples count"], key: Hashable) -> Tensor:
        inputs, baseline = responses.batch.inputs, responses.baseline(self.baseline)
        hidden = torch.zeros(len(sets), inputs[0, 0].numel(), dtype=torch.bool, device=sets.device)
        hidden = hidden.scatter_(1, sets, True).view(len(sets), 1, *inputs.shape[2:])
        place: Place = lambda step, image: torch.where(hidden[step], baseline[image], inputs[image])  # noqa: E731
        return responses.read(place, len(sets), score=self.score, max_batch=self.max_batch, key=key)


@dataclass(frozen=True)
class FaithfulnessCorrelation(Subsets):
    """Correlation of the heatmap's sum over random sets of pixels with the fall of the score when a set is hidden.

    Source: Bhatt et al. 2020, arXiv:2005.00631, faithfulness.

    Args:
        share: Size of the sets as a share of the image's pixels.
    """

    higher_is_better: ClassVar[bool] = True

    share: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share(self.share)

    def with_responses(
        self, responses: Responses, heatmap: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, " batch"]:
        """One score an image."""
        return self.correlation_at(responses, heatmap, max(1, round(self.share * heatmap[0].numel())))


@dataclass(frozen=True)
class SensitivityN(Subsets):
    """The correlation of :class:`FaithfulnessCorrelation` for several sizes n of the sets, and its mean over them.

    A linear model's own terms w (x - baseline) reach 1 at every n. The sizes lie evenly on a logarithmic scale. NaN
    where the correlation of a size is not defined.

    Source: Ancona et al. 2018, arXiv:1711.06104, sensitivity-n, whose figures show the correlation for n up to about
    80 % of the pixels; the mean over n is ours.

    Args:
        sizes: How many sizes.
        largest: The largest size as a share of the image's pixels; the smallest is one pixel.
    """

    higher_is_better: ClassVar[bool] = True

    sizes: int = 6
    largest: float = 0.8
    score: Reading = field(default="logit", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(sizes=self.sizes)
        check_share(self.largest)

    def counts(self, pixels: int) -> list[int]:
        """The sizes n for images of so many pixels, smallest first."""
        end = math.log(max(1, round(self.largest * pixels)))
        steps = [end] if self.sizes == 1 else [end * step / (self.sizes - 1) for step in range(self.sizes)]
        return sorted({round(math.exp(step)) for step in steps})

    def curve(
        self, responses: Responses, heatmap: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, "batch sizes"]:
        """The correlation for each of :meth:`counts`."""
        counts = self.counts(heatmap[0].numel())
        return torch.stack([self.correlation_at(responses, heatmap, count) for count in counts], dim=1)

    def with_responses(
        self, responses: Responses, heatmap: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, " batch"]:
        """One score an image."""
        return self.curve(responses, heatmap).mean(dim=1)


def draw(samples: int, pixels: int, seed: int | None) -> Int[Tensor, "samples pixels"]:
    """The pixels in random orders; the first n of each are a random set of n."""
    return torch.rand(samples, pixels, generator=generator_of(seed), dtype=torch.float64).argsort(dim=1)


def check_share(share: float) -> None:
    """Refuse what is no share of the pixels.

    Raises:
        ValueError: Not above 0 and below 1; all pixels are the same set each time.
    """
    if not 0 < share < 1:
        raise ValueError(f"expected a share of the pixels above 0 and below 1, got {share}")
