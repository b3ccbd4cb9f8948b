"""Losses on the gradient with respect to the pixels."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from rightreasons.attribution import Saliency
from rightreasons.core import Attribution, Batch, Classifier, ExplanationLoss
from rightreasons.core.protocols import require_differentiable
from rightreasons.supervision.annotation import (
    annotated_only,
    connected_zero,
    marked_images,
    mask_of,
    mean_over,
    nothing_annotated,
)


@dataclass(frozen=True)
class RRR(ExplanationLoss):
    """Right for the right reasons: squared input gradients where the image should not matter.

    The mean over annotated images of the sum over pixels and channels of (A * g)^2, with A = ``irrelevant`` and g the
    gradient of the sum of all log-probabilities. Channels are squared before they are summed, so that opposite signs
    cannot hide each other. ``relevant`` is not used, and an annotated image without an irrelevant pixel does not count.

    The paper sums this term and the cross-entropy over the batch. Beside a mean cross-entropy the mean over images
    keeps its lambda, if every image is annotated. Its pixels run from 0 to 255; for the same network on pixels from 0
    to 1 the gradient is 255 times as large, so lambda is divided by 255^2.

    Source: Ross et al. 2017, arXiv:1703.03717, the "right reasons" term of its loss.

    Args:
        attribution: What is squared; its values per channel.
    """

    attribution: Attribution = field(default_factory=lambda: Saliency(score="sum_log_probabilities"))

    def __post_init__(self) -> None:
        require_differentiable(self.attribution, type(self).__name__)

    def __call__(self, model: Classifier, batch: Batch, logits: Float[Tensor, "batch classes"]) -> Float[Tensor, ""]:
        """The mean over annotated images with irrelevant pixels."""
        if nothing_annotated(batch):
            return connected_zero(logits)
        mask = mask_of(batch, "irrelevant", type(self).__name__)
        values = self.attribution.per_channel(model, batch.inputs, batch.target)
        mask, values = annotated_only(batch, mask, values)
        return mean_over((mask * values).square().sum(dim=(1, 2, 3)), marked_images(mask))
