"""Class activation maps that need no gradient of the score: from the maps alone, and from scores of masked images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rightreasons.attribution.cam.base import ClassActivationMap, on_grid, weighted_sum
from rightreasons.attribution.cam.leading import leading_direction
from rightreasons.attribution.forward import Forward, autocast, check_max_batch, rows_at_once
from rightreasons.attribution.score import Score, check_score, explained
from rightreasons.core import Classifier
from rightreasons.core.tensors import resized


@dataclass(frozen=True)
class EigenCAM(ClassActivationMap):
    """Eigen-CAM: the maps projected on their first principal direction, whatever the class.

    A direction has no sign of its own, and the paper gives it none; here the map's largest absolute value is positive,
    as in Seg-Eigen-CAM (Chung and Ying 2025, Applied Sciences 15, 7562, Eq. 13). Where the two largest singular values
    are equal the map is not defined.

    Source: Muhammad and Yeasin 2020, arXiv:2008.00299, section III.

    Args:
        layer: The layer explained; ``None`` leaves it to the model.
        centered: Take each map's mean away first, as grad-cam does; the paper does not.
    """

    centered: bool = False

    def coarse(
        self, model: Classifier, inputs: Tensor, target: Tensor, *, layer: str, graph: bool
    ) -> Float[Tensor, "batch 1 rows columns"]:
        """The projection."""
        with torch.set_grad_enabled(graph):
            maps = on_grid(model.trace(inputs, (layer,)).activations[layer], layer, inputs, model.network)
            points = maps.flatten(2).mT
            # Matrix decompositions know no half precision.
            points = points.float() if points.dtype.itemsize < 4 else points
            if self.centered:
                points = points - points.mean(dim=1, keepdim=True)
            direction = leading_direction(points, graph=graph)
            heatmap = points @ direction[..., None]
            upright = heatmap.amax(dim=1, keepdim=True) >= -heatmap.amin(dim=1, keepdim=True)
            heatmap = torch.where(upright, heatmap, -heatmap)
            return heatmap.mT.reshape(len(maps), 1, *maps.shape[2:]).to(maps.dtype)


@dataclass(frozen=True)
class ScoreCAM(ClassActivationMap):
    """Score-CAM: the weight of a map is the score of the image seen through it.

    Each map is enlarged to the image, brought to [0, 1] by its smallest and largest value and multiplied with the
    image; the weights are the softmax over the maps of the scores. A constant map shows nothing: it stands for a black
    image, which is scored once for all. The score of the paper's baseline, black too, cancels in the softmax.

    Off the graph, maps of an image that are equal up to ``tolerance`` are scored once. On the graph all count, since
    equal maps may have different gradients.

    Source: Wang et al. 2020, arXiv:1910.01279, Algorithm 1.

    Args:
        layer: The layer explained; ``None`` leaves it to the model.
        score: The number that is explained.
        max_batch: Masked images that run through the model at once; bounds the memory. ``None``: 64 on a CPU
            and 256 elsewhere, and fewer if they are large (of 3x224x224, 3 and 55).
        tolerance: Masks are compared when rounded to multiples of it; 0 joins none.
        bfloat16: Score the masked images in bfloat16 (autocast): faster, to some two digits. The map has no graph then,
            and the method is not ``differentiable``.
    """

    score: Score = "logit"
    max_batch: int | None = None
    tolerance: float = 1e-3
    bfloat16: bool = False

    def __post_init__(self) -> None:
        check_score(self.score)
        check_max_batch(self.max_batch)
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"expected tolerance from 0 to below 1, got {self.tolerance}")
        if self.bfloat16:
            object.__setattr__(self, "differentiable", False)

    def coarse(
        self, model: Classifier, inputs: Tensor, target: Tensor, *, layer: str, graph: bool
    ) -> Float[Tensor, "batch 1 rows columns"]:
        """The sum of the maps, each times its weight."""
        with torch.set_grad_enabled(graph):
            maps = on_grid(model.trace(inputs, (layer,)).activations[layer], layer, inputs, model.network)
            with autocast(inputs, bfloat16=self.bfloat16):
                scores = self._scores(model, inputs, target, maps).to(maps.dtype)
            return weighted_sum(scores.softmax(dim=1)[:, :, None, None], maps)

    def _scores(self, model: Classifier, inputs: Tensor, target: Tensor, maps: Tensor) -> Float[Tensor, "batch maps"]:
        """The score of each image through each of its maps."""
        batch, channels = maps.shape[:2]
        shown = unit_range(maps.flatten(0, 1)).flatten(1)
        image = torch.arange(batch, device=maps.device).repeat_interleave(channels)
        chosen, same_as = distinct(shown, image, tolerance=0.0 if torch.is_grad_enabled() else self.tolerance)
        size = (inputs.shape[-2], inputs.shape[-1])
        parts = [self._scores_of_black(model, inputs, target, needed=torch.unique(image[same_as < 0]))]
        run = Forward(model)
        for rows in torch.split(chosen, rows_at_once(self.max_batch, inputs)):
            masks = unit_range(resized(maps.flatten(0, 1)[rows][:, None], size))
            logits = run(inputs[image[rows]] * masks, image[rows])
            parts.append(explained(logits, target[image[rows]], self.score))
        # The scores of black come first, one an image; then those of the masks.
        where = torch.where(same_as < 0, image, same_as + batch)
        return torch.cat(parts)[where].view(batch, channels)

    def _scores_of_black(
        self, model: Classifier, inputs: Tensor, target: Tensor, *, needed: Int[Tensor, " images"]
    ) -> Float[Tensor, " batch"]:
        """Of the images that need it; what belongs to the others is nobody's."""
        if not len(needed):
            return inputs.new_zeros(len(inputs))
        logits = model.rows(needed)(torch.zeros_like(inputs[needed]))
        scores = explained(logits, target[needed], self.score)
        return scores.new_zeros(len(inputs)).index_copy(0, needed, scores)


def unit_range(maps: Float[Tensor, " *shape"]) -> Float[Tensor, " *shape"]:
    """Each map less its smallest value, over its range; a map that is constant up to rounding is zero."""
    places = tuple(range(1, maps.ndim))
    low, high = maps.amin(places, keepdim=True), maps.amax(places, keepdim=True)
    varies = high - low > torch.finfo(maps.dtype).eps * torch.maximum(high.abs(), low.abs())
    return torch.where(varies, (maps - low) / torch.where(varies, high - low, 1.0), 0.0)


def distinct(
    shown: Float[Tensor, "rows places"], image: Int[Tensor, " rows"], *, tolerance: float
) -> tuple[Int[Tensor, " chosen"], Int[Tensor, " rows"]]:
    """Rows that stand for all, and for each row the place of the one that stands for it; -1 for a row of zeros.

    Args:
        shown: Masks with values in [0, 1].
        image: Rows of different images are different.
        tolerance: Rows that are equal when rounded to multiples of it are one; 0 joins no rows.
    """
    alive = (shown != 0).any(dim=1).nonzero()[:, 0]
    same_as = torch.full_like(image, -1)
    if tolerance == 0 or len(alive) == 0:
        same_as[alive] = torch.arange(len(alive), device=image.device)
        return alive, same_as
    rounded = (shown[alive].float() / tolerance).round().int()
    keys = torch.cat([image[alive, None].int(), rounded], dim=1)
    groups, group = torch.unique(keys, dim=0, return_inverse=True)
    # The first row of a group stands for it.
    first = torch.full((len(groups),), len(image), device=image.device).scatter_reduce(0, group, alive, "amin")
    same_as[alive] = group
    return first, same_as
