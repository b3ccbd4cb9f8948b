"""Down the gradient of two wishes: to be the target, and to stay near."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rightreasons.core import ANY_OTHER
from rightreasons.core.settings import check_counts, check_not_negative, check_positive
from rightreasons.core.tensors import elastic_net, total_variation, unit_length
from rightreasons.counterfactuals.anytime import AnytimeCounterfactual
from rightreasons.counterfactuals.lines import bisected
from rightreasons.counterfactuals.search import Objective, Search

Norm = Literal["l2", "l1", "elastic"]
"""What makes a change long: ``l2`` its Euclidean length, ``l1`` the sum of its absolute values, ``elastic`` the sum of
its squares plus ``sparsity`` times that of its absolute values."""

Loss = Literal["margin", "cross_entropy"]

DECAY, SQUARE_DECAY, TINY = 0.9, 0.999, 1e-8
"""Those of Adam."""

EQUAL = 0.01
"""Differences between neighbors below it, in a range of one, weigh less than a whole sign."""


@dataclass(frozen=True)
class Wachter(AnytimeCounterfactual):
    """Gradient descent on ``weight * loss + length + tv * total variation`` of the change, from the original on.

    Each of the two gradients is taken at length 1, so that neither the scale of the logits nor that of the pixels
    matters. The loss counts only while the image is not valid. Each image has a weight of its own, which grows at each
    step while the image is not valid and shrinks while it is, so that the image walks along the boundary and the length
    goes down: one descent in place of one for each of many weights. Steps are Adam's, clipped to the range of the
    pixels. An image that has got no shorter for ``patience`` steps leaves the batch. At the end bisection takes back
    what lies behind the boundary.

    Source: Wachter et al. 2017, arXiv:1711.00399; the margin loss of Carlini and Wagner 2017,
    arXiv:1608.04644, f6. Ours: gradients of length 1, the weight that moves at each step, total variation,
    the bisection.

    Args:
        norm: What makes a change long.
        loss: ``margin``: by how much the target's logit falls short of the largest other one; ``cross_entropy``.
        sparsity: Share of the absolute values in ``elastic``.
        tv: Weight of the total variation, the sum of absolute differences of neighboring pixels' changes; the signs of
            its gradient enlarge rounding, so with it a result depends a little on the size of the batch.
        steps: Gradients at most, the first at the original, so that one changed image less is tried.
        step_size: Size of the first step, as a share of the range of a pixel; it falls to a twentieth along a cosine.
        weight: Weight of the loss at the start.
        weight_change: Share by which the weight moves at each step.
        patience: Steps without a shorter valid image after which an image is finished.
        bisections: Halvings of the line to the boundary.
    """

    black_box: ClassVar[bool] = False

    norm: Norm = "l2"
    loss: Loss = "margin"
    sparsity: float = 0.1
    tv: float = 0.0
    steps: int = 100
    step_size: float = 0.1
    weight: float = 1.0
    weight_change: float = 0.05
    patience: int = 30
    bisections: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value, known in (("norm", self.norm, Norm), ("loss", self.loss, Loss)):
            if value not in get_args(known):
                raise ValueError(f"expected {name} to be one of {', '.join(get_args(known))}, got {value!r}")
        check_counts(steps=self.steps, patience=self.patience, bisections=self.bisections)
        check_positive(step_size=self.step_size, weight=self.weight)
        check_not_negative(sparsity=self.sparsity, tv=self.tv)
        if not 0 < self.weight_change < 1:
            raise ValueError(f"expected weight_change between 0 and 1, got {self.weight_change}")

    def search(self, search: Search) -> Iterator[None]:
        """Descend, then bisect."""
        images, weight = search.inputs.clone(), torch.full_like(search.inputs[:, :1, :1, :1], self.weight)
        adam = _Adam(torch.zeros_like(images), torch.zeros_like(images))
        idle = torch.zeros_like(search.target)
        image = search.all
        for step in range(self.steps):
            image = search.affordable(image[idle[image] < self.patience])
            if not len(image):
                break
            here, before = images[image], search.length[image]
            logits, slope = search.differentiate(here, image, self._objective(search))
            valid = search.offer(here, image, logits)
            weight[image] *= torch.where(valid, 1 - self.weight_change, 1 + self.weight_change).view(-1, 1, 1, 1)
            # Only from the first valid image on does it count as idle.
            waits = search.valid[image] & (search.length[image] == before)
            idle[image] = torch.where(waits, idle[image] + 1, 0)
            change = (here - search.inputs[image]) / self.width
            downhill = weight[image] * unit_length(slope) + unit_length(self._slope(change))
            move = self._size(step) * adam.direction(downhill, image, step)
            images[image] = (here - move).clamp(self.low, self.high)
            yield
        yield from bisected(search, search.images.clone(), search.all[search.valid], self.bisections)

    def distance(
        self,
        inputs: Float[Tensor, "batch channels height width"],
        images: Float[Tensor, "batch channels height width"],
    ) -> Float[Tensor, " batch"]:
        """The length of the change plus its weighted total variation, in units of the pixels' range."""
        moved = (images - inputs) / self.width
        change = moved.flatten(1)
        if self.norm == "elastic":
            length = elastic_net(change, self.sparsity)
        else:
            length = torch.linalg.vector_norm(change, dim=1) if self.norm == "l2" else change.abs().sum(dim=1)
        return length + self.tv * total_variation(moved) if self.tv else length

    def _objective(self, search: Search) -> Objective:
        def objective(logits: Float[Tensor, "rows classes"], image: Int[Tensor, " rows"]) -> Float[Tensor, " rows"]:
            short = search.hinge(logits, image)
            if self.loss == "margin":
                return short
            return torch.where(short > 0, cross_entropy(logits, search.target[image], search.predicted[image]), 0)

        return objective

    def _slope(self, change: Float[Tensor, "rows channels height width"]) -> Tensor:
        """The gradient of the distance with respect to the change."""
        if self.norm == "l2":
            slope = unit_length(change)
        else:
            slope = change.sign() if self.norm == "l1" else 2 * change + self.sparsity * change.sign()
        return slope + self.tv * _total_variation_slope(change) if self.tv else slope

    def _size(self, step: int) -> float:
        share = 0.05 + 0.95 * (1 + math.cos(math.pi * step / self.steps)) / 2
        return self.step_size * self.width * share


@dataclass(frozen=True, eq=False)
class _Adam:
    """Adam over images of which some are finished."""

    mean: Float[Tensor, "batch channels height width"]
    square: Float[Tensor, "batch channels height width"]

    def direction(self, slope: Tensor, image: Int[Tensor, " rows"], step: int) -> Tensor:
        mean = self.mean[image].lerp_(slope, 1 - DECAY)
        square = self.square[image].lerp_(slope.square(), 1 - SQUARE_DECAY)
        self.mean[image], self.square[image] = mean, square
        spread = (square / (1 - SQUARE_DECAY ** (step + 1))).sqrt_().add_(TINY)
        return mean.div_(spread).div_(1 - DECAY ** (step + 1))


def cross_entropy(
    logits: Float[Tensor, "rows classes"], target: Int[Tensor, " rows"], predicted: Int[Tensor, " rows"]
) -> Float[Tensor, " rows"]:
    """Minus the log-probability of the target; of any other class, that of all but the predicted one together."""
    chances = logits.log_softmax(dim=1)
    others = chances.scatter(1, predicted[:, None], -torch.inf).logsumexp(dim=1)
    wanted = chances.gather(1, target.clamp(min=0)[:, None])[:, 0]
    return -torch.where(target == ANY_OTHER, others, wanted)


def _total_variation_slope(change: Float[Tensor, "rows channels height width"]) -> Tensor:
    """Signs of the differences between neighbors; of what rounding makes of equal ones, next to nothing."""
    slope = torch.zeros_like(change)
    for dim in (2, 3):
        signs, size = (change.diff(dim=dim) / EQUAL).clamp(-1, 1), change.shape[dim] - 1
        slope.narrow(dim, 1, size).add_(signs)
        slope.narrow(dim, 0, size).sub_(signs)
    return slope
