"""Remove and debias (ROAD): pixels removed without leaving a visible mask."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rightreasons.attribution.perturbation.masking import generator_of
from rightreasons.metrics.faithfulness.base import Faithfulness, where_ordered
from rightreasons.metrics.faithfulness.imputation import imputed
from rightreasons.metrics.faithfulness.responses import Reading, Responses
from rightreasons.metrics.heatmaps import checked


@dataclass(frozen=True)
class ROAD(Faithfulness):
    """How often the class is still found when the most relevant pixels are imputed from those around them.

    The mean over the shares that are removed; for one image it is the share of them at which the class is found. A
    little noise on the imputed pixels hides that they are smooth. Of equal values in the heatmap the first in the
    image leads; a constant heatmap has no order and scores NaN.

    Source: Rong et al. 2022, arXiv:2202.00449, noisy linear imputation, the most relevant first.

    Args:
        shares: Which shares of the pixels are removed.
        noise: Standard deviation of the noise, in units of the images; all images meet the same.
        seed: Of the noise; ``None`` draws fresh noise at each call from torch's global generator.
    """

    higher_is_better: ClassVar[bool] = False

    shares: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    noise: float = 0.01
    seed: int | None = field(default=0, kw_only=True)
    score: Reading = field(default="correct", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "shares", tuple(self.shares))
        if not self.shares or not all(0 < share < 1 for share in self.shares):
            raise ValueError(f"expected shares above 0 and below 1, got {self.shares}")
        if self.noise < 0:
            raise ValueError(f"expected noise of 0 or more, got {self.noise}")

    def curve(
        self, responses: Responses, heatmap: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, "batch shares"]:
        """The score after each share is removed."""
        checked(heatmap, responses.batch)
        ranks = responses.ranks(heatmap)
        key: Hashable = None
        if self.seed is not None:
            key = ("road", self.shares, self.noise, self.seed, responses.order(ranks))
        counts = torch.tensor([int(share * ranks.shape[1]) for share in self.shares], device=ranks.device)
        place = _Imputing(responses.batch.inputs, ranks, counts, self._noise(responses))
        return responses.read(place, len(counts), score=self.score, max_batch=self.max_batch, key=key).T

    def with_responses(
        self, responses: Responses, heatmap: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, " batch"]:
        """One score an image."""
        return where_ordered(self.curve(responses, heatmap).mean(dim=1), heatmap)

    def _noise(self, responses: Responses) -> Float[Tensor, "shares channels height width"]:
        inputs = responses.batch.inputs
        shape = (len(self.shares), *inputs.shape[1:])
        return self.noise * torch.randn(shape, generator=generator_of(self.seed), dtype=torch.float64).to(inputs)


@dataclass(frozen=True, eq=False)
class _Imputing:
    """Makes the images with so many of their first pixels imputed."""

    inputs: Float[Tensor, "batch channels height width"]
    ranks: Int[Tensor, "batch pixels"]
    counts: Int[Tensor, " shares"]
    noise: Float[Tensor, "shares channels height width"]

    def __call__(self, step: Int[Tensor, " rows"], image: Int[Tensor, " rows"]) -> Tensor:
        hidden = self.ranks[image] < self.counts[step][:, None]
        hidden = hidden.view(-1, 1, *self.inputs.shape[2:])
        return imputed(self.inputs[image], hidden) + hidden * self.noise[step]
