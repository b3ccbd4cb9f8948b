"""Fewer classes and fewer images of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from rightreasons.core import Batch
from rightreasons.data.arrays import Subset
from rightreasons.data.dataset import ImageDataset, stream


class OfClasses(Subset):
    """The images of some classes, which are numbered anew in the order in which they are named.

    Args:
        data: All images.
        names: Names of the classes to keep.

    Raises:
        ValueError: There is no such class, or one is named twice, or fewer than two are.
    """

    def __init__(self, data: ImageDataset, names: Sequence[str]) -> None:
        unknown = [name for name in names if name not in data.classes]
        if unknown:
            raise ValueError(f"{data.name} has no class {unknown[0]!r}. There are: {', '.join(data.classes)}")
        if len(names) < 2 or len(set(names)) < len(names):
            raise ValueError(f"expected at least two different classes, got {', '.join(names) or 'none'}")
        self.names = tuple(names)
        numbers = torch.tensor([data.classes.index(name) for name in names])
        super().__init__(data, torch.isin(data.target, numbers).nonzero().squeeze(1), change=", ".join(names))

    def batch(self, index: Int[Tensor, " batch"]) -> Batch:
        """The images of these positions of the part."""
        return replace(super().batch(index), target=self.target[index])

    def _wrap(self, data: ImageDataset) -> None:
        super()._wrap(data)
        self.classes = self.names
        numbers = torch.tensor([data.classes.index(name) for name in self.names])
        self.target = (self.target[:, None] == numbers).int().argmax(dim=1)


def drawn(data: ImageDataset, count: int, seed: int = 0) -> ImageDataset:
    """As many images, evenly from all classes, in the order of the data; of an uneven rest the first classes get more.

    Raises:
        ValueError: A class does not have as many.
    """
    classes = len(data.classes)
    keys = torch.rand(len(data), generator=stream(seed, "drawn"), dtype=torch.float64)
    chosen = torch.zeros(len(data), dtype=torch.bool)
    for number in range(classes):
        members = (data.target == number).nonzero().squeeze(1)
        wanted = (count + classes - 1 - number) // classes
        if wanted > len(members):
            raise ValueError(
                f"expected {wanted} images of class {data.classes[number]!r}, {data.name} has {len(members)}"
            )
        chosen[members[keys[members].argsort(stable=True)[:wanted]]] = True
    return Subset(data, chosen.nonzero().squeeze(1), change=f"{count} images (seed {seed})")
