"""How far the model leans on what it should not: scores against the ``irrelevant`` mask, and the decoy swap.

The mask scores are NaN for an image without an ``irrelevant`` mask, or with an empty one. Maps that point nowhere have
no score either; ``DeadMap`` counts them, so that leaving them out cannot flatter a model in silence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rightreasons.core import Batch, Classifier, Metric
from rightreasons.core.tensors import unit_maximum
from rightreasons.metrics.localization import mask_of, positive_part, total, values_of, where_defined


def _contrast(positive: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch 1 height width"]:
    """Each positive part shifted to a minimum of 0 and divided by its maximum; zeros for a flat map."""
    return unit_maximum(positive - positive.amin(dim=(1, 2, 3), keepdim=True))


def mean_activation(heatmaps: Float[Tensor, "images 1 height width"]) -> float:
    """The threshold of the typology paper's wrong-reason share: mean normalized activation over a data set.

    Take it once over the test set and give it to ``WrongReasonShare`` for both models that are compared. Flat maps
    are left out; NaN if there is no other.
    """
    images = Batch(inputs=heatmaps, target=torch.zeros(len(heatmaps), dtype=torch.long, device=heatmaps.device))
    contrast = _contrast(positive_part(heatmaps, images))
    alive = contrast.amax(dim=(1, 2, 3)) > 0
    return float(contrast[alive].double().mean())


@dataclass(frozen=True)
class WrongReasonShare(Metric):
    """Wrong-reason share (WR): how much of the irrelevant mask is active in the binarized map.

    The map's positive part is shifted to a minimum of 0, divided by its maximum, and active above the threshold; a
    mask with values between 0 and 1 weighs the pixels. NaN for a flat map (see ``DeadMap``).

    Source: Friedrich et al. 2023 (A typology for exploring the mitigation of shortcut behaviour), the WR metric. The
    paper's threshold is the mean activation over the test set (``mean_activation`` finds it). Deviation: by default
    each map has its own mean as threshold, so that an image's score does not depend on the others.

    Attributes:
        threshold: From 0 to below 1, in units of the normalized map; ``None`` is each map's own mean.
    """

    higher_is_better: ClassVar[bool] = False
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold < 1:
            raise ValueError(f"expected a threshold from 0 to below 1, or None, got {self.threshold}")

    def __call__(
        self, model: Classifier, batch: Batch, heatmap: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, " batch"]:
        """One score an image."""
        contrast = _contrast(positive_part(heatmap, batch))
        mask = mask_of(batch, batch.irrelevant, contrast)
        threshold = contrast.mean(dim=(1, 2, 3), keepdim=True) if self.threshold is None else self.threshold
        active = (contrast > threshold).to(contrast.dtype)
        alive = contrast.amax(dim=(1, 2, 3)) > 0
        return where_defined(total(active * mask) / total(mask), alive & (total(mask) > 0))


@dataclass(frozen=True)
class ArtifactRelevance(Metric):
    """Artifact relevance: share of the map's absolute sum that lies in the irrelevant mask.

    Evidence against the class counts as well. NaN for a map of zeros.

    Source: Pahde et al. 2023 (Reveal to Revise), sum of |R| over the artifact's mask over sum of |R|.
    """

    higher_is_better: ClassVar[bool] = False

    def __call__(
        self, model: Classifier, batch: Batch, heatmap: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, " batch"]:
        """One score an image."""
        size = values_of(heatmap, batch).abs()
        mask = mask_of(batch, batch.irrelevant, size)
        return where_defined(total(size * mask) / total(size), total(mask) > 0)


@dataclass(frozen=True)
class DeadMap(Metric):
    """Whether the map points nowhere: 1 where its positive part is flat (all zero, or the same everywhere), else 0.

    Needs no mask. Its mean is the share of images that ``WrongReasonShare`` leaves out, and never less than what
    ``EnergyInMask``, ``MaskPrecision``, ``PointingGame`` and ``ArtifactRelevance`` leave out. Our definition.
    """

    higher_is_better: ClassVar[bool] = False

    def __call__(
        self, model: Classifier, batch: Batch, heatmap: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, " batch"]:
        """One score an image."""
        contrast = _contrast(positive_part(heatmap, batch))
        return (contrast.amax(dim=(1, 2, 3)) == 0).to(contrast.dtype)


def prediction_change(
    before_swap: Int[Tensor, " images"], after_swap: Int[Tensor, " images"]
) -> Float[Tensor, " images"]:
    """Decoy-swap invariance, an image at a time: 1 where the prediction changes when only the patch does, else 0.

    The mean is the share of predictions that the patch alone decides; 0 for a model that ignores it.

    Args:
        before_swap: Predicted classes of the images as they are.
        after_swap: Predicted classes of the same images with another patch.

    Raises:
        ValueError: Not one class an image in both.
    """
    if before_swap.ndim != 1 or before_swap.shape != after_swap.shape:
        shapes = f"{tuple(before_swap.shape)} and {tuple(after_swap.shape)}"
        raise ValueError(f"expected the predicted classes of the same images twice, got shapes {shapes}")
    return (before_swap != after_swap).float()
