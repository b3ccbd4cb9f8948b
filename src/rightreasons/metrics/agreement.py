"""How far a heatmap and a person's ``relevant`` mask agree: ranks and masses (CLEVR-XAI), and Shared Interest.

As for the other scores of place, a map is its positive part unless told otherwise, and a score is NaN for an image
without a ``relevant`` mask, or with an empty one. A mask that is not binary is binarized at 0.5.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rightreasons.core import Batch, Classifier, Metric
from rightreasons.metrics.localization import mask_of, positive_part, values_of, where_defined
from rightreasons.metrics.ranking import ascending

Part = Literal["positive", "absolute"]
"""What of a signed map counts: the evidence for the class, or the evidence on either side."""


def _part_of(heatmap: Tensor, batch: Batch, part: Part) -> Float[Tensor, "batch 1 height width"]:
    return positive_part(heatmap, batch) if part == "positive" else values_of(heatmap, batch).abs()


def _check_part(part: str) -> None:
    if part not in get_args(Part):
        raise ValueError(f"expected part to be one of {', '.join(get_args(Part))}, got {part!r}")


def _marked(batch: Batch, values: Tensor) -> Bool[Tensor, "batch pixels"]:
    """The pixels that the person marked."""
    return (mask_of(batch, batch.relevant, values) >= 0.5).flatten(1)


def _share_in_mask(
    values: Float[Tensor, "batch pixels"], mask: Bool[Tensor, "batch pixels"], count: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """The share of each map's ``count`` largest pixels that lie in the mask.

    Of pixels that tie for the last places each has the same chance of one, so that a constant map scores as chance.
    """
    places = (values.shape[1] - count).clamp(max=values.shape[1] - 1)[:, None]
    last = ascending(values).gather(1, places)
    above, tied = values > last, values == last
    sure = (above & mask).sum(dim=1)
    left = (count - above.sum(dim=1)).to(values.dtype)
    chance = (tied & mask).sum(dim=1) / tied.sum(dim=1)
    return (sure + left * chance) / count


@dataclass(frozen=True)
class RelevanceMassAccuracy(Metric):
    """Share of the map's sum that lies in the mask. NaN for a map of zeros.

    With ``part="positive"`` this is the energy-based pointing game (``EnergyInMask``) on a binary mask.

    Source: Arras et al. 2022, arXiv:2003.07258, Eq. 1 (CLEVR-XAI). The paper pools channels into one map of positive
    values first, in one of six ways; here channels are summed and ``part`` says what becomes of the sign.

    Attributes:
        part: ``absolute`` counts evidence on either side; ``positive`` only that for the class.
    """

    higher_is_better: ClassVar[bool] = True
    part: Part = "absolute"

    def __post_init__(self) -> None:
        _check_part(self.part)

    def __call__(
        self, model: Classifier, batch: Batch, heatmap: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, " batch"]:
        """One score an image."""
        values = _part_of(heatmap, batch, self.part)
        mask = _marked(batch, values)
        mass = values.flatten(1)
        return where_defined((mass * mask).sum(dim=1) / mass.sum(dim=1), mask.any(dim=1))


@dataclass(frozen=True)
class RelevanceRankAccuracy(Metric):
    """Share of the K largest pixels that lie in the mask, K being the number of pixels in the mask.

    1 if all of the mask comes before all else, the mask's share of the image for a constant map. NaN for a map of
    zeros.

    Source: Arras et al. 2022, arXiv:2003.07258, Eq. 2 (CLEVR-XAI); for ``part`` see ``RelevanceMassAccuracy``. Pixels
    that tie for the last places count by their chance, which the paper leaves open.

    Attributes:
        part: ``positive`` ranks by the evidence for the class; ``absolute`` by that on either side.
    """

    higher_is_better: ClassVar[bool] = True
    part: Part = "positive"

    def __post_init__(self) -> None:
        _check_part(self.part)

    def __call__(
        self, model: Classifier, batch: Batch, heatmap: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, " batch"]:
        """One score an image."""
        values = _part_of(heatmap, batch, self.part)
        mask = _marked(batch, values)
        pixels, count = values.flatten(1), mask.sum(dim=1)
        return where_defined(_share_in_mask(pixels, mask, count), (count > 0) & (pixels.amax(dim=1) > 0))


@dataclass(frozen=True)
class TopKIntersection(Metric):
    """Share of the k largest pixels of the map that lie in the mask. NaN for a map of zeros.

    Source: Theiner et al. 2022, arXiv:2104.14995, section 3.3. Deviations: k is a share of the pixels, not a number,
    so that it means the same at any size of the images; pixels that tie for the last places count by their chance.

    Attributes:
        share: Of the pixels, rounded up; above 0 and at most 1.
    """

    higher_is_better: ClassVar[bool] = True
    share: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"expected a share above 0 and at most 1, got {self.share}")

    def __call__(
        self, model: Classifier, batch: Batch, heatmap: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, " batch"]:
        """One score an image."""
        values = positive_part(heatmap, batch)
        mask, pixels = _marked(batch, values), values.flatten(1)
        # Rounded first, or 0.07 of 100 pixels would be 8.
        count = torch.full_like(batch.target, math.ceil(round(self.share * pixels.shape[1], 6)), dtype=torch.long)
        return where_defined(_share_in_mask(pixels, mask, count), mask.any(dim=1) & (pixels.amax(dim=1) > 0))


@dataclass(frozen=True)
class _SharedInterest(Metric):
    """Two sets of pixels compared: those that stand out of the map and those that the person marked.

    A pixel stands out if it is ``deviations`` standard deviations above the map's mean or more; of a map without a
    positive value none does.

    Attributes:
        deviations: How far above the mean, in the map's own standard deviations.
    """

    higher_is_better: ClassVar[bool] = True
    deviations: float = 1.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.deviations):
            raise ValueError(f"expected a finite number of deviations, got {self.deviations}")

    def __call__(
        self, model: Classifier, batch: Batch, heatmap: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, " batch"]:
        """One score an image."""
        values = positive_part(heatmap, batch)
        mask, pixels = _marked(batch, values), values.flatten(1)
        spread, mean = torch.std_mean(pixels.double(), dim=1, correction=0, keepdim=True)
        out = (pixels >= mean + self.deviations * spread) & (pixels.amax(dim=1, keepdim=True) > 0)
        sizes = ((out & mask).sum(dim=1), out.sum(dim=1), mask.sum(dim=1))
        return where_defined(self.ratio(*(size.to(values.dtype) for size in sizes)), mask.any(dim=1))

    @abstractmethod
    def ratio(self, both: Tensor, out: Tensor, person: Tensor) -> Tensor:
        """The score from the sizes of the three sets: in both, standing out, marked by the person."""


@dataclass(frozen=True)
class IoUCoverage(_SharedInterest):
    """Shared Interest's IoU coverage: pixels in both over pixels in either; 0 for a map in which none stands out.

    Source: Boggust et al. 2022, arXiv:2107.09234, section 3; maps are binarized at one standard deviation above their
    mean, as there. Of a signed map the positive part is taken.
    """

    def ratio(self, both: Tensor, out: Tensor, person: Tensor) -> Tensor:
        """The intersection over the union."""
        return both / (out + person - both)


@dataclass(frozen=True)
class GroundTruthCoverage(_SharedInterest):
    """Shared Interest's ground-truth coverage: the share of the mask that stands out; 0 if nothing does.

    Source: Boggust et al. 2022, arXiv:2107.09234, section 3; as for ``IoUCoverage``.
    """

    def ratio(self, both: Tensor, out: Tensor, person: Tensor) -> Tensor:
        """The intersection over the mask."""
        return both / person


@dataclass(frozen=True)
class ExplanationCoverage(_SharedInterest):
    """Shared Interest's explanation (saliency) coverage: the share of what stands out that lies in the mask.

    NaN for a map in which nothing stands out.

    Source: Boggust et al. 2022, arXiv:2107.09234, section 3; as for ``IoUCoverage``.
    """

    def ratio(self, both: Tensor, out: Tensor, person: Tensor) -> Tensor:
        """The intersection over what stands out."""
        return both / out
