"""Groups of images: a class together with a feature that goes with it, for worst-group figures and for balancing."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from rightreasons.core import Batch, MissingAnnotation
from rightreasons.data.arrays import ArrayDataset, Subset
from rightreasons.data.dataset import ImageDataset, Wrapper
from rightreasons.data.decoyed import DecoyDataset

CHUNK = 256
WHO_HAS_GROUPS = (
    "No layout of a folder holds groups: squares_symmetric and squares_asymmetric have them, and images with a decoy "
    "(--decoy); in Python wrap the images in Grouped(data, group). The recipe jtt does without"
)


class Grouped(Wrapper):
    """The same images with ``Batch.group`` filled in.

    A decoy does not fill it by itself: which class's sign an image bears is told by :func:`groups_of` to those who ask.

    Args:
        data: The images.
        group: Group of each image; that of :func:`groups_of` where none is given.

    Raises:
        MissingAnnotation: No groups were given and the images have none.
        ValueError: Not one group an image, or a group below 0.
    """

    def __init__(self, data: ImageDataset, group: Int[Tensor, " images"] | None = None) -> None:
        self.group = required_groups(data, "training by groups") if group is None else _checked(group, len(data))
        super().__init__(data, f"{int(torch.bincount(self.group).count_nonzero())} groups")

    def batch(self, index: Int[Tensor, " batch"]) -> Batch:
        """The images of these positions with their groups."""
        return replace(self.data.batch(index), group=self.group[index])


def groups_of(data: ImageDataset) -> Int[Tensor, " images"] | None:
    """The group of each image; ``None`` where the images have none.

    Under a decoy it is ``class * number of signs + sign that the image bears``, whatever groups the images inside
    have. Otherwise it is what the data set itself says (``Batch.group``).
    """
    if isinstance(data, Grouped | ArrayDataset):
        return data.group
    if isinstance(data, DecoyDataset):
        return data.target * data.signs + data.sign
    if isinstance(data, Subset):
        inside = groups_of(data.data)
        return None if inside is None else inside[data.index]
    if isinstance(data, Wrapper) and len(data) == len(data.data):
        return groups_of(data.data)
    return _read(data)


def signs_of(data: ImageDataset) -> int:
    """How many signs a decoy has, where :func:`groups_of` counts by them; else as many as there are classes."""
    if isinstance(data, DecoyDataset):
        return data.signs
    return signs_of(data.data) if isinstance(data, Wrapper) else len(data.classes)


def required_groups(data: ImageDataset, user: str) -> Int[Tensor, " images"]:
    """The group of each image, for who cannot do without.

    Raises:
        MissingAnnotation: The images have none.
    """
    group = groups_of(data)
    if group is None:
        raise MissingAnnotation(
            f"{user} needs to know the group of each image (its class together with a feature such as its background), "
            f"and {data.name} does not tell it. {WHO_HAS_GROUPS}"
        )
    return group


def _read(data: ImageDataset) -> Tensor | None:
    """From the batches; the first image says whether there is anything to read."""
    if len(data) == 0 or data[0].group is None:
        return None
    rows = torch.split(torch.arange(len(data)), CHUNK)
    return torch.cat([group for index in rows if (group := data.batch(index).group) is not None])


def _checked(group: Tensor, images: int) -> Tensor:
    if group.shape != (images,) or group.is_floating_point() or group.dtype == torch.bool:
        raise ValueError(f"expected {images} group numbers, got {group.dtype} {tuple(group.shape)}")
    if images and int(group.min()) < 0:
        raise ValueError(f"expected groups of at least 0, got {int(group.min())}")
    return group.long()
