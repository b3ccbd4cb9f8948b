"""The point of a line at which the model flips."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rightreasons.counterfactuals.search import Search


def bisected(
    search: Search,
    candidates: Float[Tensor, "batch channels height width"],
    image: Int[Tensor, " rows"],
    halvings: int,
) -> Iterator[None]:
    """Move valid ``candidates`` towards their originals, to the last valid point that bisection finds, in place.

    Args:
        search: The call under way.
        candidates: One image of each original, changed in place.
        image: The originals whose candidates are valid and are moved.
        halvings: Halvings of the line: it ends at most 2^-halvings of its length behind the boundary.
    """
    far = candidates.clone()
    low = torch.zeros(len(far), 1, 1, 1, dtype=far.dtype, device=far.device)
    high = torch.ones_like(low)
    for _ in range(halvings):
        image = search.affordable(image)
        if not len(image):
            return
        middle = (low[image] + high[image]) / 2
        tried = torch.lerp(search.inputs[image], far[image], middle)
        valid = search.offer(tried, image, search.logits(tried, image))
        candidates[image[valid]] = tried[valid]
        high[image[valid]], low[image[~valid]] = middle[valid], middle[~valid]
        yield
