"""Does the heatmap lie where a person said that it should: scores against the ``relevant`` mask.

All of them read the positive part of a heatmap, the evidence for the class. A score is NaN for an image without a
``relevant`` mask, or with an empty one: where only ``irrelevant`` is known there is no right place to find.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from rightreasons.core import Batch, Classifier, Metric
from rightreasons.core.tensors import unit_maximum
from rightreasons.metrics.heatmaps import checked


def values_of(heatmap: Tensor, batch: Batch) -> Float[Tensor, "batch 1 height width"]:
    """The heatmap off the graph, in at least single precision, each map divided by its largest absolute value.

    No score here changes with the scale of a map, and sums of very small or very large values stay exact.

    Raises:
        ValueError: Not one map of the images' size an image, or a value is NaN or infinite.
    """
    return unit_maximum(checked(heatmap, batch))


def positive_part(heatmap: Tensor, batch: Batch) -> Float[Tensor, "batch 1 height width"]:
    """The evidence for the class, largest value 1; zero everywhere for a map without any."""
    return unit_maximum(values_of(heatmap, batch).clamp(min=0))


def mask_of(batch: Batch, mask: Tensor | None, values: Tensor) -> Float[Tensor, "batch 1 height width"]:
    """The mask of each annotated image, zeros for the others.

    Raises:
        ValueError: The mask has another size than the heatmap.
    """
    if mask is None:
        return torch.zeros_like(values)
    if mask.shape != values.shape:
        raise ValueError(f"expected a mask of the heatmap's shape {tuple(values.shape)}, got {tuple(mask.shape)}")
    annotated = batch.annotated_rows().view(-1, 1, 1, 1)
    return torch.where(annotated, mask.to(values.dtype), torch.zeros_like(values))


def total(maps: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, " batch"]:
    """Sum over the pixels of each map."""
    return maps.sum(dim=(1, 2, 3))


def where_defined(score: Float[Tensor, " batch"], defined: Bool[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """The score, NaN where it is not defined."""
    return torch.where(defined, score, torch.full_like(score, torch.nan))


@dataclass(frozen=True)
class _Overlap(Metric):
    """Two sets of pixels compared: those that the map marks and those that the person marked.

    The map marks a pixel that reaches ``threshold`` times the map's own largest value (``>=``, as in Eq. 3 of the
    paper); a map without a positive value marks none. A mask that is not binary is binarized at 0.5.

    Attributes:
        threshold: Share of the map's own largest value from which a pixel is marked.
    """

    higher_is_better: ClassVar[bool] = True
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ValueError(f"expected a threshold above 0 and at most 1, got {self.threshold}")

    def __call__(
        self, model: Classifier, batch: Batch, heatmap: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, " batch"]:
        """One score an image."""
        values = positive_part(heatmap, batch)
        person = (mask_of(batch, batch.relevant, values) >= 0.5).to(values.dtype)
        marked = (values >= self.threshold).to(values.dtype)
        score = self.ratio(total(marked * person), total(marked), total(person))
        return where_defined(score, total(person) > 0)

    @abstractmethod
    def ratio(self, both: Tensor, marked: Tensor, person: Tensor) -> Tensor:
        """The score from the sizes of the three sets: in both, marked by the map, marked by the person."""


@dataclass(frozen=True)
class IoU(_Overlap):
    """Intersection over union of the binarized map and the mask; 0 for a map that marks nothing.

    Source: Gao et al. 2022 (RES), section 4, threshold 0.5 on a map divided by its largest value.
    """

    def ratio(self, both: Tensor, marked: Tensor, person: Tensor) -> Tensor:
        """The intersection over the union."""
        return both / (marked + person - both)


@dataclass(frozen=True)
class MaskPrecision(_Overlap):
    """Share of the marked pixels that lie in the mask; NaN for a map that marks nothing (see ``DeadMap``).

    Source: Gao et al. 2022 (RES), section 4.
    """

    def ratio(self, both: Tensor, marked: Tensor, person: Tensor) -> Tensor:
        """The intersection over the marked pixels."""
        return both / marked


@dataclass(frozen=True)
class MaskRecall(_Overlap):
    """Share of the mask that is marked; 0 for a map that marks nothing.

    Source: Gao et al. 2022 (RES), section 4.
    """

    def ratio(self, both: Tensor, marked: Tensor, person: Tensor) -> Tensor:
        """The intersection over the mask."""
        return both / person


@dataclass(frozen=True)
class MaskF1(_Overlap):
    """Harmonic mean of precision and recall of the binarized map; 0 for a map that marks nothing.

    Source: Gao et al. 2022 (RES), section 4.
    """

    def ratio(self, both: Tensor, marked: Tensor, person: Tensor) -> Tensor:
        """Twice the intersection over the sum of both sizes."""
        return 2 * both / (marked + person)


@dataclass(frozen=True)
class EnergyInMask(Metric):
    """Energy-based pointing game (EPG): share of the map's positive sum that lies in the mask.

    Needs no threshold. NaN for a map without a positive value (see ``DeadMap``); a constant map scores the mask's
    share of the image. A mask with values between 0 and 1 weighs the pixels.

    Source: Wang et al. 2020 (Score-CAM), the energy-based pointing game.
    """

    higher_is_better: ClassVar[bool] = True

    def __call__(
        self, model: Classifier, batch: Batch, heatmap: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, " batch"]:
        """One score an image."""
        values = positive_part(heatmap, batch)
        mask = mask_of(batch, batch.relevant, values)
        return where_defined(total(values * mask) / total(values), total(mask) > 0)


@dataclass(frozen=True)
class PointingGame(Metric):
    """Whether the map's largest value lies in the mask: 1 for a hit, 0 for a miss.

    Where several pixels share the largest value, the score is the share of them that hit: the chance that one drawn
    at random does, so that a constant map scores as chance and not as luck. NaN for a map without a positive value
    (see ``DeadMap``). A mask that is not binary is binarized at 0.5.

    Source: Zhang et al. 2018 (Excitation Backprop), the pointing game. The paper allows 15 pixels on large photographs;
    the default here is 0, and ties are our definition.

    Attributes:
        tolerance: Largest distance to the mask, Euclidean, in pixels, that still counts as a hit.
    """

    higher_is_better: ClassVar[bool] = True
    tolerance: int = 0

    def __post_init__(self) -> None:
        if self.tolerance < 0:
            raise ValueError(f"expected a tolerance of 0 pixels or more, got {self.tolerance}")

    def __call__(
        self, model: Classifier, batch: Batch, heatmap: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, " batch"]:
        """One score an image."""
        values = positive_part(heatmap, batch)
        mask = (mask_of(batch, batch.relevant, values) >= 0.5).to(values.dtype)
        largest = (values == 1).to(values.dtype)
        hit = total(largest * self._grown(mask)) / total(largest)
        return where_defined(hit, total(mask) > 0)

    def _grown(self, mask: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch 1 height width"]:
        """The mask and every pixel within the tolerance of it."""
        if self.tolerance == 0:
            return mask
        reach = torch.arange(-self.tolerance, self.tolerance + 1, device=mask.device)
        disc = (reach[:, None] ** 2 + reach[None, :] ** 2 <= self.tolerance**2).to(mask.dtype)
        return (F.conv2d(mask, disc[None, None], padding=self.tolerance) > 0.5).to(mask.dtype)
