"""Losses that let no color matter, without a mask: no mask could tell a color from what bears it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rightreasons.attribution import Saliency
from rightreasons.core import Attribution, Batch, Classifier, ExplanationLoss
from rightreasons.core.hooks import preserved
from rightreasons.core.protocols import require_differentiable
from rightreasons.supervision.annotation import connected_zero, nothing_annotated

Bearer = Literal["image", "pixel"]


@dataclass(frozen=True)
class Recolored(ExplanationLoss):
    """The cross-entropy on copies of the images in random colors.

    Of a copy only the ink is kept: each pixel's brightest channel over that of the image's brightest pixel, so that
    neither hue nor brightness of its color is left. It is multiplied by a color drawn evenly from the whole cube, one
    for the image or one for each pixel. What it knows is that color must not matter, and nothing about which color;
    with ``of="pixel"`` no copy has a color of its own. No mask is needed, and masks are not used. The copies run as a
    batch of their own in the mode the model is in, and leave its running statistics as they were.

    Source: ours, after the counterexamples of Teso & Kersting 2019 (AIES), with a color in place of a mask. It states
    more than the random pixels of ``CDEP``, whose color must not decide alone.

    Args:
        of: What a color is drawn for.
        low: Lowest value of a pixel: black.
        high: Highest.
        seed: Of the colors; ``None`` draws from torch's global generator.
    """

    of: Bearer = "image"
    low: float = 0.0
    high: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.of not in get_args(Bearer):
            raise ValueError(f"expected of to be one of {', '.join(get_args(Bearer))}, got {self.of!r}")
        if not self.low < self.high:
            raise ValueError(f"expected low below high, got {self.low} and {self.high}")

    def __call__(self, model: Classifier, batch: Batch, logits: Float[Tensor, "batch classes"]) -> Float[Tensor, ""]:
        """The mean over the annotated images; all of them where nobody says which are."""
        if nothing_annotated(batch):
            return connected_zero(logits)
        rows = torch.arange(len(batch), device=batch.inputs.device)
        rows = rows if batch.annotated is None else rows[batch.annotated]
        with preserved(model.network):
            return F.cross_entropy(model.rows(rows)(self.copied(batch.inputs.detach()[rows])), batch.target[rows])

    def copied(
        self, inputs: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """The images in random colors."""
        generator = None if self.seed is None else torch.Generator(inputs.device).manual_seed(self.seed)
        shape = inputs.shape if self.of == "pixel" else (*inputs.shape[:2], 1, 1)
        colors = torch.rand(shape, generator=generator, device=inputs.device, dtype=inputs.dtype)
        return self.low + (self.high - self.low) * ink(inputs, self.low, self.high) * colors


@dataclass(frozen=True)
class ColorGradient(ExplanationLoss):
    """The squared derivative of the answer by the color of the image.

    An image is its ink (see :class:`Recolored`) times a color; the derivative by one channel of that color is the sum
    over pixels of ink * g, with g the input gradient of the sum of all log-probabilities. The loss is the mean over
    images of the sum of squares over channels: RRR for the color instead of for pixels. It asks for nothing but the
    images as they are, and says nothing about colors far from theirs: where each class has one color, a network may
    answer alike near each of these and still tell them apart.

    Source: ours, after Ross et al. 2017, arXiv:1703.03717, its penalty taken along the directions of color.

    Args:
        attribution: What is summed; its values per channel.
        low: Lowest value of a pixel: black.
        high: Highest.
    """

    attribution: Attribution = field(default_factory=lambda: Saliency(score="sum_log_probabilities"))
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        require_differentiable(self.attribution, type(self).__name__)
        if not self.low < self.high:
            raise ValueError(f"expected low below high, got {self.low} and {self.high}")

    def __call__(self, model: Classifier, batch: Batch, logits: Float[Tensor, "batch classes"]) -> Float[Tensor, ""]:
        """The mean over the annotated images; all of them where nobody says which are."""
        if nothing_annotated(batch):
            return connected_zero(logits)
        values = self.attribution.per_channel(model, batch.inputs, batch.target)
        along = (ink(batch.inputs.detach(), self.low, self.high) * values).sum(dim=(2, 3))
        squares = along.square().sum(dim=1)
        return squares.mean() if batch.annotated is None else squares[batch.annotated].mean()


def ink(
    inputs: Float[Tensor, "batch channels height width"], low: float = 0.0, high: float = 1.0
) -> Float[Tensor, "batch 1 height width"]:
    """How much each pixel bears of the image's color, 0 (black) to 1; 0 everywhere in a black image."""
    bright = ((inputs - low) / (high - low)).amax(dim=1, keepdim=True)
    return bright / bright.amax(dim=(2, 3), keepdim=True).clamp(min=torch.finfo(bright.dtype).tiny)
