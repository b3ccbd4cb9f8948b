"""Masks that should not help, and masks that say less: they show whether it is the mask that does the work."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rightreasons.core import Batch, MissingAnnotation
from rightreasons.data.dataset import ImageDataset, Wrapper, stream
from rightreasons.data.decoyed import blocks
from rightreasons.data.decoys import PatchDecoy
from rightreasons.data.tag import TagDecoy

MaskControl = Literal["zero", "random", "wrong", "incomplete"]


class WithMasks(Wrapper):
    """The same images with other masks; which images are annotated stays as it is.

    - ``zero``: nothing is marked. Shows what a loss does without its mask.
    - ``random``: each image's own masks, moved around the edges by an offset drawn for that image: as many pixels,
      and a place that says nothing about the true one.
    - ``wrong``: a square of the patch's size in the middle of the upper edge, where no corner decoy ever is, is
      marked irrelevant in every image. Relevant masks are the image's own, moved sideways by half its width around the
      edges: as many pixels, amid the border where the object is not. What is relevant on both sides stays so.
    - ``incomplete``: of each image's irrelevant pixels only the upper half is marked: the first half in reading order,
      of an odd number one more. The same half in all images, so that no image tells what the others leave out.

    Source: ``wrong`` and ``incomplete`` are the feedback of that kind in Friedrich et al. 2023, arXiv:2203.03668: a
    block of 16 pixels amid the border, and 8 of the 16 pixels; which border and which 8 is our choice, and so are the
    wrong relevant masks, which the paper has none of.

    Args:
        data: The images with their true masks.
        kind: Which control.
        seed: Of the offsets.
        size: Side of the square of ``wrong``; that of the decoy in ``data`` by default.

    Raises:
        ValueError: No such kind, or no size is known, or the square would reach into a corner of that size.
    """

    def __init__(self, data: ImageDataset, kind: MaskControl, *, seed: int = 0, size: int | None = None) -> None:
        if kind not in get_args(MaskControl):
            raise ValueError(f"expected kind {', '.join(get_args(MaskControl))}, got {kind!r}")
        _, height, width = data.shape
        self.kind = kind
        self.size = _checked_size(size or patch_size(data), height, width) if kind == "wrong" else None
        generator = stream(seed, "mask control")
        self.down, self.right = (torch.randint(side, (len(data),), generator=generator) for side in (height, width))
        super().__init__(data, f"{kind} masks" + (f" (seed {seed})" if kind == "random" else ""))

    def batch(self, index: Int[Tensor, " batch"]) -> Batch:
        """The images of these positions with the control's masks.

        Raises:
            MissingAnnotation: There are no masks to move or to halve.
        """
        batch = self.data.batch(index)
        if self.kind == "random":
            return self._moved(batch, index)
        if self.kind == "incomplete":
            return self._halved(batch)
        nothing = torch.zeros_like(batch.inputs[:, :1])
        if self.size is not None:
            return self._misplaced(batch, index, self.size)
        return replace(batch, irrelevant=nothing, relevant=None if batch.relevant is None else nothing)

    def _misplaced(self, batch: Batch, index: Tensor, size: int) -> Batch:
        height, width = batch.inputs.shape[-2:]
        left = torch.full_like(index, (width - size) // 2)
        block = blocks(torch.zeros_like(index), left, size, (height, width)).to(batch.inputs.dtype)
        relevant = None if batch.relevant is None else batch.relevant.roll(width // 2, dims=-1)
        return replace(batch, irrelevant=block, relevant=relevant)

    def _moved(self, batch: Batch, index: Tensor) -> Batch:
        if batch.relevant is None and batch.irrelevant is None:
            raise MissingAnnotation(f"{self.name}: expected masks to move, and the images have none")
        masks = {"relevant": batch.relevant, "irrelevant": batch.irrelevant}
        down, right = self.down[index], self.right[index]
        relevant, irrelevant = (None if m is None else rolled(m, down, right) for m in masks.values())
        return replace(batch, relevant=relevant, irrelevant=irrelevant)

    def _halved(self, batch: Batch) -> Batch:
        if batch.irrelevant is None:
            raise MissingAnnotation(f"{self.name}: expected irrelevant masks to halve, and the images have none")
        marked = (batch.irrelevant > 0).flatten(1)
        number, place = marked.sum(dim=1, keepdim=True), marked.cumsum(dim=1)
        kept = (place <= (number + 1) // 2).view_as(batch.irrelevant)
        return replace(batch, irrelevant=batch.irrelevant * kept)


class Annotated(Wrapper):
    """The same images, but only some keep their masks; those of the others are emptied and do not count.

    Args:
        data: The images with their masks.
        count: How many keep them, drawn evenly from all images.
        share: The same as a share of the images; give one of the two.
        seed: Of the draw.

    Raises:
        ValueError: Not exactly one of ``count`` and ``share``, or more than there are images.
    """

    def __init__(
        self, data: ImageDataset, *, count: int | None = None, share: float | None = None, seed: int = 0
    ) -> None:
        if (count is None) == (share is None):
            raise ValueError(f"expected either count or share, got count={count} and share={share}")
        number = count if count is not None else round((share or 0.0) * len(data))
        if not 0 <= number <= len(data):
            raise ValueError(f"expected 0 to {len(data)} annotated images, got {number}")
        keys = torch.rand(len(data), generator=stream(seed, "annotated"), dtype=torch.float64)
        self.chosen = torch.zeros(len(data), dtype=torch.bool)
        self.chosen[keys.argsort(stable=True)[:number]] = True
        super().__init__(data, f"{number} annotated (seed {seed})")

    def batch(self, index: Int[Tensor, " batch"]) -> Batch:
        """The images of these positions."""
        batch = self.data.batch(index)
        annotated = batch.annotated_rows() & self.chosen[index]
        keep = annotated.view(-1, 1, 1, 1)
        relevant, irrelevant = (None if mask is None else mask * keep for mask in (batch.relevant, batch.irrelevant))
        return replace(batch, relevant=relevant, irrelevant=irrelevant, annotated=annotated)


def patch_size(data: ImageDataset) -> int | None:
    """Side of the decoy's patch, however many wrappers lie around it; ``None`` without one."""
    while isinstance(data, Wrapper):
        if isinstance(data, PatchDecoy | TagDecoy):
            return data.settings.size
        data = data.data
    return None


def rolled(
    maps: Float[Tensor, "batch 1 height width"], down: Int[Tensor, " batch"], right: Int[Tensor, " batch"]
) -> Float[Tensor, "batch 1 height width"]:
    """Each map moved by its own offset; what leaves at one edge comes in at the other."""
    height, width = maps.shape[-2:]
    rows = (torch.arange(height) - down.view(-1, 1)) % height
    columns = (torch.arange(width) - right.view(-1, 1)) % width
    image = torch.arange(len(maps)).view(-1, 1, 1)
    return maps[image, 0, rows.unsqueeze(2), columns.unsqueeze(1)].unsqueeze(1)


def _checked_size(size: int | None, height: int, width: int) -> int:
    if size is None:
        raise ValueError("expected size= for wrong masks, as there is no patch decoy whose size could be taken")
    if not (size >= 1 and 3 * size <= width and 2 * size <= height):
        raise ValueError(f"expected a square that leaves the corners of {height}x{width} images free, got size {size}")
    return size
