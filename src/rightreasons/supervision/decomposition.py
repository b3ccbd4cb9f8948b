"""A loss on what irrelevant pixels bring to the logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from rightreasons.attribution.contextual import Decomposition, decompose
from rightreasons.core import Batch, Classifier, ExplanationLoss
from rightreasons.core.hooks import preserved
from rightreasons.supervision.annotation import (
    annotated_only,
    connected_zero,
    marked_images,
    mask_of,
    mean_over,
    nothing_annotated,
)

Measure = Literal["softmax", "logits"]


@dataclass(frozen=True)
class CDEP(ExplanationLoss):
    """Contextual decomposition explanation penalty: how much the irrelevant pixels decide.

    A contextual decomposition splits each logit into beta, what the irrelevant pixels bring, and gamma, the rest. The
    published loss (``softmax``) is the softmax of the pair at beta, averaged over the classes. A network can get away
    from it: adding the same number to all logits leaves its answers alone and makes every gamma outweigh its beta, and
    under a large weight that is what it does. ``logits`` is the mean absolute difference of beta from its mean over the
    classes, which such a shift does not make smaller; that form is ours.

    It needs no second derivative, and one pass of its own, operator by operator: convolutions, dense layers,
    activations, pooling, BatchNorm and residual sums; another operator is an error that names it.

    With ``random_pixels`` no mask is needed: each of so many pixels, drawn anew for each batch in proportion to their
    mean value over its images, must decide nothing alone, as on the paper's ColorMNIST, whose color must not matter.

    Source: Rieger et al. 2020, arXiv:1909.13584; the softmax of the pair as in the authors' code.

    Args:
        measure: How much beta is: ``softmax`` as published, or ``logits``.
        random_pixels: Penalize so many random pixels of each batch in place of the irrelevant ones.
        seed: Of the draws; ``None`` draws from torch's global generator.
    """

    measure: Measure = "softmax"
    random_pixels: int = 0
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.measure not in get_args(Measure):
            raise ValueError(f"expected measure to be one of {', '.join(get_args(Measure))}, got {self.measure!r}")
        if self.random_pixels < 0:
            raise ValueError(f"expected random_pixels of at least 0, got {self.random_pixels}")

    def __call__(self, model: Classifier, batch: Batch, logits: Float[Tensor, "batch classes"]) -> Float[Tensor, ""]:
        """The mean over annotated images with irrelevant pixels, or over all images and random pixels."""
        if self.random_pixels:
            with preserved(model.network):
                found = decompose(model, batch.inputs, graph=torch.is_grad_enabled())
            masks = self._pixels(batch.inputs)
            return torch.stack([decided(found, mask, self.measure).mean() for mask in masks]).mean()
        if nothing_annotated(batch):
            return connected_zero(logits)
        mask = mask_of(batch, "irrelevant", type(self).__name__)
        with preserved(model.network):
            share = decided(decompose(model, batch.inputs, graph=torch.is_grad_enabled()), mask, self.measure)
        share, mask = annotated_only(batch, share, mask)
        return mean_over(share, marked_images(mask))

    def _pixels(self, inputs: Tensor) -> Float[Tensor, "pixels batch 1 height width"]:
        """A mask of one pixel each, the same for all images."""
        generator = None if self.seed is None else torch.Generator().manual_seed(self.seed)
        activity = (inputs - inputs.amin()).mean(dim=(0, 1)).detach().float().cpu().flatten()
        chosen = torch.multinomial(activity + torch.finfo(activity.dtype).tiny, self.random_pixels, generator=generator)
        masks = torch.zeros(self.random_pixels, len(activity), dtype=inputs.dtype)
        masks[torch.arange(self.random_pixels), chosen] = 1
        shaped = masks.view(self.random_pixels, 1, 1, *inputs.shape[2:]).to(inputs.device)
        return shaped.expand(-1, len(inputs), -1, -1, -1)


def decided(
    found: Decomposition, mask: Float[Tensor, "batch 1 height width"], measure: Measure = "softmax"
) -> Float[Tensor, " batch"]:
    """How much the mask's pixels bring, a mean over classes; see :class:`CDEP` for the measures."""
    part = found.part(mask)
    if measure == "logits":
        return (part - part.mean(dim=1, keepdim=True)).abs().mean(dim=1)
    return (2 * part - found.logits).sigmoid().mean(dim=1)
