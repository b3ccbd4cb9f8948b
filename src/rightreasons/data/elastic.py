"""Elastic distortion: every place of an image moved a little, neighbors alike."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_REACH = 4
"""Deviations after which a Gaussian is cut off."""


def displacements(
    number: int, size: tuple[int, int], *, strength: float, smoothness: float, generator: torch.Generator
) -> Float[Tensor, "number 2 height width"]:
    """How far each place of each image is moved, in pixels: to the right, then down.

    Numbers drawn evenly from [-1, 1), smoothed by a Gaussian (zeros outside the image) and multiplied by the strength.
    The images' draws follow one another, so that a batch gets what its images would get one at a time.

    Source: Simard, Steinkraus and Platt 2003, "Best practices for convolutional neural networks", section 2, there for
    digits with a strength of 34 and a smoothness of 4. Away from the border the standard deviation is
    strength / (smoothness * 6.14) pixels, so 1.4.

    Args:
        number: Of images.
        size: Their height and width.
        strength: What the smoothed numbers are multiplied by, in pixels.
        smoothness: Standard deviation of the Gaussian, in pixels.
        generator: Of the draws, on whatever device.
    """
    noise = torch.rand(number, 2, *size, generator=generator, dtype=torch.float64, device=generator.device).cpu()
    return strength * _smoothed(2 * noise.float() - 1, smoothness)


def _smoothed(
    maps: Float[Tensor, "batch channels height width"], deviation: float
) -> Float[Tensor, "batch channels height width"]:
    """Each map under a Gaussian, one axis after the other."""
    rows, columns = (_gaussian(side, deviation).to(maps) for side in maps.shape[-2:])
    return rows @ maps @ columns


def _gaussian(side: int, deviation: float) -> Float[Tensor, "side side"]:
    """The smoothing of one axis as a symmetric matrix: for few pixels a product is faster than a convolution."""
    reach = int(_REACH * deviation + 0.5)
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / deviation).square())
    steps = torch.arange(side)[:, None] - torch.arange(side)
    near = torch.exp(-0.5 * (steps / deviation).double().square()) * (steps.abs() <= reach)
    return near / weights.sum()
