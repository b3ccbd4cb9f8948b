"""Losses on the gradient with respect to the pixels."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from rightreasons.attribution import Saliency
from rightreasons.core import Attribution, Batch, Classifier, ExplanationLoss
from rightreasons.core.hooks import preserved
from rightreasons.core.protocols import require_differentiable
from rightreasons.supervision.annotation import (
    annotated_only,
    comparable,
    connected_zero,
    marked_images,
    mask_of,
    mean_over,
    nothing_annotated,
)
from rightreasons.supervision.normalization import PlainNormalizations


@dataclass(frozen=True)
class GradientPenalty(ExplanationLoss):
    """What the losses of this file share: values per channel, irrelevant pixels, the mean over images that have any.

    Args:
        attribution: What makes the values.
    """

    attribution: Attribution = field(default_factory=lambda: Saliency(score="sum_log_probabilities"))

    def __post_init__(self) -> None:
        require_differentiable(self.attribution, type(self).__name__)

    def __call__(self, model: Classifier, batch: Batch, logits: Float[Tensor, "batch classes"]) -> Float[Tensor, ""]:
        """The mean over annotated images with irrelevant pixels."""
        if nothing_annotated(batch):
            return connected_zero(logits)
        mask = mask_of(batch, "irrelevant", type(self).__name__)
        mask, values = annotated_only(batch, mask, self.values(model, batch))
        return mean_over(self.of(values, mask), marked_images(mask))

    def values(self, model: Classifier, batch: Batch) -> Float[Tensor, "batch channels height width"]:
        """What is penalized at each pixel and channel."""
        return self.attribution.per_channel(model, batch.inputs, batch.target)

    @abstractmethod
    def of(
        self, values: Float[Tensor, "batch channels height width"], mask: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, " batch"]:
        """The loss of each image."""


@dataclass(frozen=True)
class RRR(GradientPenalty):
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

    def of(self, values: Tensor, mask: Tensor) -> Float[Tensor, " batch"]:
        """The sum of squares."""
        return (mask * values).square().sum(dim=(1, 2, 3))


@dataclass(frozen=True)
class CosineRRR(GradientPenalty):
    """The cosine between the size of the gradient and the irrelevant pixels, which no scale of the gradient changes.

    The gradient's size is its absolute value summed over channels. The loss lies between 0 and 1 whatever the network
    and the range of its pixels, so that a weight means the same everywhere; an image whose gradient is zero costs 0.

    Source: the cosine form of the gradient penalty in Pahde et al. 2023 (Reveal to Revise), arXiv:2303.12641; there
    channels are summed before the absolute value is taken, here after, so that they cannot hide each other. They take
    the gradient of the cross-entropy or of one logit; here it is that of the sum of all log-probabilities, as in RRR,
    unless the attribution says otherwise.

    Args:
        attribution: What is compared; its values per channel.
    """

    def of(self, values: Tensor, mask: Tensor) -> Float[Tensor, " batch"]:
        """The cosine."""
        size = comparable(values.abs().sum(dim=1, keepdim=True)).flatten(1)
        flat = mask.flatten(1).to(size.dtype)
        # Divided by its peak, a map is all zero or has a norm of at least 1, so the root has a gradient.
        squares = size.square().sum(dim=1)
        norm = torch.where(squares > 0, squares, 1.0).sqrt() * flat.norm(dim=1).clamp(min=torch.finfo(size.dtype).tiny)
        cosine: Tensor = (size * flat).sum(dim=1) / norm
        return cosine


@dataclass(frozen=True)
class RBR(RRR):
    """Right for better reasons: RRR whose gradient is weighted by how far each pixel influences the weights.

    The mean over annotated images of the sum over pixels and channels of (A * i * g)^2, with A = ``irrelevant``, g the
    gradient of the sum of all log-probabilities, and i the pixel's influence: the gradient, with respect to the pixel,
    of the sum over all weights of the gradient of the image's own cross-entropy, which no batch size divides. The
    inverse Hessian of the paper's influence function is replaced by the identity, as in the published comparisons. A
    third derivative is taken: it is the dearest loss of the family, and the least stable. The influence takes a pass of
    its own, in which normalizations run as plain algebra, since torch's own are wrong to third order.

    Source: Shao et al. 2021, doi:10.1609/aaai.v35i11.17148, in the form of Friedrich et al. 2023, arXiv:2203.03668.

    Args:
        attribution: What the influence weights; its values per channel.
    """

    def values(self, model: Classifier, batch: Batch) -> Tensor:
        """The gradient times the influence."""
        return super().values(model, batch) * _influence(model, batch)


def _influence(model: Classifier, batch: Batch) -> Float[Tensor, "batch channels height width"]:
    """The gradient, by the pixels, of the sum over the weights of the gradient of the cross-entropy."""
    weights = [p for p in model.network.parameters() if p.requires_grad]
    with torch.enable_grad(), preserved(model.network), sdpa_kernel(SDPBackend.MATH), PlainNormalizations():
        # A pass of its own: a view is not the tensor that was recorded.
        trace = model.trace(batch.inputs.view_as(batch.inputs))
        entropy = F.cross_entropy(trace.logits, batch.target, reduction="sum")
        gradients = torch.autograd.grad(entropy, weights, create_graph=True, allow_unused=True, materialize_grads=True)
        total = torch.stack([g.sum() for g in gradients]).sum()
        (influence,) = torch.autograd.grad(total, trace.inputs, create_graph=True)
    return influence
