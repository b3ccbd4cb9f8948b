"""Class activation maps: the activations of a layer, weighted by what they mean to the score."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from rightreasons.attribution.score import Score, check_score, explained, gradient
from rightreasons.core import Attribution, BadModel, Classifier
from rightreasons.core.tensors import resized


@dataclass(frozen=True)
class ClassActivationMap(Attribution):
    """What the maps of this family share: a method differs in its channel weights only.

    The map is ReLU of the weighted sum of the activations, at the resolution of the inputs (bilinear). Of a layer of
    tokens, (B, T, D), the patches are laid out on their square grid and a class token is left out.

    Args:
        layer: The layer explained; ``None`` leaves it to the model.
        score: The number that is explained.
    """

    differentiable: ClassVar[bool] = True
    signed: ClassVar[bool] = False

    layer: str | None = None
    score: Score = "logit"

    def __post_init__(self) -> None:
        check_score(self.score)

    @abstractmethod
    def weights(self, maps: Tensor, gradients: Tensor) -> Float[Tensor, "batch maps 1 1"]:
        """One weight a map, from the maps and the gradient of the score with respect to them."""

    def attribute(self, model: Classifier, inputs: Tensor, target: Tensor, *, graph: bool) -> Tensor:
        """The map, (B, 1, H, W)."""
        layer = self.layer or model.layer
        if layer is None:
            raise BadModel(
                f"{type(self).__name__} explains a layer of maps and this network has no convolution; "
                "name a layer, or take a method of the pixels such as Saliency"
            )
        trace = model.trace(inputs, (layer,))
        activation = trace.activations[layer]
        slope = gradient(explained(trace.logits, target, self.score), activation, graph=graph)
        maps, slopes = on_grid(activation, layer), on_grid(slope, layer)
        heatmap = (self.weights(maps, slopes) * maps).sum(dim=1, keepdim=True).relu()
        return resized(heatmap, (inputs.shape[-2], inputs.shape[-1]))


@dataclass(frozen=True)
class GradCAM(ClassActivationMap):
    """Grad-CAM: the weight of a map is the mean of its gradient.

    Source: Selvaraju et al. 2017, arXiv:1610.02391, Eqs. 1-2. The form that the reveal-to-revise paper calls
    "Grad-CAM++" is this one.
    """

    def weights(self, maps: Tensor, gradients: Tensor) -> Float[Tensor, "batch maps 1 1"]:
        """Mean over places of d score / d A."""
        return gradients.mean(dim=(2, 3), keepdim=True)


@dataclass(frozen=True)
class GradCAMPlusPlus(ClassActivationMap):
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
        sound = below > 0
        return torch.where(sound, positive / torch.where(sound, below, 1.0), 0.0).sum(dim=(2, 3), keepdim=True)


def on_grid(values: Tensor, layer: str) -> Float[Tensor, "batch maps rows columns"]:
    """Activations as maps: (B, K, h, w) as they are, tokens (B, T, D) on their square grid.

    Raises:
        BadModel: The layer has no places.
    """
    if values.ndim == 4:
        return values
    side = math.isqrt(values.shape[1]) if values.ndim == 3 else 0
    extra = values.shape[1] - side * side if side else 0
    if side < 2 or extra > 1:
        raise BadModel(f"layer {layer!r} gives shape {tuple(values.shape)}, expected maps or a square grid of tokens")
    patches = values[:, extra:]
    return patches.transpose(1, 2).reshape(len(values), -1, side, side)
