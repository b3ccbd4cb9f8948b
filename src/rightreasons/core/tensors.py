"""Small tensor functions that several floors need."""

from __future__ import annotations

import hashlib

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


def content(values: Tensor) -> bytes:
    """The numbers of a tensor as bytes, in the order in which it is read."""
    raw: bytes = values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return raw


def weights_digest(network: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and numbers of all weights and buffers."""
    digest = hashlib.sha256()
    for name, value in [*network.named_parameters(), *network.named_buffers()]:
        digest.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        digest.update(content(value))
    return digest.hexdigest()


def resized(
    maps: Float[Tensor, "batch channels _ _"], size: tuple[int, int]
) -> Float[Tensor, "batch channels height width"]:
    """Maps at another resolution, bilinear."""
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def unit_maximum(heatmap: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch 1 height width"]:
    """Each map divided by its own largest absolute value; a map of zeros stays zero.

    A peak below the smallest normal number of its type counts as zero, too: the gradient, 1 / peak, would overflow.

    Source: Gao et al. 2022 (RES), section 4, which divides by the largest value of each sample.
    """
    peak = heatmap.abs().amax(dim=(1, 2, 3), keepdim=True)
    # Division by infinity gives zeros whose gradient is zero.
    nothing = torch.where(peak > 0, torch.inf, 1.0).to(peak.dtype)
    return heatmap / torch.where(peak >= torch.finfo(peak.dtype).tiny, peak, nothing)


def total_variation(images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, " batch"]:
    """The sum of the absolute differences of neighboring pixels, down and across."""
    down, across = (images.diff(dim=dim).abs().sum(dim=(1, 2, 3)) for dim in (2, 3))
    return down + across


def check_pair(inputs: Tensor, target: Tensor) -> None:
    """Refuse inputs and targets that do not go together.

    Raises:
        ValueError: Wrong number of dimensions, lengths or type.
    """
    if inputs.ndim < 2:
        raise ValueError(f"expected a batch of inputs, (B, C, H, W), got shape {tuple(inputs.shape)}")
    if target.ndim != 1 or len(target) != len(inputs):
        raise ValueError(f"expected one target an input, shape ({len(inputs)},), got shape {tuple(target.shape)}")
    if target.is_floating_point() or target.dtype == torch.bool:
        raise ValueError(f"expected class numbers as target, got {target.dtype}")


def check_classes(target: Int[Tensor, " images"], classes: int) -> None:
    """Refuse a class number that the model does not have.

    Raises:
        ValueError: A target lies outside 0 ... classes - 1.
    """
    low, high = int(target.min()), int(target.max())
    if low < 0 or high >= classes:
        raise ValueError(
            f"label out of range: expected 0 to {classes - 1}, got {low if low < 0 else high}: "
            f"the network has {classes} output{'' if classes == 1 else 's'}, and needs one for each class"
        )


def unit_length(slope: Float[Tensor, "rows ..."]) -> Tensor:
    """Each row at length 1; one of zeros stays zero."""
    length: Tensor = torch.linalg.vector_norm(slope, dim=tuple(range(1, slope.ndim)), keepdim=True)
    return slope / length.clamp(min=torch.finfo(slope.dtype).tiny)


def elastic_net(change: Float[Tensor, "batch numbers"], sparsity: float) -> Float[Tensor, " batch"]:
    """The squares of each row plus ``sparsity`` times the absolute values."""
    return change.square().sum(dim=1) + sparsity * change.abs().sum(dim=1)
