"""A loss on what irrelevant pixels bring to the logits."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True)
class CDEP(ExplanationLoss):
    """Contextual decomposition explanation penalty: how much the irrelevant pixels decide.

    A contextual decomposition splits each logit into beta, what the irrelevant pixels bring, and gamma, the rest; the
    loss is the softmax of the pair at beta, averaged over the classes. It needs no second derivative, and one pass of
    its own, operator by operator: convolutions, dense layers, activations, pooling, BatchNorm and residual sums;
    another operator is an error that names it.

    With ``random_pixels`` no mask is needed: each of so many pixels, drawn anew for each batch in proportion to their
    mean value over its images, must decide nothing alone, as on the paper's ColorMNIST, whose color must not matter.

    Source: Rieger et al. 2020, arXiv:1909.13584; the softmax of the pair as in the authors' code.

    Args:
        random_pixels: Penalize so many random pixels of each batch in place of the irrelevant ones.
        seed: Of the draws; ``None`` draws from torch's global generator.
    """

    random_pixels: int = 0
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.random_pixels < 0:
            raise ValueError(f"expected random_pixels of at least 0, got {self.random_pixels}")

    def __call__(self, model: Classifier, batch: Batch, logits: Float[Tensor, "batch classes"]) -> Float[Tensor, ""]:
        """The mean over annotated images with irrelevant pixels, or over all images and random pixels."""
        if self.random_pixels:
            with preserved(model.network):
                found = decompose(model, batch.inputs, graph=torch.is_grad_enabled())
            masks = self._pixels(batch.inputs)
            return torch.stack([decided(found, mask).mean() for mask in masks]).mean()
        if nothing_annotated(batch):
            return connected_zero(logits)
        mask = mask_of(batch, "irrelevant", type(self).__name__)
        with preserved(model.network):
            share = decided(decompose(model, batch.inputs, graph=torch.is_grad_enabled()), mask)
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


def decided(found: Decomposition, mask: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, " batch"]:
    """The mean over classes of the softmax over what the mask's pixels bring and what the rest brings."""
    part = found.part(mask)
    return (2 * part - found.logits).sigmoid().mean(dim=1)
