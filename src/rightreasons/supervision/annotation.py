"""What every explanation loss asks of a batch: which images count, and their masks."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rightreasons.core import Batch, MissingAnnotation
from rightreasons.core.tensors import unit_maximum

Kind = Literal["relevant", "irrelevant"]


def nothing_annotated(batch: Batch) -> bool:
    """Whether the batch says itself that it holds no annotated image.

    Raises:
        ValueError: ``annotated`` is not one boolean an image.
    """
    if batch.annotated is None:
        return False
    if batch.annotated.dtype != torch.bool or batch.annotated.shape != (len(batch),):
        raise ValueError(
            f"expected annotated as {len(batch)} booleans, "
            f"got shape {tuple(batch.annotated.shape)} of {batch.annotated.dtype}"
        )
    return not bool(batch.annotated.any())


def connected_zero(logits: Float[Tensor, "batch classes"], owner: nn.Module | None = None) -> Float[Tensor, ""]:
    """Zero that hangs on the logits and on the weights of ``owner``, so that each of them has a gradient of zero.

    Distributed training waits for the gradient of every weight.
    """
    total = logits.sum()
    for weight in owner.parameters() if owner is not None else ():
        total = total + weight.sum().to(total)
    return total * 0


def mask_of(batch: Batch, kind: Kind, user: str) -> Float[Tensor, "batch 1 height width"]:
    """One mask of the batch, in the type of its images.

    Raises:
        MissingAnnotation: The batch carries no mask of this kind.
        ValueError: The mask does not fit the images.
    """
    mask: Tensor | None = getattr(batch, kind)
    if mask is None:
        other = "irrelevant" if kind == "relevant" else "relevant"
        found = "none" if getattr(batch, other) is None else f"only masks of {other} pixels"
        raise MissingAnnotation(f"{user} needs masks of {kind} pixels and the batch has {found}; annotate some images")
    expected = (len(batch.inputs), 1, *batch.inputs.shape[2:])
    if tuple(mask.shape) != expected:
        raise ValueError(f"expected {kind} masks of shape {expected}, got {tuple(mask.shape)}")
    return mask.to(batch.inputs.dtype)


def masks_of(batch: Batch, user: str) -> tuple[Tensor, Tensor]:
    """Both masks, (B, 1, H, W) each; a kind that is missing is all zero.

    Raises:
        MissingAnnotation: The batch carries neither kind.
        ValueError: A mask does not fit the images.
    """
    if batch.relevant is None and batch.irrelevant is None:
        raise MissingAnnotation(f"{user} needs masks of relevant or irrelevant pixels and the batch has neither")
    kinds: tuple[Kind, Kind] = ("relevant", "irrelevant")
    found = {kind: mask_of(batch, kind, user) for kind in kinds if getattr(batch, kind) is not None}
    blank = torch.zeros_like(next(iter(found.values())))
    return found.get("relevant", blank), found.get("irrelevant", blank)


def annotated_only(batch: Batch, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The rows of each tensor that belong to annotated images."""
    if batch.annotated is None:
        return tensors
    return tuple(tensor[batch.annotated] for tensor in tensors)


def comparable(heatmap: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch 1 height width"]:
    """Each map divided by its largest absolute value, in single precision or better."""
    return unit_maximum(heatmap.to(torch.promote_types(heatmap.dtype, torch.float32)))


def marked_images(marks: Tensor) -> Bool[Tensor, " batch"]:
    """Which images have a mark at all, for marks of shape (B, 1, H, W) that are numbers or booleans."""
    return marks.flatten(1).any(dim=1)


def ratio_of_sums(
    values: Float[Tensor, "batch 1 height width"], weights: Float[Tensor, "batch 1 height width"]
) -> Float[Tensor, " batch"]:
    """Sum of each image's weighted values over that of its weights; zero where all of these are."""
    # A half-precision mask would round its own sum.
    total = weights.sum(dim=(1, 2, 3), dtype=values.dtype)
    return values.sum(dim=(1, 2, 3)) / total.clamp(min=torch.finfo(values.dtype).tiny)


def mean_over(values: Float[Tensor, " batch"], counted: Bool[Tensor, " batch"]) -> Float[Tensor, ""]:
    """Mean over the images that count; a zero on the graph where none does.

    Nothing is selected, so an accelerator need not be waited for.
    """
    return torch.where(counted, values, 0).sum() / counted.sum().clamp(min=1)
