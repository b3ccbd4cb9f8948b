"""Which images somebody annotated, and in which a pixel is marked."""

from __future__ import annotations

from functools import reduce

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
    annotated, kinds = marks_by_kind(data, chunk)
    return annotated, reduce(torch.logical_or, kinds.values(), torch.zeros_like(annotated))


def marks_by_kind(
    data: ImageDataset, chunk: int = 256
) -> tuple[Bool[Tensor, " images"], dict[str, Bool[Tensor, " images"]]]:
    """Which images are annotated, and of each kind of mask there is, which of these have a pixel marked in it."""
    annotated = torch.zeros(len(data), dtype=torch.bool)
    kinds: dict[str, Bool[Tensor, " images"]] = {}
    for rows in torch.split(torch.arange(len(data)), chunk):
        batch = data.batch(rows)
        annotated[rows] = batch.annotated_rows()
        for kind, mask in (("relevant", batch.relevant), ("irrelevant", batch.irrelevant)):
            if mask is not None:
                own = kinds.setdefault(kind, torch.zeros_like(annotated))
                own[rows] = annotated[rows] & (mask.flatten(1) > 0).any(dim=1)
    return annotated, kinds
