"""Losses that let the worst change of the irrelevant pixels be classified right, without a double backward."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rightreasons.attribution.intervals import Interval, bounds
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
    graph to the weights: the adversary is fixed, as in adversarial training. The paper's sum of the cross-entropies of
    image and adversary is that of the task and this term at weight 1.

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


@dataclass(frozen=True)
class IBPEx(ExplanationLoss):
    """The cross-entropy of the worst logits that interval bounds allow while the irrelevant pixels move.

    Each irrelevant pixel may move by ``radius``; the target has its lowest logit, all others their highest. No
    adversary is searched: the bound holds for every change. The paper weights the cross-entropy down and lets the
    radius grow during training; here both are settings, and a radius too large for the bounds to be tight hurts.

    Source: Heo et al. 2023, arXiv:2303.06419 (IBP-Ex), after Gowal et al. 2018, arXiv:1810.12715.

    Args:
        radius: How far a pixel may move, in the units of the images.
    """

    radius: float = 1.0

    def __post_init__(self) -> None:
        if self.radius <= 0:
            raise ValueError(f"expected radius above 0, got {self.radius}")

    def __call__(self, model: Classifier, batch: Batch, logits: Float[Tensor, "batch classes"]) -> Float[Tensor, ""]:
        """The mean over annotated images with irrelevant pixels."""
        if nothing_annotated(batch):
            return connected_zero(logits)
        mask = mask_of(batch, "irrelevant", type(self).__name__)
        with preserved(model.network):
            found = bounds(model, batch.inputs, self.radius * mask, graph=torch.is_grad_enabled()).logits
        own = F.one_hot(batch.target, logits.shape[1]).bool()
        entropy = F.cross_entropy(torch.where(own, found.low, found.high), batch.target, reduction="none")
        entropy, mask = annotated_only(batch, entropy, mask)
        return mean_over(entropy, marked_images(mask))


@dataclass(frozen=True)
class R4(ExplanationLoss):
    """RRR for every image near by: bounds on the gradient at irrelevant pixels while these move.

    The mean over annotated images of the sum over irrelevant pixels and channels of |lowest| + |highest| value that
    the gradient of the sum of all log-probabilities can have anywhere in the box. Weights that make it zero are
    certified not to react to these pixels anywhere in it.

    Source: R4, arXiv:2506.19680 (2025), which bounds the input gradient by intervals; the gradient of the sum of
    log-probabilities, as in RRR, is our choice.

    Args:
        radius: How far an irrelevant pixel may move, in the units of the images.
    """

    radius: float = 0.1

    def __post_init__(self) -> None:
        if self.radius <= 0:
            raise ValueError(f"expected radius above 0, got {self.radius}")

    def __call__(self, model: Classifier, batch: Batch, logits: Float[Tensor, "batch classes"]) -> Float[Tensor, ""]:
        """The mean over annotated images with irrelevant pixels."""
        if nothing_annotated(batch):
            return connected_zero(logits)
        mask = mask_of(batch, "irrelevant", type(self).__name__)
        with preserved(model.network):
            found = bounds(model, batch.inputs, self.radius * mask, graph=torch.is_grad_enabled())
            low, high = found.gradient(_slopes(found.logits))
        values = (mask * (low.abs() + high.abs())).sum(dim=(1, 2, 3))
        values, mask = annotated_only(batch, values, mask)
        return mean_over(values, marked_images(mask))


def _slopes(logits: Interval) -> Interval:
    """Bounds on the gradient of the sum of log-probabilities with respect to the logits, 1 - classes * p."""
    classes = logits.low.shape[1]
    own = torch.eye(classes, dtype=torch.bool, device=logits.low.device)
    # The probability of a class is lowest where its own logit is lowest and all others are highest.
    lowest = torch.where(own, logits.low[:, None], logits.high[:, None]).softmax(dim=2)
    highest = torch.where(own, logits.high[:, None], logits.low[:, None]).softmax(dim=2)
    low, high = (p.diagonal(dim1=1, dim2=2) for p in (lowest, highest))
    return Interval(1 - classes * high, 1 - classes * low)
