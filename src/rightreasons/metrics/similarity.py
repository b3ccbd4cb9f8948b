"""How alike two heatmaps of an image are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rightreasons.core.tensors import unit_maximum
from rightreasons.metrics.ranking import average_ranks

Similarity = Literal["spearman", "ssim", "cosine"]
"""Spearman's rank correlation of the pixels; structural similarity; or the absolute cosine."""

Maps = Float[Tensor, "batch 1 height width"]

WINDOW = 7
"""Side of the windows of the structural similarity; the largest odd number that fits where maps are smaller."""


def check_similarity(similarity: str) -> None:
    """Refuse an unknown similarity.

    Raises:
        ValueError: It is none of :data:`Similarity`.
    """
    if similarity not in get_args(Similarity):
        raise ValueError(f"expected similarity to be one of {', '.join(get_args(Similarity))}, got {similarity!r}")


def compared(similarity: Similarity, first: Maps) -> Callable[[Maps], Float[Tensor, " batch"]]:
    """A function that says how alike each map is to its map in ``first``; what ``first`` needs is done once.

    At most 1, for equal maps. NaN where it is not defined: a constant map has no ranks, one of zeros no direction.
    """
    if similarity == "ssim":
        return lambda second: _structural(first, second)
    side = _ranked if similarity == "spearman" else _direction
    known = side(first)
    if similarity == "spearman":
        return lambda second: (known * side(second)).sum(dim=1)
    return lambda second: (known * side(second)).sum(dim=1).abs()


def _ranked(maps: Maps) -> Float[Tensor, "batch pixels"]:
    """The ranks of the pixels, centered, of length 1; NaN for a constant map."""
    ranks = average_ranks(maps.flatten(1))
    ranks = ranks - (ranks.shape[1] - 1) / 2
    return _unit(ranks)


def _direction(maps: Maps) -> Float[Tensor, "batch pixels"]:
    return _unit(unit_maximum(maps).flatten(1).double())


def _unit(rows: Float[Tensor, "batch pixels"]) -> Float[Tensor, "batch pixels"]:
    """Each row divided by its length; NaN for a row of zeros."""
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / lengths


def _structural(first: Maps, second: Maps) -> Float[Tensor, " batch"]:
    """Mean structural similarity over the windows that lie inside, of maps scaled by their largest absolute value.

    Source: Wang et al. 2004, Eq. 13, with its constants K1 = 0.01 and K2 = 0.03, windows of equal weights and sample
    (co)variances. The range of values is 2, or 1 where neither map is negative anywhere.
    """
    x, y = (unit_maximum(maps).double() for maps in (first, second))
    signed = torch.minimum(x, y).amin((1, 2, 3)) < 0
    span = torch.where(signed, 2.0, 1.0).to(x.dtype).view(-1, 1, 1, 1)
    side = min(WINDOW, *x.shape[-2:])
    side -= 1 - side % 2

    def mean(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, side, stride=1)

    unbiased = side**2 / max(1, side**2 - 1)
    mx, my = mean(x), mean(y)
    vx, vy, both = (
        unbiased * (mean(a * b) - ma * mb) for a, b, ma, mb in ((x, x, mx, mx), (y, y, my, my), (x, y, mx, my))
    )
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    alike: Tensor = (2 * mx * my + c1) * (2 * both + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return alike.mean(dim=(1, 2, 3))
