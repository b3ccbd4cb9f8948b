"""One map of several layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace

import torch
from torch import Tensor

from rightreasons.core import Attribution, Classifier
from rightreasons.core.tensors import unit_maximum
from rightreasons.models.classifier import Recorded


@dataclass(frozen=True)
class AcrossLayers(Attribution):
    """The mean over layers of a method's maps, each divided by its own largest absolute value.

    All layers share one pass. The paper of no method says how to join layers; this is grad-cam's way.

    Args:
        method: An attribution that explains a layer; its own setting of it is not used.
        layers: Names of the layers.
    """

    method: Attribution
    layers: Sequence[str]

    def __post_init__(self) -> None:
        if not is_dataclass(self.method) or all(item.name != "layer" for item in fields(self.method)):
            raise ValueError(f"expected a method that explains a layer, got {type(self.method).__name__}")
        if isinstance(self.layers, str) or not self.layers:
            raise ValueError(f"expected a list of names of layers, got {self.layers!r}")
        object.__setattr__(self, "layers", tuple(self.layers))

    @property
    def differentiable(self) -> bool:  # type: ignore[override]
        """As the method is."""
        return self.method.differentiable

    @property
    def signed(self) -> bool:  # type: ignore[override]
        """As the method is."""
        return self.method.signed

    def attribute(self, model: Classifier, inputs: Tensor, target: Tensor, *, graph: bool) -> Tensor:
        """The mean map, (B, 1, H, W)."""
        trace = model.trace(inputs, self.layers)
        recorded = Recorded(model, trace)
        maps = [
            replace(self.method, layer=layer).attribute(recorded, trace.inputs, target, graph=graph)  # type: ignore[type-var]
            for layer in self.layers
        ]
        return torch.stack([unit_maximum(heatmap.sum(dim=1, keepdim=True)) for heatmap in maps]).mean(dim=0)
