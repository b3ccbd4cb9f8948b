"""Images whose irrelevant pixels say nothing: counterexamples in the place of the images, not beside them.

Source: Teso & Kersting 2019 (AIES), "Explanatory interactive machine learning", whose counterexamples are added to the
images; here they take their place, so that a step costs what a plain one does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from rightreasons.core import Batch, MissingAnnotation

Noise = Literal["uniform", "swapped"]


def meaningless(
    inputs: Float[Tensor, "images channels height width"],
    noise: Noise,
    value_range: tuple[float, float],
    generator: torch.Generator | None,
) -> Float[Tensor, "images channels height width"]:
    """Pixels that tell nothing of the images they are to stand in.

    Args:
        inputs: The images.
        noise: ``uniform``: random values; ``swapped``: each image gets another one of the batch, drawn at random (a
            batch of one image has no other and stays as it is).
        value_range: Of the random values; it should be that of the pixels.
        generator: Of all draws; ``None`` takes torch's global one.
    """
    device = inputs.device if generator is None else generator.device
    if noise == "uniform":
        low, high = value_range
        values = torch.rand(inputs.shape, generator=generator, device=device, dtype=inputs.dtype)
        return low + (high - low) * values.to(inputs.device)
    rows = torch.arange(len(inputs), device=device)
    steps = torch.randint(1, max(len(inputs), 2), rows.shape, generator=generator, device=device)
    return inputs[((rows + steps) % len(inputs)).to(inputs.device)]


def randomized(
    batch: Batch, noise: Noise, value_range: tuple[float, float], generator: torch.Generator | None
) -> Batch:
    """The batch with the irrelevant pixels of its annotated images replaced by :func:`meaningless` ones.

    Raises:
        MissingAnnotation: The batch carries no ``irrelevant`` masks.
    """
    if batch.irrelevant is None:
        raise MissingAnnotation("irrelevant pixels are to be randomized, and the images carry no irrelevant masks")
    mask = batch.irrelevant * batch.annotated_rows().view(-1, 1, 1, 1).to(batch.irrelevant.dtype)
    values = meaningless(batch.inputs, noise, value_range, generator)
    return replace(batch, inputs=batch.inputs * (1 - mask) + values * mask)
