"""Images whose irrelevant pixels say nothing: counterexamples in the place of the images, not beside them.

Source: Teso & Kersting 2019 (AIES), "Explanatory interactive machine learning", whose counterexamples are added to the
images; here they take their place, so that a step runs no more images than a plain one does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from rightreasons.core import Batch, MissingAnnotation

Noise = Literal["uniform", "swapped"]


@dataclass(frozen=True)
class Randomizing:
    """What becomes of irrelevant pixels, and which count as such.

    Attributes:
        noise: What they become.
        value_range: Of the random values; it should be that of the pixels.
        borrow: From how many annotated images of the batch, drawn at random, each image takes the mask over as well:
            so a few masks serve all images, where what they mark comes back at the same places. An image loses some
            of its own pixels by it, as in CutMix (Yun et al. 2019, ICCV).
        grow: By how many pixels a mask is grown on all sides; what a hasty mask leaves out still tells the class.
    """

    noise: Noise
    value_range: tuple[float, float] = (0.0, 1.0)
    borrow: int = 0
    grow: int = 0


def meaningless(
    inputs: Float[Tensor, "images channels height width"],
    noise: Noise,
    value_range: tuple[float, float],
    generator: torch.Generator | None,
    rows: Int[Tensor, " rows"] | None = None,
) -> Float[Tensor, "rows channels height width"]:
    """Pixels that tell nothing of the images they are to stand in.

    Args:
        inputs: The images.
        noise: ``uniform``: random values; ``swapped``: each image gets another one of the batch, drawn at random (a
            batch of one image has no other and stays as it is).
        value_range: Of the random values; it should be that of the pixels.
        generator: Of all draws; ``None`` takes torch's global one.
        rows: For which images, some perhaps several times; ``None`` is for all of them.
    """
    device = inputs.device if generator is None else generator.device
    rows = torch.arange(len(inputs), device=device) if rows is None else rows.to(device)
    if noise == "uniform":
        low, high = value_range
        values = torch.rand((len(rows), *inputs.shape[1:]), generator=generator, device=device, dtype=inputs.dtype)
        return low + (high - low) * values.to(inputs.device)
    steps = torch.randint(1, max(len(inputs), 2), rows.shape, generator=generator, device=device)
    return inputs[((rows + steps) % len(inputs)).to(inputs.device)]


def randomized(batch: Batch, settings: Randomizing, generator: torch.Generator | None) -> Batch:
    """The batch with the irrelevant pixels of its annotated images replaced by :func:`meaningless` ones.

    Raises:
        MissingAnnotation: The batch carries no ``irrelevant`` masks.
    """
    if batch.irrelevant is None:
        raise MissingAnnotation("irrelevant pixels are to be randomized, and the images carry no irrelevant masks")
    mask = batch.irrelevant * batch.annotated_rows().view(-1, 1, 1, 1).to(batch.irrelevant.dtype)
    if settings.borrow:
        mask = _with_borrowed(mask, settings.borrow, generator)
    if settings.grow:
        mask = F.max_pool2d(mask, 2 * settings.grow + 1, stride=1, padding=settings.grow)
    values = meaningless(batch.inputs, settings.noise, settings.value_range, generator)
    return replace(batch, inputs=batch.inputs * (1 - mask) + values * mask)


def _with_borrowed(
    mask: Float[Tensor, "batch 1 height width"], count: int, generator: torch.Generator | None
) -> Float[Tensor, "batch 1 height width"]:
    """Each mask together with those of as many images that have a marked pixel."""
    lent = mask[mask.flatten(1).any(dim=1)]
    if not len(lent):
        return mask
    device = mask.device if generator is None else generator.device
    picked = torch.randint(len(lent), (count, len(mask)), generator=generator, device=device).to(mask.device)
    for rows in picked:
        mask = torch.maximum(mask, lent[rows])
    return mask
