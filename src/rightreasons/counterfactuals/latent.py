"""Search among the images that a variational autoencoder can make."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rightreasons.core.hooks import evaluating
from rightreasons.core.settings import check_counts, check_not_negative, check_positive
from rightreasons.core.tensors import unit_length
from rightreasons.counterfactuals.anytime import AnytimeCounterfactual
from rightreasons.counterfactuals.learnt import (
    LatentModel,
    pixel_values,
    told_class,
    unit_range,
)
from rightreasons.counterfactuals.search import Search

MOMENTUM = 0.7


@dataclass(frozen=True, eq=False)
class LatentSearch(AnytimeCounterfactual):
    """Gradient descent in the latent space of a variational autoencoder, from the encoding of the original on.

    What is made small is ``hinge(decode(z)) + nearness * |decode(z) - x|_1``; each gradient is taken at length 1, and
    the hinge counts only while the image is not valid. A conditional autoencoder decodes under the target from the
    first step on, so that most images are valid at once. Without ``nearness`` an image is finished once it is valid;
    with it, it walks on along the boundary for all steps. Only rows that run through the classifier are counted, not
    those through the autoencoder.

    The ``lead`` well above zero keeps the images away from the boundary, where they look like neither class; ``style``
    below 1 takes the start nearer to what is usual of the class, which undoes what the encoding says of the old one.

    Source: Joshi et al. 2019 (REVISE), arXiv:1907.09615, Algorithm 1. Ours: gradients of length 1, the hinge in place
    of the cross-entropy, the class told to the decoder, the start at ``style`` times the encoding.

    Args:
        autoencoder: Has ``encode(images)`` and ``decode(latent, target)`` for images from 0 to 1, such as a ``VAE``.
        nearness: Weight of the distance.
        steps: Images tried at most, the first from the encoding itself.
        style: How much of the original's encoding the start keeps; 0 starts from the mean of the prior.
        step_size: Length of the first step, in units of the prior's standard deviation; it falls to a fifth.
    """

    black_box: ClassVar[bool] = False

    autoencoder: LatentModel
    nearness: float = 0.0
    steps: int = 100
    step_size: float = 1.0
    style: float = field(default=0.4, kw_only=True)
    lead: float = field(default=3.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(steps=self.steps)
        check_not_negative(nearness=self.nearness, style=self.style)
        check_positive(step_size=self.step_size)
        if not isinstance(self.autoencoder, LatentModel):
            raise ValueError(f"expected an autoencoder with encode and decode, got {type(self.autoencoder).__name__}")

    def search(self, search: Search) -> Iterator[None]:
        """Encode, then descend."""
        told, latent = told_class(search, self.autoencoder), self._encoded(search)
        pace, image = torch.zeros_like(latent), search.all
        for step in range(self.steps):
            image = search.affordable(image if self.nearness else search.all[~search.valid])
            if not len(image):
                return
            for row in search.chunks(len(image)):
                of = image[row]
                downhill = unit_length(self._slope(search, latent[of], told[of], of))
                pace[of] = MOMENTUM * pace[of] + (1 - MOMENTUM) * downhill
                # Divided by what the mean has seen so far, as Adam does.
                latent[of] -= self._size(step) * pace[of] / (1 - MOMENTUM ** (step + 1))
            yield

    def distance(
        self,
        inputs: Float[Tensor, "batch channels height width"],
        images: Float[Tensor, "batch channels height width"],
    ) -> Float[Tensor, " batch"]:
        """The sum of the absolute changes, in units of the pixels' range."""
        return (images - inputs).flatten(1).abs().sum(dim=1) / self.width

    def _encoded(self, search: Search) -> Float[Tensor, "batch latent"]:
        with evaluating(self.autoencoder):
            parts = [
                self.autoencoder.encode(unit_range(search.inputs[row], (self.low, self.high), self.autoencoder))
                for row in search.chunks(len(search.inputs))
            ]
        return self.style * torch.cat(parts)

    def _slope(
        self, search: Search, latent: Float[Tensor, "rows latent"], told: Int[Tensor, " rows"], image: Tensor
    ) -> Float[Tensor, "rows latent"]:
        """The gradient with respect to the encodings; offers the images on the way."""
        with torch.enable_grad(), evaluating(self.autoencoder):
            leaf = latent.detach().requires_grad_()
            made = pixel_values(self.autoencoder.decode(leaf, told), (self.low, self.high), search.inputs)
        images = made.detach()
        logits, slope = search.differentiate(images, image, search.hinge)
        search.offer(images, image, logits)
        pull = unit_length(slope) + self.nearness * unit_length((images - search.inputs[image]).sign())
        return torch.autograd.grad(made, leaf, pull)[0]

    def _size(self, step: int) -> float:
        return self.step_size * (0.2 + 0.8 * (1 + math.cos(math.pi * step / self.steps)) / 2)
