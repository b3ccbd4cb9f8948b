"""Losses that keep a map out of the irrelevant pixels or hold it on the relevant ones.

A map that its ReLU has made all zero has no gradient, so no such loss can revive it: too large a weight or learning
rate may end there.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from rightreasons.attribution import GradCAM
from rightreasons.core import Attribution, Batch, Classifier, ExplanationLoss
from rightreasons.core.protocols import require_differentiable
from rightreasons.supervision.annotation import (
    Kind,
    annotated_only,
    comparable,
    connected_zero,
    marked_images,
    mask_of,
    masks_of,
    mean_over,
    nothing_annotated,
    ratio_of_sums,
)


@dataclass(frozen=True)
class MapGuidance(ExplanationLoss):
    """What the losses of this file share: a map, one kind of mask, and the mean over images that have any of it.

    Args:
        attribution: What makes the map.
    """

    kind: ClassVar[Kind] = "relevant"
    attribution: Attribution = field(default_factory=GradCAM)

    def __post_init__(self) -> None:
        require_differentiable(self.attribution, type(self).__name__)

    def __call__(self, model: Classifier, batch: Batch, logits: Float[Tensor, "batch classes"]) -> Float[Tensor, ""]:
        """The mean over annotated images with pixels of the loss's kind."""
        if nothing_annotated(batch):
            return connected_zero(logits)
        mask = mask_of(batch, self.kind, type(self).__name__)
        heatmap = self.attribution(model, batch.inputs, batch.target)
        mask, heatmap = annotated_only(batch, mask, heatmap)
        return mean_over(self.of(heatmap, mask), marked_images(mask))

    @abstractmethod
    def of(
        self, heatmap: Float[Tensor, "batch 1 height width"], mask: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, " batch"]:
        """The loss of each image."""


@dataclass(frozen=True)
class RRRGradCAM(MapGuidance):
    """RRR-G: the squared class activation map on irrelevant pixels.

    The mean of M^2 over the pixels of an image that are ``irrelevant``, with M the map divided by its own largest
    absolute value. The paper sums over the cells of the coarse map, to whose resolution it brings the mask; the mean at
    the resolution of the inputs does not depend on that of the map. The map is that of the image's label, not of the
    predicted class.

    Source: Schramowski et al. 2020, doi:10.1038/s42256-020-0212-3, as named RRR-G in Friedrich et al. 2023,
    arXiv:2203.03668.
    """

    kind: ClassVar[Kind] = "irrelevant"

    def of(self, heatmap: Tensor, mask: Tensor) -> Float[Tensor, " batch"]:
        """The mean square inside the mask."""
        return ratio_of_sums(mask * comparable(heatmap).square(), mask)


@dataclass(frozen=True)
class GRADIA(MapGuidance):
    """The absolute difference between the map and the relevant pixels: mean |M - F|.

    M is the heatmap divided by its own largest absolute value, F = ``relevant``; every pixel outside F counts as
    irrelevant, and ``irrelevant`` is not used. An annotated image without a relevant pixel does not count: nobody said
    where the map should be. The comparison is made at the resolution of the inputs, where masks are drawn; a coarse
    class activation map has been enlarged to it. The mean over pixels stands for the paper's L1 norm.

    Source: Gao et al. 2022, arXiv:2202.02838, as told in Gao et al. 2022 (RES), section 4.1.
    """

    def of(self, heatmap: Tensor, mask: Tensor) -> Float[Tensor, " batch"]:
        """The mean absolute difference."""
        return (comparable(heatmap) - mask).abs().mean(dim=(1, 2, 3))


@dataclass(frozen=True)
class HINT(MapGuidance):
    """The squared difference between the map and the relevant pixels: mean (M - F)^2.

    M is the map divided by its own largest absolute value, F = ``relevant``. This is the pixel form that image
    classifiers are trained with; the paper itself ranks regions of a scene.

    Source: Selvaraju et al. 2019, arXiv:1902.03751, in the form of Friedrich et al. 2023, arXiv:2203.03668.
    """

    def of(self, heatmap: Tensor, mask: Tensor) -> Float[Tensor, " batch"]:
        """The mean square of the difference."""
        return (comparable(heatmap) - mask).square().mean(dim=(1, 2, 3))


@dataclass(frozen=True)
class Energy(MapGuidance):
    """1 minus the share of the map's positive values that lie on relevant pixels.

    It does not say how a map should be spread over the relevant pixels, and so bears masks that are too large, such as
    boxes. A map without a positive value costs 1 and has no gradient.

    Source: Rao et al. 2023, arXiv:2303.11932, the energy loss. Their images have several labels, of which each step
    draws one; here an image has one.
    """

    def of(self, heatmap: Tensor, mask: Tensor) -> Float[Tensor, " batch"]:
        """What the relevant pixels lack."""
        positive = heatmap.to(torch.promote_types(heatmap.dtype, torch.float32)).relu()
        return 1 - ratio_of_sums(positive * mask, positive)


@dataclass(frozen=True)
class HAICS(ExplanationLoss):
    """The binary cross-entropy between the map and the annotation, on annotated pixels only.

    The sum of -(F log M + C log(1 - M)) over the pixels of an image whose ``relevant`` F and ``irrelevant`` C differ,
    divided by the sum of F + C over them: an unmarked pixel does not count, neither does one marked as both, and a
    pixel that is marked in part (at the border of a resized mask) counts as much as it is marked. M is the heatmap
    divided by its own largest absolute value; negative evidence counts as 0. The comparison is made at the resolution
    of the inputs.

    Source: Shen et al. 2021 (CHI extended abstracts), as told in Gao et al. 2022 (RES), section 4.1, for binary masks,
    where C is 1 - F on annotated pixels; the weights of other values are our definition.

    Args:
        attribution: What makes the map.
        eps: The logarithms are taken of (1 - eps) M + eps and of 1 - (1 - eps) M. Unlike clamping, this keeps the
            gradient of a map that is exactly 0 on a relevant pixel.
    """

    attribution: Attribution = field(default_factory=GradCAM)
    # The largest pixel of a map is 1 whatever the weights, so its gradient is zero but for rounding, which the
    # logarithm of 1 - M magnifies by 1 / eps.
    eps: float = 1e-3

    def __post_init__(self) -> None:
        require_differentiable(self.attribution, type(self).__name__)
        if not 0 < self.eps < 0.5:
            raise ValueError(f"expected eps between 0 and 0.5, got {self.eps}")

    def __call__(self, model: Classifier, batch: Batch, logits: Float[Tensor, "batch classes"]) -> Float[Tensor, ""]:
        """The mean over annotated images with a pixel that counts."""
        if nothing_annotated(batch):
            return connected_zero(logits)
        relevant, irrelevant = masks_of(batch, type(self).__name__)
        heatmap = self.attribution(model, batch.inputs, batch.target)
        relevant, irrelevant, heatmap = annotated_only(batch, relevant, irrelevant, heatmap)
        shrunk = (1 - self.eps) * comparable(heatmap).clamp(0, 1)
        relevant, irrelevant = (mask * (relevant != irrelevant) for mask in (relevant, irrelevant))
        entropy = -(relevant * (shrunk + self.eps).log() + irrelevant * (1 - shrunk).log())
        weights = relevant + irrelevant
        return mean_over(ratio_of_sums(entropy, weights), marked_images(weights))
