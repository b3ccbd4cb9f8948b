"""Pixels in their order: the sorted values of maps, and their ranks."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def ascending(values: Float[Tensor, "rows numbers"]) -> Float[Tensor, "rows numbers"]:
    """Each row sorted; on a CPU by numpy, which takes a twentieth of torch's time."""
    if values.device.type != "cpu":
        return values.sort(dim=1).values
    ordered = values.numpy().copy()
    ordered.sort(axis=1)
    return torch.from_numpy(ordered)


def _order(values: Float[Tensor, "rows numbers"]) -> Int[Tensor, "rows numbers"]:
    return torch.from_numpy(values.numpy().argsort(axis=1)) if values.device.type == "cpu" else values.argsort(dim=1)


def average_ranks(values: Float[Tensor, "rows numbers"]) -> Float[Tensor, "rows numbers"]:
    """The rank of each number in its row, from 0; equal numbers share the mean of theirs, as Spearman's rho asks."""
    rows, numbers = values.shape
    order = _order(values)
    ordered = values.gather(1, order)
    starts = torch.ones_like(order, dtype=torch.bool)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    ranks = torch.arange(numbers, dtype=torch.double, device=values.device).expand(rows, -1)
    if not starts.all():
        # Runs of equal numbers, counted through all rows; a row starts a run.
        run = starts.flatten().cumsum(0) - 1
        sizes = torch.bincount(run)
        sums = torch.zeros(len(sizes), dtype=ranks.dtype, device=values.device).index_add(0, run, ranks.flatten())
        ranks = (sums / sizes)[run].view(rows, numbers)
    return torch.empty_like(ordered, dtype=ranks.dtype).scatter(1, order, ranks)
