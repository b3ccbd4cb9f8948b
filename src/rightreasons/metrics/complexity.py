"""How few pixels a heatmap needs: sparse maps are easier to read, whether or not they are true.

All of them read the absolute values of a map, are free of its scale, and need neither a mask nor the model. They say
nothing about what the model does: read them beside a measure of faithfulness.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from rightreasons.core import Batch, Classifier, Metric
from rightreasons.metrics.localization import values_of, where_defined
from rightreasons.metrics.ranking import ascending


def _sizes(heatmap: Tensor, batch: Batch) -> Float[Tensor, "batch pixels"]:
    """The absolute values of each map, largest 1."""
    return values_of(heatmap, batch).abs().flatten(1)


@dataclass(frozen=True)
class Sparseness(Metric):
    """Gini index of the absolute values: 0 where all pixels count the same, 1 - 1/n where one of n has everything.

    With v sorted in ascending order: sum of (2 i - n - 1) v_i over n times the sum of v. NaN for a map of zeros.

    Source: Chalasani et al. 2020, arXiv:1810.06583, section 3 (after Hurley and Rickard 2009).
    """

    higher_is_better: ClassVar[bool] = True

    def __call__(
        self, model: Classifier, batch: Batch, heatmap: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, " batch"]:
        """One score an image."""
        sizes = _sizes(heatmap, batch)
        count = sizes.shape[1]
        weights = torch.arange(1 - count, count, 2, dtype=sizes.dtype, device=sizes.device) / count
        return where_defined(ascending(sizes) @ weights / sizes.sum(dim=1), sizes.amax(dim=1) > 0)


@dataclass(frozen=True)
class Complexity(Metric):
    """Entropy of the pixels' shares in the map's absolute sum, in nats: 0 for one pixel, ln n for n equal ones.

    NaN for a map of zeros.

    Source: Bhatt et al. 2020, arXiv:2005.00631, Definition 4 (fractional contributions).
    """

    higher_is_better: ClassVar[bool] = False

    def __call__(
        self, model: Classifier, batch: Batch, heatmap: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, " batch"]:
        """One score an image."""
        sizes = _sizes(heatmap, batch)
        shares = sizes / sizes.sum(dim=1, keepdim=True)
        return where_defined(torch.special.entr(shares).sum(dim=1), sizes.amax(dim=1) > 0)


@dataclass(frozen=True)
class EffectiveComplexity(Metric):
    """Share of the pixels that count: those above ``threshold`` times the map's largest absolute value.

    NaN for a map of zeros.

    Source: after Nguyen and Rodriguez Martinez 2020, arXiv:2007.07584, section 3.2. Deviation: the paper counts the
    pixels that must stay for the prediction to hold, which insertion measures here; this is the form without the
    model, as quantus has it, and a share of the pixels instead of a number.

    Attributes:
        threshold: From 0 to below 1.
    """

    higher_is_better: ClassVar[bool] = False
    threshold: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise ValueError(f"expected a threshold from 0 to below 1, got {self.threshold}")

    def __call__(
        self, model: Classifier, batch: Batch, heatmap: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, " batch"]:
        """One score an image."""
        sizes = _sizes(heatmap, batch)
        share = (sizes > self.threshold).to(sizes.dtype).mean(dim=1)
        return where_defined(share, sizes.amax(dim=1) > 0)
