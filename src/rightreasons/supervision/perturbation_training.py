"""Losses that let the worst change of the irrelevant pixels be classified right, without a double backward."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rightreasons.core import Batch, Classifier, ExplanationLoss
from rightreasons.core.hooks import preserved
from rightreasons.supervision.annotation import (
    annotated_only,
    connected_zero,
    marked_images,
    mask_of,
    mean_over,
    nothing_annotated,
)


@dataclass(frozen=True)
class PGDEx(ExplanationLoss):
    """The cross-entropy of the worst change of the irrelevant pixels that projected gradient ascent finds.

    Each step moves the irrelevant pixels by ``radius / steps`` along the sign of the gradient, from the image itself,
    so that none moves by more than ``radius``. A pixel that is irrelevant in part moves in part. The steps carry no
    graph to the weights: the adversary is fixed, as in adversarial training.

    Source: Heo et al. 2023, arXiv:2303.06419 (PGD-Ex).

    Args:
        radius: How far a pixel may move, in the units of the images.
        steps: Of the ascent.
        low: Lowest value of a pixel; ``None`` sets no bound.
        high: Highest.
    """

    radius: float = 1.0
    steps: int = 7
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if self.radius <= 0:
            raise ValueError(f"expected radius above 0, got {self.radius}")
        if self.steps < 1:
            raise ValueError(f"expected steps of at least 1, got {self.steps}")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError(f"expected low below high, got {self.low} and {self.high}")

    def __call__(self, model: Classifier, batch: Batch, logits: Float[Tensor, "batch classes"]) -> Float[Tensor, ""]:
        """The mean over annotated images with irrelevant pixels."""
        if nothing_annotated(batch):
            return connected_zero(logits)
        mask = mask_of(batch, "irrelevant", type(self).__name__)
        rows = torch.arange(len(batch), device=batch.inputs.device)
        inputs, target, mask, rows = annotated_only(batch, batch.inputs.detach(), batch.target, mask, rows)
        with preserved(model.network):
            chosen = model.rows(rows)
            worst = self.worst(chosen, inputs, target, mask)
            entropy = F.cross_entropy(chosen(worst), target, reduction="none")
        return mean_over(entropy, marked_images(mask))

    def worst(
        self,
        model: Classifier,
        inputs: Float[Tensor, "batch channels height width"],
        target: Tensor,
        mask: Float[Tensor, "batch 1 height width"],
    ) -> Float[Tensor, "batch channels height width"]:
        """The images at the end of the ascent, off the graph."""
        worst = inputs.clone()
        for _ in range(self.steps):
            with torch.enable_grad():
                worst.requires_grad_()
                entropy = F.cross_entropy(model(worst), target, reduction="sum")
                (slope,) = torch.autograd.grad(entropy, worst)
            worst = worst.detach() + self.radius / self.steps * mask * slope.sign()
            if self.low is not None or self.high is not None:
                worst = torch.where(mask > 0, worst.clamp(self.low, self.high), worst)
        return worst
