"""A penalty on what layers find at irrelevant pixels, without a double backward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rightreasons.core import BadModel, Batch, Classifier, ExplanationLoss
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
class TAP(ExplanationLoss):
    """Targeted activation penalty: what layers hand on where the image is irrelevant.

    For each layer the sum over its places of (A * sum over channels of the rectified activation)^2; the mean over
    layers and over annotated images. A is the ``irrelevant`` mask, widened by one pixel to each side (a 3 x 3
    max-pooling) and averaged down to the layer's resolution. Nothing is differentiated twice.

    Source: Zhang et al. 2024, arXiv:2311.12813. Activations are rectified here, so that a layer may be named by its
    convolution as well as by its ReLU; which layers they tap is a setting there, too, and our default is ours.

    Args:
        layers: Names of the layers; ``None`` takes every two-dimensional convolution.
    """

    layers: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.layers is not None:
            if isinstance(self.layers, str) or not self.layers:
                raise ValueError(f"expected a list of names of layers, got {self.layers!r}")
            object.__setattr__(self, "layers", tuple(self.layers))

    def tapped(self, model: Classifier) -> tuple[str, ...]:
        """Names of the layers whose activations it asks for.

        Raises:
            BadModel: None was named and the network has no convolution.
        """
        if self.layers is not None:
            return tuple(self.layers)
        found = tuple(n for n, m in model.network.named_modules() if isinstance(m, nn.Conv2d))
        if not found:
            raise BadModel("TAP penalizes layers of maps and this network has no convolution; name layers of maps")
        return found

    def __call__(self, model: Classifier, batch: Batch, logits: Float[Tensor, "batch classes"]) -> Float[Tensor, ""]:
        """The mean over annotated images with irrelevant pixels."""
        if nothing_annotated(batch):
            return connected_zero(logits)
        mask = mask_of(batch, "irrelevant", type(self).__name__)
        layers = self.tapped(model)
        with preserved(model.network):
            activations = model.trace(batch.inputs, layers).activations
        wide = F.max_pool2d(mask, 3, stride=1, padding=1)
        penalties = [_at_irrelevant(activations[layer], wide, layer) for layer in layers]
        penalty, mask = annotated_only(batch, torch.stack(penalties).mean(dim=0), mask)
        return mean_over(penalty, marked_images(mask))


def _at_irrelevant(activation: Tensor, mask: Float[Tensor, "batch 1 height width"], layer: str) -> Tensor:
    if activation.ndim != 4:
        raise BadModel(f"layer {layer!r} gives shape {tuple(activation.shape)}, expected maps (B, K, h, w)")
    found = activation.relu().sum(dim=1, keepdim=True)
    shrunk = F.adaptive_avg_pool2d(mask, (found.shape[-2], found.shape[-1]))
    return (shrunk * found).square().sum(dim=(1, 2, 3))
