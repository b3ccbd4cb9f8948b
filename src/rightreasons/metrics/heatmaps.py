"""The heatmaps that a metric is given."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rightreasons.core import Batch


def checked(heatmap: Tensor, batch: Batch) -> Float[Tensor, "batch 1 height width"]:
    """The heatmaps off the graph, in at least single precision.

    Raises:
        ValueError: Not one map of the images' size an image, or a value is NaN or infinite.
    """
    expected = (len(batch), 1, *batch.inputs.shape[2:])
    if tuple(heatmap.shape) != expected:
        raise ValueError(f"expected heatmaps of shape {expected}, got {tuple(heatmap.shape)}")
    if not torch.isfinite(heatmap).all():
        raise ValueError("expected finite heatmaps, got NaN or infinity; has the model diverged?")
    return heatmap.detach().to(torch.promote_types(heatmap.dtype, torch.float32))


def finite_rows(heatmap: Float[Tensor, "batch 1 height width"]) -> Bool[Tensor, " batch"]:
    """Which maps have neither NaN nor infinity in them."""
    return torch.isfinite(heatmap).flatten(1).all(dim=1)
