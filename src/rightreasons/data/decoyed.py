"""What data sets with a decoy share, whatever the decoy is."""

from __future__ import annotations

import copy
from abc import abstractmethod

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from rightreasons.data.dataset import ImageDataset, Split, Wrapper, stream


class DecoyDataset(Wrapper):
    """Images with a decoy.

    Attributes:
        data: The images without it; ``clean`` is the same.
        protocol: Name of the protocol.
        source: Who published it.
        split: Whether the decoy behaves as in training or as in the test.
        shown: Class whose sign each image bears, (N,) int64.
    """

    protocol: str
    source: str
    split: Split
    shown: Int[Tensor, " images"]

    @property
    def signs(self) -> int:
        """How many signs can be told apart; one a class, if not less."""
        return len(self.classes)

    @property
    def sign(self) -> Int[Tensor, " images"]:
        """Which of them each image bears."""
        return self.shown

    @property
    def clean(self) -> ImageDataset:
        """The images without the decoy."""
        return self.data

    def swapped(self, seed: int = 0) -> DecoyDataset:
        """The same images, each with the decoy of another class than the one it bears now, and nothing else changed.

        The other class is drawn evenly from all the others. For the decoy-swap invariance.

        Raises:
            ValueError: There is only one class.
        """
        other = copy.copy(self)
        other.change = f"{self.change}, swapped (seed {seed})"
        other.shown = other_class(self.shown, len(self.classes), stream(seed, "swap"))
        other._wrap(self.data)
        return other

    def unrelated(self, seed: int = 0) -> DecoyDataset:
        """The same images, each with a sign from which its class cannot be told; for probes of the sign.

        Where there are as many signs as classes, another class's says next to nothing of its own.
        """
        return self.swapped(seed)

    @abstractmethod
    def patch(self, index: Int[Tensor, " batch"]) -> Bool[Tensor, "batch 1 height width"]:
        """Where the decoy is."""


def other_class(own: Int[Tensor, " images"], classes: int, generator: torch.Generator) -> Int[Tensor, " images"]:
    """A class for each image, drawn evenly from all but its own.

    Raises:
        ValueError: There is no other.
    """
    if classes < 2:
        raise ValueError(f"expected at least two classes, got {classes}")
    return (own + torch.randint(1, classes, own.shape, generator=generator)) % classes


def require_unit_range(data: ImageDataset) -> None:
    """Refuse other pixel ranges.

    Raises:
        ValueError: Pixels do not lie in [0, 1].
    """
    if data.pixel_range != (0.0, 1.0):
        raise ValueError(f"expected pixels in [0, 1] under a decoy, got {data.pixel_range}; rescale afterwards")


def blocks(
    top: Int[Tensor, " batch"], left: Int[Tensor, " batch"], size: int, shape: tuple[int, int]
) -> Bool[Tensor, "batch 1 height width"]:
    """A square in each image, by its upper left pixel."""
    rows = torch.arange(shape[0]) - top.view(-1, 1)
    columns = torch.arange(shape[1]) - left.view(-1, 1)
    inside_rows, inside_columns = ((offset >= 0) & (offset < size) for offset in (rows, columns))
    return (inside_rows.unsqueeze(2) & inside_columns.unsqueeze(1)).unsqueeze(1)
