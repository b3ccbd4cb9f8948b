"""What stands where a part of the image is hidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from rightreasons.attribution.baselines import Baseline, as_baselines

Hidden = float | str | Baseline | Sequence[float | str | Baseline]
"""A value for every pixel, the name of a baseline, a :class:`Baseline`, or several of these."""


@dataclass(frozen=True)
class MeanBaseline(Baseline):
    """The mean of each channel of the image itself."""

    def of(self, inputs: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "1 batch _ _ _"]:
        """The image of one color."""
        return inputs.mean(dim=(2, 3), keepdim=True).expand_as(inputs)[None]


@dataclass(frozen=True)
class ScaledBlur(Baseline):
    """The image itself under a Gaussian blur that grows with it; at the border the window's sum stays 1.

    Source: Fong & Vedaldi 2017, arXiv:1704.03296, section 4.3, whose 10 pixels are those of images of 224.

    Args:
        share: Standard deviation over the image's longer side.
    """

    share: float = 10 / 224

    def __post_init__(self) -> None:
        if not self.share > 0:
            raise ValueError(f"expected share above 0, got {self.share}")

    def of(self, inputs: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "1 batch _ _ _"]:
        """The blurred images."""
        sigma = self.share * max(inputs.shape[2:])
        # Two products with band matrices: on a CPU faster than convolutions of one channel.
        down, across = (_blur_matrix(side, sigma).to(inputs) for side in inputs.shape[2:])
        return (down @ inputs @ across.T)[None]


NAMES: dict[str, Baseline] = {"mean": MeanBaseline(), "blurred": ScaledBlur()}


def baselines_of(setting: Hidden) -> tuple[Baseline, ...]:
    """A setting in one form.

    Raises:
        ValueError: It is no baseline.
    """
    several = setting if isinstance(setting, Sequence) and not isinstance(setting, str) else [setting]
    return as_baselines([_named(one) for one in several])


def _named(one: float | str | Baseline) -> float | Baseline:
    if not isinstance(one, str):
        return one
    if one not in NAMES:
        raise ValueError(f"expected baseline to be a number, a Baseline or one of {', '.join(NAMES)}, got {one!r}")
    return NAMES[one]


def _blur_matrix(side: int, sigma: float) -> Float[Tensor, "side side"]:
    places = torch.arange(side, dtype=torch.float64)
    return (-((places[:, None] - places) ** 2) / (2 * sigma**2)).softmax(dim=1)
