"""What class activation maps share: a layer, its maps and the way back to the pixels."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rightreasons.attribution.layout import patch_grid
from rightreasons.core import Attribution, BadModel, Classifier, Trace
from rightreasons.core.hooks import find_layer, substituted
from rightreasons.core.tensors import resized

_PLACES_LAST = (
    *(nn.Conv1d, nn.ConvTranspose1d, nn.BatchNorm1d, nn.InstanceNorm1d),
    *(nn.MaxPool1d, nn.AvgPool1d, nn.LPPool1d, nn.AdaptiveMaxPool1d, nn.AdaptiveAvgPool1d),
)
_PLACES_FIRST = (nn.Embedding, nn.LayerNorm, nn.RMSNorm, nn.TransformerEncoderLayer)


@dataclass(frozen=True)
class ClassActivationMap(Attribution):
    """The maps of a layer, brought together to one: a method differs in how.

    The map is at the resolution of the inputs (bilinear). Where a method is not ``signed`` it is cut off below zero. Of
    a layer of tokens, (B, T, D), the patches are laid out on their grid and tokens ahead of them are left out.

    Args:
        layer: The layer explained; ``None`` leaves it to the model.
    """

    differentiable: ClassVar[bool] = True
    signed: ClassVar[bool] = False

    layer: str | None = None

    @abstractmethod
    def coarse(
        self, model: Classifier, inputs: Tensor, target: Tensor, *, layer: str, graph: bool
    ) -> Float[Tensor, "batch 1 rows columns"]:
        """The map at the layer's own resolution, before it is cut off."""

    def attribute(self, model: Classifier, inputs: Tensor, target: Tensor, *, graph: bool) -> Tensor:
        """The map, (B, 1, H, W)."""
        layer = self.layer or model.layer
        if layer is None:
            raise BadModel(
                f"{type(self).__name__} explains a layer of maps and this network has no convolution; "
                "name a layer, or take a method of the pixels such as Saliency"
            )
        heatmap = self.coarse(model, inputs, target, layer=layer, graph=graph)
        with torch.set_grad_enabled(graph):
            heatmap = heatmap if self.signed else heatmap.relu()
            return resized(heatmap, (inputs.shape[-2], inputs.shape[-1]))


def on_grid(values: Tensor, layer: str, inputs: Tensor, network: nn.Module) -> Float[Tensor, "batch maps rows columns"]:
    """Activations as maps: (B, K, h, w) as they are, tokens (B, T, D) on the grid of their patches of the inputs.

    Where the inputs are one row of places, such as tokens, the maps are, too: of tokens (B, T, D), or with a class
    token ahead; of one-dimensional convolutions (B, D, T); or of two-dimensional ones that run down the tokens.

    Raises:
        BadModel: The layer has no places.
    """
    axis, (height, width) = map_axis(values, layer, inputs, network), (inputs.shape[2], inputs.shape[3])
    if values.ndim == 4:
        return values.mT if height == 1 and values.shape[2] > 1 else values
    if axis == 1:
        return values.unsqueeze(2)
    rows, columns = patch_grid(values.shape[1], (height, width), f"layer {layer!r}: ")
    patches = values[:, values.shape[1] - rows * columns :]
    return patches.transpose(1, 2).reshape(len(values), -1, rows, columns)


def map_axis(values: Tensor, layer: str, inputs: Tensor, network: nn.Module) -> int:
    """The axis of a layer's activations that counts its maps: 1, or 2 where they are the features of tokens.

    Raises:
        BadModel: The layer has no places, or its shape does not say where they are.
    """
    shape = tuple(values.shape)
    if len(shape) not in (3, 4) or shape[0] != len(inputs):
        raise BadModel(f"layer {layer!r} gives shape {shape}, expected maps or a grid of tokens")
    if inputs.shape[2] > 1:
        return 1 if len(shape) == 4 else 2
    if len(shape) == 4:
        if 1 not in shape[2:]:
            raise BadModel(f"layer {layer!r} gives maps of {shape[2]}x{shape[3]}, expected one row of places")
        return 1
    return _axis_in_a_row(shape, find_layer(network, layer), f"layer {layer!r} gives shape {shape}", inputs.shape[3])


def _axis_in_a_row(shape: tuple[int, ...], module: nn.Module, found: str, places: int) -> int:
    if isinstance(module, _PLACES_LAST):
        return 1
    first, last = shape[1] in (places, places + 1), shape[2] == places
    if first and last and not isinstance(module, _PLACES_FIRST):
        raise BadModel(f"{found}, which axis holds the {places} tokens cannot be told; name a normalization or Conv1d")
    if not first and not last:
        raise BadModel(f"{found}, expected one place for each of the {places} tokens")
    return 2 if first else 1


def weighted_sum(
    weights: Float[Tensor, "batch maps _ _"], maps: Float[Tensor, "batch maps rows columns"]
) -> Float[Tensor, "batch 1 rows columns"]:
    """The sum of the maps with one weight a map, (B, K, 1, 1), or one a place."""
    if weights.shape[2:] != (1, 1):
        return (weights * maps).sum(dim=1, keepdim=True)
    # A product of matrices needs no copy of the maps.
    return (weights.flatten(2).mT @ maps.flatten(2)).view(len(maps), 1, *maps.shape[2:])


def trace_from(model: Classifier, inputs: Tensor, layer: str) -> Trace:
    """A pass whose graph begins at the layer: what runs before it keeps nothing for a way back.

    Raises:
        BadModel: There is no such layer, or it runs twice in a pass.
    """
    begun: list[Tensor] = []

    def begin(output: Tensor) -> Tensor:
        if begun:
            raise BadModel(f"layer {layer!r} runs more than once in a pass, so its map is not defined; choose another")
        begun.append(output.detach().requires_grad_())
        # Lasts beyond the hook, until the block around the pass ends.
        torch.set_grad_enabled(True)
        return begun[0].clone()

    with torch.no_grad(), substituted(model.network, layer, begin):
        logits = model(inputs)
    # A recorded pass does not run again, and a layer may not run at all; the trace knows what to do or say.
    return Trace(inputs, logits, {layer: begun[0]}) if begun else model.trace(inputs, (layer,))
