"""A small tag near the lower right corner, as a hospital's on its X-ray pictures."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rightreasons.core import Batch
from rightreasons.data.dataset import ImageDataset, Split, stream
from rightreasons.data.decoyed import DecoyDataset, blocks, require_unit_range

MARGIN, PLACES = 2, 4
"""Pixels between the tag's last place and the edge, and how many places there are along each axis."""
LEAST = 3
"""Pixels of a ring with a center."""


@dataclass(frozen=True)
class TagProtocol:
    """A white ring with a white center on black, present in most images of the first half of the classes.

    Its place is drawn from 4 x 4 places near the lower right corner. In training an image of the first half of the
    classes bears it with the chance ``agreement``, one of the others with the chance left over; in the test the other
    way round, so that the tag lies.

    Attributes:
        size: Side of the tag in pixels.
        agreement: Chance that a training image bears the tag if its class is of the first half.
        source: Who published it.
    """

    size: int
    agreement: float
    source: str


class TagDecoy(DecoyDataset):
    """Images some of which bear a tag; made by ``decoy``.

    ``irrelevant`` is the tag, empty where there is none; all images are annotated, and masks that they carried are
    replaced. ``relevant`` is the bright part of the clean image outside the tag, if asked for.
    """

    def __init__(
        self,
        data: ImageDataset,
        settings: TagProtocol,
        *,
        split: Split,
        seed: int,
        foreground: float | None,
        change: str,
    ) -> None:
        _, height, width = data.shape
        # Above and left of all places there must be as much room again, so that it is a corner.
        most = (min(height, width) - MARGIN - PLACES + 1) // 2
        if most < LEAST:
            raise ValueError(f"expected images of at least 11x11 pixels for a tag, got {height}x{width}")
        if not LEAST <= settings.size <= most:
            raise ValueError(
                f"expected a tag of {LEAST} to {most} pixels for images of {height}x{width}, got {settings.size}: "
                "choose another with size="
            )
        self.settings, self.split, self.source, self.foreground = settings, split, settings.source, foreground
        classes = len(data.classes)
        self.half = _half(classes)
        steps = torch.randint(PLACES, (2, len(data)), generator=stream(seed, "tag's place"))
        first = torch.tensor([height, width]) - settings.size - MARGIN - PLACES + 1
        self.top, self.left = first.view(2, 1) + steps
        agrees = torch.rand(len(data), generator=stream(seed, "tag")) < settings.agreement
        generator = stream(seed, "tag's class")
        own = data.target if split == "train" else of_other_half(data.target, classes, generator)
        self.shown = torch.where(agrees, own, of_other_half(own, classes, generator))
        super().__init__(data, change)

    def batch(self, index: Int[Tensor, " batch"]) -> Batch:
        """The images of these positions, with their tags."""
        batch = self.data.batch(index)
        patch = self.patch(index)
        drawn = self._drawn(index)
        inputs = torch.where(patch, drawn, batch.inputs)
        relevant = None
        if self.foreground is not None:
            bright = batch.inputs.amax(dim=1, keepdim=True) > self.foreground
            relevant = (bright & ~patch).to(inputs.dtype)
        return replace(batch, inputs=inputs, relevant=relevant, irrelevant=patch.to(inputs.dtype), annotated=None)

    def patch(self, index: Int[Tensor, " batch"]) -> Bool[Tensor, "batch 1 height width"]:
        """Where each image's tag is; nowhere, where it has none."""
        bears = self.sign[index].bool().view(-1, 1, 1, 1)
        return self._block(index, 0) & bears

    @property
    def signs(self) -> int:
        """Two: without the tag, and with it."""
        return 2

    @property
    def sign(self) -> Int[Tensor, " images"]:
        """1 where an image bears the tag."""
        return (self.shown < self.half).long()

    def swapped(self, seed: int = 0) -> DecoyDataset:
        """The same images, each with a tag where it had none, and without one where it had it; no seed changes that.

        Raises:
            ValueError: There is only one class.
        """
        return self._bearing(
            of_other_half(self.shown, len(self.classes), stream(seed, "swap")), f"swapped (seed {seed})"
        )

    def unrelated(self, seed: int = 0) -> DecoyDataset:
        """The same images, half of which, whatever their class, bear the tag."""
        bears = torch.rand(len(self), generator=stream(seed, "unrelated")) < 0.5
        return self._bearing(torch.where(bears, 0, self.half), f"unrelated (seed {seed})")

    def _bearing(self, shown: Int[Tensor, " images"], told: str) -> DecoyDataset:
        other = copy.copy(self)
        other.change = f"{self.change}, {told}"
        other.shown = shown
        other._wrap(self.data)
        return other

    def _drawn(self, index: Int[Tensor, " batch"]) -> Float[Tensor, "batch 1 height width"]:
        """White where the tag's ring and its center are, else black."""
        size = self.settings.size
        ring = self._block(index, 0) & ~self._block(index, 1)
        center = self._block(index, (size - 1) // 2)
        return (ring | center).to(torch.float32)

    def _block(self, index: Int[Tensor, " batch"], inside: int) -> Bool[Tensor, "batch 1 height width"]:
        """The tag's square without as many pixels on each side."""
        _, height, width = self._shape
        size = self.settings.size - 2 * inside
        return blocks(self.top[index] + inside, self.left[index] + inside, size, (height, width))

    def _wrap(self, data: ImageDataset) -> None:
        require_unit_range(data)
        super()._wrap(data)
        self._shape = data.shape


def of_other_half(shown: Int[Tensor, " images"], classes: int, generator: torch.Generator) -> Int[Tensor, " images"]:
    """For each class one of the other half of the classes, drawn evenly.

    Raises:
        ValueError: There is only one class.
    """
    if classes < 2:
        raise ValueError(f"expected at least two classes, got {classes}")
    half = _half(classes)
    first = torch.randint(half, shown.shape, generator=generator)
    second = torch.randint(half, classes, shown.shape, generator=generator)
    return torch.where(shown < half, second, first)


def _half(classes: int) -> int:
    """How many classes the first half has."""
    return (classes + 1) // 2
