"""Parts of a data set, drawn under a seed."""

from __future__ import annotations

import torch

from rightreasons.data.arrays import Subset
from rightreasons.data.dataset import ImageDataset, stream


def split(data: ImageDataset, share: float, seed: int = 0) -> tuple[Subset, Subset]:
    """The rest, and a held-out ``share`` of each class; both keep the order of the data.

    Of a class with n images, ``share * n`` rounded to the nearest number are held out.

    Raises:
        ValueError: ``share`` is not between 0 and 1, or a part would be empty.
    """
    if not 0 < share < 1:
        raise ValueError(f"expected a share between 0 and 1, got {share}")
    keys = torch.rand(len(data), generator=stream(seed, "split"), dtype=torch.float64)
    held = torch.zeros(len(data), dtype=torch.bool)
    for number in range(len(data.classes)):
        members = (data.target == number).nonzero().squeeze(1)
        order = members[keys[members].argsort(stable=True)]
        held[order[: round(share * len(members))]] = True
    if not held.any() or held.all():
        raise ValueError(f"a share of {share} of {len(data)} images leaves a part empty")
    parts = {"rest": ~held, "held out": held}
    rest, held_out = (
        Subset(data, chosen.nonzero().squeeze(1), change=f"{part} of split {share:g}, seed {seed}")
        for part, chosen in parts.items()
    )
    return rest, held_out


def split_as_held(data: ImageDataset) -> tuple[Subset, Subset]:
    """The images to train on, and those that the data set itself holds out since their sources are apart.

    Raises:
        ValueError: The data set does not say which.
    """
    if data.held is None:
        raise ValueError(f"{data.name} holds out no images of its own; split it by a share")
    rest, held_out = (
        Subset(data, chosen.nonzero().squeeze(1), change=part)
        for part, chosen in (("own training images", ~data.held), ("own validation images", data.held))
    )
    return rest, held_out
