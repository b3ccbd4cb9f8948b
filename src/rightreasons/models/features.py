"""What single layers of a network hold."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from rightreasons.core import BadModel, Classifier
from rightreasons.core.hooks import captured, preserved


def feature_maps(
    model: Classifier, inputs: Float[Tensor, "batch ..."], layers: Sequence[str]
) -> dict[str, Float[Tensor, "batch ..."]]:
    """What these layers give for these images, off the graph: (B, C, h, w) of convolutions, (B, T, D) of token layers.

    One pass in the mode that the model is in; the model is left as it was. ``model.trace`` gives the same on the graph.

    Raises:
        ValueError: No layer is named.
        BadModel: A layer does not exist, does not run, runs more than once, or gives no tensor.
    """
    if isinstance(layers, str) or not layers:
        raise ValueError(f"expected the names of layers, got {layers!r}")
    with torch.no_grad(), preserved(model.network), captured(model.network, layers) as activations:
        model(inputs)
    missing = [name for name in layers if name not in activations]
    if missing:
        raise BadModel(f"layer {missing[0]!r} does not run in a pass, so it has nothing to show; choose another")
    return {name: activations[name] for name in layers}
