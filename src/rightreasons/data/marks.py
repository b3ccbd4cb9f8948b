"""Which images somebody annotated, and in which a pixel is marked."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from rightreasons.core import MissingAnnotation
from rightreasons.data.dataset import ImageDataset


def annotated_images(data: ImageDataset, chunk: int = 256) -> Int[Tensor, " annotated"]:
    """The positions of the annotated images with a marked pixel, or of all annotated ones where no pixel is marked.

    Each image is read once.

    Raises:
        MissingAnnotation: No image is annotated.
    """
    annotated, marked = marks(data, chunk)
    found = (marked if bool(marked.any()) else annotated).nonzero().squeeze(1)
    if not len(found):
        raise MissingAnnotation(f"annotated images are to be drawn at every step, and {data.name} has none")
    return found


def marks(data: ImageDataset, chunk: int = 256) -> tuple[Bool[Tensor, " images"], Bool[Tensor, " images"]]:
    """Which images are annotated, and which of these have a marked pixel; each image is read once."""
    annotated, marked = (torch.zeros(len(data), dtype=torch.bool) for _ in range(2))
    for rows in torch.split(torch.arange(len(data)), chunk):
        batch = data.batch(rows)
        masks = [mask.flatten(1) for mask in (batch.relevant, batch.irrelevant) if mask is not None]
        if masks:
            annotated[rows] = batch.annotated_rows()
            marked[rows] = batch.annotated_rows() & (torch.cat(masks, dim=1) > 0).any(dim=1)
    return annotated, marked
