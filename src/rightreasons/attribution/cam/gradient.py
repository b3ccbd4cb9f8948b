"""Class activation maps whose weights are read off the gradient of the score with respect to the maps."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from rightreasons.attribution.cam.base import ClassActivationMap, on_grid, trace_from, weighted_sum
from rightreasons.attribution.score import Score, check_score, explained, gradient
from rightreasons.core import Classifier


@dataclass(frozen=True)
class GradientActivationMap(ClassActivationMap):
    """The sum of the maps, weighted: a method differs in its weights only.

    Off the graph a pass costs a forward pass and the way back from the logits to the layer.

    Args:
        layer: The layer explained; ``None`` leaves it to the model.
        score: The number that is explained.
    """

    score: Score = "logit"

    def __post_init__(self) -> None:
        check_score(self.score)

    @abstractmethod
    def weights(self, maps: Tensor, gradients: Tensor) -> Float[Tensor, "batch maps _ _"]:
        """One weight a map, or one a place of it, from the maps and the gradient of the score with respect to them."""

    def coarse(
        self, model: Classifier, inputs: Tensor, target: Tensor, *, layer: str, graph: bool
    ) -> Float[Tensor, "batch 1 rows columns"]:
        """The weighted sum."""
        trace = model.trace(inputs, (layer,)) if graph else trace_from(model, inputs, layer)
        activation = trace.activations[layer]
        slope = gradient(explained(trace.logits, target, self.score), activation, graph=graph)
        with torch.set_grad_enabled(graph):
            maps, slopes = (on_grid(values, layer, inputs, model.network) for values in (activation, slope))
            return weighted_sum(self.weights(maps, slopes), maps)


@dataclass(frozen=True)
class GradCAM(GradientActivationMap):
    """Grad-CAM: the weight of a map is the mean of its gradient.

    Source: Selvaraju et al. 2017, arXiv:1610.02391, Eqs. 1-2. The form that the reveal-to-revise paper calls
    "Grad-CAM++" is this one.
    """

    def weights(self, maps: Tensor, gradients: Tensor) -> Float[Tensor, "batch maps 1 1"]:
        """Mean over places of d score / d A."""
        return gradients.mean(dim=(2, 3), keepdim=True)


@dataclass(frozen=True)
class GradCAMPlusPlus(GradientActivationMap):
    """Grad-CAM++: positive gradients only, each weighted so that every place of an object counts alike.

    alpha = g^2 / (2 g^2 + g^3 sum(A)), weight = sum(alpha * ReLU(g)), with g = d score / d A. The paper explains
    Y = exp(score), whose derivatives are g, g^2 and g^3 times exp(score); in alpha that factor cancels, and in the
    weight, where it only scales the whole map of an image, it is left out.

    Source: Chattopadhay et al. 2018, arXiv:1710.11063, Eqs. 5, 12 and 19.
    """

    def weights(self, maps: Tensor, gradients: Tensor) -> Float[Tensor, "batch maps 1 1"]:
        """Sum over places of alpha * ReLU(g)."""
        # Where g > 0 the quotient is 1 / (2 + g sum(A)); elsewhere ReLU(g) is zero and alpha does not matter.
        positive = gradients.relu()
        below = 2 + positive * maps.sum(dim=(2, 3), keepdim=True)
        # With maps from before a ReLU the sum can be negative and the quotient change sign at a pole: no such weight.
        below = torch.where(below > 0, below, torch.inf)
        return (positive / below).sum(dim=(2, 3), keepdim=True)


@dataclass(frozen=True)
class XGradCAM(GradientActivationMap):
    """XGrad-CAM: the weight of a map is the mean of its gradient, each place weighted by its activation.

    weight = sum(g A) / sum(A). A map whose activations sum to exactly zero gets no weight. The paper's maps come from
    behind a ReLU; the sum of a map from before one can be small beside its values, and its weight is then large.

    Source: Fu et al. 2020, arXiv:2008.02312, Eq. 8.
    """

    def weights(self, maps: Tensor, gradients: Tensor) -> Float[Tensor, "batch maps 1 1"]:
        """Sum over places of g A, over the sum of A."""
        total = maps.sum(dim=(2, 3), keepdim=True)
        sound = total != 0
        weighted = (gradients * maps).sum(dim=(2, 3), keepdim=True)
        return torch.where(sound, weighted / torch.where(sound, total, 1.0), 0.0)


@dataclass(frozen=True)
class LayerCAM(GradientActivationMap):
    """Layer-CAM: every place of a map has a weight of its own, the positive part of the gradient there.

    So the maps of early layers keep their detail.

    Source: Jiang et al. 2021, LayerCAM, IEEE Transactions on Image Processing 30, Eqs. 5-7.
    """

    def weights(self, maps: Tensor, gradients: Tensor) -> Float[Tensor, "batch maps rows columns"]:
        """ReLU(d score / d A)."""
        return gradients.relu()


@dataclass(frozen=True)
class HiResCAM(GradientActivationMap):
    """HiRes-CAM: the gradient times the activation, place by place, summed over the maps.

    Values keep their sign. Where everything behind the layer is linear, the map before it is enlarged sums to the score
    less the part of the biases, and a place that the model did not use is zero.

    Source: Draelos and Carin 2020, arXiv:2011.08891, section 3.
    """

    signed: ClassVar[bool] = True

    def weights(self, maps: Tensor, gradients: Tensor) -> Float[Tensor, "batch maps rows columns"]:
        """D score / d A itself."""
        return gradients
